"""One simulated sequence, from a recipe and a generator of random numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from datasets.simulator.camera import SensorArray, camera_path, view
from datasets.simulator.draws import draw
from datasets.simulator.scenes import build_scene
from datasets.simulator.targets import EXPOSURES, Target, draw_targets, spot

MASK_LEVEL = 0.3  # a mask holds the pixels above this share of the spot's highest
LOCAL_RADIUS = 10  # the local background of a target reaches this far, in pixels


class Simulated(NamedTuple):
    """frames [T, H, W] uint8 or uint16; masks and centroids [T, H, W] bool; truth rows, each
    (frame from 1, target from 1, x, y, sigma, snr, speed, temporal snr)."""

    frames: np.ndarray
    masks: np.ndarray
    centroids: np.ndarray
    truth: list[tuple]


class Appearance(NamedTuple):
    """A target in one frame: where, its spot at contrast 1 [H, W], its local background's std."""

    x: float
    y: float
    spot: np.ndarray
    local: float


def simulate(size: int, frames: int, recipe: dict, rng: np.random.Generator) -> Simulated:
    """A sequence of [frames, size, size].

    snr of a target = highest contrast of a pixel over the spatial standard deviation of its local
    background (the field's definition), its mean over the frames is what was drawn; temporal snr =
    the same contrast over a pixel's standard deviation in time.
    """
    optics = draw(recipe["detector"]["optics"], rng)
    path = camera_path(frames, recipe["camera"], rng)
    margin = math.ceil(np.abs(path).max()) + 4
    layers = build_scene((size + 2 * margin,) * 2, recipe["scene"], rng, optics)
    targets = draw_targets(size, frames, optics, recipe["targets"], rng)
    sensor = SensorArray(size, frames, recipe["detector"], rng)

    scenes = [view(layers, path[t], t, margin, size) for t in range(frames)]
    seen = [_appearances(target, path, scenes, sensor.noise, size) for target in targets]
    masks = np.zeros((frames, size, size), bool)
    centroids, truth, images = np.zeros_like(masks), [], []
    contrasts = [_contrast(*pair) for pair in zip(targets, seen, strict=True)]
    for t, scene in enumerate(scenes):
        for number, target in enumerate(targets):
            if t not in seen[number]:
                continue
            x, y, shape, local = seen[number][t]
            contrast = contrasts[number] * target.brightness[t]
            scene = scene + contrast * shape
            masks[t] |= shape > MASK_LEVEL * shape.max()
            masks[t, round(y), round(x)] = centroids[t, round(y), round(x)] = True
            highest = abs(contrast) * shape.max()
            ratios = highest / local, target.speed, highest / sensor.noise
            truth.append((t + 1, number + 1, x, y, target.sigma, *ratios))
        images.append(sensor.expose(scene, t))
    return Simulated(np.stack(images), masks, centroids, truth)


def _appearances(
    target: Target, path: np.ndarray, scenes: list[np.ndarray], noise: float, size: int
) -> dict[int, Appearance]:
    """Where a target is visible, by frame: inside the frame and not hidden."""
    places = target.position - path
    found = {}
    for t, (x, y) in enumerate(places):
        if not target.brightness[t] or not (0 <= x <= size - 1 and 0 <= y <= size - 1):
            continue
        velocity = places[t] - places[t - 1] if t else np.zeros(2)
        during = (np.arange(EXPOSURES) - EXPOSURES // 2)[:, None] / EXPOSURES
        shape = spot(places[t] + during * velocity, target.sigma, size)
        rows, columns = (
            slice(max(0, round(c) - LOCAL_RADIUS), round(c) + LOCAL_RADIUS + 1) for c in (y, x)
        )
        # Noise and quantisation are part of the background that a frame shows.
        local = float(np.hypot(scenes[t][rows, columns].std(), noise))
        found[t] = Appearance(float(x), float(y), shape, local)
    return found


def _contrast(target: Target, seen: dict[int, Appearance]) -> float:
    """The contrast in grey levels that gives the target its snr, as the mean over its frames."""
    relative = [abs(target.brightness[t]) * a.spot.max() / a.local for t, a in seen.items()]
    return target.snr / np.mean(relative) if relative else 0.0
