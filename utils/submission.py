"""Submission files of the SatVideoIRSTD challenge: written, read, and checked on both ways.

One `<sequence>.txt` a sequence, zipped flat. A line a frame: its number (5 digits, from 00001),
3 spaces, how many targets, 3 spaces, then for each its track (0: none), 5 spaces, a coordinate,
2 spaces, the other one, 3 spaces; two decimals, blanks at the end cut off, every line ended by LF.
Source: what the published converter writes.

In memory the targets of a frame are rows (track, x, y), an array [n, 3] or tuples; x counts columns
and y rows, from 0 at the centre of the top left pixel.
"""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import InputError, nearest
from utils.files import writable_folder, written_whole

ORDERS = ("row_column", "x_y")
MOST_BYTES = 64 * 2**20  # of one sequence's file, unpacked: 2 million targets
# RuntimeError: encrypted, or packed in a way that Python does not know.
_NOT_READABLE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError),
    *(struct.error, UnicodeDecodeError, OverflowError),
)
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?")
_WHOLE = re.compile(r"\d{1,9}")


class Extent(NamedTuple):
    """What a sequence's file must cover: so many frames of height x width pixels."""

    frames: int
    height: int
    width: int


class SubmissionWriter:
    """An observer of an evaluation that collects targets and writes them when all is seen.

    It is called with (sequence, frame index from 0, probability [H, W]) for every frame.

    Args:
        path: the zip file to write.
        find: a map's targets, in any form.
        number: those of all frames of a sequence, as rows (track, x, y) by frame.
        order: one of ORDERS.
    """

    def __init__(self, path: Path, find: Callable, number: Callable, order: str = ORDERS[0]):
        writable_folder(path.parent, "name another file with --submission FILE.zip")
        self.path, self.find, self.number, self.order = path, find, number, order
        self.targets: dict[str, list[np.ndarray]] = {}
        self._found: list = []

    def __call__(self, sequence, index: int, probability: np.ndarray) -> None:
        if index == 0:
            self._found = []
        self._found.append(self.find(probability))
        if index == len(sequence) - 1:
            self.targets[sequence.name] = self.number(self._found)

    def write(self, sequences: Sequence) -> Path:
        """Write the file, once every one of the sequences was seen; the path."""
        write_submission(self.path, self.targets, extents_of(sequences), self.order)
        return self.path


def extents_of(sequences: Sequence) -> dict[str, Extent]:
    """What a submission for these sequences must cover, by name."""
    return {s.name: Extent(len(s), *s.size) for s in sequences}


def write_submission(
    path: Path,
    targets: Mapping[str, Sequence],
    extents: Mapping[str, Extent],
    order: str = ORDERS[0],
) -> None:
    """Write the targets, by sequence and frame, as a zip file that appears whole or not at all.

    The files are read back and checked before they are zipped. The same targets give the same
    bytes. Raises InputError for what `read_submission` would refuse.
    """
    texts = {f"{name}.txt": format_sequence(frames, order) for name, frames in targets.items()}
    _check_names(path, list(texts), extents)
    for name, extent in extents.items():
        parse_sequence(texts[f"{name}.txt"], f"{path}, {name}.txt", extent, order)
    with written_whole(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, text in texts.items():
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, text, zipfile.ZIP_DEFLATED)


def format_sequence(frames: Sequence, order: str = ORDERS[0]) -> str:
    """The file of one sequence: targets (track, x, y) by frame, from its first frame on."""
    lines = []
    for i, targets in enumerate(frames, start=1):
        line = f"{i:05d}   {len(targets)}   "
        for track, x, y in targets:
            first, second = (y, x) if order == "row_column" else (x, y)
            line += f"{int(track)}     {first:.2f}  {second:.2f}   "
        lines.append(line.rstrip() + "\n")
    return "".join(lines)


def read_submission(
    path: str | Path, extents: Mapping[str, Extent], order: str = ORDERS[0]
) -> dict[str, list[np.ndarray]]:
    """The targets [n, 3] (track, x, y) of every frame, by sequence, from a zip file or a folder.

    Nothing is unpacked to disk. Raises InputError for what is no such file or folder, nested or
    surplus or missing files, and for what `parse_sequence` refuses.
    """
    path = Path(path)
    targets = {}
    for file, content in _contents(path, extents):
        where = f"{path / file if path.is_dir() else f'{path}, {file}'}"
        try:
            text = content.decode("ascii")
        except UnicodeDecodeError:
            raise InputError(f"{where}: not a text file of digits and blanks") from None
        name = file.removesuffix(".txt")
        targets[name] = parse_sequence(text, where, extents[name], order)
    return targets


