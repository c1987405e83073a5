"""Answers against truth: counts first, ratios last. Plain arrays in, no torch, no files."""

from metrics.counts import THRESHOLDS, Counts
from metrics.shooting import BORDERS, ShootingRule

__all__ = ["BORDERS", "THRESHOLDS", "Counts", "ShootingRule"]
