"""Targets: their paths, their size and brightness, and the spot that the detector sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import erf

from datasets.simulator.draws import draw

EXPOSURES = 3  # positions over which the motion within one frame is averaged


@dataclass
class Target:
    """A target before its contrast is known.

    position: [T, 2] x, y in scene pixels. sigma: of its spot in pixels, optics and extent together.
    brightness: [T] relative, negative for a target darker than its surroundings, 0 where hidden.
    snr: the ratio that its contrast is scaled to.
    """

    position: np.ndarray
    sigma: float
    brightness: np.ndarray
    snr: float

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
        sigma = float(np.hypot(optics, draw(recipe["extent"], rng)))
        brightness = _fluctuation(frames, draw(recipe["fluctuation"], rng), rng)
        brightness *= {"bright": 1, "dark": -1}[draw(recipe["polarity"], rng)]
        if rng.random() < draw(recipe["occluded"], rng):
            length = int(rng.uniform(0.05, 0.25) * frames)
            start = int(rng.uniform(0, frames - length))
            brightness[start : start + length] = 0
        path = draw_path(size, frames, recipe, rng)
        targets.append(Target(path, sigma, brightness, draw(recipe["snr"], rng)))
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


def spot(positions: np.ndarray, sigma: float, size: int) -> np.ndarray:
    """A Gaussian spot integrated over every pixel, averaged over positions [n, 2]: [size, size].

    Its scale is that of a spot at rest, centred on a pixel, whose highest pixel is 1; elsewhere the
    highest pixel is lower.
    """
    edges = np.arange(size + 1) - 0.5
    x, y = (
        np.diff(erf((edges[None] - centre[:, None]) / (sigma * np.sqrt(2))), axis=1) / 2
        for centre in positions.T
    )
    return y.T @ x / len(positions) / erf(0.5 / (sigma * np.sqrt(2))) ** 2
