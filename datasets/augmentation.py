"""Clips turned over, for training: the same target from another side."""

import numpy as np

AUGMENTATIONS = ("none", "flip")


def draw_turn(kind: str, rng: np.random.Generator) -> tuple[slice, slice]:
    """How the rows and the columns of a clip are turned over, by chance.

    Args:
        kind: one of AUGMENTATIONS. `flip`: upside down and left to right, each every other time.
    """
    if kind == "none":
        return slice(None), slice(None)
    mirrored, upside_down = rng.integers(0, 2, 2)
    return slice(None, None, 1 - 2 * upside_down), slice(None, None, 1 - 2 * mirrored)
