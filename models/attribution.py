"""What did the detector look at? Integrated gradients of one target's score.

The influence of a voxel (y, x, t) on the score F of a target is

    (clip - baseline) x mean over the straight path from baseline to clip of dF / d voxel

(Sundararajan et al. 2017, arXiv 1703.01365; the paper's "prediction attribution" is of this kind,
from the zero clip). Over all voxels it sums to F(clip) - F(baseline); by how much finitely many
steps miss that is the `gap`, kept with every map.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import nn

from models.focus import Crop, TargetScore, visible_crop, whole_frame
from models.integration import GAP, Path, Score, integrated_gradients
from models.windows import Window, overlap, split_windows
from utils.devices import on_all_cores
from utils.errors import InputError

BASELINES = ("zero", "median")
VOXEL_BYTES = 2000  # about: DeepPro keeps 900 for the gradient, and works on them
BLUR = 9  # side in pixels of the mean filter of the median baseline
# Voxels deleted, as shares of all that the network can see; random orders to compare with.
DELETED = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
RANDOM_ORDERS = 3


class Deletion(NamedTuple):
    """F after a share of the voxels took the values of the baseline: the most influential ones
    first, and random ones (mean of some orders)."""

    shares: np.ndarray
    ordered: np.ndarray
    random: np.ndarray


@dataclass(frozen=True)
class Attribution:
    """The influence of every voxel on one target's score, and what that depends on.

    Args:
        influence: signed, [n, h, w]: n frames of the window (fewer than T only where the sequence
            is shorter), pixels of the crop. It is 0 everywhere else.
        path: F on the way from the baseline to the clip.
        index: the target's frame in the window, from 0.
        mask: the target, [h, w] bool.
        crop: what of the frame was looked at.
        clip: grey levels [n, h, w].
        baseline: grey levels of the baseline clip, the same in every frame: [h, w].
        deletion: the faithfulness check.
    """

    influence: np.ndarray
    path: Path
    index: int
    mask: np.ndarray
    crop: Crop
    clip: np.ndarray
    baseline: np.ndarray
    baseline_name: str
    deletion: Deletion
    start: int = 0  # of the window in its sequence
    seconds: float = 0.0  # that it took

    @property
    def steps(self) -> int:
        return len(self.path.places) - 1

    @property
    def gained(self) -> float:
        """F(clip) - F(baseline), which the influence should sum to."""
        return float(self.path.scores[-1] - self.path.scores[0])

    @property
    def gap(self) -> float:
        """By how much the influence misses its sum, relative to it (infinite where that is 0)."""
        missed = abs(float(self.influence.sum(dtype=np.float64)) - self.gained)
        return missed / abs(self.gained) if self.gained else float("inf" if missed else 0)

    @property
    def complete(self) -> bool:
        return self.gap <= GAP


class Explainer:
    """Explains what a network answers: frames and a target in, an Attribution out.

    Args:
        network: [B, 1, T, H, W] in, logits [B, T, H, W] out; its `seqlen` is T.
        mean, std: of the grey levels that the network was trained on.
        device: where it runs.
        steps: of the path; see `integrated_gradients`.
        refine: halve the steps that miss the most.
        baseline: `zero`, the mean grey level everywhere, or `median`, every pixel's median over
            the clip, blurred 9 x 9.
        whole: run on whole frames, not on the crop that the network can see of them. The map is
            the same, with zeros around; time and memory grow with the frame.
    """

    def __init__(
        self, network: nn.Module, mean: float, std: float, device="cpu", steps: int = 50,
        refine: bool = True, baseline: str = "zero", whole: bool = False,
    ):  # fmt: skip
        self.network, self.device = network.to(device), torch.device(device)
        self.seqlen = network.seqlen
        self.mean, self.std = float(mean), float(std)
        self.steps, self.refine = steps, refine
        self.baseline, self.whole = baseline, whole

    def describe(self) -> dict:
        """What its maps depend on besides weights and normalisation."""
        return {
            "seqlen": self.seqlen,
            "overlap": overlap(self.seqlen),
            "steps": self.steps,
            "refine": self.refine,
            "baseline": self.baseline,
            "whole_frame": self.whole,
            "device": str(self.device),
        }

    def __call__(
        self, frames: np.ndarray, index: int, mask: np.ndarray, advance: Callable = lambda n: None
    ) -> Attribution:
        """Explain one target.

        Args:
            frames: a window [n, H, W] of grey levels; fewer than T are filled up by repeating the
                last frame, as the Detector does, and the influence of the filling is that frame's.
            index: the target's frame among them.
            mask: the target in that frame, [H, W] bool, not empty.
            advance: called with the number of steps just done.
        """
        crop, score, clip = self._prepare(frames, index, mask)
        background = baseline_image(frames, self.baseline, self.mean)[crop.slices]  # [h, w]
        baseline = self._normalise(background).expand_as(clip)
        influence, path = integrated_gradients(
            score, clip, baseline, self.steps, self.refine, advance
        )
        if not np.isfinite(path.scores).all() or not np.isfinite(influence).all():
            raise InputError(
                "the influence is not finite: the weights hold NaN or infinity, or mean "
                f"{self.mean} and std {self.std} are far from the frames'"
            )
        n = len(frames)
        deletion = delete_voxels(score, clip, baseline, influence)
        influence[n - 1] += influence[n:].sum(axis=0)
        return Attribution(
            influence[:n].astype(np.float32), path, index, mask[crop.slices], crop,
            frames[:, *crop.slices], background, self.baseline, deletion,
        )  # fmt: skip

    def explain(
        self,
        read: Callable[[int, int], np.ndarray],
        count: int,
        index: int,
        mask: np.ndarray,
        advance: Callable = lambda n: None,
    ) -> Attribution:
        """Explain a target in frame `index` of a sequence of `count` frames, in the window that the
        Detector's answer comes from: the one with the largest F of those that hold the frame.

        `read(start, stop)` gives the grey levels of frames [start, stop).
        """
        began = time.perf_counter()
        windows = windows_with(index, count, self.seqlen)
        clips = [read(*window) for window in windows]
        best = 0
        if len(windows) > 1:
            pairs = zip(clips, windows, strict=True)
            best = int(np.argmax([self.score(c, index - w.start, mask) for c, w in pairs]))
        start = windows[best].start
        found = self(clips[best], index - start, mask, advance)
        return replace(found, start=start, seconds=time.perf_counter() - began)

    @torch.no_grad()
    def score(self, frames: np.ndarray, index: int, mask: np.ndarray) -> float:
        """F of a target in a window; arguments as in a call."""
        _, score, clip = self._prepare(frames, index, mask)
        return float(score(clip[None]))

    def _prepare(self, frames: np.ndarray, index: int, mask: np.ndarray):
        """The crop, F in it, and the normalised clip [T, h, w]."""
        crop = whole_frame(mask.shape) if self.whole else visible_crop(self.network, mask)
        if self.whole and self.device.type == "cpu":
            _check_memory(self.seqlen, *crop.size)
        score = TargetScore(self.network, index, mask, crop).to(self.device)
        clip = frames[:, *crop.slices]
        filling = np.repeat(clip[-1:], self.seqlen - len(clip), axis=0)
        return crop, score, self._normalise(np.concatenate([clip, filling]))

    def _normalise(self, levels: np.ndarray) -> torch.Tensor:
        levels = torch.from_numpy(levels.astype(np.float32)).to(self.device)
        return (levels - self.mean) / self.std


def _check_memory(T: int, H: int, W: int) -> None:
    """Raise InputError if one step over whole frames cannot fit in the memory of this machine."""
    needed = T * H * W * VOXEL_BYTES / 1e9
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    if needed > there:
        raise InputError(
            f"whole frames of {H} x {W} pixels need about {needed:.0f} GB, this machine has "
            f"{there:.0f} GB: leave out --whole_frame (beyond the crop the map is 0)"
        )


def windows_with(index: int, count: int, seqlen: int) -> list[Window]:
    """The Detector's windows of a sequence of `count` frames that hold frame `index`."""
    return [w for w in split_windows(count, seqlen) if w.start <= index < w.stop]


