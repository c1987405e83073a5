"""Counts that add up across frames, sequences and processes, and the ratios derived from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

# The 27 thresholds of the published evaluator.
THRESHOLDS = (
    *(0.0, 1e-20, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.2, 0.3, 0.35, 0.4),
    *(0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0),
)


@dataclass
class Counts:
    """What was counted over some frames; `a + b` is the count over both.

    hits and false_pixels are int64 arrays with one entry per threshold; the others are integers.
    intersection and union are pixels of the binarised map against the full mask (for the IoU).
    """

    thresholds: Sequence[float] = THRESHOLDS
    frames: int = 0
    pixels: int = 0
    targets: int = 0
    intersection: int = 0
    union: int = 0
    hits: np.ndarray = field(default=None)
    false_pixels: np.ndarray = field(default=None)

    def __post_init__(self):
        self.thresholds = tuple(self.thresholds)
        for name in ("hits", "false_pixels"):
            if getattr(self, name) is None:
                setattr(self, name, np.zeros(len(self.thresholds), np.int64))

    def __add__(self, other: Counts) -> Counts:
        if self.thresholds != other.thresholds:
            raise ValueError("counts at different thresholds do not add up")
        summed = [f.name for f in fields(self) if f.name != "thresholds"]
        return Counts(
            self.thresholds, **{name: getattr(self, name) + getattr(other, name) for name in summed}
        )

    @property
    def pd(self) -> np.ndarray:
        """Probability of detection by threshold: hits / targets (NaN without targets)."""
        return _ratio(self.hits, self.targets)

    @property
    def fa(self) -> np.ndarray:
        """False-alarm rate by threshold: false pixels / all pixels (NaN without pixels)."""
        return _ratio(self.false_pixels, self.pixels)

    @property
    def auc(self) -> float:
        """Area under Pd over Fa by the trapezoid rule, without the points (0, 0) and (1, 1).

        The published definition. 99 % of it comes from Fa > 1e-2.
        """
        if not self.targets or not self.pixels or len(self.thresholds) < 2:
            return float("nan")
        from sklearn.metrics import auc  # takes a second, which `--help` need not wait for

        order = np.argsort(self.thresholds)[::-1]  # Fa grows as the threshold falls
        return float(auc(self.fa[order], self.pd[order]))

    @property
    def iou(self) -> float:
        """Intersection over union of the pixels, summed over all frames (NaN if both are empty)."""
        return float(_ratio(np.array(self.intersection), self.union))

    def at(self, threshold: float) -> tuple[float, float]:
        """(Pd, Fa) at one of the thresholds."""
        i = self.thresholds.index(threshold)
        return float(self.pd[i]), float(self.fa[i])

    def report(self) -> dict:
        """The counts and ratios as plain numbers and lists; what is 0/0 is None."""
        return {
            "frames": int(self.frames),
            "pixels": int(self.pixels),
            "targets": int(self.targets),
            "thresholds": [float(t) for t in self.thresholds],
            "hits": self.hits.tolist(),
            "false_pixels": self.false_pixels.tolist(),
            "pd": [_number(v) for v in self.pd],
            "fa": [_number(v) for v in self.fa],
            "auc": _number(self.auc),
            "iou": _number(self.iou),
        }


def _ratio(count: np.ndarray, total: int) -> np.ndarray:
    return count / total if total else np.full(count.shape, np.nan)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def report(
    counts: Mapping[str, Counts],
    thresholds: Sequence[float],
    subsets: Mapping[str, Iterable[str]],
    snr: Mapping[str, float],
) -> dict:
    """The ratios of counts by sequence name: `overall`, of `subsets` and of `sequences`.

    Without any counts (no masks) `overall` is None. `snr` by sequence, where it is known.
    """

    def total(names: Iterable[str]) -> dict:
        return sum((counts[n] for n in names), start=Counts(thresholds)).report()

    return {
        "overall": total(counts) if counts else None,
        "subsets": {
            subset: total(n for n in names if n in counts)
            for subset, names in subsets.items()
            if counts
        },
        "sequences": {name: {**c.report(), "snr": snr.get(name)} for name, c in counts.items()},
    }
