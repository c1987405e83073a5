"""The scene as the moving camera sees it during the exposure of a frame."""

from __future__ import annotations

import math

import cv2
import numpy as np
from scipy import ndimage

from datasets.simulator.scenes import Layer, flatten

DUTY = 1.0  # share of the frame interval that is exposed: a staring array read without a pause
STILL = 0.1  # pixels of motion in an exposure that no frame shows: 0.03 of blur beside a PSF of 0.5
BORDER = 12  # pixels: a spline's reach, 0.27^12 of a level at the seam of the picture


def exposure_times(motion: float) -> np.ndarray:
    """Times [n] around 0, in frames, whose mean stands for an exposure.

    Args:
        motion: in pixels a frame; positions are never further apart than half a pixel or, for slow
            targets, a third of their motion.
    """
    if motion * DUTY <= STILL:
        return np.zeros(1)
    count = max(3, math.ceil(2 * motion * DUTY))
    return ((np.arange(count) + 0.5) / count - 0.5) * DUTY


class Views:
    """Frames of a scene without targets.

    Args:
        layers: the scene; a layer's picture lies as the frame does half-way, at `middle`.
        margin: pixels around the frame in the pictures; they repeat beyond.
        size: height and width of the frame.
        middle: time, in frames.
    """

    def __init__(self, layers: list[Layer], margin: int, size: int, middle: float):
        self.layers, self.margin, self.size, self.middle = layers, margin, size, middle
        self._levels = [_spline(layer.level) for layer in layers]
        self._opacities = [_spline(layer.opacity) for layer in layers]

    def at(self, time: int, offset: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """What is seen at a time, averaged over the exposure: [size, size] float32.

        offset, velocity: of the line of sight, (x, y) in pixels and pixels a frame.
        """
        motion = max(math.hypot(*(velocity - layer.velocity)) for layer in self.layers)
        times = exposure_times(motion)
        return sum(self._glimpse(time + s, offset + s * velocity) for s in times) / len(times)

    def passed(self, time: int, x: float, y: float) -> float:
        """Share of the light from a point of the scene that the near layers let through."""
        share = 1.0
        for layer in self.layers[1:]:
            column, row = np.rint(self._corner(layer, time) + np.array([x, y])).astype(int)
            height, width = layer.opacity.shape
            share *= 1 - min(1.0, max(0.0, layer.opacity[row % height, column % width]))
        return share

    def _corner(self, layer: Layer, time: float) -> np.ndarray:
        """Where the scene's origin lies in the layer's picture, (x, y)."""
        return self.margin - (time - self.middle) * np.array(layer.velocity)

    def _glimpse(self, time: float, offset: np.ndarray) -> np.ndarray:
        corners = [self._corner(layer, time) + offset for layer in self.layers]
        levels = [_window(s, *c, self.size) for s, c in zip(self._levels, corners, strict=True)]
        opacities = [
            None if s is None else np.clip(_window(s, *c, self.size), 0, 1)
            for s, c in zip(self._opacities, corners, strict=True)
        ]
        return flatten(levels, opacities)


def _spline(picture: np.ndarray | None) -> np.ndarray | None:
    """Coefficients of a periodic cubic spline (cubic convolution would blur and shift)."""
    if picture is None:
        return None
    return ndimage.spline_filter(picture, order=3, output=np.float32, mode="grid-wrap")


def _window(spline: np.ndarray, x: float, y: float, size: int) -> np.ndarray:
    """The [size, size] window whose corner lies at (x, y), sub-pixel accurate."""
    left, top = math.floor(x), math.floor(y)
    rows = np.arange(top - 1, top + size + 2) % len(spline)
    columns = np.arange(left - 1, left + size + 2) % spline.shape[1]
    weights = _weights(x - left), _weights(y - top)
    seen = cv2.sepFilter2D(spline[np.ix_(rows, columns)], cv2.CV_32F, *weights, anchor=(0, 0))
    return seen[:size, :size]


def _weights(part: float) -> np.ndarray:
    """Of the four spline coefficients around a place, `part` of a pixel beyond the second."""
    f, g = part, 1 - part
    return np.array([g**3, 4 - 6 * f**2 + 3 * f**3, 4 - 6 * g**2 + 3 * g**3, f**3]) / 6
