import numpy as np
import pytest

from datasets import AUGMENTATIONS
from datasets.augmentation import augment

CLIP = np.arange(2 * 3 * 3).reshape(2, 3, 3)


def outcomes(kind, clip=CLIP):
    """All that augment makes of a clip, as bytes; frames and masks have to stay alike."""
    seen = set()
    for seed in range(200):
        frames, masks = augment(clip, clip + 100, kind, np.random.default_rng(seed))
        assert (masks == frames + 100).all()
        seen.add((frames.shape, frames.tobytes()))
    return seen


def stored(clips):
    return {(clip.shape, np.ascontiguousarray(clip).tobytes()) for clip in clips}


def flips(clip):
    return [clip, clip[:, ::-1], clip[:, :, ::-1], clip[:, ::-1, ::-1]]


def quarter_turns(clip):
    turned = [np.rot90(clip, k, axes=(1, 2)) for k in range(4)]
    return turned + [x[:, :, ::-1] for x in turned]


def test_every_way_to_turn_a_clip_over_and_no_other():
    assert outcomes("none") == stored([CLIP])
    assert outcomes("flip") == stored(flips(CLIP))
    if "rotate" in AUGMENTATIONS:
        assert outcomes("rotate") == stored(quarter_turns(CLIP))
        wide = CLIP[:, :2]
        assert outcomes("rotate", wide) == stored(flips(wide))  # the size stays


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_chances_are_even(kind):
    seen = [
        augment(CLIP, CLIP, kind, np.random.default_rng(seed))[0].tobytes() for seed in range(800)
    ]
    count = len(set(seen))
    assert count == len(outcomes(kind))
    assert all(seen.count(one) > 0.6 * 800 / count for one in set(seen))
