"""Tracks on made-up paths, and the assignment against all that are possible."""

from itertools import permutations

import numpy as np
import pytest

from models.detections import Detection
from models.tracks import Tracker


def at(*places):
    """Detections of one pixel at (x, y)."""
    return [Detection(x, y, 1, 1, 1, 1.0, 1.0, 0, 0) for x, y in places]


def test_two_targets_keep_their_tracks_when_they_cross():
    tracker = Tracker(gate=6)
    for t in range(11):
        there = at((4 * t, 0), (40 - 4 * t, 1))
        if t % 2:
            assert tracker.update(there[::-1]) == [2, 1]
        else:
            assert tracker.update(there) == [1, 2]


def test_every_detection_has_a_track_of_its_own():
    tracker = Tracker()
    assert tracker.update(at((0, 0), (1, 0), (50, 50))) == [1, 2, 3]
    assert tracker.update(at((50, 51), (1, 0.25), (0, 0.25), (200, 0))) == [3, 2, 1, 4]


def test_a_track_predicts_with_its_velocity():
    """10 pixels a frame with a gate of 5: found again only where the motion leads."""
    tracker = Tracker(gate=11)
    tracker.update(at((0, 0)))
    tracker.update(at((10, 0)))
    tracker.gate = 5
    assert tracker.update(at((20, 0))) == [1]
    assert tracker.update(at((20, 0))) == [2]


def test_coasting_goes_on_with_the_velocity_and_a_growing_gate():
    def after_a_gap(missed, place):
        tracker = Tracker(gate=11, growth=2, misses=2)
        tracker.update(at((0, 0)))
        tracker.update(at((10, 0)))
        for _ in range(missed):
            assert tracker.update([]) == []
        return tracker.update(at(place))

    assert after_a_gap(2, (40, 0)) == [1]
    assert after_a_gap(2, (40, 15)) == [1]  # 11 + 2 x 2
    assert after_a_gap(2, (40, 15.1)) == [2]
    assert after_a_gap(0, (20, 11)) == [1]
    assert after_a_gap(0, (20, 11.1)) == [2]
    assert after_a_gap(3, (50, 0)) == [2]  # it had ended


def test_confirmed_after_three_observations_and_for_good():
    tracker = Tracker()
    for expected in (False, False, True):
        tracker.update(at((5, 5)))
        assert tracker.confirmed(1) is expected
        tracker.update([])
    for _ in range(5):
        tracker.update([])
    assert tracker.confirmed(1)
    assert tracker.update(at((5, 5))) == [2]
    assert not tracker.confirmed(2)


def test_one_observation_can_be_enough():
    tracker = Tracker(observations=1)
    tracker.update(at((5, 5)))
    assert tracker.confirmed(1)


def test_a_detection_on_the_very_spot_is_assigned():
    tracker = Tracker(gate=1e-9)
    tracker.update(at((3, 4), (7, 8)))
    assert tracker.update(at((7, 8), (3, 4))) == [2, 1]


@pytest.mark.parametrize("seed", range(30))
def test_the_assignment_is_the_best_of_all(seed):
    """Most pairs first, then the least sum of distances."""
    rng = np.random.default_rng(seed)
    before, now = rng.random((rng.integers(1, 5), 2)) * 30, rng.random((rng.integers(1, 5), 2)) * 30
    gate = 14.0

    def value(choice):
        lengths = [np.hypot(*(before[i] - now[j])) for i, j in enumerate(choice) if j >= 0]
        if any(length > gate for length in lengths):
            return (1, 0.0)
        return (-len(lengths), sum(lengths))

    places = [*range(len(now)), *[-1] * len(before)]
    best = min(value(choice) for choice in set(permutations(places, len(before))))

    tracker = Tracker(gate=gate)
    tracker.update(at(*before))
    numbers = tracker.update(at(*now))
    choice = [numbers.index(i + 1) if i + 1 in numbers else -1 for i in range(len(before))]
    assert value(choice) == pytest.approx(best)
