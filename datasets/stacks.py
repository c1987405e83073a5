"""Stacks of frames in one file, read a few at a time: multi-page TIFF, .npy, .npz."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from utils.errors import InputError, size_text

BATCH = 2**25  # bytes of TIFF pages that are read at once: each opening walks the whole file
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


class CutShort(InputError):
    """The rest of the frames is lost: it stands for no frame, and is the last that is read."""


def count_tiff_pages(path: Path) -> tuple[int, bool]:
    """The pages of a TIFF, and whether the chain of their directories comes to its proper end.

    OpenCV silently leaves out the pages of a truncated file. A file that is no TIFF has (0, False).
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return 0, False
        big = struct.unpack(order + "H", head[2:4])[0] == 43  # BigTIFF; 42: classic
        count_form, entry, offset_form = ("Q", 20, "Q") if big else ("H", 12, "I")
        offset = struct.unpack_from(order + offset_form, head, 8 if big else 4)[0]
        seen: set[int] = set()
        while offset and offset not in seen:
            seen.add(offset)
            file.seek(offset)
            count = file.read(struct.calcsize(count_form))
            if len(count) < struct.calcsize(count_form):
                return len(seen) - 1, False
            file.seek(struct.unpack(order + count_form, count)[0] * entry, 1)
            link = file.read(struct.calcsize(offset_form))
            if len(link) < struct.calcsize(offset_form) or file.tell() > size:
                return len(seen) - 1, False
            offset = struct.unpack(order + offset_form, link)[0]
    return len(seen), not offset


def read_pages(path: Path, pages: int, whole: bool) -> Iterator[np.ndarray | InputError]:
    """The pages of a TIFF [H, W], an InputError in the place of one that cannot be read.

    Of colour pages the red channel. If the file is not whole, a CutShort ends it.
    """
    start, batch = 0, 1
    while start < pages:
        images = _imread(path, start, min(batch, pages - start))
        for image in images:
            start += 1
            if image is None:
                yield InputError(f"{path}: page {start} of {pages} cannot be read")
            else:
                batch = max(1, BATCH // image.nbytes)
                yield image if image.ndim == 2 else np.ascontiguousarray(image[:, :, 2])
    if not whole:
        yield CutShort(f"{path}: ends after page {pages} (truncated)")


def _imread(path: Path, start: int, count: int) -> list[np.ndarray | None]:
    """`count` pages, None for those that cannot be decoded."""
    try:
        read, images = cv2.imreadmulti(str(path), start, count, flags=cv2.IMREAD_UNCHANGED)
    except cv2.error:  # raised by a header that asks for an absurd size
        read, images = False, []
    if read and len(images) == count:
        return list(images)
    if count == 1:
        return [None]
    return [page for i in range(count) for page in _imread(path, start + i, 1)]


def open_array(path: Path) -> tuple[int, Callable[[], Iterator[np.ndarray]]]:
    """The length of a .npy or .npz stack and what reads it, frame by frame.

    [N, H, W], [H, W] for one frame, or [N, H, W, C] with C 1, 3 or 4: red, green, blue, of which
    red is taken. A .npz holds one array, or several of which one is called `frames`. Where it
    cannot be read on, a CutShort is the last. Raises InputError for another shape, for what is no
    numbers, and for a torn file.
    """
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                array.close()
                raise ValueError("it is a zip archive: call it .npz")
            shape, dtype = array.shape, array.dtype
            read = lambda: iter(array if array.ndim > 2 else array[None])  # noqa: E731
        else:
            shape, dtype, read = _open_npz(path)
    except _UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as a stack of frames ({_first(error)})") from None
    if dtype.kind not in "buif":
        raise InputError(f"{path}: holds {dtype}; expected numbers (8- or 16-bit, or floats)")
    coloured = len(shape) == 4 and shape[3] in (1, 3, 4)
    if not (len(shape) in (2, 3) or coloured) or 0 in shape:
        wanted = "expected [N, H, W], [H, W], or [N, H, W, 3] in colour, none of them 0"
        raise InputError(f"{path}: an array of {size_text(shape) or 'one'}; {wanted}")

    def frames() -> Iterator[np.ndarray]:
        try:
            for frame in read():
                yield np.ascontiguousarray(frame[:, :, 0] if coloured else frame)
        except _UNREADABLE as error:
            yield CutShort(f"{path}: cannot be read on ({_first(error)})")

    return shape[0] if len(shape) > 2 else 1, frames


def _open_npz(path: Path) -> tuple[tuple, np.dtype, Callable[[], Iterator[np.ndarray]]]:
    """Shape and type of the array in a .npz, and what unpacks it one frame at a time."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
    chosen = "frames.npy" if "frames.npy" in names else names[0] if len(names) == 1 else None
    if chosen is None:
        held = ", ".join(name[:-4] for name in names) or "none"
        raise ValueError(f"expected one array, or one called frames; it holds {held}")
    with zipfile.ZipFile(path) as archive, archive.open(chosen) as member:
        shape, fortran, dtype = _read_header(member)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    stack = shape if len(shape) > 2 else (1, *shape)

    def read() -> Iterator[np.ndarray]:
        with zipfile.ZipFile(path) as archive:
            if fortran:  # entries lie interleaved: there is no reading one at a time
                with archive.open(chosen) as member:
                    array = np.lib.format.read_array(member, allow_pickle=False)
                yield from array.reshape(stack)
                return
            with archive.open(chosen) as member:
                _read_header(member)
                size = int(np.prod(stack[1:], dtype=np.int64)) * dtype.itemsize
                for _ in range(stack[0]):
                    content = member.read(size)
                    if len(content) < size:
                        raise EOFError("it ends early")
                    yield np.frombuffer(content, dtype).reshape(stack[1:])

    return shape, dtype, read


def _read_header(member) -> tuple[tuple, bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
