"""Mean and standard deviation of the grey levels, and where they come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datasets.layouts import Layout
from datasets.sequences import Sequence
from utils.errors import InputError

FAR = 4.0  # standard deviations of the run's grey levels
SOURCES = ("dataset", "run", "images")


class Normalisation(NamedTuple):
    """Grey levels are normalised as (level - mean) / std."""

    mean: float
    std: float
    source: str


def choose_normalisation(
    layout: Layout,
    sequences: list[Sequence],
    *,
    mean: float | None = None,
    std: float | None = None,
    prefer: str = "dataset",
    of_run: Normalisation | None = None,
) -> Normalisation:
    """Mean and std by `prefer`, which is one of SOURCES; given by hand they win.

    `dataset` takes the layout's (published behaviour), else the run's, else the images'. Raises
    InputError if the run's are asked for and unknown, or if the frames are flat.
    """
    if (mean is None) != (std is None):
        raise InputError("--mean and --std go together: give both or neither")
    if mean is not None:
        return Normalisation(mean, std, "given")
    if prefer == "dataset" and layout.mean is not None:
        return Normalisation(float(layout.mean), float(layout.std), f"data set {layout.name}")
    if prefer != "images" and of_run:
        return of_run
    if prefer == "run":
        raise InputError("the run does not say its mean and std: give --mean and --std")
    mean, std = grey_statistics(sequences)
    if not std > 0:
        raise InputError("all frames are one flat grey: no standard deviation to divide by")
    return Normalisation(mean, std, "images")


def choose_input_normalisation(
    window: np.ndarray,
    prefer: str | None,
    of_run: Normalisation | None,
    mean: float | None = None,
    std: float | None = None,
) -> tuple[Normalisation, list[str]]:
    """Mean and std for frames that belong to no data set, and what the user should know of them.

    Args:
        window: the first frames, [n, H, W].
        prefer: `run`, `auto` (see robust_normalisation), or None: run for 8-bit frames, auto for
            the others, whose grey levels no run knows.
        mean, std: given by hand they win.
    """
    if mean is not None:
        return Normalisation(mean, std, "given"), []
    if prefer == "auto" or (prefer is None and (of_run is None or window.dtype != np.uint8)):
        return robust_normalisation(window), []
    if of_run is None:
        raise InputError(
            "the run does not say its mean and std: use --normalize auto, or give --mean and --std"
        )
    median = float(np.median(window))
    if abs(median - of_run.mean) <= FAR * of_run.std:
        return of_run, []
    return of_run, [
        f"grey levels around {median:.1f} are far from those of the run (mean {of_run.mean:.1f}, "
        f"std {of_run.std:.1f}): try --normalize auto"
    ]


def robust_normalisation(frames: np.ndarray) -> Normalisation:
    """The median of frames [n, H, W] for the mean, 1.4826 times the median absolute deviation from
    it for the standard deviation (which it is, of a normal distribution).

    Where more than half of the pixels have one level, the plain standard deviation. Raises
    InputError if all have.
    """
    median = float(np.median(frames))
    deviation = np.abs(frames.astype(np.float32) - np.float32(median))
    std = 1.4826 * float(np.median(deviation)) or float(np.std(frames, dtype=np.float64))
    if not std > 0:
        raise InputError(
            "the first window is one flat grey, which has no standard deviation to divide by: use "
            "--normalize run, or give --mean and --std"
        )
    return Normalisation(median, std, "median and MAD of the first window")


def grey_statistics(sequences: list[Sequence], most: int = 400) -> tuple[float, float]:
    """Mean and standard deviation of the grey levels over at most `most` frames, evenly spread."""
    places = [(s, i) for s in sequences for i in range(len(s))]
    chosen = places[:: -(-len(places) // most)]
    count, total, squares = 0, 0.0, 0.0
    for sequence, i in chosen:
        frame = sequence.frames(i, i + 1).astype(np.float64)
        count += frame.size
        total += frame.sum()
        squares += np.square(frame).sum()
    mean = total / count
    return float(mean), float(max(squares / count - mean**2, 0.0) ** 0.5)
