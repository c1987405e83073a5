"""Mean and standard deviation of the grey levels, and where they come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from datasets.layouts import Layout
from datasets.sequences import Sequence
from utils.errors import InputError

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
        return Normalisation(layout.mean, layout.std, f"data set {layout.name}")
    if prefer != "images" and of_run:
        return of_run
    if prefer == "run":
        raise InputError("the run does not say its mean and std: give --mean and --std")
    mean, std = grey_statistics(sequences)
    if not std > 0:
        raise InputError("all frames are one flat grey: no standard deviation to divide by")
    return Normalisation(mean, std, "images")


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
