"""Detections: the connected components of a thresholded probability map."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Detection(NamedTuple):
    """One component of a map; the centre of the map's top left pixel is (x, y) = (0, 0).

    x, y: centroid weighted by the scores, in pixels. width, height: of the upright box around it,
    in pixels. area: its pixels. peak, mean: highest and mean score. left, top: column and row of
    the box's first pixel.
    """

    x: float
    y: float
    width: int
    height: int
    area: int
    peak: float
    mean: float
    left: int
    top: int


def find_detections(
    probability: np.ndarray, threshold: float, min_area: int = 1
) -> list[Detection]:
    """The 8-connected components of probability >= threshold, in raster order of their first pixel.

    Args:
        probability: [H, W] float, compared in float64 as the evaluation does.
        min_area: components of fewer pixels are left out.
    """
    found = probability >= np.float64(threshold)  # [H, W]
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8))
    rows, columns = np.nonzero(found)  # of the n pixels found
    labels = labels[rows, columns]  # [n], from 1
    scores = probability[rows, columns].astype(np.float64)  # [n]
    # Where all scores are 0 (threshold 0) the centroid is that of the pixels.
    total = np.bincount(labels, scores, count)  # [count]
    weights = np.where(total[labels] > 0, scores, 1.0)
    mass = np.maximum(np.bincount(labels, weights, count), np.finfo(float).tiny)
    x = np.bincount(labels, weights * columns, count) / mass
    y = np.bincount(labels, weights * rows, count) / mass
    peak = np.zeros(count)
    np.maximum.at(peak, labels, scores)
    present, first = np.unique(labels, return_index=True)
    detections = []
    for label in present[np.argsort(first)]:
        left, top, width, height, area = boxes[label].tolist()
        if area >= min_area:
            detections.append(
                Detection(
                    float(x[label]), float(y[label]), width, height, area,
                    float(peak[label]), float(total[label] / area), left, top,
                )
            )  # fmt: skip
    return detections
