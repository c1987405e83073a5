"""Look at the cache of decoded frames, clear it, and measure how fast clips are read.

    python -m datasets.cache                        what the cache holds, by data set
    python -m datasets.cache --clear                remove all of it
    python -m datasets.cache --clear --unused 30    remove what no run has used for 30 days
    python -m datasets.cache --benchmark --dataset NAME --datapath DIR --cache disk

The last one reads clips as train.py does, in batches and on one core, and prints clips/s.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch

from datasets.caching import MODES, SUFFIX, cache_sequences, one_builder
from datasets.clips import ClipDataset, ClipSampler, load_batches
from datasets.entries import HEADER, read_header
from datasets.layouts import find_layout, layout_names
from datasets.sequences import open_split
from utils.devices import set_up_arithmetic
from utils.errors import InputError, run_command
from utils.files import cache_folder
from utils.logs import progress
from utils.options import (
    Parser,
    add_cache,
    add_clips,
    add_data,
    number_above,
)
from utils.reports import text_table

DAY = 86400  # seconds


class Entry(NamedTuple):
    """A file of the cache: what it was made of (None: its header is not whole), bytes, last use."""

    path: Path
    dataset: str | None
    frames: int
    size: int
    used: float


def list_entries(place: Path) -> Iterator[Entry]:
    """Every entry below the folder of the cache; none where there is no folder."""
    for path in sorted(place.glob(f"*{SUFFIX}")):
        try:
            state = path.stat()
            with open(path, "rb") as file:
                about = read_header(file.read(HEADER))
        except FileNotFoundError:  # cleared by another process meanwhile
            continue
        except ValueError:
            about = {"dataset": None, "frames": 0}
        yield Entry(path, about["dataset"], about["frames"], state.st_size, state.st_mtime)


def clear(place: Path, unused: float) -> str:
    """Remove the entries that no run has begun with for so many days; what that was in words.

    Runs that go on keep what they have mapped.
    """
    old = [e for e in list_entries(place) if e.used <= time.time() - unused * DAY or not e.dataset]
    if place.is_dir():
        with one_builder(place):  # and sweeps up what killed builders have left
            for entry in old:
                entry.path.unlink(missing_ok=True)
    return f"{place}: removed {len(old)} sequences, {_megabytes(old)} MB"


def show(place: Path) -> str:
    """The entries as a table, a row a data set."""
    entries = list(list_entries(place))
    rows = [("data set", "sequences", "frames", "MB", "last used")]
    for dataset in dict.fromkeys(e.dataset for e in entries):
        of = [e for e in entries if e.dataset == dataset]
        last = datetime.fromtimestamp(max(e.used for e in of))
        frames = str(sum(e.frames for e in of))
        rows.append(
            (dataset or "(torn)", str(len(of)), frames, _megabytes(of), f"{last:%Y-%m-%d %H:%M}")
        )
    table = text_table(rows) + "\n\n" if entries else ""
    return f"{table}{place}: {len(entries)} sequences, {_megabytes(entries)} MB"


def _megabytes(entries: list[Entry]) -> str:
    return f"{sum(e.size for e in entries) / 1e6:.1f}"


def measure(options: argparse.Namespace) -> str:
    """Clips/s of the training list, read for `seconds` after a first epoch's batch; in words."""
    layout = find_layout(options.dataset)
    listed = open_split(layout, options.datapath, "train", masks_due=True)
    resized = [s.resized(layout.train_size, options.mask_resize) for s in listed]
    began = time.perf_counter()
    sequences, warnings = cache_sequences(resized, options.cache, options.cache_dir)
    opened = time.perf_counter() - began
    rate = options.sample_rate or layout.sample_rate
    sampler = ClipSampler([len(s) for s in sequences], options.seqlen, rate, seed=0)
    batches, done = _endless(sequences, sampler, options), 0
    first = next(batches)
    began, worked = time.perf_counter(), time.process_time()
    with progress(0, "clip", "read") as bar:
        while (spent := time.perf_counter() - began) < options.seconds:
            clips = len(next(batches).draws)
            bar.update(clips)
            done += clips
    worked = time.process_time() - worked
    T, h, w = first.masks.shape[1:]
    H, W = sequences[0].size
    lines = [f"warning: {warning}" for warning in warnings]
    lines.append(
        f"--cache {options.cache}: {done / worked:.0f} clips a second of processor time, "
        f"{done / spent:.0f} by the clock; clips of {T} x {h} x {w} in batches of "
        f"{options.batch_size} from {len(sequences)} sequences of {H} x {W}, which took "
        f"{opened:.1f} s to open"
    )
    return "\n".join(lines)


def _endless(sequences, sampler: ClipSampler, options: argparse.Namespace) -> Iterator:
    """The batches of one epoch after the other."""
    for epoch in count():
        clips = ClipDataset(
            sequences, sampler, epoch, seqlen=options.seqlen, mean=0, std=1,
            patch_size=options.patch_size,
        )  # fmt: skip
        batches = load_batches(clips, options.batch_size, workers=0)
        if not len(batches):
            raise InputError(
                f"an epoch of {len(clips)} clips does not fill one batch of {options.batch_size}: "
                "raise --sample_rate or lower --batch_size"
            )
        yield from batches


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.cache", description=__doc__)
    add_cache(parser, MODES)
    group = parser.add_argument_group("what to do; without any of these: list what is there")
    group.add_argument("--clear", action="store_true", help="remove entries")
    group.add_argument(
        "--unused", type=number_above(0, or_equal=True), default=0, metavar="DAYS",
        help="with --clear: only those that no run has begun with for so long",
    )  # fmt: skip
    group.add_argument("--benchmark", action="store_true", help="measure clips/s of a data set")
    group.add_argument(
        "--seconds", type=number_above(0), default=5, help="how long the benchmark reads"
    )
    add_data(parser, layout_names(), seqlen=40)
    add_clips(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    if options.benchmark:
        set_up_arithmetic()
        torch.set_num_threads(1)
        print(measure(options))
        return
    place = options.cache_dir or cache_folder()
    print(clear(place, options.unused) if options.clear else show(place))


if __name__ == "__main__":
    run_command(main)
