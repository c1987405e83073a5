"""The classical detectors against loops over pixels, and on a frame whose answer is known."""

import math

import numpy as np
import pytest
import torch

from models import CLASSICAL, Detector

T = 8


def logits(name, frames):
    return CLASSICAL[name](T)(torch.from_numpy(frames)[None, None])[0].numpy()


def as_logits(contrast):
    """log(z / 5) of every pixel, z in root mean squares."""
    scale = 5 * math.sqrt(sum(c * c for c in contrast.ravel().tolist()) / contrast.size)
    return np.log(np.maximum(contrast / scale, 1e-12))


@pytest.fixture
def frames():
    return np.random.default_rng(0).normal(size=(T, 9, 11)).astype(np.float32)


def test_median_residual_is_the_distance_from_the_temporal_median(frames):
    residual = np.zeros_like(frames)
    for y in range(9):
        for x in range(11):
            middle = sorted(frames[:, y, x])[(T - 1) // 2]
            for t in range(T):
                residual[t, y, x] = abs(frames[t, y, x] - middle)
    np.testing.assert_allclose(logits("MedianResidual", frames), as_logits(residual), atol=1e-4)


def test_top_hat_is_the_frame_less_its_opening(frames):
    def extreme(image, choose):
        out = np.empty_like(image)
        for y in range(9):
            for x in range(11):
                out[y, x] = choose(image[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4])
        return out

    opened = [extreme(extreme(frame, np.min), np.max) for frame in frames]
    np.testing.assert_allclose(logits("TopHat", frames), as_logits(frames - opened), atol=1e-4)


@pytest.mark.parametrize("name", sorted(CLASSICAL))
def test_a_moving_point_is_found_whatever_the_normalisation(name):
    frames = np.random.default_rng(1).normal(100, 1, (20, 24, 24))
    for t in range(20):
        frames[t, 12, t + 2] += 60
    found = Detector(CLASSICAL[name](T), 0.0, 1.0)(frames)
    scaled = Detector(CLASSICAL[name](T), 93.0, 17.0)(frames)
    assert found.shape == (20, 24, 24)
    np.testing.assert_allclose(found, scaled, atol=1e-3)
    for t in range(20):
        assert found[t].argmax() == 12 * 24 + t + 2
        assert found[t].max() > 0.7
    assert (found > 0.5).mean() < 0.02


@pytest.mark.parametrize("name", sorted(CLASSICAL))
def test_flat_frames_hold_nothing(name):
    flat = np.full((T, 8, 8), 7, np.uint8)
    assert Detector(CLASSICAL[name](T), 0.0, 1.0)(flat).max() < 1e-9
    assert math.isfinite(logits(name, flat.astype(np.float32)).sum())
