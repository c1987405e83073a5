"""Which targets to explain: the components of masks, or of what was detected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from models.detector import Detector
from utils.errors import InputError
from utils.logs import progress

NEAR = 5.0  # pixels
DETECTED = 0.5  # the probability from which a pixel is part of a detection, as in tables


class Target(NamedTuple):
    """A target in a frame: the frame from 0, its number there from 1, its mask [H, W] bool."""

    index: int
    number: int
    mask: np.ndarray


def number_targets(mask: np.ndarray) -> np.ndarray:
    """The targets of a mask [H, W]: its 8-connected components, as an image [H, W] of their numbers
    from 1 in raster order of their first pixels, 0 elsewhere."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    present, first = np.unique(labels, return_index=True)
    numbers = np.zeros(count, np.int32)
    ordered = present[np.argsort(first)]
    numbers[ordered[ordered > 0]] = np.arange(1, count)
    return numbers[labels]


def target_at(index: int, mask: np.ndarray, x: float, y: float, min_area: int = 1) -> Target:
    """The target of a mask [H, W] of frame `index` (from 0) that is nearest to (x, y), of those
    with at least `min_area` pixels.

    Raises InputError, naming the nearest, if none has a pixel within NEAR of it.
    """
    numbers = number_targets(mask)
    numbers[np.bincount(numbers.ravel())[numbers] < min_area] = 0
    pixels = np.argwhere(numbers)  # [pixels, 2] of y, x
    far = np.linalg.norm(pixels - (y, x), axis=1)
    number = numbers[tuple(pixels[far.argmin()])] if len(far) else 0
    if not number or far.min() > NEAR:
        where = ""
        if number:
            near_y, near_x = np.argwhere(numbers == number).mean(axis=0)
            where = f"; the nearest is at {near_x:.1f},{near_y:.1f}"
        raise InputError(f"frame {index + 1}: nothing is detected near {x:g},{y:g}{where}")
    return Target(index, int(number), numbers == number)


def find_targets(
    sequences: list, detector: Detector, frames: list[int] | None, numbers: list[int] | None
) -> list[tuple]:
    """The targets to explain in sequences, as pairs (sequence, Target).

    In a sequence without masks they are what the detector finds. See `choose_targets`.
    """
    found = []
    with progress(sum(map(len, sequences)), "frame", "find targets") as bar:
        for sequence in sequences:
            if sequence.has_masks:
                read_mask = partial(_mask_of, sequence)
                bar.update(len(sequence))
            else:
                read_mask = detected_masks(detector, sequence.iter_frames(), bar.update)
            targets = choose_targets(sequence.name, len(sequence), read_mask, frames, numbers)
            found += [(sequence, target) for target in targets]
    return found


def _mask_of(sequence, index: int) -> np.ndarray:
    return sequence.masks(index, index + 1)[0]  # [H, W] bool


def choose_targets(
    name: str, count: int, read_mask: Callable[[int], np.ndarray],
    frames: Iterable[int] | None = None, numbers: Iterable[int] | None = None,
) -> list[Target]:  # fmt: skip
    """The targets to explain in a sequence.

    Args:
        name, count: of the sequence and of its frames.
        read_mask: frame (from 0) to mask [H, W].
        frames: their numbers from 1; by default the middle one of those that hold targets.
        numbers: of the targets in a frame, from 1; by default all.

    Empty where frames are left to choose and none holds a target. Raises InputError for a frame or
    a target that is not there.
    """
    if frames is None:
        holding = [i for i in range(count) if read_mask(i).any()]
        frames = [holding[len(holding) // 2] + 1] if holding else []
    chosen = []
    for frame in frames:
        if not 1 <= frame <= count:
            raise InputError(f"{name}: no frame {frame}: it has {count} frames, counted from 1")
        targets = number_targets(read_mask(frame - 1))
        there = int(targets.max())
        wanted = numbers or range(1, there + 1)
        if not there or max(wanted) > there:
            which = f"no target {max(wanted)}" if there else "no target"
            raise InputError(
                f"{name}, frame {frame}: {which}: it has {there}; choose others with "
                "--frames, --targets or --sequences"
            )
        chosen += [Target(frame - 1, number, targets == number) for number in wanted]
    return chosen


def detected_masks(
    detector: Detector, frames: Iterable[np.ndarray], each: Callable[[], None] = lambda: None
) -> Callable[[int], np.ndarray]:
    """What a detector finds in frames [H, W]: a function from frame to mask [H, W].

    Holds the detected pixels only. `each` is called after every frame.
    """
    found, size = [], (0, 0)
    for probability in detector.stream(frames):
        size = probability.shape
        found.append(np.flatnonzero(probability >= DETECTED))
        each()

    def read(index: int) -> np.ndarray:
        mask = np.zeros(size, bool)
        mask.flat[found[index]] = True
        return mask

    return read
