"""Box annotations as masks and centroid masks, for data sets that come with boxes only.

    python -m datasets.boxes SRC DST
    python -m datasets.boxes instances_01_train2017.json DST --masks 'segmentations/{sequence}'

DST is the data set's root; the second line is for RGBT-Tiny. SRC is one of
  FILE.json          COCO: images with file_name, width, height; annotations with image_id, bbox
  FILE.xml, FOLDER   Pascal VOC: a file a frame, pixels counted from 1, both corners included
  FILE.csv           columns frame, x, y, width, height (x, y: upper left corner, from 0), and if
                     need be sequence, frame_width, frame_height; four empty cells: no targets

The sequence is the first folder of a frame's file name; for VOC without one, the first folder below
SRC that the .xml file lies in, or else its <folder>; failing all, the name of SRC. Masks are named
as the frames, in PNG. A mask holds the pixels whose centres lie in a box, at least one a box, the
centroid mask the middle one of them. Frames without boxes get empty masks. All folders of masks
appear at the end. Those that are there already must be the same, so that a run that was stopped
can be run again.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.annotations import BOX, Record, choose_reader, to_number
from datasets.images import read_mask, write_image
from utils.errors import InputError, run_command
from utils.files import locked, writable_folder
from utils.logs import progress
from utils.options import Parser, folder, number_above

MOST = 32768  # pixels along a side: OpenCV reads no more than 2^30 in all


@dataclass
class Frame:
    """Size (H, W) of a frame and the pixels [left, right) x [top, bottom) of its boxes."""

    size: tuple[int, int]
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Mask and centroid mask, [H, W] uint8, 0 or 255."""
        mask, centroids = np.zeros(self.size, np.uint8), np.zeros(self.size, np.uint8)
        for left, right, top, bottom in self.boxes:
            mask[top:bottom, left:right] = 255
            centroids[(top + bottom) // 2, (left + right) // 2] = 255
        return mask, centroids


Frames = dict[str, dict[str, Frame]]  # sequence to stem to frame
Places = dict[Path, tuple[str, int]]  # folder to its sequence, and whether centroid masks


def box_pixels(entry: str, box: Iterable, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels (left, right, top, bottom) whose centres lie in a box (x, y, width, height).

    Pixel 0 reaches from 0 to 1; right and bottom are not included. What lies outside the frame,
    `size` (H, W), is cut off; of a box between two centres, the pixel of its middle remains.
    Raises InputError, naming `entry`, for a box without area or wholly outside.
    """
    x, y, width, height = (
        to_number(f"{entry}: {name}", v) for name, v in zip(BOX, box, strict=True)
    )
    words = f"{entry}: the box of {width:g} x {height:g} pixels at ({x:g}, {y:g})"
    if width <= 0 or height <= 0:
        raise InputError(f"{words} has no area")
    if x >= size[1] or y >= size[0] or x + width <= 0 or y + height <= 0:
        raise InputError(f"{words} lies outside the frame of {size[0]} x {size[1]}")
    edges = []
    for start, length, most in ((x, width, size[1]), (y, height, size[0])):
        start, stop = max(start, 0), min(start + length, most)
        first, end = math.ceil(start - 0.5), math.ceil(stop - 0.5)
        middle = min(int((start + stop) / 2), most - 1)
        edges += [first, end] if first < end else [middle, middle + 1]
    return tuple(edges)


def collect(
    source: Path, size: tuple[int, int] | None = None, count: int | None = None, part: int = 1
) -> Frames:
    """The frames and boxes of annotations, checked.

    Args:
        source: file or folder, see the top.
        size: (H, W) of frames whose annotations do not say.
        count: frames of a sequence, those that are not named being empty; None: only the named.
        part: which folder of a file name is the sequence, from 1.
    """
    frames: Frames = {}
    default = source.absolute().name if source.is_dir() else source.stem
    for record in choose_reader(source)(source):
        sequence, stem = _split_name(record, part, default)
        measured = _frame_size(record, size)
        of_sequence = frames.setdefault(sequence, {})
        if record.box is None and stem in of_sequence:
            raise InputError(
                f"{record.entry}: a second frame {sequence}/{stem}; if another folder of "
                f"{record.name!r} tells the sequences apart, give its number as --sequence_part"
            )
        frame = of_sequence.setdefault(stem, Frame(measured))
        if frame.size != measured:
            raise InputError(f"{record.entry}: frame size {measured}, before {frame.size}")
        if record.box is not None:
            frame.boxes.append(box_pixels(record.entry, record.box, measured))
    if not frames:
        raise InputError(f"{source}: names no frames")
    for sequence, named in frames.items() if count else ():
        _add_empty(f"{source}: {sequence}", named, count)
    return frames


def _split_name(record: Record, part: int, default: str) -> tuple[str, str]:
    """Sequence and stem of a frame's file name."""
    *folders, leaf = re.split(r"[/\\]", record.name)
    folders = [name for name in folders if name not in ("", ".")]
    if folders and len(folders) < part:
        raise InputError(f"{record.entry}: {record.name!r} has no folder number {part}")
    sequence = folders[part - 1] if folders else default
    stem = re.sub(r"\.[A-Za-z]\w*$", "", leaf)
    for name in (sequence, stem):
        if not name or name.startswith(".") or not name.isprintable():
            raise InputError(f"{record.entry}: {record.name!r} is no file name of a frame")
    return sequence, stem


def _frame_size(record: Record, default: tuple[int, int] | None) -> tuple[int, int]:
    given = [value for value in record.size if value not in (None, "")]
    if not given and default:
        return default
    if len(given) < 2:
        raise InputError(f"{record.entry}: the size of the frame is missing; give --size HxW")
    size = [to_number(f"{record.entry}: size of the frame", value) for value in given]
    if not all(n == int(n) and 0 < n <= MOST for n in size):
        raise InputError(f"{record.entry}: size of the frame: {given}, expected 1 to {MOST} pixels")
    return int(size[0]), int(size[1])


def _add_empty(place: str, frames: dict[str, Frame], count: int) -> None:
    """Add empty frames, so that `count` are there, from 0 if there is a frame 0, or else from 1."""
    odd = [stem for stem in frames if not stem.isdecimal()]
    if odd:
        raise InputError(f"{place}: frame {odd[0]!r} is no number, as --frames needs")
    numbers = {int(stem) for stem in frames}
    first = min(1, *numbers)
    if max(numbers) >= first + count:
        raise InputError(f"{place}: has a frame {max(numbers)}, but --frames is {count}")
    digits, size = min(map(len, frames)), next(iter(frames.values())).size
    for number in set(range(first, first + count)) - numbers:
        frames[f"{number:0{digits}d}"] = Frame(size)


def mask_places(frames: Frames, target: Path, patterns: tuple[str, str]) -> Places:
    """The folders to write."""
    return {
        target / pattern.format(sequence=sequence): (sequence, kind)
        for sequence in frames
        for kind, pattern in enumerate(patterns)
    }


def write_masks(frames: Frames, places: Places) -> None:
    """Write masks and centroid masks; the folders appear when all are whole.

    A folder that holds just what would be written, as a run that was stopped at the very end may
    leave it, stays. Raises InputError if one holds anything else.
    """
    missing = {}
    for path, (sequence, kind) in places.items():
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            missing[path] = path.with_name(f".{path.name}-unfinished")
        elif not _holds(path, frames[sequence], kind):
            raise InputError(f"{path}: is there already; move it away or choose another name")
    try:
        with progress(sum(len(frames[places[p][0]]) for p in missing), "mask", "masks") as bar:
            for path, hidden in missing.items():
                _remove(hidden)  # of a run that was killed
                hidden.mkdir(parents=True)
                sequence, kind = places[path]
                for stem, frame in frames[sequence].items():
                    write_image(hidden / f"{stem}.png", frame.draw()[kind])
                    bar.update()
        for path, hidden in missing.items():
            hidden.rename(path)
    finally:
        for hidden in missing.values():
            _remove(hidden)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _holds(folder: Path, named: dict[str, Frame], kind: int) -> bool:
    """Whether a folder holds these masks and nothing else."""
    if not folder.is_dir() or {p.name for p in folder.iterdir()} != {f"{s}.png" for s in named}:
        return False
    try:
        return all(
            np.array_equal(read_mask(folder / f"{stem}.png"), frame.draw()[kind] > 0)
            for stem, frame in named.items()
        )
    except InputError:  # one of them is no image
        return False


def find_absent(frames: Frames, target: Path, places: Places) -> list[str]:
    """Sequences of which `target` seems to hold no frames; none if it holds no folders at all.

    A folder of the sequence's name counts, there or one folder below, that holds more than masks.
    """

    def others(folder: Path, pattern: str) -> list[Path]:
        return [p for p in folder.glob(pattern) if p not in places and not p.name.startswith(".")]

    folders = (p for p in others(target, "*") + others(target, "*/*") if p.is_dir())
    held = {folder.name for folder in folders if others(folder, "*")}
    return [sequence for sequence in frames if held and sequence not in held]


def frame_size(value: str) -> tuple[int, int]:
    """An argparse `type`: HxW in pixels."""
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", value)
    if not size or not all(0 < int(n) <= MOST for n in size.groups()):
        raise argparse.ArgumentTypeError(f"{value!r}: expected height x width, such as 512x640")
    return int(size[1]), int(size[2])


def pattern(value: str) -> str:
    """An argparse `type`: a folder that holds {sequence}."""
    try:
        holds = value.format(sequence="a") != value.format(sequence="b")
    except (LookupError, ValueError, AttributeError):
        holds = False
    if not holds:
        raise argparse.ArgumentTypeError(f"{value!r}: expected a folder with {{sequence}} in it")
    return value


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.boxes", description=__doc__)
    parser.add_argument("source", type=folder, metavar="SRC", help="the annotations, see above")
    parser.add_argument("target", type=folder, metavar="DST", help="folder to write below")
    parser.add_argument(
        "--masks", type=pattern, default="masks/{sequence}", metavar="PATTERN",
        help="folder of a sequence's masks",
    )  # fmt: skip
    parser.add_argument(
        "--centroids", type=pattern, default="masks_centroid/{sequence}", metavar="PATTERN",
        help="folder of a sequence's centroid masks",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=frame_size, metavar="HxW", help="of frames whose annotations do not say"
    )
    parser.add_argument(
        "--frames", type=number_above(0, int, most=10**6), metavar="N",
        help="frames of every sequence, numbered from 1 (from 0 where there is a frame 0); those "
        "that SRC does not name get empty masks",
    )  # fmt: skip
    parser.add_argument(
        "--sequence_part", type=number_above(0, int), default=1, metavar="N",
        help="which folder of a frame's file name is its sequence",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    masks, centroids = Path(options.masks), Path(options.centroids)
    if masks == centroids or masks in centroids.parents or centroids in masks.parents:
        raise InputError("--masks and --centroids: they need folders of their own, side by side")
    frames = collect(options.source, options.size, options.frames, options.sequence_part)
    target = writable_folder(options.target, "choose another DST")
    places = mask_places(frames, target, (options.masks, options.centroids))
    absent = find_absent(frames, target, places)
    with locked(target):
        write_masks(frames, places)
    named = [frame for of_sequence in frames.values() for frame in of_sequence.values()]
    boxes = sum(len(frame.boxes) for frame in named)
    print(f"wrote {target}: {boxes} boxes in {len(named)} frames of {len(frames)} sequences")
    if absent:
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        names = ", ".join(absent[:3]) + more
        print(f"warning: {target}: holds no folder of the sequence {names}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
