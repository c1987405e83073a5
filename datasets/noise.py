"""HiNo noise on any data set: a noisy copy of it, masks and lists untouched.

    python -m datasets.noise SRC DST --sigma 8 --gain 0.15 --offset 1.3 --dataset NUDT-MIRSDT

Every frame X that the layout of --dataset lists becomes Y = (1 + g) X + o + n(t); g and o belong to
a pixel of a sequence, n is drawn anew for every frame. Every other file is copied as it is (so the
snr in a truth.csv stays that of the clean frames). The same seed gives the same bytes. JPEG frames
become PNGs of their name, since JPEG would smooth the noise away.

--sigma and --offset count the file's own grey levels. In 16 bit these are what the camera made
them; in simulated sets 256 are one level of 8 bit, so give --sigma 2048 --offset 333.
"""

from __future__ import annotations

import argparse
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from datasets.images import write_image
from datasets.layouts import Layout, find_layout, layout_names
from datasets.sequences import Sequence, list_sequences, open_sequence
from datasets.unfinished import unfinished
from utils.errors import InputError, run_command
from utils.files import writable_folder
from utils.logs import progress
from utils.options import Parser, folder, number_above
from utils.processes import in_processes


@dataclass(frozen=True)
class Noise:
    """Standard deviations: of the temporal noise and the offsets in grey levels, of the gains as
    a share; and the seed."""

    sigma: float
    gain: float
    offset: float
    seed: int = 0


def add_noise(
    frames: np.ndarray, sigma: float, gain: float, offset: float, rng: np.random.Generator
) -> np.ndarray:
    """Noisy frames Y = (1 + g) X + o + n(t), rounded and clipped to the depth of X.

    Args:
        frames: X, [T, H, W] uint8 or uint16.
        sigma: standard deviation of the temporal noise n [T, H, W], in grey levels.
        gain, offset: standard deviations of g and o [H, W] (o in grey levels), which stay the same
            in all frames: the non-uniformity of a detector array.

    Source: the name of the published set, "Noise8.0_FJY(g0.15-o1.3)", and the paper's parameters
    (sigma_n 8, sigma_g 0.15, sigma_o 1.3). No generator was published: normal distributions and
    the formula are our reading.
    """
    noisy = np.empty_like(frames)
    for t, frame in enumerate(_noisy_frames(frames, sigma, gain, offset, rng)):
        noisy[t] = frame
    return noisy


