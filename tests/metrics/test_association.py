"""Detections and tracks against truth, by hand."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from metrics import Association, associate
from metrics.association import match


def frame(*targets):
    """Targets (track, x, y) of a frame."""
    return np.array(targets, float).reshape(-1, 3)


def along(track, frames, x=0.0):
    """One target at (x, 0) in each of so many frames."""
    return [frame((track, x, 0)) for _ in range(frames)]


def test_a_frame_by_hand():
    submitted = [frame((0, 0, 0), (0, 10, 0), (0, 50, 50))]
    true = [frame((1, 3, 0), (2, 10, 0), (3, 80, 80), (4, 20, 20))]
    counts = associate(submitted, true, True, 3.0)
    assert (counts.targets, counts.submitted, counts.matched) == (4, 3, 2)
    assert counts.recall == 2 / 4
    assert counts.precision == 2 / 3
    assert counts.f1 == 4 / 7
    assert (counts.true_tracks, counts.submitted_tracks, counts.correct_tracks) == (4, 0, 0)
    assert counts.track_completeness == 0
    assert counts.track_accuracy is None
    assert counts.total == 100 * counts.f1
    assert associate(submitted, true, True, 2.99).matched == 1  # the radius itself is near enough


def test_pairs_are_one_to_one():
    two_near_one = associate([frame((0, 0, 0), (0, 1, 0))], [frame((1, 0, 0))], True, 3)
    assert two_near_one.matched == 1
    one_near_two = associate([frame((0, 0, 0))], [frame((1, 1, 0), (2, 0, 0))], True, 3)
    assert one_near_two.matched == 1


def test_more_pairs_before_nearer_pairs():
    """Greedily, 2 would take the true one at 2.5, and nothing would be left for 5."""
    ours, theirs = np.array([[2.0, 0], [5, 0]]), np.array([[2.5, 0], [-1, 0]])
    i, j = match(ours, theirs, 3.0)
    assert dict(zip(i.tolist(), j.tolist(), strict=True)) == {0: 1, 1: 0}


places = arrays.arrays(float, st.tuples(st.integers(0, 4), st.just(2)), elements=st.integers(0, 6))


@given(ours=places, theirs=places, radius=st.sampled_from([0.5, 1.0, 2.0, 3.0]))
@settings(max_examples=150)
def test_the_assignment_is_the_best_of_all(ours, theirs, radius):
    few, many = (ours, theirs) if len(ours) <= len(theirs) else (theirs, ours)
    best = (0, 0.0)
    for chosen in permutations(range(len(many)), len(few)):
        distances = [np.linalg.norm(few[i] - many[k]) for i, k in enumerate(chosen)]
        kept = [d for d in distances if d <= radius]
        best = min(best, (-len(kept), sum(kept)))
    i, j = match(ours, theirs, radius)
    assert len(set(i.tolist())) == len(set(j.tolist())) == len(i) == -best[0]
    distances = np.linalg.norm(ours[i] - theirs[j], axis=1)
    assert (distances <= radius).all()
    assert distances.sum() == pytest.approx(best[1])


@pytest.mark.parametrize(
    ("ours", "theirs", "correct"),
    [
        (along(7, 4), along(1, 4), 1),
        (along(7, 2) + [frame()] * 2, along(1, 4), 1),  # half of the true track
        (along(7, 1) + [frame()] * 3, along(1, 4), 0),
        (along(7, 2) + along(7, 2, x=50), along(1, 2) + [frame()] * 2, 1),  # half of its own
        (along(7, 1) + along(7, 3, x=50), along(1, 1) + [frame()] * 3, 0),
        (along(7, 2) + along(8, 2), along(1, 4), 1),  # two halves: one of them counts
        (along(7, 4), along(1, 2) + along(2, 2), 1),
        (along(0, 4), along(1, 4), 0),  # 0 is no track
        (along(7, 4, x=5), along(1, 4), 0),
    ],
)
def test_which_tracks_are_correct(ours, theirs, correct):
    assert associate(ours, theirs, True, 3).correct_tracks == correct


def test_two_tracks_that_change_places():
    """Each covers half of both true tracks, so both are correct, once each."""
    true = [frame((1, 0, 0), (2, 50, 0))] * 4
    ours = [frame((7, 0, 0), (8, 50, 0))] * 2 + [frame((8, 0, 0), (7, 50, 0))] * 2
    counts = associate(ours, true, True, 3)
    assert (counts.true_tracks, counts.submitted_tracks, counts.correct_tracks) == (2, 2, 2)


@pytest.mark.parametrize(
    ("correct", "true", "submitted", "bonus"),
    [
        (24, 100, 100, 0), (25, 100, 100, 2), (34, 100, 100, 2), (35, 100, 100, 3),
        (49, 100, 100, 3), (50, 100, 100, 5), (54, 100, 100, 5), (55, 100, 100, 5 + 2),
        (65, 100, 100, 5 + 3), (79, 100, 100, 5 + 3), (80, 100, 100, 5 + 5), (11, 20, 20, 5 + 2),
        (1, 100, 1, 5), (0, 0, 0, 0), (0, 5, 0, 0),
    ],
)  # fmt: skip
def test_the_bands_of_the_bonus(correct, true, submitted, bonus):
    counts = Association(
        targets=1, submitted=1, matched=1, true_tracks=true, submitted_tracks=submitted,
        correct_tracks=correct,
    )  # fmt: skip
    assert counts.bonus == bonus
    assert counts.total == 100 + bonus


def test_counts_add_up_and_the_ratios_come_last():
    one = associate(along(7, 4), along(1, 4), True, 3)
    other = associate([frame((9, 9, 9))] * 4, along(1, 4), True, 3)  # the same numbers, elsewhere
    both = one + other
    assert (both.frames, both.targets, both.submitted, both.matched) == (8, 8, 8, 4)
    assert both.f1 == 0.5
    assert (both.track_completeness, both.track_accuracy) == (0.5, 0.5)
    assert (both.bonus, both.total) == (5, 55)
    assert both == other + one == sum([one, other], start=Association())


def test_without_labels_tracks_are_not_scored():
    unlabelled = associate(along(7, 4), along(0, 4), False, 3)
    for counts in (unlabelled, unlabelled + associate(along(7, 4), along(1, 4), True, 3)):
        report = counts.report()
        assert report["f1"] == 1.0
        unknown = ("true_tracks", "correct_tracks", "track_completeness", "bonus", "total")
        assert [report[key] for key in unknown] == [None] * 5
    nothing_there = associate([frame()], [frame()], False, 3)
    assert nothing_there.unlabelled == 0


def test_nothing_at_all():
    report = associate([frame()] * 3, [frame()] * 3, True, 3).report()
    assert (report["frames"], report["targets"], report["submitted"]) == (3, 0, 0)
    for key in ("recall", "precision", "f1", "track_completeness", "track_accuracy", "total"):
        assert report[key] is None
    assert report["bonus"] == 0


def test_frames_must_pair():
    with pytest.raises(ValueError, match="zip"):
        associate([frame()] * 2, [frame()] * 3, True, 3)
