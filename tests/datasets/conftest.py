"""A small data set to cache, and where to."""

import numpy as np
import pytest

from tests.conftest import write_image

SIZES = {"s1": (20, 23, np.uint8), "s2": (31, 26, np.uint16), "s3": (12, 12, np.uint8)}


@pytest.fixture
def data(tmp_path):
    """Three sequences of noise, 7 to 9 frames, 8 and 16 bit, s2 without centroid masks."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for n, (name, (H, W, dtype)) in enumerate(SIZES.items(), start=7):
        for i in range(n):
            frame = rng.integers(0, np.iinfo(dtype).max, (H, W), endpoint=True).astype(dtype)
            mask = rng.random((H, W)) < 0.02 * (i % 3)  # every third frame has no target
            write_image(root / name / f"images/{i + 1}.png", frame)
            write_image(root / name / f"masks/{i + 1}.png", 255 * mask.astype(np.uint8))
            if name != "s2":
                points = 255 * (mask & (rng.random((H, W)) < 0.5)).astype(np.uint8)
                write_image(root / name / f"masks_centroid/{i + 1}.png", points)
    return root


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cache"
