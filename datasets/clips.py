"""Clips of T frames for training: which ones an epoch draws, how one is cut, and batches of them.

The sampling is separate from the reading. Both follow the published recipe and depend on nothing
but (seed, epoch, draw), so an epoch is the same whatever the number of worker processes.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from multiprocessing.connection import wait
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.augmentation import draw_turn
from datasets.sequences import Sequence
from utils.errors import InputError, leave_signals_to_main
from utils.processes import how_it_ended, signals_held

DRAWS, CROPS = 1, 2  # tags that keep the streams of random numbers apart
TARGET_SHARE = 0.75  # of the crops that could, this share is taken around a target


class Clip(NamedTuple):
    """Frames [start, stop) of a sequence; fewer than T only at its beginning."""

    sequence: int
    start: int
    stop: int


class ClipSampler:
    """Draws the clips of an epoch.

    All end positions i in [T/10, n) of every sequence give the clips [max(0, i - T), i); one is
    drawn with probability proportional to its length; an epoch is sample_rate x positions draws
    (published behaviour).
    """

    def __init__(self, lengths: Iterable[int], seqlen: int, sample_rate: float, seed: int):
        first = max(1, -(-seqlen // 10))
        self.clips = [
            Clip(s, max(0, stop - seqlen), stop)
            for s, n in enumerate(lengths)
            for stop in range(first, n)
        ]
        self.draws = int(sample_rate * len(self.clips))
        self.seed = seed
        if self.draws < 1:
            raise InputError(
                f"an epoch would hold no clip: {len(self.clips)} clip positions at a sample rate "
                f"of {sample_rate}; raise --sample_rate or add sequences of over {first} frames"
            )

    def epoch(self, epoch: int) -> list[Clip]:
        """The clips of an epoch, in the order they are drawn."""
        lengths = np.array([clip.stop - clip.start for clip in self.clips], np.float64)
        rng = np.random.default_rng([DRAWS, self.seed, epoch])
        drawn = rng.choice(len(self.clips), self.draws, p=lengths / lengths.sum())
        return [self.clips[i] for i in drawn]


class Crop(NamedTuple):
    """Where a drawn clip is cut from: frames [start, stop), rows and columns of a sequence.

    `turn` is applied to the rows and columns of what is cut.
    """

    sequence: Sequence
    start: int
    stop: int
    rows: slice
    columns: slice
    turn: tuple[slice, slice]
    draw: int

    def cut(self, images: np.ndarray) -> np.ndarray:
        """The part of frames or masks [n, H, W], a view [n, h, w]."""
        return images[:, self.rows, self.columns][(slice(None), *self.turn)]


class Batch(NamedTuple):
    """Clips as they were stored: frames [B, 1, T, h, w] uint8 or uint16, masks [B, T, h, w] bool.

    Clip b holds frames [first, last) of height h and width w, its `extents`; the rest is filling.
    """

    frames: torch.Tensor
    masks: torch.Tensor
    extents: list[tuple[int, int, int, int]]
    draws: list[int]
    mean: float
    std: float

    def normalised(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames and masks on the device in float32, (level - mean) / std; filling is 0."""
        x = self.frames.to(device, non_blocking=True).float()  # [B, 1, T, h, w]
        masks = self.masks.to(device, non_blocking=True).float()  # [B, T, h, w]
        # By a tensor, because CUDA would multiply by the rounded inverse of a number.
        x = x.sub_(self.mean).div_(torch.full((), self.std, device=device))
        T, h, w = masks.shape[1:]
        for clip, (first, last, rows, columns) in zip(x[:, 0], self.extents, strict=True):
            if (first, last, rows, columns) != (0, T, h, w):
                clip[:first] = clip[last:] = clip[:, rows:] = clip[:, :, columns:] = 0
        return x, masks


