"""Targets of the challenge: the published centroids against the slow way, levels, numbers."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from models.targets import TargetFinder, published_centroids


def one_by_one(mask):
    """A component at a time: its own picture, its largest contour, its moments or its pixels."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    firsts = {k: np.flatnonzero(labels == k)[0] for k in range(1, count)}
    places = []
    for k in sorted(firsts, key=firsts.get):
        alone = (labels == k).astype(np.uint8)
        contours, _ = cv2.findContours(alone, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        moments = cv2.moments(max(contours, key=cv2.contourArea))
        if moments["m00"] > 0:
            places.append((moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]))
        else:
            ys, xs = np.nonzero(alone)
            places.append((xs.mean(), ys.mean()))
    return np.reshape(places, (-1, 2))


@given(mask=arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
@settings(max_examples=150)
def test_published_centroids_of_any_mask(mask):
    found = published_centroids(mask)
    expected = one_by_one(mask)
    assert [f"{v:.2f}" for v in found.ravel()] == [f"{v:.2f}" for v in expected.ravel()]


def test_published_centroids_by_hand():
    mask = np.zeros((12, 16), bool)
    mask[1, 2:6] = True  # a line encloses nothing: the mean of its pixels
    mask[4:11, 1:8] = True
    mask[5:10, 2:7] = False
    mask[7, 4] = True  # in the hole of the ring, a component of its own
    mask[2, 12] = mask[3, 13] = True  # diagonal neighbours are one
    mask[9:11, 12:15] = True
    assert published_centroids(mask).tolist() == [[3.5, 1], [12.5, 2.5], [4, 7], [4, 7], [13, 9.5]]


def test_the_level_compares_the_truncated_map():
    """As the published converter: the 8-bit map, not the probability, is above 100."""
    grey = np.arange(256)
    scores = np.concatenate([grey, np.nextafter(grey[1:], 0), grey[:-1] + 0.999])
    map_ = (scores / 255).astype(np.float32)[None]  # [1, 766]
    for level in (0, 99, 100, 101, 254):
        apart = np.zeros((1, 2 * map_.size), np.float32)
        apart[:, ::2] = map_  # no two neighbours
        found = TargetFinder(level=level).find(apart)
        expected = np.flatnonzero((apart[0] * 255).astype(np.uint8) > level)
        assert found[:, 0].tolist() == expected.tolist()


def test_areas_and_weighted_centroids():
    probability = np.zeros((9, 9), np.float32)
    probability[2, 2:4] = 0.5, 1.0
    probability[7, 7] = 0.9
    found = TargetFinder(centroid="weighted").find(probability)
    assert found == pytest.approx(np.array([[2 + 2 / 3, 2, 2], [7, 7, 1]]))
    assert TargetFinder().find(probability).tolist() == [[2.5, 2, 2], [7, 7, 1]]
    (targets,) = TargetFinder(min_area=2).number([found])
    assert targets == pytest.approx(np.array([[0, 2 + 2 / 3, 2]]))
    assert TargetFinder().find(np.zeros((9, 9), np.float32)).shape == (0, 3)


def test_numbers_of_tracks():
    """A target for four frames, another one for a single frame."""
    frames = [np.array([[10.0 + i, 5, 3]]) for i in range(4)]
    frames[1] = np.vstack([[80.0, 80, 3], frames[1]])
    numbered = TargetFinder(ids="track").number(frames)
    assert [targets[:, 0].tolist() for targets in numbered] == [[1], [0, 1], [1], [1]]
    assert numbered[1][:, 1:].tolist() == [[80, 80], [11, 5]]
    confirmed = TargetFinder(ids="track", confirmed_only=True).number(frames)
    assert [targets.tolist() for targets in confirmed] == [[[1, 10.0 + i, 5]] for i in range(4)]
    silent = TargetFinder(confirmed_only=True).number(frames)
    assert [targets.tolist() for targets in silent] == [[[0, 10.0 + i, 5]] for i in range(4)]


def test_every_sequence_begins_with_track_1():
    finder, frames = TargetFinder(ids="track"), [np.array([[10.0, 5, 3]])] * 3
    assert finder.number(frames)[0][0, 0] == finder.number(frames)[0][0, 0] == 1
    assert [targets.shape for targets in finder.number([np.empty((0, 3))])] == [(0, 3)]
