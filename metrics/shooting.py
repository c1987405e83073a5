"""The shooting rule: which targets were hit, and how many pixels fired elsewhere.

A target (8-connected component of the centroid mask) is hit if a predicted pixel lies in the 3 x 3
neighbourhood of any of its pixels. A predicted pixel outside the union of the (2r + 1) x (2r + 1)
windows around all target pixels is false. Predicted = score >= threshold. Source: the published
evaluator, measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from metrics.counts import THRESHOLDS, Counts

BORDERS = ("clipped", "published")
HIT_RADIUS = 1


@dataclass(frozen=True)
class ShootingRule:
    """The rule with its choices.

    Args:
        window_radius: r of the windows that protect against false alarms. The released rule has 4;
            the published DeepPro rows were scored with 5, the Plus rows with 4.
        border: `clipped` cuts windows at every edge of the frame; `published` cuts them at the
            bottom and right, and at the top and left lets slices start at a negative index, so that
            they are empty (on frames smaller than the window they wrap).
        thresholds: compared as score >= threshold, in float64.
        iou_threshold: a pixel is positive for the IoU if score > iou_threshold.
    """

    window_radius: int = 4
    border: str = "clipped"
    thresholds: Sequence[float] = THRESHOLDS
    iou_threshold: float = 0.5

    def __post_init__(self):
        if self.border not in BORDERS:
            raise ValueError(f"border {self.border!r}: choose from {', '.join(BORDERS)}")
        if self.window_radius < 0:
            raise ValueError(f"window radius {self.window_radius}: expected 0 or more")

    def describe(self) -> dict:
        """What counts depend on, in words and numbers."""
        return {
            "window_radius": self.window_radius,
            "border": self.border,
            "hit": "3 x 3 around 8-connected targets",
            "comparison": "score >= threshold, in float64",
            "thresholds": list(self.thresholds),
            "iou": f"pixels over the whole set, score > {self.iou_threshold}",
            "auc": "trapezoid over (Fa, Pd) at the thresholds, without (0, 0) and (1, 1)",
        }

    def count(self, score: np.ndarray, centroids: np.ndarray, mask: np.ndarray) -> Counts:
        """Counts of one frame.

        Args:
            score: [H, W] float32, the probability map.
            centroids: [H, W] bool, whose 8-connected components are the targets.
            mask: [H, W] bool, the full extent of the targets, for the IoU.

        Raises ValueError if shapes differ or a score is NaN.
        """
        if not score.shape == centroids.shape == mask.shape:
            raise ValueError(f"shapes differ: {score.shape}, {centroids.shape}, {mask.shape}")
        if np.isnan(score.sum()):
            raise ValueError("a score is NaN")
        targets, strongest, outside = self._zones(score, centroids)
        positive = score > self.iou_threshold
        return Counts(
            self.thresholds,
            frames=1,
            pixels=score.size,
            targets=targets,
            intersection=int(np.count_nonzero(positive & mask)),
            union=int(np.count_nonzero(positive | mask)),
            hits=_at_least(strongest, self.thresholds),
            false_pixels=_at_least(outside, self.thresholds),
        )

    def _zones(self, score: np.ndarray, centroids: np.ndarray):
        """How many targets; the highest score near each; all scores outside their windows."""
        H, W = score.shape
        ys, xs = np.nonzero(centroids)
        if not len(ys):
            return 0, np.empty(0), score.ravel()
        count, labels = cv2.connectedComponents(centroids.astype(np.uint8), connectivity=8)
        padded = np.full((H + 1, W + 1), -np.inf, score.dtype)  # index H or W: outside the frame
        padded[:H, :W] = score

        rows, columns = self._reach(H, ys, HIT_RADIUS), self._reach(W, xs, HIT_RADIUS)
        near = padded[rows[:, :, None], columns[:, None, :]].max(axis=(1, 2))  # [target pixels]
        strongest = np.full(count, -np.inf)
        np.maximum.at(strongest, labels[ys, xs], near)

        # The union of windows, one axis after the other.
        upright = np.zeros((H + 1, W), bool)
        upright[self._reach(H, ys, self.window_radius), xs[:, None]] = True
        ys, xs = np.nonzero(upright[:H])
        protected = np.zeros((H, W + 1), bool)
        protected[ys[:, None], self._reach(W, xs, self.window_radius)] = True
        return count - 1, strongest[1:], score[~protected[:, :W]]

    def _reach(self, size: int, positions: np.ndarray, radius: int) -> np.ndarray:
        return _reach_table(size, radius, self.border)[positions]


@lru_cache(maxsize=64)
def _reach_table(size: int, radius: int, border: str) -> np.ndarray:
    """Entry [p]: the indices that a window around p covers on an axis, filled up with `size`.

    [size, 2 radius + 1]. The published slices are taken as written, negative start included.
    """
    table = np.full((size, 2 * radius + 1), size)
    for p in range(size):
        start = p - radius if border == "published" else max(0, p - radius)
        covered = range(size)[start : p + radius + 1]
        table[p, : len(covered)] = covered
    return table


def _at_least(scores: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """How many of the scores are >= each threshold (compared in float64)."""
    below = np.searchsorted(np.sort(scores), np.asarray(thresholds, np.float64), side="left")
    return (len(scores) - below).astype(np.int64)
