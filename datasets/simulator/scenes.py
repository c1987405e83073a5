"""What stands still or moves as a whole behind the targets: sky, cloud, sea, ground, clutter.

Every family returns layers, far to near, in relative levels; `build_scene` makes them grey levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from datasets.simulator.draws import draw


@dataclass
class Layer:
    """A picture [H, W] larger than the frame, its opacity [H, W] (None: opaque), and its own
    velocity (x, y) in pixels a frame against the scene."""

    level: np.ndarray
    opacity: np.ndarray | None = None
    velocity: tuple[float, float] = (0.0, 0.0)


def flatten(levels: list[np.ndarray], opacities: list[np.ndarray | None]) -> np.ndarray:
    """Layers [H, W] seen through one another, far to near; the first one is opaque."""
    seen = levels[0]
    for level, opacity in zip(levels[1:], opacities[1:], strict=True):
        seen = seen * (1 - opacity) + level * opacity
    return seen


def power_law_texture(
    shape: tuple[int, int], beta: float, rng: np.random.Generator, stretch: float = 1.0
) -> np.ndarray:
    """[H, W], mean 0, std 1, power spectrum 1 / f^beta, drawn out `stretch` times along x.

    Clouds and terrain in the infrared have a beta of 2 to 3.5 (the usual range for natural
    scenes); waves are stretched along the horizon.
    """
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    frequency = np.hypot(fy, fx * stretch)
    frequency[0, 0] = np.inf  # no mean
    white = np.fft.rfft2(rng.standard_normal(shape))
    texture = np.fft.irfft2(white * frequency ** (-beta / 2), s=shape)
    return texture / texture.std()


def gradient(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A slope of unit standard deviation, mostly vertical: air is warmer near the horizon."""
    angle = np.pi / 2 + rng.normal(0, 0.3)
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    slope = xs * np.cos(angle) + ys * np.sin(angle)
    return (slope - slope.mean()) / slope.std()


def sky(shape, recipe: dict, rng: np.random.Generator) -> list[Layer]:
    """Clear sky: a gradient with faint structure."""
    faint = power_law_texture(shape, draw(recipe["beta"], rng), rng)
    return [Layer(gradient(shape, rng) + 0.3 * faint)]


def cloud(shape, recipe: dict, rng: np.random.Generator) -> list[Layer]:
    """Clouds over a sky: a far layer, and a near one that may drift, opaque where it is thick."""
    beta = draw(recipe["beta"], rng)
    far = 0.4 * gradient(shape, rng) + 0.8 * power_law_texture(shape, beta, rng)
    thickness = power_law_texture(shape, beta + 0.3, rng)
    near = 0.6 + 0.7 * power_law_texture(shape, beta, rng)
    opacity = 1 / (1 + np.exp(-3 * (thickness - 0.3)))
    speed, heading = draw(recipe["layer_speed"], rng), rng.uniform(0, 2 * np.pi)
    velocity = (speed * np.cos(heading), speed * np.sin(heading))
    return [Layer(far), Layer(near, opacity, velocity)]


def sea(shape, recipe: dict, rng: np.random.Generator) -> list[Layer]:
    """Waves drawn out along the horizon, which run across their crests, to or from the camera."""
    waves = power_law_texture(shape, draw(recipe["beta"], rng) - 0.4, rng, stretch=3)
    velocity = (0.0, draw(recipe["layer_speed"], rng) * rng.choice((-1, 1)))
    return [Layer(waves + 0.5 * gradient(shape, rng), velocity=velocity)]


def ground(shape, recipe: dict, rng: np.random.Generator) -> list[Layer]:
    """Terrain with man-made straight edges: roofs, roads, fields."""
    level = power_law_texture(shape, draw(recipe["beta"], rng), rng)
    for _ in range(round(draw(recipe["edges"], rng))):
        centre = (rng.uniform(0, shape[1]), rng.uniform(0, shape[0]))
        size = tuple(rng.uniform(0.03, 0.35, 2) * min(shape))
        corners = cv2.boxPoints((centre, size, rng.uniform(0, 90))).astype(np.int32)
        cover = np.zeros(shape, np.uint8)
        cv2.fillConvexPoly(cover, corners, 1)
        level += rng.normal(0, 0.9) * cover
    return [Layer(level)]


def horizon(shape, recipe: dict, rng: np.random.Generator) -> list[Layer]:
    """Sky above, sea or ground below a slightly tilted line."""
    above = sky(shape, recipe, rng)[0].level
    below = (sea, ground)[rng.integers(2)](shape, recipe, rng)[0].level
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    line = shape[0] * rng.uniform(0.4, 0.8) + np.tan(rng.normal(0, 0.03)) * xs
    return [Layer(np.where(ys < line, 0.5 * above, 0.8 * below + rng.normal(0, 0.8)))]


FAMILIES = {"sky": sky, "cloud": cloud, "sea": sea, "ground": ground, "horizon": horizon}


def add_clutter(level: np.ndarray, recipe: dict, rng: np.random.Generator) -> None:
    """Bright and dark static spots of the size of targets, in place: what a single frame confuses
    with a target, and a temporal profile does not."""
    for _ in range(round(draw(recipe["clutter"], rng))):
        y, x = (int(rng.integers(4, n - 4)) for n in level.shape)
        spot = np.zeros((9, 9))
        spot[4, 4] = 1
        spot = cv2.GaussianBlur(spot, (9, 9), rng.uniform(0.7, 1.4))
        level[y - 4 : y + 5, x - 4 : x + 5] += rng.normal(0, 2) * spot / spot.max()


def build_scene(
    size: int, margin: int, recipe: dict, rng: np.random.Generator, optics: float
) -> list[Layer]:
    """Layers of a drawn family in grey levels, `margin` pixels wider than the frame all round.

    They are blurred by the optics (sigma in pixels), the pictures being periodic. The drawn mean
    and contrast (standard deviation) are those of what the frame shows half-way.
    """
    shape = (size + 2 * margin,) * 2
    layers = FAMILIES[draw(recipe["families"], rng)](shape, recipe, rng)
    add_clutter(layers[0].level, recipe, rng)
    for layer in layers:
        layer.level = ndimage.gaussian_filter(layer.level, optics, mode="wrap")
        if layer.opacity is not None:
            layer.opacity = ndimage.gaussian_filter(layer.opacity, optics, mode="wrap")
    whole = flatten([layer.level for layer in layers], [layer.opacity for layer in layers])
    seen = whole[margin : margin + size, margin : margin + size]
    mean, contrast = draw(recipe["mean"], rng), draw(recipe["contrast"], rng)
    for layer in layers:
        layer.level = mean + contrast * (layer.level - seen.mean()) / seen.std()
    return layers