def _noisy_frames(
    frames: Iterable[np.ndarray], sigma: float, gain: float, offset: float, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """`add_noise`, one frame [H, W] at a time."""
    pattern = None
    for frame in frames:
        draw = (frame.shape, np.float32)
        if pattern is None:
            pattern = 1 + gain * rng.standard_normal(*draw), offset * rng.standard_normal(*draw)
        noisy = pattern[0] * frame + pattern[1] + sigma * rng.standard_normal(*draw)
        yield np.clip(np.rint(noisy), 0, np.iinfo(frame.dtype).max).astype(frame.dtype)


def find_sequences(layout: Layout, root: Path) -> list[Sequence]:
    """The sequences of all splits, each once, as they lie on disk.

    A split whose list is missing is passed over. Raises InputError if there are none at all, and
    for frames that lie outside `root`, and for a JPEG beside a PNG of its name.
    """
    found: dict[Path, Sequence] = {}
    missing = []
    for split in layout.lists:
        try:
            names = list_sequences(layout, root, split)
        except InputError as error:
            if (root / layout.list_of(split)).is_file():
                raise
            missing.append(error)
            continue
        for name in names:
            sequence, faults = open_sequence(layout, root, split, name)
            if sequence is None:
                raise InputError(faults[0])
            found[sequence.frame_paths[0].parent] = replace(sequence, resize_to=None)
    if not found:
        raise missing[0]
    places: set[Path] = set()
    for path in (path for sequence in found.values() for path in sequence.frame_paths):
        place = written_as(path)
        if place in places or (place != path and place.exists()):
            raise InputError(f"{path}: would be written as {place.name}, as another image is")
        places.add(place)
        if not path.is_relative_to(root) or ".." in path.relative_to(root).parts:
            raise InputError(f"{path}: lies outside {root}, which is what is copied")
    return list(found.values())


def written_as(frame: Path) -> Path:
    """The path of a noisy frame: a PNG in place of a JPEG; masks pair by the stem."""
    return frame.with_suffix(".png") if frame.suffix.lower() in (".jpg", ".jpeg") else frame


def copy_others(source: Path, copy: Path, frames: set[Path]) -> int:
    """Make the folders of `source` under `copy` and copy all files but `frames`; how many."""

    def refuse(error: OSError) -> None:
        raise error

    count = 0
    with progress(0, "file", "copy") as bar:
        for place, _, names in os.walk(source, onerror=refuse, followlinks=True):
            place = Path(place)
            if place.is_symlink() and place.resolve() in place.parents:
                raise InputError(f"{place}: a link to a folder that it lies in; remove it")
            (copy / place.relative_to(source)).mkdir(parents=True)
            for path in (place / name for name in names):
                if path not in frames:
                    shutil.copyfile(path, copy / path.relative_to(source))
                    count += 1
                    bar.update()
    return count


def write_noisy(sequence: Sequence, source: Path, copy: Path, noise: Noise) -> int:
    """Write the noisy frames of one sequence to their places under `copy`; how many."""
    rng = np.random.default_rng([noise.seed, zlib.crc32(sequence.name.encode())])
    noisy = _noisy_frames(sequence.iter_frames(), noise.sigma, noise.gain, noise.offset, rng)
    for path, frame in zip(sequence.frame_paths, noisy, strict=True):
        write_image(copy / written_as(path).relative_to(source), frame)
    return len(sequence)


def write_dataset(source: Path, target: Path, layout: Layout, noise: Noise, workers: int) -> str:
    """Write the noisy copy, in a hidden folder beside `target` until it is whole; what it holds."""
    sequences = find_sequences(layout, source)
    frames = {path for sequence in sequences for path in sequence.frame_paths}
    with unfinished(target.with_name(f".{target.name}-unfinished")) as hidden:
        copy = hidden / target.name
        others = copy_others(source, copy, frames)
        write = partial(write_noisy, source=source, copy=copy, noise=noise)
        with (
            progress(len(frames), "frame", "noise") as bar,
            in_processes(write, sequences, workers) as written,
        ):
            for count in written:
                bar.update(count)
        copy.rename(target)
    return f"{len(frames)} noisy frames of {len(sequences)} sequences, {others} other files copied"


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.noise", description=__doc__)
    parser.add_argument("source", type=folder, metavar="SRC", help="folder of the data set")
    parser.add_argument("target", type=folder, metavar="DST", help="folder to write; new or empty")
    parser.add_argument(
        "--dataset", default="Folder", metavar="NAME",
        help=f"which files are frames: {', '.join(layout_names())}, or a layout of your own as "
        "FILE.yaml",
    )  # fmt: skip
    spread = number_above(0, or_equal=True, most=1e6)
    parser.add_argument(
        "--sigma", type=spread, default=8.0, help="std of n, in the file's grey levels"
    )
    parser.add_argument("--gain", type=spread, default=0.15, help="std of g, as a share")
    parser.add_argument(
        "--offset", type=spread, default=1.3, help="std of o, in the file's grey levels"
    )
    parser.add_argument(
        "--seed", type=number_above(0, int, or_equal=True), default=0, help="same seed, same bytes"
    )
    parser.add_argument(
        "--workers", type=number_above(0, int, most=1024), default=os.cpu_count(), metavar="N",
        help="processes; by default one a core",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Resolve SRC and DST; InputError unless DST is new or empty and apart from SRC."""
    source, target = options.source.resolve(), options.target.resolve()
    if not source.is_dir():
        raise InputError(f"{options.source}: no such folder; SRC is the folder of a data set")
    if source == target or source in target.parents or target in source.parents:
        raise InputError(f"{options.target}: DST must lie apart from SRC, {options.source}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{options.target}: exists already; choose a DST that is new or empty")
    writable_folder(target.parent, "choose another DST")
    options.source, options.target = source, target


def main() -> None:
    options = build_parser().parse_args()
    layout = find_layout(options.dataset)
    check_options(options)
    noise = Noise(options.sigma, options.gain, options.offset, options.seed)
    held = write_dataset(options.source, options.target, layout, noise, options.workers)
    print(f"wrote {options.target}: {held}")


if __name__ == "__main__":
    run_command(main)
