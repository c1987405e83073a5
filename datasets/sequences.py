"""Sequences of frames and their masks on disk, read lazily."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from datasets.images import (
    IMAGE_SUFFIXES,
    read_frame,
    read_instances,
    read_mask,
    resize_frame,
    resize_mask,
)
from datasets.layouts import Layout
from utils.errors import InputError, unknown_name


@dataclass(frozen=True)
class Sequence:
    """Consecutive frames of one scene, with masks where they exist.

    `frame_paths` are in temporal order; `mask_paths` and `centroid_paths` run beside them or are
    None. `resize_to` is the (H, W) that everything is resized to on reading, masks by the method
    `mask_resize` of `datasets.images.resize_mask`. `instance_ids` says whether the masks number
    their targets.
    """

    name: str
    frame_paths: tuple[Path, ...]
    mask_paths: tuple[Path, ...] | None = None
    centroid_paths: tuple[Path, ...] | None = None
    resize_to: tuple[int, int] | None = None
    instance_ids: bool = False
    mask_resize: str = "any"

    def __len__(self) -> int:
        return len(self.frame_paths)

    @property
    def has_masks(self) -> bool:
        return self.mask_paths is not None

    @cached_property
    def stored(self) -> tuple[tuple[int, int], np.dtype]:
        """Size (H, W) and depth of the first frame as it lies on disk."""
        first = read_frame(self.frame_paths[0])
        return first.shape, first.dtype

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the arrays that are read."""
        return self.resize_to or self.stored[0]

    def resized(self, size: tuple[int, int] | None, mask_resize: str) -> Sequence:
        """The same, read at another size (H, W); None: as it is."""
        return replace(self, resize_to=size, mask_resize=mask_resize) if size else self

    def frames(self, start: int, stop: int) -> np.ndarray:
        """Grey levels of frames [start, stop): [n, H, W], uint8 or uint16.

        Raises InputError, naming the file, if one is unreadable or of another size or depth.
        """
        return np.stack([self._frame(path) for path in self.frame_paths[start:stop]])

    def iter_frames(self) -> Iterator[np.ndarray]:
        """All frames [H, W], one at a time."""
        return (self._frame(path) for path in self.frame_paths)

    def masks(self, start: int, stop: int) -> np.ndarray:
        """The full extent of the targets in frames [start, stop): [n, H, W] bool."""
        return np.stack([self._mask(path) for path in self.mask_paths[start:stop]])

    def centroids(self, start: int, stop: int) -> np.ndarray:
        """The centroid masks of frames [start, stop): [n, H, W] bool."""
        return np.stack([self._mask(path) for path in self.centroid_paths[start:stop]])

    def instances(self, start: int, stop: int) -> np.ndarray:
        """The numbers that the masks of frames [start, stop) give the targets; 0 is none.

        [n, H, W] int32. A resizing takes the nearest pixel's.
        """
        return np.stack([self._instances(path) for path in self.mask_paths[start:stop]])

    def centres(self, index: int) -> np.ndarray:
        """The centres (x, y) of the targets in a frame, the 8-connected components of its mask, in
        pixels: [k, 2] float64."""
        return target_centres(self._mask(self.mask_paths[index]))

    def _frame(self, path: Path) -> np.ndarray:
        frame = read_frame(path)
        self._check_size(path, frame)
        if frame.dtype != self.stored[1]:
            raise InputError(
                f"{path}: {frame.dtype}, but the sequence began with {self.stored[1]}: all its "
                "frames must have one depth"
            )
        return resize_frame(frame, self.resize_to) if self.resize_to else frame

    def _mask(self, path: Path) -> np.ndarray:
        mask = read_mask(path)
        self._check_size(path, mask)
        return resize_mask(mask, self.resize_to, self.mask_resize) if self.resize_to else mask

    def _instances(self, path: Path) -> np.ndarray:
        values = read_instances(path)
        self._check_size(path, values)
        H, W = self.size
        return cv2.resize(values, (W, H), interpolation=cv2.INTER_NEAREST_EXACT)

    def _check_size(self, path: Path, image: np.ndarray) -> None:
        (H, W), _ = self.stored
        if image.shape != (H, W):
            raise InputError(
                f"{path}: {image.shape[0]} x {image.shape[1]} pixels, but the sequence began with "
                f"{H} x {W}: all its frames and masks must have one size"
            )


