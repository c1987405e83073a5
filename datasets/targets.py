"""True targets: where each lies in every frame and, where masks say so, which one it is."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from datasets.sequences import Sequence

PLAIN = (255, 65535)  # the grey levels of masks that do not number their targets


class TrueTargets(NamedTuple):
    """Targets of a sequence: by frame, [n, 3] of track, x, y (the mean of a target's pixels).

    `labelled` says whether tracks are known; they are 0 where not.
    """

    frames: list[np.ndarray]
    labelled: bool


def read_targets(sequence: Sequence) -> TrueTargets:
    """The true targets of a sequence that has masks.

    Where the data set's masks number their targets, a target is all pixels of one value, and the
    value is its track. Elsewhere, and where a whole sequence has no value but 0 and white, it is an
    8-connected component, and no track is known. Raises InputError for a mask that is unreadable.
    """
    if not sequence.instance_ids:
        masks = (sequence.masks(i, i + 1)[0] for i in range(len(sequence)))
        frames = [_components(mask) for mask in masks]
        return TrueTargets(frames, not any(map(len, frames)))
    numbered, components = [], []
    for i in range(len(sequence)):
        values = sequence.instances(i, i + 1)[0]
        numbered.append(_by_value(values))
        components.append(_components(values > 0))
    found = np.concatenate(numbered)[:, 0]
    labelled = len(found) == 0 or not np.isin(found, PLAIN).all()
    return TrueTargets(numbered if labelled else components, labelled)


def _by_value(values: np.ndarray) -> np.ndarray:
    """[H, W] whole numbers to a row (value, x, y) for each value above 0."""
    y, x = np.nonzero(values)
    tracks, which, area = np.unique(values[y, x], return_inverse=True, return_counts=True)
    which = which.ravel()
    count = len(tracks)
    means = [np.bincount(which, weights, count) / area for weights in (x, y)]
    return np.stack([tracks.astype(float), *means], axis=1)


def _components(mask: np.ndarray) -> np.ndarray:
    """[H, W] bool to a row (0, x, y) for each 8-connected component."""
    places = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[3][1:]
    return np.column_stack([np.zeros(len(places)), places])
