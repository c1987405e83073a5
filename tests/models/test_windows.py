"""The window rule."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.windows import overlap, split_windows, window_stop

LENGTHS = st.integers(1, 64)  # T


def test_the_published_example():
    assert split_windows(100, 40) == [(0, 40), (36, 76), (60, 100)]


@pytest.mark.parametrize(
    ("frames", "windows"),
    [
        (1, [(0, 1)]),
        (39, [(0, 39)]),
        (40, [(0, 40)]),
        (41, [(0, 40), (1, 41)]),
        (76, [(0, 40), (36, 76)]),
        (77, [(0, 40), (36, 76), (37, 77)]),
    ],
)
def test_windows_around_the_edges(frames, windows):
    assert split_windows(frames, 40) == windows


@pytest.mark.parametrize(("seqlen", "shared"), [(1, 0), (9, 0), (10, 1), (19, 1), (40, 4), (70, 7)])
def test_overlap_is_a_tenth_rounded_down(seqlen, shared):
    assert overlap(seqlen) == shared


def test_window_stop_is_where_the_next_whole_window_ends():
    assert [window_stop(i, 40) for i in range(3)] == [40, 76, 112]


@given(seqlen=LENGTHS, extra=st.integers(0, 300))
def test_long_sequences_are_covered_by_the_published_number_of_whole_windows(seqlen, extra):
    frames, shared = seqlen + extra, int(0.1 * seqlen)
    windows = split_windows(frames, seqlen)
    assert len(windows) == math.ceil((frames - shared) / (seqlen - shared))
    assert all(stop - start == seqlen for start, stop in windows)
    assert {i for start, stop in windows for i in range(start, stop)} == set(range(frames))
    assert windows == sorted(set(windows))
    for i, (start, stop) in enumerate(windows[:-1]):  # all but the last lie on the fixed grid
        assert (start, stop) == (i * (seqlen - shared), i * (seqlen - shared) + seqlen)


@given(seqlen=LENGTHS, data=st.data())
def test_short_sequences_are_one_window(seqlen, data):
    frames = data.draw(st.integers(1, seqlen))
    assert split_windows(frames, seqlen) == [(0, frames)]