def target_centres(mask: np.ndarray) -> np.ndarray:
    """The centres (x, y) of the 8-connected components of a mask [H, W]: [k, 2] float64."""
    return cv2.connectedComponentsWithStats(mask.astype(np.uint8))[3][1:]  # 0 is the background


def open_split(
    layout: Layout,
    root: str | Path,
    split: str,
    masks_due: bool = False,
    masks_mixed: bool = False,
) -> list[Sequence]:
    """The sequences of a split, in the order of its list.

    Args:
        layout: where things lie under `root`.
        split: one of the layout's lists.
        masks_due: whether sequences without masks are an error (training).
        masks_mixed: whether some may lack masks though others have them (looking).

    Raises InputError for a missing folder, list or sequence, an empty one, and masks that do not
    pair with the frames.
    """
    names = list_sequences(layout, root, split)
    sequences = []
    for name in names:
        sequence, faults = open_sequence(layout, root, split, name)
        if faults:
            more = f" (and {len(faults) - 1} more: see datasets.check)" if len(faults) > 1 else ""
            raise InputError(faults[0] + more)
        sequences.append(sequence)
    without = [s.name for s in sequences if not s.has_masks]
    if without and (masks_due or (len(without) < len(sequences) and not masks_mixed)):
        wanted = mask_folder(layout, root, split, without[0], layout.masks)
        raise InputError(f"{wanted}: no masks for {without[0]}, where masks are due")
    return sequences


def choose_sequences(sequences: list[Sequence], names: list[str] | None) -> list[Sequence]:
    """Those of the names, in their order, or all; InputError for a name that is not there."""
    known = {s.name: s for s in sequences}
    for name in names or ():
        if name not in known:
            raise unknown_name("sequence", name, known)
    return [known[name] for name in names or known]


def split_validation(
    sequences: list[Sequence], fraction: float, seed: int
) -> tuple[list[Sequence], list[Sequence]]:
    """Training sequences and, at random, a fraction of them (at least one) held out.

    Raises InputError if there are fewer than two.
    """
    if len(sequences) < 2:
        raise InputError(
            "one training sequence cannot be split into training and validation: add another, or "
            "use --select_on test"
        )
    count = min(max(1, round(fraction * len(sequences))), len(sequences) - 1)
    held_out = set(np.random.default_rng(seed).permutation(len(sequences))[:count].tolist())
    training = [s for i, s in enumerate(sequences) if i not in held_out]
    return training, [s for i, s in enumerate(sequences) if i in held_out]


