"""The window rule: how n frames are covered by windows of T frames (published behaviour)."""

from typing import NamedTuple

OVERLAP = 0.1  # consecutive windows share int(OVERLAP * T) frames


class Window(NamedTuple):
    """Frames [start, stop) of a sequence."""

    start: int
    stop: int


def overlap(seqlen: int) -> int:
    """c = int(0.1 T): the frames that consecutive windows share."""
    return int(OVERLAP * seqlen)


def window_stop(index: int, seqlen: int) -> int:
    """Where window `index` ends if the sequence does not end before: (i + 1)(T - c) + c."""
    shared = overlap(seqlen)
    return (index + 1) * (seqlen - shared) + shared


def split_windows(frames: int, seqlen: int) -> list[Window]:
    """The windows of a sequence, in order; together they cover every frame.

    Window i ends at min(n, window_stop(i)) and begins T before: 100 frames give
    [0, 40) [36, 76) [60, 100). A sequence shorter than T is one window [0, n), which the Detector
    fills up by repeating the last frame.
    """
    windows = []
    while not windows or windows[-1].stop < frames:
        stop = min(frames, window_stop(len(windows), seqlen))
        windows.append(Window(max(0, stop - seqlen), stop))
    return windows
