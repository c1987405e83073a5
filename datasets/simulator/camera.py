"""How the camera moves, and what its detector does to the scene."""

from __future__ import annotations

import numpy as np

from datasets.simulator.draws import draw

MOTIONS = ("still", "jitter", "drift", "pan")
DEPTHS = (8, 16)  # bits; at 16, frames are 256 times as fine, not brighter
AGC_RANGE = (1, 99)  # percentiles: a few bad pixels or targets do not drive the gain
AGC_LAG = 8  # frames: time constant, a quarter of a second at 30 Hz


def camera_path(
    frames: int, recipe: dict, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Offset (x, y) of the line of sight in pixels, [T, 2], around 0; velocity in an exposure.

    still; jitter: a mast in the wind, independent from frame to frame, too quick to have a
    velocity, its blur being part of the optics; drift: a slow random walk; pan: a steady turn.
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
    smooth = np.zeros((frames, 2)) if motion == "jitter" else path
    return path - (path.max(axis=0) + path.min(axis=0)) / 2, velocity_of(smooth)


def velocity_of(path: np.ndarray) -> np.ndarray:
    """Pixels a frame along a path [T, 2], by central differences: [T, 2]."""
    return np.gradient(path, axis=0) if len(path) > 1 else np.zeros_like(path)


class SensorArray:
    """The detector behind the optics: fixed pattern, noise, gain control and quantisation.

    All standard deviations are in grey levels unless said otherwise. Sources of the terms: photon
    (shot) noise grows with the root of the signal; gain and offset differ from pixel to pixel
    (non-uniformity), before read noise, as in datasets.noise; columns share a readout, with a fixed
    and a fluctuating offset; dead and hot pixels hold a constant.
    """

    def __init__(self, size: int, recipe: dict, rng: np.random.Generator):
        self.rng = rng
        self.read = draw(recipe["read_noise"], rng)
        self.shot = draw(recipe["shot_noise"], rng)  # at level 100
        self.columns = draw(recipe["column_noise"], rng)
        gain = 1 + draw(recipe["gain"], rng) * self._normal((size, size))
        self.offset = draw(recipe["offset"], rng) * self._normal((size, size))
        self.offset += draw(recipe["column_pattern"], rng) * self._normal(size)
        self.bad = rng.random((size, size)) < draw(recipe["bad_pixels"], rng)
        self.bad_level = np.where(rng.random((size, size)) < 0.5, 0, 255).astype(np.float32)
        self.gain = np.where(self.bad, 0, gain).astype(np.float32)
        self.agc = draw(recipe["automatic_gain"], rng)
        self._aim = self._range = None  # of the gain control: centre and width
        self.depth = np.uint8 if recipe["bits"] == 8 else np.uint16
        self.step = 1.0 if recipe["bits"] == 8 else 1 / 256  # of quantisation, grey levels
        self.top = np.iinfo(self.depth).max * self.step

    def _normal(self, shape) -> np.ndarray:
        return self.rng.standard_normal(shape, np.float32)

    @property
    def least_noise(self) -> float:
        """Standard deviation of rounding to the written depth, uniform within a step."""
        return self.step / 12**0.5

    def photon_noise(self, light: np.ndarray) -> np.ndarray:
        """Shot noise of light [H, W]; that of a target adds to that of its background."""
        return self.shot * np.sqrt(np.clip(light, 0, None) / 100) * self._normal(light.shape)

    def expose(self, scene: np.ndarray) -> np.ndarray:
        """Scene in grey levels [H, W] to the signal of the array [H, W]."""
        light = scene + self.photon_noise(scene) if self.shot else scene
        signal = self.gain * light + self.offset + self.read * self._normal(scene.shape)
        if self.columns:
            signal += self.columns * self._normal(scene.shape[1])
        return np.where(self.bad, self.bad_level, signal)

    def follow(self, signal: np.ndarray) -> tuple[float, float]:
        """Automatic gain: (slope, shift) for this frame's signal, from the frames before it.

        It holds the range of grey levels where it was in the first frame: wholly at strength 1.
        """
        if not self.agc:
            return 1.0, 0.0
        low, high = np.percentile(signal[::2, ::2], AGC_RANGE)
        now = np.array([(low + high) / 2, max(high - low, 1)])
        if self._aim is None:
            self._aim = self._range = now
        (aim, width), (middle, spread) = self._aim, self._range
        self._range = self._range + (now - self._range) / AGC_LAG
        slope = (width / spread) ** self.agc
        return float(slope), float(middle + self.agc * (aim - middle) - slope * middle)

    def quantise(self, levels: np.ndarray) -> np.ndarray:
        """Grey levels to what is written, uint8 or uint16 (256 times as fine)."""
        return np.clip(np.rint(levels / self.step), 0, self.top / self.step).astype(self.depth)
