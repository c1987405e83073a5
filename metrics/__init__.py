"""Answers against truth: counts first, ratios last. Plain arrays in, no torch, no files."""

from metrics.association import Association, associate
from metrics.counts import THRESHOLDS, Counts, report
from metrics.shooting import BORDERS, ShootingRule

__all__ = ["BORDERS", "THRESHOLDS", "Association", "Counts", "ShootingRule", "associate", "report"]
