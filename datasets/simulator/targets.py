"""Targets: their paths, their size and brightness, and the spot that the detector sees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr

from datasets.simulator.camera import velocity_of
from datasets.simulator.draws import draw

POLARITIES = {"bright": 1, "dark": -1}
SHAPES = ("gauss", "box")
PATHS = ("straight", "turning", "hovering")
BOX = 1.55  # half-width of a box over `extent`: as wide as the Gaussian at 0.3 of its height
RAMP = 2  # frames in which a target is partly hidden, before and after it is wholly so
REACH = 4  # standard deviations after which a Gaussian is over (6e-5 of its light is left)


@dataclass
class Target:
    """A target before its contrast is known.

    position: [T, 2] x, y in scene pixels. blur: sigma of the Gaussian in its spot, in pixels: the
    optics and, unless it is a box, its extent. half: half-width of the box, 0 if it is none.
    brightness: [T] relative, negative for a target darker than its surroundings. shown: [T] share
    of it that nothing hides. behind_clouds: whether near layers hide it as well. snr: the ratio
    that its contrast is scaled to.
    """

    position: np.ndarray
    blur: float
    half: float
    brightness: np.ndarray
    shown: np.ndarray
    behind_clouds: bool
    snr: float

    @cached_property
    def velocity(self) -> np.ndarray:
        """[T, 2] pixels a frame."""
        return velocity_of(self.position)

    @property
    def sigma(self) -> float:
        """Standard deviation of its spot in pixels, optics and extent together."""
        return math.hypot(self.blur, self.half / 3**0.5)

    @property
    def speed(self) -> float:
        """Mean pixels a frame."""
        steps = np.diff(self.position, axis=0)
        return float(np.hypot(*steps.T).mean()) if len(steps) else 0.0


def draw_targets(
    size: int, frames: int, optics: float, recipe: dict, rng: np.random.Generator
) -> list[Target]:
    targets = []
    for _ in range(int(draw(recipe["count"], rng))):
        extent, box = draw(recipe["extent"], rng), draw(recipe["shape"], rng) == "box"
        blur, half = (optics, BOX * extent) if box else (math.hypot(optics, extent), 0.0)
        brightness = _fluctuation(frames, draw(recipe["fluctuation"], rng), rng)
        brightness *= POLARITIES[draw(recipe["polarity"], rng)]
        occluded = rng.random() < draw(recipe["occluded"], rng)
        shown = _occlusion(frames, rng) if occluded else np.ones(frames)
        path = draw_path(size, frames, recipe, rng)
        behind, snr = rng.random() < draw(recipe["behind_clouds"], rng), draw(recipe["snr"], rng)
        targets.append(Target(path, blur, half, brightness, shown, behind, snr))
    return targets


def draw_path(size: int, frames: int, recipe: dict, rng: np.random.Generator) -> np.ndarray:
    """[T, 2] positions x, y: straight, turning (constant rate) or hovering (a slow random walk),
    somewhere inside the frame half-way; it may enter and leave."""
    kind, speed = draw(recipe["path"], rng), draw(recipe["speed"], rng)
    if kind == "hovering":
        steps = rng.normal(0, 0.3 * speed, (frames, 2))
    else:
        turn = draw(recipe["turn"], rng) * rng.choice((-1, 1)) if kind == "turning" else 0.0
        heading = rng.uniform(0, 2 * np.pi) + turn * np.arange(frames)
        steps = speed * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    path = np.cumsum(steps, axis=0)
    return path - path[frames // 2] + rng.uniform(0.15 * size, 0.85 * size, 2)


def _fluctuation(frames: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Relative brightness [T] around 1, correlated over about five frames (tumbling, say)."""
    wander, keep = np.zeros(frames), 0.8
    for t in range(1, frames):
        wander[t] = keep * wander[t - 1] + np.sqrt(1 - keep**2) * rng.standard_normal()
    return np.clip(1 + strength * wander, 0.2, 3)


def _occlusion(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Share [T] that is not hidden: 0 for 5 to 25 % of the frames, and ramps around them."""
    length = max(1, int(rng.uniform(0.05, 0.25) * frames))
    start = int(rng.uniform(0, frames - length + 1))
    time = np.arange(frames)
    away = np.maximum(start - time, time - (start + length - 1))  # frames until or since hidden
    return np.clip(away / (RAMP + 1), 0, 1)


def spot(
    positions: np.ndarray, blur: float, half: float, size: int
) -> tuple[tuple[slice, slice], np.ndarray]:
    """A spot integrated over every pixel, averaged over positions [n, 2]: where in the frame, and
    its levels [h, w], which are empty where it does not touch the frame.

    blur, half: as in `Target`. Its scale is that of a spot at rest, centred on a pixel, whose
    highest pixel is 1; elsewhere the highest pixel is lower.
    """
    reach = REACH * blur + half + 0.5
    profiles, places = [], []
    for centres in positions.T:  # x, then y
        first = min(size, max(0, math.floor(centres.min() - reach)))
        stop = max(first, min(size, math.ceil(centres.max() + reach) + 1))
        edges = np.arange(first, stop + 1) - 0.5
        profiles.append(np.diff(_light_below(edges - centres[:, None], blur, half), axis=1))
        places.append(slice(first, stop))
    highest = float(np.diff(_light_below(np.array([-0.5, 0.5]), blur, half))[0])
    return (places[1], places[0]), profiles[1].T @ profiles[0] / len(positions) / highest**2


def _light_below(x: np.ndarray, blur: float, half: float) -> np.ndarray:
    """Share of the light below coordinate x: of a Gaussian, or of a box convolved with one."""
    if half < 1e-3:
        return ndtr(x / blur)

    def integral(u: np.ndarray) -> np.ndarray:  # of ndtr
        return u * ndtr(u) + np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi)

    return (integral((x + half) / blur) - integral((x - half) / blur)) * blur / (2 * half)
