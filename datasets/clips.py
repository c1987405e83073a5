"""Clips of T frames for training: which ones an epoch draws, and how one is cut.

The sampling is separate from the reading. Both follow the published recipe and depend on nothing
but (seed, epoch, draw), so an epoch is the same whatever the number of worker processes.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.images import resize_frame, resize_mask
from datasets.sequences import Sequence
from utils.errors import InputError, leave_signals_to_main

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

    def __init__(self, lengths: list[int], seqlen: int, sample_rate: float, seed: int):
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


class ClipDataset(Dataset):
    """The drawn clips of one epoch, read, resized, cropped, normalised and filled up.

    Item i is (frames [1, T, h, w] float32, masks [T, h, w] float32, i).

    Args:
        patch_size: side of the square crop in pixels; smaller frames are used whole.
        train_size: (H, W) that frames and masks are resized to before the crop, or None.
        mask_resize: `nearest`, or `bicubic` as published.
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
        train_size: tuple[int, int] | None = None,
        mask_resize: str = "nearest",
    ):
        self.sequences, self.clips = sequences, sampler.epoch(epoch)
        self.seed, self.epoch = sampler.seed, epoch
        self.seqlen, self.mean, self.std = seqlen, float(mean), float(std)
        self.patch_size, self.train_size, self.mask_resize = patch_size, train_size, mask_resize

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, draw: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        clip = self.clips[draw]
        sequence = self.sequences[clip.sequence]
        frames = sequence.frames(clip.start, clip.stop)  # [n, H, W]
        masks = sequence.masks(clip.start, clip.stop)
        if self.train_size:
            frames = np.stack([resize_frame(f, self.train_size) for f in frames])
            masks = np.stack([resize_mask(m, self.train_size, self.mask_resize) for m in masks])
        rng = np.random.default_rng([CROPS, self.seed, self.epoch, draw])
        rows, columns = choose_crop(masks[len(masks) // 2], self.patch_size, rng)
        frames = (frames[:, rows, columns].astype(np.float32) - self.mean) / self.std
        masks = masks[:, rows, columns].astype(np.float32)
        missing = self.seqlen - len(frames)
        # Short clips get zeros at the back or the front, by the parity of the draw.
        filling = ((missing, 0) if draw % 2 else (0, missing), (0, 0), (0, 0))
        frames, masks = np.pad(frames, filling), np.pad(masks, filling)
        return torch.from_numpy(frames)[None], torch.from_numpy(masks), draw

    def describe(self, draw: int) -> str:
        """A clip in words: sequence and frames, counted from 1."""
        clip = self.clips[draw]
        return f"{self.sequences[clip.sequence].name} frames {clip.start + 1} to {clip.stop}"


def choose_crop(
    middle: np.ndarray, patch_size: int, rng: np.random.Generator
) -> tuple[slice, slice]:
    """Where to crop, given the mask [H, W] of the clip's middle frame.

    If that has targets, with probability 0.75 around a random 8-connected component with a jitter
    of a sixth of the patch; otherwise anywhere (published behaviour).
    """
    count, _, _, centres = cv2.connectedComponentsWithStats(middle.astype(np.uint8))
    sizes = [min(patch_size, n) for n in middle.shape]
    spare = [n - size for n, size in zip(middle.shape, sizes, strict=True)]
    if count > 1 and rng.random() < TARGET_SHARE:
        x, y = centres[rng.integers(1, count)]
        jitter = rng.integers(-(patch_size // 6), patch_size // 6 + 1, size=2)
        wanted = [round(c) - s // 2 + j for c, s, j in zip((y, x), sizes, jitter, strict=True)]
        corner = [int(np.clip(c, 0, most)) for c, most in zip(wanted, spare, strict=True)]
    else:
        corner = [int(rng.integers(0, most + 1)) for most in spare]
    return tuple(slice(c, c + size) for c, size in zip(corner, sizes, strict=True))


def load_batches(
    clips: ClipDataset, batch_size: int, workers: int, pin_memory: bool = False
) -> DataLoader:
    """The clips of an epoch in batches (see `collate`), read by `workers` processes (0: by this
    one); the last partial batch is dropped (published)."""
    return DataLoader(
        clips, batch_size, drop_last=True, collate_fn=collate, num_workers=workers,
        pin_memory=pin_memory, worker_init_fn=leave_signals_to_main,
    )  # fmt: skip


def collate(items: list[tuple]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """A batch: frames [B, 1, T, h, w], masks [B, T, h, w], draws.

    Crops of different sizes (frames smaller than the patch) are filled up with zeros.
    """
    frames, masks, draws = zip(*items, strict=True)
    h, w = (max(mask.shape[axis] for mask in masks) for axis in (1, 2))

    def fill(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(x, (0, w - x.shape[-1], 0, h - x.shape[-2]))

    return torch.stack([fill(f) for f in frames]), torch.stack([fill(m) for m in masks]), [*draws]