class ClipDataset(Dataset):
    """The drawn clips of one epoch. Item i is the `Crop` of draw i; `collate` reads a batch.

    Args:
        sequences: as they are trained on: resized, from images or from the cache.
        mean, std: of the grey levels.
        patch_size: side of the square crop in pixels; smaller frames are used whole.
        augmentation: one of `AUGMENTATIONS`; nothing is augmented in the published recipe.
    """

    def __init__(
        self,
        sequences: list[Sequence],
        sampler: ClipSampler,
        epoch: int,
        *,
        seqlen: int,
        mean: float,
        std: float,
        patch_size: int,
        augmentation: str = "none",
    ):
        self.sequences, self.clips = sequences, sampler.epoch(epoch)
        self.seed, self.epoch = sampler.seed, epoch
        self.seqlen, self.mean, self.std = seqlen, float(mean), float(std)
        self.patch_size, self.augmentation = patch_size, augmentation

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: int) -> Crop:
        clip = self.clips[draw]
        sequence = self.sequences[clip.sequence]
        rng = np.random.default_rng([CROPS, self.seed, self.epoch, draw])
        centres = sequence.centres((clip.start + clip.stop) // 2)
        rows, columns = choose_crop(centres, sequence.size, self.patch_size, rng)
        turn = draw_turn(self.augmentation, rng)
        return Crop(sequence, clip.start, clip.stop, rows, columns, turn, draw)

    def collate(self, crops: list[Crop]) -> Batch:
        """Read a batch: every clip is copied once, from where it lies to its place.

        Short clips are filled up at the back or the front by the parity of the draw (published),
        crops smaller than the others (frames smaller than the patch) at the bottom and right.
        """
        pieces = [c.cut(c.sequence.frames(c.start, c.stop)) for c in crops]
        h, w = (max(piece.shape[axis] for piece in pieces) for axis in (1, 2))
        shape = (len(crops), self.seqlen, h, w)
        frames = np.zeros(shape, np.result_type(*pieces))
        masks, extents = np.zeros(shape, bool), []
        for b, (crop, piece) in enumerate(zip(crops, pieces, strict=True)):
            n, rows, columns = piece.shape
            first = self.seqlen - n if crop.draw % 2 else 0
            place = (b, slice(first, first + n), slice(rows), slice(columns))
            frames[place] = piece
            masks[place] = crop.cut(crop.sequence.masks(crop.start, crop.stop))
            extents.append((first, first + n, rows, columns))
        return Batch(
            torch.from_numpy(frames)[:, None], torch.from_numpy(masks), extents,
            [crop.draw for crop in crops], self.mean, self.std,
        )  # fmt: skip

    def describe(self, draw: int) -> str:
        """A clip in words: sequence and frames, counted from 1."""
        clip = self.clips[draw]
        return f"{self.sequences[clip.sequence].name} frames {clip.start + 1} to {clip.stop}"


def choose_crop(
    centres: np.ndarray, size: tuple[int, int], patch_size: int, rng: np.random.Generator
) -> tuple[slice, slice]:
    """Where to crop frames of size (H, W), given the targets' centres [k, 2] in the middle one.

    If there are any, with probability 0.75 around a random one with a jitter of a sixth of the
    patch; otherwise anywhere (published behaviour).
    """
    sizes = [min(patch_size, n) for n in size]
    spare = [n - side for n, side in zip(size, sizes, strict=True)]
    if len(centres) and rng.random() < TARGET_SHARE:
        x, y = centres[rng.integers(len(centres))]
        jitter = rng.integers(-(patch_size // 6), patch_size // 6 + 1, size=2)
        wanted = [round(c) - s // 2 + j for c, s, j in zip((y, x), sizes, jitter, strict=True)]
        corner = [min(max(int(c), 0), most) for c, most in zip(wanted, spare, strict=True)]
    else:
        corner = [int(rng.integers(0, most + 1)) for most in spare]
    return tuple(slice(c, c + side) for c, side in zip(corner, sizes, strict=True))


def load_batches(
    clips: ClipDataset,
    batch_size: int,
    workers: int,
    pin_memory: bool = False,
    part: int = 0,
    parts: int = 1,
) -> DataLoader:
    """The clips of an epoch as `Batch`es, read by `workers` processes (0: by this one); the last
    partial batch is dropped (published).

    A step takes parts x batch_size clips in the order of the draws, and this is the part-th
    batch_size of them: so many parts together make the steps of one batch of that size.
    """
    step = parts * batch_size
    starts = range(part * batch_size, len(clips) // step * step, step)
    return _Loader(
        clips, batch_sampler=[range(i, i + batch_size) for i in starts], collate_fn=clips.collate,
        num_workers=workers, pin_memory=pin_memory,
    )  # fmt: skip


class _Loader(DataLoader):
    """One whose processes are born whole whatever signal comes, and whose death is an error here.

    Torch raises it wherever the main process is, even in the middle of handling another error. It
    does so lest half an answer is waited for; these are small, for arrays go by shared memory.
    """

    def __init__(self, clips: ClipDataset, **options):
        super().__init__(clips, worker_init_fn=leave_signals_to_main, **options)

    def __iter__(self) -> Iterator[Batch]:
        others, at_death = multiprocessing.active_children(), signal.getsignal(signal.SIGCHLD)
        with signals_held():
            batches = super().__iter__()
            if signal.getsignal(signal.SIGCHLD) is not at_death:
                signal.signal(signal.SIGCHLD, at_death)
        team = [worker for worker in multiprocessing.active_children() if worker not in others]
        try:
            yield from batches
        except (EOFError, OSError, RuntimeError):
            if team:  # one may be about to end
                wait([worker.sentinel for worker in team], timeout=1)
            for status in filter(None, [worker.exitcode for worker in team]):
                raise RuntimeError(how_it_ended(status)) from None
            raise
        finally:
            with signals_held():
                del batches  # ends the processes
