import numpy as np
import pytest

from datasets import AUGMENTATIONS
from datasets.augmentation import draw_turn

CLIP = np.arange(2 * 3 * 3).reshape(2, 3, 3)


def turned(kind, seed, clip=CLIP):
    return clip[(slice(None), *draw_turn(kind, np.random.default_rng(seed)))]


def outcomes(kind):
    """All that becomes of a clip, as bytes."""
    return stored(turned(kind, seed) for seed in range(200))


def stored(clips):
    return {(clip.shape, np.ascontiguousarray(clip).tobytes()) for clip in clips}


def flips(clip):
    return [clip, clip[:, ::-1], clip[:, :, ::-1], clip[:, ::-1, ::-1]]


def test_every_way_to_turn_a_clip_over_and_no_other():
    assert outcomes("none") == stored([CLIP])
    assert outcomes("flip") == stored(flips(CLIP))


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_chances_are_even(kind):
    seen = [turned(kind, seed).tobytes() for seed in range(800)]
    count = len(set(seen))
    assert count == len(outcomes(kind))
    assert all(seen.count(one) > 0.6 * 800 / count for one in set(seen))
