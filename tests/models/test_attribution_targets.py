"""Which targets are explained: numbered, chosen, found by their place."""

import tracemalloc

import numpy as np
import pytest

from models.attribution_targets import choose_targets, number_targets, target_at
from tests.models.test_attribution import disc
from utils.errors import InputError


def test_targets_are_numbered_in_raster_order():
    mask = np.zeros((6, 9), bool)
    mask[4, 0] = mask[1, 7] = mask[2, 6] = mask[1, 2] = True  # (1, 7) and (2, 6) touch
    numbers = number_targets(mask)
    found = [np.argwhere(numbers == number).tolist() for number in (1, 2, 3)]
    assert found == [[[1, 2]], [[1, 7], [2, 6]], [[4, 0]]]
    assert numbers.max() == 3
    assert not number_targets(np.zeros((6, 9), bool)).any()


def test_one_of_thousands_of_targets_needs_no_mask_of_the_others():
    """5,000 masks of this frame are 5 GB."""
    mask = np.zeros((1000, 1000), bool)
    mask[::20, ::10] = True
    tracemalloc.start()
    try:
        near = target_at(2, mask, 31, 42)
        (chosen,) = choose_targets("clip", 1, lambda i: mask, numbers=[near.number])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert near.number == 204  # two rows of 100 before it, the fourth of its own
    assert np.argwhere(near.mask).tolist() == np.argwhere(chosen.mask).tolist() == [[40, 30]]
    assert peak < 100e6
    with pytest.raises(InputError, match="no target 5001: it has 5000"):
        choose_targets("clip", 1, lambda i: mask, numbers=[5001])


def test_the_nearest_target_that_is_too_far_is_named():
    mask = disc((40, 40), 10, 20)
    assert target_at(0, mask, 25, 11).number == 1
    with pytest.raises(InputError, match=r"frame 3: .* near 30,10; the nearest is at 21.0,10.5"):
        target_at(2, mask, 30, 10)
    with pytest.raises(InputError, match=r"near 30,10$"):
        target_at(2, mask & False, 30, 10)


def test_the_default_frame_is_the_middle_one_with_targets():
    masks = np.zeros((10, 4, 4), bool)
    masks[5:8, 1, 1] = masks[6, 3, 3] = True
    found = choose_targets("clip", 10, lambda i: masks[i])
    assert [(target.index, target.number) for target in found] == [(6, 1), (6, 2)]
    assert choose_targets("clip", 5, lambda i: masks[i]) == []


@pytest.mark.parametrize(
    ("frames", "numbers", "message"),
    [
        ([11], None, "clip: no frame 11: it has 10 frames, counted from 1"),
        ([1], None, "clip, frame 1: no target: it has 0"),
        ([7], [3], "clip, frame 7: no target 3: it has 2"),
    ],
)
def test_what_is_not_there_is_named(frames, numbers, message):
    masks = np.zeros((10, 4, 4), bool)
    masks[6, 1, 1] = masks[6, 3, 3] = True
    with pytest.raises(InputError, match=message):
        choose_targets("clip", 10, lambda i: masks[i], frames, numbers)
