"""Read a data set through and print what it holds, and every fault with its path.

    python -m datasets.check --dataset NUDT-MIRSDT --datapath DIR

A split whose list is not there is named and passed over. Exit status 0 if all is well, 2 if there
are faults or no split at all.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from datasets.images import read_frame, read_mask
from datasets.layouts import Layout, find_layout, layout_names
from datasets.sequences import Sequence, list_sequences, open_sequence
from utils.errors import InputError, run_command
from utils.logs import progress
from utils.options import Parser, folder
from utils.reports import text_table


@dataclass
class Findings:
    """What one split holds, as far as it can be read."""

    sequences: int = 0
    frames: int = 0
    targets: int = 0
    masked: int = 0  # sequences with masks
    sizes: Counter = field(default_factory=Counter)
    pixels: int = 0
    total: float = 0.0
    squares: float = 0.0
    faults: list[str] = field(default_factory=list)

    def row(self, split: str) -> tuple[str, ...]:
        mean = self.total / self.pixels if self.pixels else float("nan")
        variance = self.squares / self.pixels - mean**2 if self.pixels else float("nan")
        sizes = ", ".join(f"{h} x {w}" for (h, w), _ in self.sizes.most_common(4))
        more = f" and {len(self.sizes) - 4} more" if len(self.sizes) > 4 else ""
        return (
            split,
            str(self.sequences),
            str(self.frames),
            sizes + more or "-",
            str(self.targets) if self.masked else "no masks",
            f"{mean:.4f}",
            f"{max(variance, 0) ** 0.5:.4f}",
        )


COLUMNS = ("split", "sequences", "frames", "sizes (H x W)", "targets", "mean", "std")


def check_split(layout: Layout, root: Path, split: str) -> Findings:
    """Read every frame and mask of a split."""
    found = Findings()
    names = list_sequences(layout, root, split)
    opened = []
    for name in names:
        sequence, faults = open_sequence(layout, root, split, name)
        found.faults += faults
        if sequence is not None:
            opened.append(sequence)
    without = [s for s in opened if not s.has_masks]
    if 0 < len(without) < len(opened):
        found.faults += [f"{s.frame_paths[0].parent}: no masks, but others have" for s in without]
    with progress(sum(map(len, opened)), "frame", f"{split} split") as bar:
        for sequence in opened:
            _read_through(sequence, found, bar)
    return found


def _read_through(sequence: Sequence, found: Findings, bar) -> None:
    """Add what one sequence holds to the findings."""
    found.sequences += 1
    found.masked += sequence.has_masks
    found.faults += missing_numbers(sequence.frame_paths)
    first = None  # the size of the first frame
    for path in sequence.frame_paths:
        bar.update()
        frame = _read(read_frame, path, found)
        if frame is None:
            continue
        if first is None:
            first, depth = frame.shape, frame.dtype
            found.sizes[first] += 1
        elif frame.dtype != depth:
            found.faults.append(f"{path}: {frame.dtype}, the sequence began with {depth}")
        elif frame.shape != first:
            found.faults.append(f"{path}: {_size(frame.shape)}, the sequence began {_size(first)}")
        found.frames += 1
        found.pixels += frame.size
        found.total += float(frame.sum(dtype=np.float64))
        found.squares += float(np.square(frame, dtype=np.float64).sum())
    for paths in dict.fromkeys((sequence.mask_paths, sequence.centroid_paths)):
        for path in paths or ():
            mask = _read(read_mask, path, found)
            if mask is None:
                continue
            if first and mask.shape != first:
                found.faults.append(f"{path}: mask {_size(mask.shape)}, frames {_size(first)}")
            if paths is sequence.centroid_paths:
                found.targets += cv2.connectedComponents(mask.astype(np.uint8))[0] - 1


def missing_numbers(paths: tuple[Path, ...]) -> list[str]:
    """A line for every gap in the numbers of frames that are otherwise consecutive."""
    numbers = [int(n[-1]) if (n := re.findall(r"\d+", p.stem)) else None for p in paths]
    if len(paths) < 2 or None in numbers:
        return []
    gaps = [i for i in range(1, len(paths)) if numbers[i] != numbers[i - 1] + 1]
    if len(gaps) > len(paths) / 10:  # not numbered frame by frame
        return []
    return [
        f"{paths[i]}: follows {paths[i - 1].name}: frames between them are missing" for i in gaps
    ]


def _read(reader, path: Path, found: Findings) -> np.ndarray | None:
    try:
        return reader(path)
    except InputError as error:
        found.faults.append(str(error))
        return None


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def check_dataset(layout: Layout, root: Path) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of the table and all faults. Raises InputError if no split can be opened."""
    rows, faults, missing, names = [], [], [], {}
    for split in layout.lists:
        try:
            names[split] = list_sequences(layout, root, split)
        except InputError as error:
            listed = (root / layout.list_of(split)).is_file()
            (faults if listed else missing).append(str(error))
            continue
        found = check_split(layout, root, split)
        rows.append(found.row(split))
        faults += found.faults
    if not rows:
        raise InputError((faults + missing)[0])
    if (root / layout.list_of("train")).is_file():
        faults += _shared_with_training(layout, root, names)
    return rows, faults


def _shared_with_training(layout: Layout, root: Path, names: dict[str, list[str]]) -> list[str]:
    """A line for every sequence that the train list shares with another one."""
    training = names.pop("train", [])
    return [
        f"{root / layout.lists[split]}: {name} is in the train list too"
        for split in names
        for name in names[split]
        if name in training and ("{folder}" not in layout.frames or not layout.folders)
    ]


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.check", description=__doc__)
    parser.add_argument(
        "--dataset", required=True, metavar="NAME",
        help=f"{', '.join(layout_names())}, or a layout of your own as FILE.yaml",
    )  # fmt: skip
    parser.add_argument("--datapath", type=folder, required=True, help="folder of the data set")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    layout = find_layout(options.dataset)
    rows, faults = check_dataset(layout, options.datapath)
    print(f"{layout.name} at {options.datapath}\n")
    print(text_table([COLUMNS, *rows]))
    unread = [split for split in layout.lists if split not in {row[0] for row in rows}]
    if unread:
        print(f"\nnothing to read of the splits: {', '.join(unread)}")
    if faults:
        print(f"\n{len(faults)} fault(s):")
        print("\n".join(f"  {fault}" for fault in faults))
        sys.exit(2)
    print("\nno faults")


if __name__ == "__main__":
    run_command(main)
