"""A small simulator of infrared sequences with moving point targets.

    python -m datasets.synthetic --out data/demo --train 12 --test 4 --frames 60 --size 64 --seed 0

writes the NUDT-MIRSDT layout (`<sequence>/images`, `masks`, `masks_centroid`, `train.txt`,
`test.txt`) and `truth.csv`, which `--dataset Synthetic` reads. A still camera looks at a cloudy
background; targets fly straight through it. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.special import erf

from utils.errors import InputError, run_command
from utils.files import writable_folder, write_text
from utils.logs import progress
from utils.options import Parser, folder, number_above

TRUTH_COLUMNS = ("sequence", "frame", "target", "x", "y", "sigma", "snr", "speed")
MASK_LEVEL = 0.3  # a mask holds the pixels above this share of the target's peak
LOCAL_RADIUS = 10  # the local background of a target reaches this far, in pixels


@dataclass(frozen=True)
class Target:
    """A point target on a straight path: position (x, y) in pixels at frame 0, velocity in pixels
    a frame, sigma of its point spread function in pixels, peak contrast in grey levels."""

    x: float
    y: float
    dx: float
    dy: float
    sigma: float
    contrast: float


def power_law_texture(size: int, beta: float, rng: np.random.Generator) -> np.ndarray:
    """[size, size], mean 0, std 1, power spectrum 1 / f^beta: clouds and terrain have 2 to 3.5
    (the usual range for natural infrared backgrounds)."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = np.inf  # no mean
    white = np.fft.rfft2(rng.standard_normal((size, size)))
    texture = np.fft.irfft2(white * frequency ** (-beta / 2), s=(size, size))
    return texture / texture.std()


def point_spread(x: float, y: float, sigma: float, size: int) -> np.ndarray:
    """A Gaussian spot of peak 1 centred at (x, y), integrated over each pixel: [size, size]."""

    def over_pixels(centre: float) -> np.ndarray:
        edges = np.arange(size + 1) - 0.5 - centre
        return np.diff(erf(edges / (sigma * np.sqrt(2)))) / 2

    peak = erf(0.5 / (sigma * np.sqrt(2))) ** 2  # a spot centred on a pixel
    return np.outer(over_pixels(y), over_pixels(x)) / peak


def draw_targets(size: int, frames: int, rng: np.random.Generator) -> list[Target]:
    """One or two targets whose paths stay near the frame."""
    targets = []
    for _ in range(rng.integers(1, 3)):
        middle = rng.uniform(0.2 * size, 0.8 * size, 2)  # where it is half-way
        speed, heading = rng.uniform(0.3, 1.0), rng.uniform(0, 2 * np.pi)
        dx, dy = speed * np.cos(heading), speed * np.sin(heading)
        x, y = middle - np.array([dx, dy]) * frames / 2
        targets.append(Target(x, y, dx, dy, rng.uniform(0.6, 1.1), rng.uniform(25, 60)))
    return targets


def simulate(size: int, frames: int, rng: np.random.Generator):
    """One sequence: frames uint8, masks, centroid masks (bool), all [T, H, W], and truth rows.

    A truth row is (frame from 1, target from 1, x, y, sigma, snr, speed); snr is the peak contrast
    over the spatial standard deviation of the target's local background.
    """
    background = rng.uniform(80, 130) + rng.uniform(6, 16) * power_law_texture(
        size, rng.uniform(2.2, 3.2), rng
    )
    noise = rng.uniform(0.2, 0.6)  # grey levels, from frame to frame
    targets = draw_targets(size, frames, rng)
    images = np.empty((frames, size, size), np.uint8)
    masks = np.zeros((frames, size, size), bool)
    centroids = np.zeros_like(masks)
    rows = []
    for t in range(frames):
        scene = background.copy()
        for number, target in enumerate(targets, start=1):
            x, y = target.x + target.dx * t, target.y + target.dy * t
            column, row = round(x), round(y)
            if not (0 <= column < size and 0 <= row < size):
                continue
            spot = point_spread(x, y, target.sigma, size)
            scene += target.contrast * spot
            masks[t] |= spot > MASK_LEVEL
            masks[t, row, column] = centroids[t, row, column] = True
            local = background[
                max(0, row - LOCAL_RADIUS) : row + LOCAL_RADIUS + 1,
                max(0, column - LOCAL_RADIUS) : column + LOCAL_RADIUS + 1,
            ]
            snr, speed = target.contrast / local.std(), np.hypot(target.dx, target.dy)
            rows.append((t + 1, number, x, y, target.sigma, snr, speed))
        images[t] = np.clip(scene + noise * rng.standard_normal(scene.shape) + 0.5, 0, 255)
    return images, masks, centroids, rows


