"""One simulated sequence, from a recipe and a generator of random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datasets.simulator.camera import SensorArray, camera_path
from datasets.simulator.draws import draw, largest
from datasets.simulator.scenes import build_scene
from datasets.simulator.targets import REACH, Target, draw_targets, spot
from datasets.simulator.views import BORDER, Views, exposure_times
from utils.errors import InputError

MASK_LEVEL = 0.3  # a mask holds the pixels above this share of the spot's highest
LOCAL_RADIUS = 10  # the local background of a target reaches this far, in pixels
WIDEST = 16384  # pixels of the picture of a scene: 2 GB a layer and more
SEEN = 0.25  # a target that shows less of its light is hidden: no row, no mask


class Simulated(NamedTuple):
    """frames [T, H, W] uint8 or uint16; masks and centroids [T, H, W] bool; truth rows, each
    (frame from 1, target from 1, x, y, sigma, snr, speed, temporal snr)."""

    frames: np.ndarray
    masks: np.ndarray
    centroids: np.ndarray
    truth: list[tuple]


@dataclass
class Appearance:
    """A target in a frame: its spot and, once the frame without targets is made, what is there.

    light: its brightness, relative and signed. place: rows and columns of `shape` [h, w]. counted:
    whether it is in the truth: its centre inside the frame, and not hidden. background, response:
    [h, w] grey levels without targets, not rounded, and how many of them one grey level of the
    scene makes. local: standard deviation of the local background as written. contrast: in grey
    levels of the scene.
    """

    target: int
    x: float
    y: float
    light: float
    place: tuple[slice, slice]
    shape: np.ndarray
    counted: bool
    background: np.ndarray | None = None
    response: np.ndarray | None = None
    local: float = math.nan
    contrast: float = 0.0

    @property
    def pixel(self) -> tuple[int, int]:
        """Row and column of its centre."""
        return math.floor(self.y + 0.5), math.floor(self.x + 0.5)

    @property
    def peak(self) -> tuple[int, int]:
        """Row and column, within its place, of the pixel that it changes most."""
        return np.unravel_index(np.argmax(self.shape * self.response), self.shape.shape)

    @property
    def height(self) -> float:
        """Grey levels that one of contrast changes the peak by."""
        return float((self.shape * self.response)[self.peak])

    def headroom(self, top: float) -> float:
        """Grey levels that are left at the peak, up to `top` or down to 0."""
        level = float(self.background[self.peak])
        return max(0.0, top - level if self.light > 0 else level)


def simulate(size: int, frames: int, recipe: dict, rng: np.random.Generator) -> Simulated:
    """A sequence of [frames, size, size].

    snr of a target = what it adds to its highest pixel, over the spatial standard deviation of its
    local background (the field's definition), both as written, with all that the detector does; its
    mean over the frames is what was drawn, unless the range of grey levels has no room for it.
    temporal snr = the same contrast over that pixel's standard deviation in time without targets,
    which is that of rounding at least.
    """
    optics = draw(recipe["detector"]["optics"], rng)
    path, velocity = camera_path(frames, recipe["camera"], rng)
    middle = (frames - 1) / 2
    travel = np.abs(path).max() + largest(recipe["scene"]["layer_speed"]) * (middle + 1)
    margin = math.ceil(travel + np.abs(velocity).max() + REACH * optics) + BORDER
    if size + 2 * margin > WIDEST:
        raise InputError(
            f"camera and layers move {travel:.0f} pixels in {frames} frames, too far for one "
            f"picture of the scene (at most {WIDEST} wide): lower --frames, --size, or pan, drift "
            "and layer_speed of the recipe"
        )
    layers = build_scene(size, margin, recipe["scene"], rng, optics)
    views = Views(layers, margin, size, middle)
    targets = draw_targets(size, frames, optics, recipe["targets"], rng)
    sensor = SensorArray(size, recipe["detector"], rng)

    seen = [_appearances(t, targets, path, velocity, views) for t in range(frames)]
    images = np.empty((frames, size, size), sensor.depth)
    for t, present in enumerate(seen):
        signal = sensor.expose(views.at(t, path[t], velocity[t]))
        slope, shift = sensor.follow(signal)
        levels = slope * signal + shift
        images[t] = sensor.quantise(levels)
        for a in present:
            a.background, a.response = levels[a.place].copy(), slope * sensor.gain[a.place]
            a.local = max(sensor.least_noise, _local_std(images[t], a.pixel) * sensor.step)
    _scale(targets, seen, sensor.top)
    truth = _truth(targets, seen, images, sensor)
    masks, centroids = _draw_truth(seen, images.shape)
    for image, present in zip(images, seen, strict=True):
        _add_targets(image, present, sensor)
    return Simulated(images, masks, centroids, truth)


def _appearances(
    time: int, targets: list[Target], path: np.ndarray, velocity: np.ndarray, views: Views
) -> list[Appearance]:
    """The targets whose light reaches the frame."""
    found = []
    for number, target in enumerate(targets):
        place = target.position[time] - path[time]
        motion = target.velocity[time] - velocity[time]
        during = place + exposure_times(math.hypot(*motion))[:, None] * motion
        where, shape = spot(during, target.blur, target.half, views.size)
        share = target.shown[time]
        if target.behind_clouds:
            share *= views.passed(time, *target.position[time])
        if shape.size and share:
            light = float(share * target.brightness[time])
            inside = bool(np.all((place >= -0.5) & (place < views.size - 0.5)))
            x, y = map(float, place)
            found.append(Appearance(number, x, y, light, where, shape, inside and share >= SEEN))
    return found


def _local_std(image: np.ndarray, pixel: tuple[int, int]) -> float:
    """In grey levels as written; 0 around a pixel far outside."""
    window = image[tuple(slice(max(0, c - LOCAL_RADIUS), c + LOCAL_RADIUS + 1) for c in pixel)]
    return float(window.std()) if window.size else 0.0


def _scale(targets: list[Target], seen: list[list[Appearance]], top: float) -> None:
    """Give each target the contrast that makes its snr, as the mean over its frames; in a frame
    that has no room for it, what there is."""
    for number, target in enumerate(targets):
        own = [a for present in seen for a in present if a.target == number]
        ratios = [abs(a.light) * a.height / a.local for a in own if a.counted]
        contrast = target.snr / np.mean(ratios) if any(ratios) else 0.0
        for a in own:
            most = a.headroom(top) / a.height if a.height > 0 else 0.0
            a.contrast = math.copysign(min(contrast * abs(a.light), most), a.light)


def _truth(
    targets: list[Target], seen: list[list[Appearance]], images: np.ndarray, sensor: SensorArray
) -> list[tuple]:
    """The rows of `Simulated`, from the images [T, H, W] without targets."""
    rows = []
    for t, present in enumerate(seen):
        for a in (a for a in present if a.counted):
            target = targets[a.target]
            row, column = (s.start + p for s, p in zip(a.place, a.peak, strict=True))
            temporal = max(sensor.least_noise, images[:, row, column].std() * sensor.step)
            added = abs(a.contrast) * a.height
            ratios = added / a.local, target.speed, added / temporal
            rows.append((t + 1, a.target + 1, a.x, a.y, target.sigma, *ratios))
    return rows


def _draw_truth(seen: list[list[Appearance]], shape: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Masks and centroid masks, [T, H, W] bool."""
    masks, centroids = np.zeros(shape, bool), np.zeros(shape, bool)
    for mask, centroid, present in zip(masks, centroids, seen, strict=True):
        for a in (a for a in present if a.counted):
            mask[a.place] |= a.shape > MASK_LEVEL * a.shape.max()
            mask[a.pixel] = centroid[a.pixel] = True
    return masks, centroids


def _add_targets(image: np.ndarray, present: list[Appearance], sensor: SensorArray) -> None:
    """Write the light of the targets over the frame [H, W] without them, in place."""
    if not present:
        return
    light = np.zeros(image.shape, np.float32)
    for a in present:
        light[a.place] += a.contrast * a.shape
    if sensor.shot:
        light += sensor.photon_noise(light)
    for a in present:
        image[a.place] = sensor.quantise(a.background + a.response * light[a.place])
