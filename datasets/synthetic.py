"""Simulate a data set of infrared sequences with small moving targets.

    python -m datasets.synthetic --out DIR --train 80 --test 20 --frames 100 --size 256 --seed 0

writes the NUDT-MIRSDT layout (`<sequence>/images`, `masks`, `masks_centroid`, `train.txt`,
`test.txt`) and `truth.csv`, which `--dataset Synthetic` reads. What is simulated is drawn from a
recipe: a preset, or a YAML file that gives what differs from the preset `nudt`
(configs/simulator/nudt.yaml names every key). The same seed gives the same bytes, sequence by
sequence, whatever the number of processes; each split draws by itself, so that the test sequences
do not depend on how many there are for training.
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from datasets.images import write_image
from datasets.simulator import FAMILIES, PRESETS, Simulated, read_recipe, simulate
from utils.errors import InputError, run_command
from utils.files import locked, writable_folder, write_text
from utils.logs import progress
from utils.options import Parser, folder, number_above
from utils.processes import in_processes

SPLITS = ("train", "test")
TRUTH_COLUMNS = (
    *("sequence", "frame", "target", "x", "y", "sigma", "snr", "speed"),
    "temporal_snr",
)


class Job(NamedTuple):
    """A sequence to make: its name, its split, and its number in that from 0."""

    name: str
    split: str
    number: int


def plan(train: int, test: int) -> list[Job]:
    """The sequences of a data set; their names count from 1, training first."""
    numbers = [("train", n) for n in range(train)] + [("test", n) for n in range(test)]
    return [Job(f"Sequence{i}", *place) for i, place in enumerate(numbers, start=1)]


def make_sequence(job: Job, out: Path, frames: int, size: int, seed: int, recipe: dict) -> list:
    """Simulate and write one sequence; its rows of truth.csv."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, SPLITS.index(job.split), job.number])
    simulated = simulate(size, frames, recipe, rng)
    write_sequence(out / job.name, simulated)
    return [
        (job.name, frame, target, *(f"{value:.3f}" for value in values))
        for frame, target, *values in simulated.truth
    ]


def write_sequence(folder: Path, simulated: Simulated) -> None:
    """PNGs under images, masks and masks_centroid; the folder appears when it is whole."""
    temporary = folder.with_name(f".{folder.name}")
    kinds = {
        "images": simulated.frames,
        "masks": simulated.masks * np.uint8(255),
        "masks_centroid": simulated.centroids * np.uint8(255),
    }
    for kind, stack in kinds.items():
        (temporary / kind).mkdir(parents=True)
        for number, image in enumerate(stack, start=1):
            write_image(temporary / kind / f"{number:05d}.png", image)
    temporary.rename(folder)


def write_dataset(
    out: Path, train: int, test: int, frames: int, size: int, seed: int, recipe: dict, workers: int
) -> None:
    """Simulate and write a whole data set; the lists come last, so a torn one is never read.

    Raises InputError, and leaves all as it is, if `out` holds anything but a data set of ours or
    another process writes to it.
    """
    jobs = plan(train, test)
    make = partial(make_sequence, out=out, frames=frames, size=size, seed=seed, recipe=recipe)
    truth = io.StringIO()
    writer = csv.writer(truth, lineterminator="\n")
    writer.writerow(TRUTH_COLUMNS)
    with locked(out):
        clear(out)
        write_text(out / "truth.csv", truth.getvalue())  # marks the folder as ours
        with (
            progress(len(jobs) * frames, "frame", "simulate") as bar,
            in_processes(make, jobs, workers) as made,
        ):
            for rows in made:
                writer.writerows(rows)
                bar.update(frames)
        write_text(out / "truth.csv", truth.getvalue())
        for split in SPLITS:
            names = [job.name for job in jobs if job.split == split]
            lines = [f"{name}/{f:05d}.png\n" for name in names for f in range(1, frames + 1)]
            if lines:
                write_text(out / f"{split}.txt", "".join(lines))


def clear(out: Path) -> None:
    """Remove the lists and sequences of a data set that this command wrote, whole or torn.

    Raises InputError for a folder that holds anything else, by the header of its truth.csv.
    """
    mark = out / "truth.csv"
    header = mark.read_bytes().partition(b"\n")[0].strip() if mark.is_file() else None
    if header != ",".join(TRUTH_COLUMNS).encode() and any(out.iterdir()):
        raise InputError(f"{out}: not empty and no simulated data set; choose another --out")
    for split in SPLITS:
        (out / f"{split}.txt").unlink(missing_ok=True)
    for place in out.iterdir():
        if re.fullmatch(r"\.?Sequence[1-9]\d*", place.name) and not place.is_symlink():
            shutil.rmtree(place)


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.synthetic", description=__doc__)
    count = number_above(0, int, or_equal=True)
    parser.add_argument("--out", type=folder, required=True, help="folder to write")
    parser.add_argument(
        "--preset", default="nudt", metavar="NAME",
        help=f"{', '.join(PRESETS)}, or a recipe of your own as FILE.yaml",
    )  # fmt: skip
    parser.add_argument(
        "--scene", choices=tuple(FAMILIES), help="scene of all sequences, in place of the recipe's"
    )
    parser.add_argument("--train", type=count, default=80, help="training sequences")
    parser.add_argument("--test", type=count, default=20, help="test sequences")
    parser.add_argument(
        "--frames", type=number_above(0, int), default=100, help="frames a sequence"
    )
    parser.add_argument(
        "--size", type=number_above(15, int), default=256, help="height and width in pixels"
    )
    parser.add_argument("--seed", type=count, default=0, help="same seed, same bytes")
    parser.add_argument(
        "--workers", type=count, default=os.cpu_count() or 1, help="processes; changes no byte"
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    recipe = read_recipe(options.preset)
    if options.scene:
        recipe["scene"]["families"] = {options.scene: 1}
    if options.train + options.test < 1:
        raise InputError("--train 0 --test 0: nothing to simulate")
    out = writable_folder(options.out, "choose another --out")
    write_dataset(
        out, options.train, options.test, options.frames, options.size, options.seed, recipe,
        options.workers,
    )  # fmt: skip
    print(f"wrote {options.train} training and {options.test} test sequences to {out}")


if __name__ == "__main__":
    run_command(main)
