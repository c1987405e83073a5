"""Frames and masks decoded once, into files that every run maps into memory.

An entry is one file a sequence (`datasets.entries` says how it is built and what is checked before
it is believed). Its name stands for the paths of the images and the resizing, so that an entry
takes the place of an older one when the data change; its key for their sizes and times as well.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from datasets.entries import HEADER, CachedSequence, map_file, write_entry
from datasets.sequences import Sequence
from utils.distributed import gather, on_this_machine
from utils.errors import InputError
from utils.files import cache_folder, written_whole
from utils.logs import progress
from utils.processes import in_processes

FORMAT = 1  # of entries; another one is built anew
SUFFIX = ".sequence"
SPARE = 2**28  # bytes of a disk, or of memory, that are left to others
MODES = ("disk", "ram", "none")


class Job(NamedTuple):
    """A sequence to cache, where, and under which key."""

    sequence: Sequence
    path: Path
    key: str


def identify(sequence: Sequence, place: Path) -> Job:
    """The name and the key of a sequence's entry below `place`. Only file times are read."""
    options = [sequence.resize_to, sequence.mask_resize]
    kinds = (sequence.frame_paths, sequence.mask_paths or (), sequence.centroid_paths or ())
    paths = [[str(path.absolute()) for path in kind] for kind in kinds]
    files = [(s.st_size, s.st_mtime_ns) for kind in kinds for s in map(os.stat, kind)]
    name = _digest(paths, options)
    short = re.sub(r"[^A-Za-z0-9-]", "_", sequence.name)[:40]
    key = _digest(FORMAT, cv2.__version__, sequence.name, name, files)
    return Job(sequence, place / f"{short}-{name[:20]}{SUFFIX}", key)


def _digest(*values) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def cache_sequences(
    sequences: list[Sequence], mode: str, place: Path | None = None
) -> tuple[list[Sequence], list[str]]:
    """The sequences with their frames and masks decoded once, in the same order, and warnings.

    Args:
        mode: `disk`, shared by all runs and built where it is not up to date; `ram`, for each
            process alone; `none`, the sequences as they are.
        place: folder of the cache; None: the default one.

    Where the disk is full or cannot be written to, the sequences come back as they are with a
    warning. Raises InputError for an unreadable image, and if the memory is too small for `ram`.
    """
    if mode == "none":
        return sequences, []
    if mode == "ram":
        return _in_memory(sequences), []
    try:
        place = cache_folder() if place is None else place
        return _on_disk(sequences, place), []
    except OSError as error:
        where = "--cache disk" if place is None else place
        return sequences, [
            f"frames are not cached ({where}: {error.strerror or error}), so every clip is read "
            "from its images: choose another --cache_dir, or say --cache none"
        ]


def _in_memory(sequences: list[Sequence]) -> list[Sequence]:
    count = on_this_machine()
    needed = count * sum(map(decoded_size, sequences))
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    free = 1024 * int(found[1]) if found else None
    gather(free)  # all have looked before the first one fills it
    if free is not None and needed + SPARE > free:
        each = f" in {count} processes" if count > 1 else ""
        raise InputError(
            f"--cache ram: the frames take {needed / 1e9:.1f} GB{each}, but {free / 1e9:.1f} GB "
            "of memory are available: use --cache disk or --cache none"
        )
    cached = []
    for sequence, content in _each(_decode, sequences):
        cached.append(CachedSequence.of(sequence, np.frombuffer(content, np.uint8), ""))
    return cached


def _decode(sequence: Sequence) -> bytes:
    file = io.BytesIO()
    write_entry(file, sequence, key="", dataset="")
    return file.getvalue()


def _on_disk(sequences: list[Sequence], place: Path) -> list[Sequence]:
    jobs = [identify(sequence, place) for sequence in sequences]
    cached = {job.path: _open(job) for job in jobs}
    if None in cached.values():
        place.mkdir(parents=True, exist_ok=True)
        with one_builder(place):
            # Another run may have built some of them meanwhile.
            missing = {j.path: j for j in jobs if cached[j.path] is None and not _open(j)}
            _build(list(missing.values()), place)
        cached = {job.path: _open(job) for job in jobs}
    for path, sequence in cached.items():
        if sequence is None:
            raise OSError(0, f"{path.name} could not be read back")
    return [cached[job.path] for job in jobs]


def _open(job: Job) -> CachedSequence | None:
    """The sequence from its entry; None if that is not there or not to be believed."""
    try:
        cached = CachedSequence.of(job.sequence, map_file(job.path), job.key, job.path)
    except (OSError, RuntimeError, ValueError):  # torch raises RuntimeError for an empty file
        return None
    with suppress(OSError):
        os.utime(job.path)  # when it was last used, for --unused
    return cached


def _build(jobs: list[Job], place: Path) -> None:
    """Decode into entries. What one builder has begun is removed if it cannot end."""
    if not jobs:
        return
    needed, free = sum(decoded_size(j.sequence) for j in jobs), shutil.disk_usage(place).free
    if needed + SPARE > free:
        raise OSError(0, f"the frames take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    dataset = os.path.commonpath([j.sequence.frame_paths[0].parent.absolute() for j in jobs])
    try:
        for _ in _each(partial(_write, dataset=dataset), jobs):
            pass
    except OSError:
        for job in jobs:  # as on a full disk: leave it no fuller than it was
            job.path.unlink(missing_ok=True)
        raise


def _write(job: Job, dataset: str) -> None:
    with written_whole(job.path) as temporary, open(temporary, "w+b") as file:
        write_entry(file, job.sequence, job.key, dataset)
        if identify(job.sequence, job.path.parent) != job:
            folder = job.sequence.frame_paths[0].parent
            raise InputError(f"{folder}: changed while it was read: wait for it, then run again")


def _each(work, items: list) -> Iterator[tuple]:
    """(item, work(item)) by a process a core, with a progress bar in frames."""
    workers = len(os.sched_getaffinity(0))
    lengths = [len(i.sequence if isinstance(i, Job) else i) for i in items]
    with (
        progress(sum(lengths), "frame", "decode once") as bar,
        in_processes(work, items, workers) as results,
    ):
        for item, result, length in zip(items, results, lengths, strict=True):
            bar.update(length)
            yield item, result


def decoded_size(sequence: Sequence) -> int:
    """About the bytes of an entry."""
    masks = {sequence.mask_paths, sequence.centroid_paths} - {None}
    H, W = sequence.size
    return 2 * HEADER + len(sequence) * H * W * (sequence.stored[1].itemsize + len(masks))


@contextmanager
def one_builder(place: Path) -> Iterator[None]:
    """Wait until no other process fills the cache; sweep up what killed ones have left.

    Where the file system knows no locks two may do the same work, each entry being written whole.
    """
    with open(place / ".lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress(0, "s", f"waiting: another process fills {place}"):
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield
            return
        try:
            _sweep(place)
            yield
        finally:
            _sweep(place)


def _sweep(place: Path) -> None:
    for begun in place.glob(f".*{SUFFIX}"):
        begun.unlink(missing_ok=True)