def parse_sequence(text: str, where: str, extent: Extent, order: str) -> list[np.ndarray]:
    """The targets [n, 3] (track, x, y) of every frame of one sequence's file.

    Blanks may be more or fewer than written by us. Raises InputError, naming `where` and the line,
    for a frame that is missing, surplus or out of order, a count that is not that of its targets,
    a track twice in one frame, numbers that are not finite or outside the frame, other line ends.
    """
    if "\r" in text:
        raise InputError(f"{where}: lines end in CR LF; expected LF alone: convert the file")
    if text and not text.endswith("\n"):
        raise InputError(f"{where}: the last line does not end in LF: the file may be truncated")
    lines = text.split("\n")[:-1]
    if len(lines) > extent.frames:
        raise InputError(
            f"{where}: {len(lines)} lines, but the sequence has {extent.frames} frames"
        )
    frames = [
        _parse_line(line, f"{where}, line {i}", i, order) for i, line in enumerate(lines, start=1)
    ]
    if len(frames) < extent.frames:
        raise InputError(
            f"{where}: frame {len(frames) + 1:05d} is missing: expected a line for each of the "
            f"{extent.frames} frames, those without targets too"
        )
    _check_inside(frames, where, extent, order)
    return frames


def _parse_line(line: str, where: str, number: int, order: str) -> np.ndarray:
    words = line.split()
    if not words or words[0] != f"{number:05d}":
        said = repr(words[0][:20]) if words else "an empty line"
        raise InputError(f"{where}: {said}, expected frame {number:05d}")
    if len(words) < 2 or not _WHOLE.fullmatch(words[1]):
        raise InputError(f"{where}: expected the number of targets after the frame's")
    count, rest = int(words[1]), words[2:]
    if len(rest) != 3 * count:
        raise InputError(
            f"{where}: says {count} targets, which take 3 numbers each (track and coordinates), "
            f"but {len(rest)} numbers follow"
        )
    for place, word in enumerate(rest):
        what, form = ("track", _WHOLE) if place % 3 == 0 else ("coordinate", _NUMBER)
        if not form.fullmatch(word):
            wanted = "a whole number from 0" if what == "track" else "a finite number"
            raise InputError(f"{where}: {what} {word[:20]!r}: expected {wanted}")
    targets = np.array(rest, float).reshape(count, 3)
    tracks = targets[targets[:, 0] > 0, 0]
    if len(np.unique(tracks)) < len(tracks):
        values, times = np.unique(tracks, return_counts=True)
        raise InputError(f"{where}: track {values[times > 1][0]:.0f} is named twice in one frame")
    return targets if order == "x_y" else targets[:, [0, 2, 1]]


def _check_inside(frames: list[np.ndarray], where: str, extent: Extent, order: str) -> None:
    """InputError for a target outside the frame, with a hint if the coordinates look swapped."""
    size = np.array([extent.width, extent.height])
    for i, targets in enumerate(frames, start=1):
        outside = ~_inside(targets[:, 1:], size)
        if outside.any():
            _, x, y = targets[outside][0]
            swapped = all(_inside(t[:, :0:-1], size).all() for t in frames)
            other = ORDERS[1 - ORDERS.index(order)]
            hint = f"; all lie inside with --coordinate_order {other}" if swapped else ""
            raise InputError(
                f"{where}, line {i}: row {y:.2f}, column {x:.2f} is outside the frame of "
                f"{extent.height} x {extent.width} pixels (rows x columns){hint}"
            )


def _inside(places: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Which places [n, 2] lie on a pixel of a frame of that size; pixels reach 0.5 around."""
    return ((places >= -0.5) & (places <= size - 0.5)).all(axis=1)


def _contents(path: Path, extents: Mapping[str, Extent]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files of a submission, in the order of the sequences."""
    if path.is_dir():
        shown = [p.name for p in path.iterdir() if not p.name.startswith(".")]
        _check_names(path, sorted(shown), extents)
        for name in extents:
            file = path / f"{name}.txt"
            if not file.is_file():
                raise InputError(f"{file}: not a file")
            _check_bytes(file, file.stat().st_size)
            yield file.name, file.read_bytes()
        return
    if not path.exists():
        raise InputError(f"{path}: no such file; --score takes a zip file or a folder")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(path, archive.namelist(), extents)
            for name in extents:
                entry = archive.getinfo(f"{name}.txt")
                _check_bytes(f"{path}, {entry.filename}", entry.file_size)
                yield entry.filename, archive.read(entry)
    except _NOT_READABLE as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not a zip file that can be read ({reason}); expected one, or a folder of "
            "<sequence>.txt"
        ) from None


def _check_bytes(where: Path | str, size: int) -> None:
    if size > MOST_BYTES:
        raise InputError(f"{where}: {size} bytes; expected at most {MOST_BYTES} in one sequence")


def _check_names(path: Path, files: list[str], extents: Mapping[str, Extent]) -> None:
    """InputError unless there is one `<sequence>.txt` for every sequence and nothing else."""
    wanted = {f"{name}.txt" for name in extents}
    seen = set()
    for file in files:
        if "/" in file or "\\" in file:
            raise InputError(f"{path}: holds {file[:100]!r}: expected the files without folders")
        if file in seen:
            raise InputError(f"{path}: holds {file} twice; expected one file a sequence")
        if file not in wanted:
            guess = nearest(file, wanted)
            hint = f" (did you mean {guess}?)" if guess else ""
            raise InputError(
                f"{path}: {file[:100]!r} belongs to none of the {len(wanted)} sequences of the "
                f"split{hint}; --split chooses another list"
            )
        seen.add(file)
    missing = [f"{name}.txt" for name in extents if f"{name}.txt" not in seen]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"{path}: {missing[0]} is missing{more}; expected one file for each of the "
            f"{len(wanted)} sequences of the split"
        )