def baseline_image(frames: np.ndarray, name: str, mean: float) -> np.ndarray:
    """The frame [H, W] (grey levels, float32) that a baseline clip repeats; see Explainer."""
    if name == "zero":
        return np.full(frames.shape[1:], mean, np.float32)
    return cv2.blur(np.median(frames, axis=0).astype(np.float32), (BLUR, BLUR))


def delete_voxels(
    score: Score, clip: torch.Tensor, baseline: torch.Tensor, influence: np.ndarray
) -> Deletion:
    """The faithfulness check: F as voxels take the values of the baseline.

    If the map is right, F falls sooner when the voxels of largest influence (most positive first)
    go first than when random ones do.

    Args:
        clip, baseline: [T, h, w].
        influence: [T, h, w], signed.
    """
    count = influence.size
    rng = np.random.default_rng(0)
    orders = [np.argsort(-influence, axis=None, kind="stable")]
    orders += [rng.permutation(count) for _ in range(RANDOM_ORDERS)]

    @torch.no_grad()  # this state is a thread's own
    def curve(order: np.ndarray) -> list[float]:
        rank = torch.empty(count, dtype=torch.int64)
        rank[torch.from_numpy(order)] = torch.arange(count)
        rank = rank.to(clip.device).view(clip.shape)
        deleted = (torch.where(rank < round(s * count), baseline, clip) for s in DELETED)
        return [float(score(each[None])) for each in deleted]

    ordered, *random = on_all_cores(curve, orders, clip.device)
    return Deletion(np.array(DELETED), np.array(ordered), np.mean(random, axis=0))
