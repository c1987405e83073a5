"""Drawing from the distributions of a recipe.

A value in a recipe is a number (always that), [low, high] (uniform), or `choice: weight` entries.
"""

from __future__ import annotations

import numpy as np


def draw(spec, rng: np.random.Generator):
    """One value of a distribution."""
    if isinstance(spec, dict):
        weights = np.array(list(spec.values()), np.float64)
        return list(spec)[rng.choice(len(spec), p=weights / weights.sum())]
    if isinstance(spec, list):
        return float(rng.uniform(*spec))
    return spec


def largest(spec) -> float:
    """The highest value that a number or [low, high] can give."""
    return max(spec) if isinstance(spec, list) else spec