def list_sequences(layout: Layout, root: str | Path, split: str) -> list[str]:
    """The names in a split's list file: the distinct first parts of its lines, in their order."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; --datapath names the folder of {layout.name}")
    path = root / layout.list_of(split)
    if path.is_file():
        names = _read_list(path)
        if not names:
            raise InputError(f"{path}: the list is empty; expected one sequence a line")
        return names
    if layout.lists_required:
        raise InputError(f"{path}: no such list of the {split} sequences of {layout.name}")
    others = [root / other for s, other in layout.lists.items() if s != split]
    taken = {name for other in others if other.is_file() for name in _read_list(other)}
    names = [name for name in _sequences_on_disk(layout, root, split) if name not in taken]
    if not names and taken:
        raise InputError(
            f"{root}: no {split} sequences: other lists name them all; choose another split"
        )
    if not names:
        raise InputError(f"{root}: no sequences found; expected {root / layout.frames}")
    return names


def open_sequence(
    layout: Layout, root: str | Path, split: str, name: str
) -> tuple[Sequence | None, list[str]]:
    """A sequence and the faults of its files, each one line that names a path.

    Nothing is decoded. The sequence is None where it has no frames at all.
    """
    root = Path(root)
    folder = root / _fill(layout.frames, layout, split, name)
    if not folder.is_dir():
        return None, [f"{folder}: no such folder, but the {split} list names {name}"]
    frames = images_in(folder)
    if not frames:
        kinds = ", ".join(s[1:] for s in IMAGE_SUFFIXES)
        return None, [f"{folder}: holds no frames (files of {kinds})"]
    paired: dict[str, tuple[Path, ...] | None] = {}
    faults = [
        f"{after}: has the number of {before.name}; one frame a number, please"
        for before, after in pairwise(frames)
        if natural_order(before) == natural_order(after)
    ]
    for kind, pattern in (("masks", layout.masks), ("centroids", layout.centroids)):
        masks = mask_folder(layout, root, split, name, pattern) if pattern else None
        paired[kind] = None
        if masks is not None and masks.is_dir():
            paired[kind], missing = _pair(frames, masks)
            faults += missing
    masks = paired["masks"] or paired["centroids"]
    centroids = paired["centroids"] or paired["masks"]
    return Sequence(
        name, tuple(frames), masks, centroids, layout.size, instance_ids=layout.instance_ids
    ), faults


def mask_folder(layout: Layout, root: str | Path, split: str, name: str, pattern: str) -> Path:
    """Where the masks of a sequence should lie: under the root, or else under the clean one."""
    root = Path(root)
    filled = _fill(pattern, layout, split, name)
    absolute = root.absolute()
    if layout.clean_root and absolute.parent.name == layout.clean_root[0]:
        clean = absolute.parent.parent / layout.clean_root[1] / filled
        if not (root / filled).is_dir() and clean.is_dir():
            return clean
    return root / filled


def natural_order(path: Path) -> tuple:
    """Sort key that takes digits as numbers: 2.png before 10.png, 1 and 00001 alike."""
    parts = re.split(r"(\d+)", path.stem)
    return tuple(int(part) if part.isdecimal() else part.lower() for part in parts)


def _fill(pattern: str, layout: Layout, split: str, name: str) -> str:
    return pattern.format(sequence=name, folder=layout.folders.get(split, split))


def _read_list(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a list ({error})") from None
    names = dict.fromkeys(line.strip().split("/")[0] for line in lines if line.strip())
    for odd in {"", ".", ".."} & names.keys():
        raise InputError(f"{path}: {odd + '/...'!r} is no sequence: a line is <sequence>/anything")
    return list(names)


def _sequences_on_disk(layout: Layout, root: Path, split: str) -> list[str]:
    """Names for which the layout's frame folder exists and holds an image; hidden ones do not
    count: a run that was killed may have left them."""
    before, _, after = layout.frames.format(
        sequence="\0", folder=layout.folders.get(split, split)
    ).partition("\0")
    base = root / before
    shown = (p for p in base.glob("*") if p.is_dir() and not p.name.startswith("."))
    candidates = sorted(shown, key=natural_order)
    return [p.name for p in candidates if images_in(Path(f"{p}{after}"))]


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder in natural order, hidden ones left out; none if it is none."""
    if not folder.is_dir():
        return []
    files = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    shown = (p for p in files if not p.name.startswith("."))
    return sorted(shown, key=lambda p: (natural_order(p), p.name))


def _pair(frames: list[Path], folder: Path) -> tuple[tuple[Path, ...], list[str]]:
    """The mask of every frame by number, and what does not pair."""
    masks = {natural_order(path): path for path in images_in(folder)}
    faults = [
        f"{path}: a frame without its mask in {folder}"
        for path in frames
        if natural_order(path) not in masks
    ]
    numbers = {natural_order(path) for path in frames}
    faults += [
        f"{path}: a mask without its frame in {frames[0].parent}"
        for number, path in masks.items()
        if number not in numbers
    ]
    return tuple(masks[n] for path in frames if (n := natural_order(path)) in masks), faults
