"""How the camera moves, and what its detector does to the scene."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from datasets.simulator.draws import draw
from datasets.simulator.scenes import Layer


def camera_path(frames: int, recipe: dict, rng: np.random.Generator) -> np.ndarray:
    """Offset (x, y) of the line of sight in pixels, [T, 2], around 0.

    still; jitter: a mast in the wind, independent from frame to frame; drift: a slow random walk;
    pan: a steady turn.
    """
    motion = draw(recipe["motion"], rng)
    path = np.zeros((frames, 2))
    if motion == "jitter":
        path = rng.normal(0, draw(recipe["jitter"], rng), (frames, 2))
    elif motion == "drift":
        path = np.cumsum(rng.normal(0, draw(recipe["drift"], rng), (frames, 2)), axis=0)
    elif motion == "pan":
        heading = rng.uniform(0, 2 * np.pi)
        velocity = draw(recipe["pan"], rng) * np.array([np.cos(heading), np.sin(heading)])
        path = np.arange(frames)[:, None] * velocity
    return path - (path.max(axis=0) + path.min(axis=0)) / 2


def view(layers: list[Layer], offset: np.ndarray, time: int, margin: int, size: int) -> np.ndarray:
    """The scene without targets as seen at a time: [size, size] float32, sub-pixel accurate."""
    seen = None
    for layer in layers:
        x, y = offset - time * np.array(layer.velocity) + margin
        level = _sample(layer.level, x, y, size)
        if seen is None:
            seen = level
        else:
            opacity = np.clip(_sample(layer.opacity, x, y, size), 0, 1)
            seen = seen * (1 - opacity) + level * opacity
    return seen


def _sample(picture: np.ndarray, x: float, y: float, size: int) -> np.ndarray:
    """A [size, size] window whose corner lies at (x, y); the picture repeats beyond its edges.

    Cubic splines, since cubic convolution would blur and shift by parts of a grey level.
    """
    border = 0 if x == round(x) and y == round(y) else 6  # what a spline still feels of an edge
    left, top = math.floor(x), math.floor(y)
    rows = np.arange(top - border, top + size + border) % len(picture)
    columns = np.arange(left - border, left + size + border) % picture.shape[1]
    window = picture[np.ix_(rows, columns)]
    if not border:
        return window
    window = ndimage.shift(window, (top - y, left - x), order=3, mode="mirror")
    return window[border:-border, border:-border]


class SensorArray:
    """The detector behind the optics: fixed pattern, noise, gain control and quantisation.

    All standard deviations are in grey levels unless said otherwise. Sources of the terms: photon
    (shot) noise grows with the root of the signal; read noise does not; gain and offset differ from
    pixel to pixel (non-uniformity); dead and hot pixels hold a constant; columns share a readout.
    """

    def __init__(self, size: int, frames: int, recipe: dict, rng: np.random.Generator):
        self.rng = rng
        self.read = draw(recipe["read_noise"], rng)
        self.shot = draw(recipe["shot_noise"], rng)  # at level 100
        self.columns = draw(recipe["column_noise"], rng)
        self.gain = 1 + draw(recipe["gain"], rng) * rng.standard_normal((size, size))
        self.offset = draw(recipe["offset"], rng) * rng.standard_normal((size, size))
        share = draw(recipe["bad_pixels"], rng)
        self.bad = rng.random((size, size)) < share
        self.bad_level = np.where(rng.random((size, size)) < 0.5, 0.0, 255.0)
        swing = draw(recipe["automatic_gain"], rng)
        phase = rng.uniform(0, 2 * np.pi) + np.arange(frames) * rng.uniform(0.02, 0.2)
        self.automatic = 1 + swing * np.sin(phase)
        self.bits = int(draw(recipe["bits"], rng))

    @property
    def noise(self) -> float:
        """Temporal standard deviation of a pixel at level 100, quantisation included."""
        return float(np.sqrt(self.read**2 + self.shot**2 + 1 / 12))

    def expose(self, scene: np.ndarray, time: int) -> np.ndarray:
        """Scene in grey levels [H, W] to a frame, uint8 or uint16 (256 times as fine)."""
        noise = np.sqrt(self.read**2 + self.shot**2 * np.clip(scene, 0, None) / 100)
        signal = scene + noise * self.rng.standard_normal(scene.shape)
        signal = self.gain * signal + self.offset
        if self.columns:
            signal += self.columns * self.rng.standard_normal(scene.shape[1])
        signal = np.where(self.bad, self.bad_level, signal * self.automatic[time])
        if self.bits == 16:
            return np.clip(256 * signal + 0.5, 0, 65535).astype(np.uint16)
        return np.clip(signal + 0.5, 0, 255).astype(np.uint8)
