"""Frames from anywhere, one at a time: a folder, a video, a stack, a camera, a stream."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.images import IMAGE_SUFFIXES, read_frame
from datasets.sequences import images_in, natural_order
from datasets.stacks import CutShort, count_tiff_pages, open_array, read_pages
from utils.errors import InputError, size_text
from utils.video import frame_count, frame_rate, open_video, read_pictures

# Folders whose name says nothing: the one above names the sequence.
_PLAIN_NAMES = ("images", "image", "imgs", "img", "frames", "01")
_KINDS = "a folder of images, a video, a TIFF, .npy or .npz stack, a glob in quotes, a camera's "
_KINDS += "number or a stream's address"


class Frame(NamedTuple):
    """Grey levels [H, W]; `fault` says why the frame before stands for one that is unusable."""

    levels: np.ndarray
    fault: str | None = None


@dataclass
class Source:
    """Frames of one scene.

    name: for the folder of results. read: a fresh iterator over arrays [H, W] of numbers, with an
    InputError in the place of a frame that cannot be read, a CutShort at the end where more are
    lost. length and rate (frames a second) where they are known. live: a camera or stream, which
    can be read only once and ends when stopped. place: the path or address. files: what is read.
    """

    name: str
    place: str
    read: Callable[[], Iterator[np.ndarray | InputError]]
    length: int | None = None
    rate: float | None = None
    live: bool = False
    folder: Path | None = None
    files: tuple[Path, ...] = ()

    def fingerprint(self) -> str:
        """Names, sizes and times of change of the files, digested: other files, another one."""
        digest = hashlib.sha256()
        for path in sorted(self.files):
            try:
                about = path.stat()
                known = path.name, about.st_size, about.st_mtime_ns
            except OSError:  # the reading will say so
                known = (path.name,)
            digest.update(repr(known).encode())
        return digest.hexdigest()[:16]

    def frames(
        self, skip_bad: bool = False, tell: Callable[[str], None] = lambda text: None
    ) -> Iterator[Frame]:
        """Every frame, checked: uint8 and uint16 as they are, other numbers as float32.

        Raises InputError, naming the frame, for one that cannot be read, is of another size or
        depth than those before, or holds NaN. With skip_bad the last good frame stands for it (the
        next, at the beginning), so that the timing stays; where the source is cut short, the frames
        end, and `tell` is called with what is wrong.
        """
        last, early = None, []
        for number, item in enumerate(self.read(), start=1):
            levels, fault = self._check(item, last, number)
            if fault is None:
                yield from (Frame(levels, before) for before in early)
                early, last = [], levels
                yield Frame(levels)
            elif not skip_bad:
                raise InputError(f"{fault}; --skip_bad goes on without it")
            elif isinstance(item, CutShort) and last is not None:
                tell(fault)
            elif last is None:
                early.append(fault)
            else:
                yield Frame(last, fault)
        if last is None:
            why = f" ({early[0]})" if early else ""
            raise InputError(f"{self.place}: not one frame can be read{why}")

    def _check(self, item, last: np.ndarray | None, number: int) -> tuple:
        """(levels, None), or (None, what is wrong)."""
        if isinstance(item, InputError):
            return None, str(item)
        where = f"{self.place}: frame {number}"
        if item.dtype not in (np.uint8, np.uint16):
            with np.errstate(over="ignore"):
                levels = item.astype(np.float32)
            if not np.isfinite(levels.sum(dtype=np.float64)):
                known = np.isfinite(item).all()
                what = "numbers too large for fp32" if known else "NaN or infinity"
                return None, f"{where} holds {what}"
            item = levels
        if last is not None and item.shape != last.shape:
            before = size_text(last.shape)
            return None, f"{where} is {size_text(item.shape)} pixels, those before are {before}"
        if last is not None and item.dtype != last.dtype:
            return None, f"{where} is {item.dtype}, those before are {last.dtype}"
        return item, None


def open_sources(inputs: list[str]) -> list[Source]:
    """The sources that inputs name; image files of one folder, given one by one, are one, in
    natural order.

    Nothing is read but what tells the kind and the length. Raises InputError for an input that is
    none of these, and for two of one name.
    """
    paths, sources = [], []
    for text in inputs:
        if not Path(text).exists() and glob.has_magic(text) and "://" not in text:
            matches = sorted(map(Path, glob.glob(text, recursive=True)), key=natural_order)
            if not matches:
                raise InputError(f"{text}: nothing there matches")
            paths += matches
        elif Path(text).exists():
            paths.append(Path(text))
        elif text.isdecimal() or "://" in text:
            sources.append(_open_live(text))
        else:
            raise InputError(f"{text}: no such file or folder; expected {_KINDS}")
    stills: dict[Path, list[Path]] = {}
    for path in paths:
        if _is_still(path):
            stills.setdefault(path.parent, []).append(path)
        else:
            sources.append(_open_path(path))
    sources += [
        _open_images(folder, sorted(set(images), key=lambda p: (natural_order(p), p.name)))
        for folder, images in stills.items()
    ]
    named: dict[str, Source] = {}
    for source in sources:
        if source.name in named:
            raise InputError(
                f"{named[source.name].place} and {source.place} would both write to a folder "
                f"{source.name!r}: run them one at a time, with an --output each"
            )
        named[source.name] = source
    return sources


def _is_still(path: Path) -> bool:
    if path.suffix.lower() not in IMAGE_SUFFIXES or path.is_dir():
        return False
    return path.suffix.lower() not in (".tif", ".tiff") or count_tiff_pages(path)[0] < 2


def _open_path(path: Path) -> Source:
    if path.is_dir():
        return _open_images(path, images_in(path))
    kind = path.suffix.lower()
    if kind in (".tif", ".tiff"):
        pages, whole = count_tiff_pages(path)
        return Source(
            path.stem, str(path), lambda: read_pages(path, pages, whole), pages, files=(path,)
        )
    if kind in (".npy", ".npz"):
        length, read = open_array(path)
        return Source(path.stem, str(path), read, length, files=(path,))
    video = open_video(str(path))
    if video is None:
        raise InputError(f"{path}: cannot be decoded as a video (truncated, or of another kind)")
    length, rate = frame_count(video), frame_rate(video)
    video.release()
    return Source(
        path.stem, str(path), lambda: _read_video(path, length), length, rate, files=(path,)
    )


def _open_images(folder: Path, images: list[Path]) -> Source:
    if not images:
        below = [p for p in sorted(folder.iterdir()) if p.is_dir() and images_in(p)]
        hint = f"; did you mean {below[0]}?" if below else ""
        kinds = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise InputError(f"{folder}: holds no images ({kinds}){hint}")

    def read() -> Iterator[np.ndarray | InputError]:
        for path in images:
            try:
                yield read_frame(path)
            except InputError as error:
                yield error

    where = Path(os.path.abspath(folder))  # `clip/..` has a name of its own
    name = where.parent.name if where.name.lower() in _PLAIN_NAMES else where.name
    return Source(
        name or "frames", str(folder), read, len(images), folder=folder.resolve(),
        files=tuple(images),
    )  # fmt: skip


def _open_live(text: str) -> Source:
    camera = text.isdecimal()
    name = f"camera{text}" if camera else _plain(text.split("://", 1)[1])

    def read() -> Iterator[np.ndarray]:
        video = open_video(int(text) if camera else text)
        if video is None:
            what = "no such camera" if camera else "the stream cannot be opened"
            raise InputError(f"{text}: {what}; expected {_KINDS}")
        yield from map(_red, read_pictures(video))

    return Source(name, text, read, live=True)


def _read_video(path: Path, announced: int | None) -> Iterator[np.ndarray | InputError]:
    video, count = open_video(str(path)), 0
    for picture in read_pictures(video) if video else ():
        yield _red(picture)
        count += 1
    # The announced length is an estimate in some containers: a little less is no fault.
    if announced and count < announced - max(2, 0.01 * announced):
        yield CutShort(f"{path}: ends after frame {count} of {announced} (truncated or damaged)")


def _red(picture: np.ndarray) -> np.ndarray:
    """The red channel of blue, green, red (as of every colour frame); [H, W]."""
    return picture if picture.ndim == 2 else np.ascontiguousarray(picture[:, :, 2])


def _plain(address: str) -> str:
    """An address as the name of a folder, without user and password."""
    kept = address.rsplit("@", 1)[-1]
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in kept).strip("._") or "stream"
