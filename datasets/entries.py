"""The files of the cache: everything a sequence decodes to, ready to be mapped into memory.

A header of 16 KiB, then the arrays, each from a page of 4 KiB on:

    frames     [n, H, W] uint8 or uint16
    masks      [n, H, W] bool, and centroids alike where those are files of their own
    bounds     [n + 1] int64, and centres [k, 2] float64: those of frame i are bounds[i : i + 2]

The header is one line, the SHA-256 of the next, and one of JSON: key, folder (the one that held all
that was cached at the time) and name of the sequence, type and shape of every array, size of the
file, and a CRC-32 of 16 pages spread over the arrays, the last one among them. An entry is believed
if all of this fits. That finds what is cut off, overwritten in the header, of another time or
option, or lost in large parts; it costs 64 KiB of reading however long the sequence. A changed
level amid a whole file is not found: what is written reaches the disk before the entry has its
name.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from datasets.sequences import Sequence, target_centres
from utils.errors import InputError

HEADER, PAGE, SAMPLES = 16384, 4096, 16


def write_entry(file: BinaryIO, sequence: Sequence, key: str, dataset: str) -> None:
    """Decode a sequence into a file that can be read back. InputError for an unreadable image."""
    file.seek(HEADER)
    n, (H, W) = len(sequence), sequence.size
    bounds, centres = [0], []

    def masks() -> Iterator[np.ndarray]:
        for i in range(n):
            mask = sequence.masks(i, i + 1)[0]
            centres.extend(target_centres(mask))
            bounds.append(len(centres))
            yield mask

    arrays = {"frames": _append(file, sequence.stored[1], (n, H, W), sequence.iter_frames())}
    if sequence.has_masks:
        arrays["masks"] = _append(file, bool, (n, H, W), masks())
        arrays["bounds"] = _append(file, np.int64, (n + 1,), [bounds])
        arrays["centres"] = _append(file, np.float64, (len(centres), 2), [centres])
    if sequence.centroid_paths != sequence.mask_paths:
        centroids = (sequence.centroids(i, i + 1)[0] for i in range(n))
        arrays["centroids"] = _append(file, bool, (n, H, W), centroids)
    size = file.tell()
    about = {
        **{"key": key, "dataset": dataset, "name": sequence.name, "frames": n, "size": size},
        **{"arrays": arrays, "sample": _checksum(_read(file, place) for place in _sample(size))},
    }
    body = json.dumps(about).encode()
    header = hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
    file.seek(0)
    file.write(header.ljust(HEADER))


def _append(file: BinaryIO, dtype, shape: tuple[int, ...], blocks: Iterable) -> dict:
    """Write the blocks of an array one after the other and fill up the page; what it is, where."""
    place = file.tell()
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype).tobytes())
    file.write(bytes(-file.tell() % PAGE))
    return {"dtype": np.dtype(dtype).name, "shape": shape, "place": place}


def _sample(size: int) -> list[int]:
    """Where the pages begin that stand for the whole."""
    return np.linspace(HEADER, size - PAGE, SAMPLES).astype(int).tolist()


def _read(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(PAGE)


def _checksum(pages: Iterable[bytes]) -> int:
    checksum = 0
    for page in pages:
        checksum = zlib.crc32(page, checksum)
    return checksum


def read_header(start: bytes) -> dict:
    """What the first 16 KiB of an entry say; ValueError if they are not whole."""
    digest, _, rest = start[:HEADER].partition(b"\n")
    body = rest.partition(b"\n")[0]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError("damaged header")
    return json.loads(body)


def read_entry(content: np.ndarray, key: str) -> dict[str, np.ndarray]:
    """The arrays of an entry, as views of its bytes `content` [size] uint8, not to be written to.

    Raises ValueError if they are not to be believed (see above).
    """
    about = read_header(content[:HEADER].tobytes())
    if about["key"] != key:
        raise ValueError("of other data, options or version")
    if about["size"] != len(content):
        raise ValueError(f"{len(content)} bytes where the header says {about['size']}")
    pages = (content[place : place + PAGE] for place in _sample(about["size"]))
    if _checksum(pages) != about["sample"]:
        raise ValueError("damaged data")
    arrays = {}
    for name, array in about["arrays"].items():
        dtype, place = np.dtype(array["dtype"]), array["place"]
        count = dtype.itemsize * int(np.prod(array["shape"]))
        arrays[name] = content[place : place + count].view(dtype).reshape(array["shape"])
        arrays[name].flags.writeable = False
    return arrays


def map_file(path: Path) -> np.ndarray:
    """The bytes of a file [size] uint8, mapped into memory.

    By torch, which closes the file: there may be more sequences than files a process may open.
    """
    size = os.stat(path).st_size
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()


@dataclass(frozen=True)
class CachedSequence(Sequence):
    """A Sequence whose arrays are views of its entry, not to be written to.

    Handed to another process it takes its path along, not its content.
    """

    entry: Path | None = None  # None: in the memory of this process alone
    key: str = ""

    @classmethod
    def of(
        cls, sequence: Sequence, content: np.ndarray, key: str, entry: Path | None = None
    ) -> CachedSequence:
        """A sequence with the bytes of its entry; ValueError if they are not to be believed."""
        same = {f.name: getattr(sequence, f.name) for f in fields(Sequence)}
        cached = cls(**same, entry=entry, key=key)
        cached.__dict__["_arrays"] = read_entry(content, key)
        return cached

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        try:
            return read_entry(map_file(self.entry), self.key)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{self.entry}: the cache was cleared or changed under this run ({error}): "
                "run again"
            ) from None

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k != "_arrays" or self.entry is None}

    @property
    def size(self) -> tuple[int, int]:
        return self._arrays["frames"].shape[1:]

    def resized(self, size: tuple[int, int] | None, mask_resize: str) -> Sequence:
        original = Sequence(*(getattr(self, f.name) for f in fields(Sequence)))
        return original.resized(size, mask_resize)

    def frames(self, start: int, stop: int) -> np.ndarray:
        return self._arrays["frames"][start:stop]

    def iter_frames(self) -> Iterator[np.ndarray]:
        return iter(self._arrays["frames"])

    def masks(self, start: int, stop: int) -> np.ndarray:
        return self._arrays["masks"][start:stop]

    def centroids(self, start: int, stop: int) -> np.ndarray:
        return self._arrays.get("centroids", self._arrays["masks"])[start:stop]

    def centres(self, index: int) -> np.ndarray:
        first, last = self._arrays["bounds"][index : index + 2]
        return self._arrays["centres"][first:last]
