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
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from datasets.images import write_image
from datasets.simulator import FAMILIES, PRESETS, Simulated, read_recipe, simulate
from datasets.unfinished import unfinished
from utils.errors import InputError, run_command
from utils.files import writable_folder, write_text
from utils.logs import progress
from utils.options import Parser, folder, number_above
from utils.processes import in_processes

SPLITS = ("train", "test")
UNFINISHED = ".unfinished-simulation"  # folder below --out, until all is made
PIXELS = 2**34  # of a sequence; its frames and masks take three bytes each in memory, or four
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
    """PNGs under images, masks and masks_centroid."""
    kinds = {
        "images": simulated.frames,
        "masks": simulated.masks * np.uint8(255),
        "masks_centroid": simulated.centroids * np.uint8(255),
    }
    for kind, stack in kinds.items():
        (folder / kind).mkdir(parents=True)
        for number, image in enumerate(stack, start=1):
            write_image(folder / kind / f"{number:05d}.png", image)


def write_dataset(
    out: Path, train: int, test: int, frames: int, size: int, seed: int, recipe: dict, workers: int
) -> None:
    """Simulate and write a whole data set, which then takes the place of the one in `out`.

    Raises InputError, and leaves all as it is, if `out` holds anything but a data set of ours or
    another process writes to it.
    """
    former_set(out)
    jobs = plan(train, test)
    truth = io.StringIO()
    writer = csv.writer(truth, lineterminator="\n")
    writer.writerow(TRUTH_COLUMNS)
    with unfinished(out / UNFINISHED) as made:
        make = partial(make_sequence, out=made, frames=frames, size=size, seed=seed, recipe=recipe)
        with (
            progress(len(jobs) * frames, "frame", "simulate") as bar,
            in_processes(make, jobs, workers) as results,
        ):
            for rows in results:
                writer.writerows(rows)
                bar.update(frames)
        write_text(made / "truth.csv", truth.getvalue())
        for split in SPLITS:
            names = [job.name for job in jobs if job.split == split]
            lines = [f"{name}/{f:05d}.png\n" for name in names for f in range(1, frames + 1)]
            if lines:
                write_text(made / f"{split}.txt", "".join(lines))
        replace_set(made, out, [job.name for job in jobs])


def former_set(out: Path) -> list[Path]:
    """The lists and sequences in `out` of a data set that this command wrote, lists first.

    Raises InputError for a folder that holds anything else, by the header of its truth.csv.
    """
    mark = out / "truth.csv"
    header = mark.read_bytes().partition(b"\n")[0].strip() if mark.is_file() else None
    places = [place for place in out.iterdir() if place.name != UNFINISHED]
    if places and header != ",".join(TRUTH_COLUMNS).encode():
        raise InputError(f"{out}: not empty and no simulated data set; choose another --out")
    lists = [path for split in SPLITS if (path := out / f"{split}.txt").is_file()]
    pattern = re.compile(r"\.?Sequence[1-9]\d*")  # with a dot: left by a run that was killed
    sequences = [place for place in places if pattern.fullmatch(place.name)]
    for path in sequences:
        if not path.is_dir():
            raise InputError(f"{path}: is no folder of a sequence; move it away")
    return lists + sequences


def replace_set(made: Path, out: Path, sequences: list[str]) -> None:
    """Put a data set in the place of the one in `out`, which ends up below `made`.

    The lists go first and come last, so that a torn set is never read; truth.csv, which marks the
    folder as ours, is there all the time.
    """
    former = made / "former"
    former.mkdir()
    for place in former_set(out):
        place.rename(former / place.name)
    lists = [path.name for split in SPLITS if (path := made / f"{split}.txt").is_file()]
    for name in ("truth.csv", *sequences, *lists):
        (made / name).rename(out / name)


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.synthetic", description=__doc__)
    count = number_above(0, int, or_equal=True, most=100_000)
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
        "--frames", type=number_above(0, int, most=100_000), default=100, help="frames a sequence"
    )
    parser.add_argument(
        "--size", type=number_above(15, int, most=8192), default=256,
        help="height and width in pixels",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=number_above(0, int, or_equal=True), default=0, help="same seed, same bytes"
    )
    parser.add_argument(
        "--workers", type=number_above(0, int, or_equal=True, most=1024),
        default=os.cpu_count() or 1, help="processes; changes no byte",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    recipe = read_recipe(options.preset)
    if options.scene:
        recipe["scene"]["families"] = {options.scene: 1}
    if options.train + options.test < 1:
        raise InputError("--train 0 --test 0: nothing to simulate")
    if options.frames * options.size**2 > PIXELS:
        raise InputError(
            f"--frames {options.frames} --size {options.size}: a sequence is held in memory, with "
            f"room for {PIXELS // options.size**2} frames of this size at most"
        )
    out = writable_folder(options.out, "choose another --out")
    write_dataset(
        out, options.train, options.test, options.frames, options.size, options.seed, recipe,
        options.workers,
    )  # fmt: skip
    print(f"wrote {options.train} training and {options.test} test sequences to {out}")


if __name__ == "__main__":
    run_command(main)
