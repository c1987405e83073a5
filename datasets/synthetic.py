"""Simulate a data set of infrared sequences with small moving targets.

    python -m datasets.synthetic --out DIR --train 80 --test 20 --frames 100 --size 256 --seed 0

writes the NUDT-MIRSDT layout (`<sequence>/images`, `masks`, `masks_centroid`, `train.txt`,
`test.txt`) and `truth.csv`, which `--dataset Synthetic` reads. What is simulated is drawn from a
recipe: a preset, or a YAML file that gives what differs from the preset `nudt`
(configs/simulator/nudt.yaml names every key). The same seed gives the same bytes, sequence by
sequence, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from datasets.simulator import PRESETS, Simulated, read_recipe, simulate
from utils.errors import InputError, leave_signals_to_main, run_command
from utils.files import writable_folder, write_text
from utils.logs import progress
from utils.options import Parser, folder, number_above

TRUTH_COLUMNS = (
    *("sequence", "frame", "target", "x", "y", "sigma", "snr", "speed"),
    "temporal_snr",
)


def sequence_name(number: int) -> str:
    """Sequences are counted from 1, training first."""
    return f"Sequence{number + 1}"


def make_sequence(number: int, out: Path, frames: int, size: int, seed: int, recipe: dict) -> list:
    """Simulate and write one sequence; its rows of truth.csv."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, number])
    simulated = simulate(size, frames, recipe, rng)
    name = sequence_name(number)
    write_sequence(out / name, simulated)
    return [
        (name, frame, target, *(f"{value:.3f}" for value in values))
        for frame, target, *values in simulated.truth
    ]


def write_sequence(folder: Path, simulated: Simulated) -> None:
    """PNGs under images, masks and masks_centroid; an earlier folder of the name is replaced."""
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    kinds = {
        "images": simulated.frames,
        "masks": simulated.masks * np.uint8(255),
        "masks_centroid": simulated.centroids * np.uint8(255),
    }
    for kind, stack in kinds.items():
        (temporary / kind).mkdir(parents=True)
        for number, image in enumerate(stack, start=1):
            content = cv2.imencode(".png", image)[1].tobytes()
            (temporary / kind / f"{number:05d}.png").write_bytes(content)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def write_dataset(
    out: Path, train: int, test: int, frames: int, size: int, seed: int, recipe: dict, workers: int
) -> None:
    """Simulate and write a whole data set; the lists come last, so a torn one is never read."""
    for remains in out.glob(".Sequence*"):  # of a run that was killed
        shutil.rmtree(remains)
    for split in ("train", "test"):
        (out / f"{split}.txt").unlink(missing_ok=True)
    write_text(out / "truth.csv", ",".join(TRUTH_COLUMNS) + "\n")  # marks the folder as ours
    make = partial(make_sequence, out=out, frames=frames, size=size, seed=seed, recipe=recipe)
    truth = io.StringIO()
    writer = csv.writer(truth, lineterminator="\n")
    writer.writerow(TRUTH_COLUMNS)
    with progress((train + test) * frames, "frame", "simulate") as bar:
        for rows in _in_order(make, range(train + test), workers):
            writer.writerows(rows)
            bar.update(frames)
    write_text(out / "truth.csv", truth.getvalue())
    for split, numbers in (("train", range(train)), ("test", range(train, train + test))):
        lines = [f"{sequence_name(n)}/{f:05d}.png\n" for n in numbers for f in range(1, frames + 1)]
        if lines:
            write_text(out / f"{split}.txt", "".join(lines))


def _in_order(make, numbers: range, workers: int):
    """make(number) for every number, in order, by `workers` processes."""
    if workers < 2 or len(numbers) < 2:
        yield from map(make, numbers)
        return
    pool = ProcessPoolExecutor(workers, initializer=leave_signals_to_main)
    try:
        yield from pool.map(make, numbers)
    finally:
        pool.shutdown(cancel_futures=True)


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.synthetic", description=__doc__)
    count = number_above(0, int, or_equal=True)
    parser.add_argument("--out", type=folder, required=True, help="folder to write")
    parser.add_argument(
        "--preset", default="nudt", metavar="NAME",
        help=f"{', '.join(PRESETS)}, or a recipe of your own as FILE.yaml",
    )  # fmt: skip
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


def check_options(options: argparse.Namespace) -> None:
    if options.train + options.test < 1:
        raise InputError("--train 0 --test 0: nothing to simulate")
    out = writable_folder(options.out, "choose another --out")
    if any(out.iterdir()) and not (out / "truth.csv").is_file():
        raise InputError(f"{out}: not empty and no simulated data set; choose another --out")


def main() -> None:
    options = build_parser().parse_args()
    recipe = read_recipe(options.preset)
    check_options(options)
    write_dataset(
        options.out, options.train, options.test, options.frames, options.size, options.seed,
        recipe, options.workers,
    )  # fmt: skip
    print(f"wrote {options.train} training and {options.test} test sequences to {options.out}")


if __name__ == "__main__":
    run_command(main)