def write_sequence(folder: Path, images, masks, centroids) -> None:
    """PNGs under images, masks and masks_centroid; an earlier folder of the name is replaced."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    kinds = {"images": images, "masks": masks * np.uint8(255)}
    kinds["masks_centroid"] = centroids * np.uint8(255)
    for kind, stack in kinds.items():
        (temporary / kind).mkdir(parents=True)
        for number, image in enumerate(stack, start=1):
            content = cv2.imencode(".png", image)[1].tobytes()
            (temporary / kind / f"{number:05d}.png").write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def write_dataset(out: Path, train: int, test: int, frames: int, size: int, seed: int) -> None:
    """Simulate and write a whole data set; the lists come last, so a torn one is never read."""
    lists: dict[str, list[str]] = {"train": [], "test": []}
    truth = io.StringIO()
    writer = csv.writer(truth, lineterminator="\n")
    writer.writerow(TRUTH_COLUMNS)
    for remains in out.glob(".Sequence*"):  # of a run that was killed
        shutil.rmtree(remains)
    for split in lists:
        (out / f"{split}.txt").unlink(missing_ok=True)
    write_text(out / "truth.csv", truth.getvalue())  # marks the folder as ours
    bar = progress((train + test) * frames, "frame", "simulate")
    for number in range(train + test):
        split = "train" if number < train else "test"
        name = f"Sequence{number + 1}"
        rng = np.random.default_rng([seed, number])
        images, masks, centroids, rows = simulate(size, frames, rng)
        write_sequence(out / name, images, masks, centroids)
        for frame, target, *values in rows:
            writer.writerow([name, frame, target, *(f"{v:.3f}" for v in values)])
        lists[split] += [f"{name}/{frame:05d}.png" for frame in range(1, frames + 1)]
        bar.update(frames)
    bar.close()
    write_text(out / "truth.csv", truth.getvalue())
    for split, lines in lists.items():
        write_text(out / f"{split}.txt", "\n".join(lines) + "\n")


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.synthetic", description=__doc__.split("\n\n")[0])
    count = number_above(0, int, or_equal=True)
    parser.add_argument(
        "--out", type=folder, required=True, help="folder to write; made if missing"
    )
    parser.add_argument("--train", type=count, default=12, help="training sequences")
    parser.add_argument("--test", type=count, default=4, help="test sequences")
    parser.add_argument("--frames", type=number_above(0, int), default=60, help="frames a sequence")
    parser.add_argument(
        "--size", type=number_above(15, int), default=64, help="height and width in pixels"
    )
    parser.add_argument("--seed", type=count, default=0, help="same seed, same bytes")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def check_options(options: argparse.Namespace) -> None:
    if options.train + options.test < 1:
        raise InputError("--train 0 --test 0: nothing to simulate")
    out = writable_folder(options.out, "choose another --out")
    if any(out.iterdir()) and not (out / "truth.csv").is_file():
        raise InputError(f"{out}: not empty and no simulated data set; choose another --out")


def main() -> None:
    options = build_parser().parse_args()
    check_options(options)
    write_dataset(
        options.out, options.train, options.test, options.frames, options.size, options.seed
    )
    print(f"wrote {options.train} training and {options.test} test sequences to {options.out}")


if __name__ == "__main__":
    run_command(main)
