"""True targets of masks that number them, and of masks that do not."""

import numpy as np
import pytest

from datasets import read_targets
from datasets.images import read_instances
from datasets.sequences import Sequence
from tests.conftest import write_image


def sequence(folder, masks, **fields):
    paths = []
    for i, mask in enumerate(masks):
        paths.append(folder / f"{i:05d}.png")
        write_image(paths[-1], mask)
    return Sequence("clip", tuple(paths), tuple(paths), tuple(paths), **fields)


def masks():
    """Two frames of 8 x 9: a target of two parts and another one, then only the latter."""
    both, one = np.zeros((2, 8, 9), np.uint8)
    both[1, 1] = both[1, 5] = 3
    both[6:8, 7] = 4
    one[5, 7:9] = 4
    return both, one


def test_numbered_targets(tmp_path):
    true = read_targets(sequence(tmp_path, masks(), instance_ids=True))
    assert true.labelled
    assert [f.tolist() for f in true.frames] == [[[3, 3, 1], [4, 7, 6.5]], [[4, 7.5, 5]]]


@pytest.mark.parametrize("white", [False, True])
def test_components_where_nothing_is_numbered(tmp_path, white):
    """A data set that does not number its targets, and one that does but has white masks."""
    frames = [np.where(m > 0, 255, 0).astype(np.uint8) if white else m for m in masks()]
    true = read_targets(sequence(tmp_path, frames, instance_ids=white))
    assert not true.labelled
    assert sorted(true.frames[0].tolist()) == [[0, 1, 1], [0, 5, 1], [0, 7, 6.5]]
    assert true.frames[1].tolist() == [[0, 7.5, 5]]


def test_white_among_other_numbers_is_a_number(tmp_path):
    both, one = masks()
    both[both == 3] = 255
    true = read_targets(sequence(tmp_path, (both, one), instance_ids=True))
    assert true.labelled
    assert true.frames[0][:, 0].tolist() == [4, 255]


@pytest.mark.parametrize("numbers", [False, True])
def test_without_targets_there_is_nothing_unknown(tmp_path, numbers):
    empty = [np.zeros((8, 9), np.uint8)] * 2
    true = read_targets(sequence(tmp_path, empty, instance_ids=numbers))
    assert true.labelled
    assert [f.shape for f in true.frames] == [(0, 3), (0, 3)]


def test_numbers_above_255_and_colours(tmp_path):
    deep = np.array([[0, 300, 65535]], np.uint16)
    write_image(tmp_path / "deep.png", deep)
    assert read_instances(tmp_path / "deep.png").tolist() == [[0, 300, 65535]]
    colour = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [7, 7, 7]]], np.uint8)
    write_image(tmp_path / "colour.png", colour)
    assert read_instances(tmp_path / "colour.png").tolist() == [[0, 1, 256, 65536, 7]]


def test_resized_masks_keep_their_numbers(tmp_path):
    (both, _) = masks()
    wide = sequence(tmp_path, [both], instance_ids=True, resize_to=(16, 18))
    assert set(np.unique(wide.instances(0, 1))) == {0, 3, 4}
    assert wide.instances(0, 1).shape == (1, 16, 18)
