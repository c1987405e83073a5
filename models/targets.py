"""Targets as the SatVideoIRSTD challenge wants them: a place and a track a target and frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.detections import Detection, find_detections
from models.tracks import Tracker

CENTROIDS = ("published", "weighted")
IDS = ("zero", "track")


@dataclass(frozen=True)
class TargetFinder:
    """What counts as a target in a probability map, where it lies, and how it is numbered.

    Args:
        level: a pixel counts where the 8-bit map, floor(255 x probability), is above it.
        min_area: components of fewer pixels are left out.
        centroid: `published` (see `published_centroids`) or `weighted` by the scores.
        ids: `zero`, or the number of each target's `track`; tracks that were never confirmed have
            the number 0.
        confirmed_only: leave out the targets of tracks that were never confirmed.
    """

    level: int = 100
    min_area: int = 1
    centroid: str = "published"
    ids: str = "zero"
    confirmed_only: bool = False

    def __str__(self) -> str:
        return (
            f"pixels of floor(255 x probability) > {self.level}, components of at least "
            f"{self.min_area} pixels, {self.centroid} centroids, "
            f"{'confirmed tracks only, ' if self.confirmed_only else ''}ids {self.ids}"
        )

    def find(self, probability: np.ndarray) -> np.ndarray:
        """The components of a map [H, W] float32, whatever their area: [n, 3] of x, y, area.

        In raster order of their first pixel.
        """
        scores = probability * np.float32(255)  # floor(score) > level: score >= level + 1
        detections = find_detections(scores, self.level + 1)
        if self.centroid == "published":
            places = published_centroids(scores >= self.level + 1)
        else:
            places = np.array([(d.x, d.y) for d in detections]).reshape(-1, 2)
        areas = np.array([d.area for d in detections], float)
        return np.column_stack([places, areas])

    def number(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Targets [n, 3] of track, x, y by frame, from the components of all frames of a sequence.

        Components below the least area are left out, the others numbered.
        """
        large = [found[found[:, 2] >= self.min_area] for found in frames]
        if self.ids == "zero" and not self.confirmed_only:
            return [np.column_stack([np.zeros(len(found)), found[:, :2]]) for found in large]
        tracker = Tracker()
        numbers = [tracker.update([_detection(*row) for row in found]) for found in large]
        numbered = []
        for found, tracks in zip(large, numbers, strict=True):
            tracks = np.array([t if tracker.confirmed(t) else 0 for t in tracks], float)  # [n]
            targets = np.column_stack([tracks, found[:, :2]])
            if self.confirmed_only:
                targets = targets[tracks > 0]
            if self.ids == "zero":
                targets[:, 0] = 0
            numbered.append(targets)
        return numbered


def _detection(x: float, y: float, area: float) -> Detection:
    """A detection for the tracker, which looks at its place."""
    return Detection(x, y, 0, 0, int(area), 0.0, 0.0, 0, 0)


def published_centroids(found: np.ndarray) -> np.ndarray:
    """Centroids [n, 2] of x, y of the 8-connected components of a mask [H, W] bool.

    In raster order of their first pixel. The centroid is that of the area which the component's
    outer contour encloses (moments m10 / m00, m01 / m00), or the mean of its pixels where the
    contour encloses none: a line, a single pixel. Source: the published converter.
    """
    _, labels, _, places = cv2.connectedComponentsWithStats(found.astype(np.uint8))  # [1 + n, 2]
    contours, hierarchy = cv2.findContours(
        found.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    for i, contour in enumerate(contours):
        if hierarchy[0, i, 3] >= 0:  # around a hole
            continue
        moments = cv2.moments(contour)
        if moments["m00"] > 0:
            x, y = contour[0, 0]
            places[labels[y, x]] = moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]
    present, first = np.unique(labels[found], return_index=True)  # labels go by blocks of pixels
    return places[present[np.argsort(first)]]
