"""The Detector: frames in, one probability map a frame out.

Every command that needs maps asks a Detector; the window arithmetic and the fusion of
overlapping windows exist once, here.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from models.prepared import PRECISIONS, prepare
from models.registration import REGISTRATIONS, register
from models.windows import overlap, window_stop
from utils.errors import InputError, size_text, unknown_name


class Detector:
    """A network with its normalisation, window rule and overlap fusion.

    It runs the prepared form of the network, a snapshot of its weights.

    Args:
        network: [B, 1, T, H, W] in, logits [B, T, H, W] out; its `seqlen` is T.
        mean, std: of the grey levels that the network was trained on.
        device: where the network runs.
        precision: one of PRECISIONS; less than fp32 changes scores, and counts with them.
        register: one of REGISTRATIONS; how the frames of a window are brought onto its middle one
            before the network sees them. Maps are always in their frame's own coordinates.
        compiled: whether a compiler is made use of (see `models.compiled`).
    """

    def __init__(
        self,
        network: nn.Module,
        mean: float,
        std: float,
        device="cpu",
        precision: str = "fp32",
        register: str = "none",
        compiled: bool = False,
    ):
        if not (math.isfinite(mean) and math.isfinite(std) and std > 0):
            raise InputError(
                f"mean {mean}, standard deviation {std}: expected numbers, the latter above 0"
            )
        if register not in REGISTRATIONS:
            raise unknown_name("registration", register, REGISTRATIONS)
        self.infer = prepare(network.to(device), dtype=PRECISIONS[precision], compiled=compiled)
        self.precision, self.register, self.compiled = precision, register, compiled
        self.seqlen = network.seqlen
        self.mean, self.std = float(mean), float(std)
        self.device = torch.device(device)

    def describe(self) -> dict:
        """What its maps depend on besides weights and normalisation, in words and numbers."""
        return {
            "seqlen": self.seqlen,
            "overlap": overlap(self.seqlen),
            "fusion": "maximum of the sigmoid",
            "register": self.register,
            "precision": self.precision,
            "compiled": self.compiled,
            "device": str(self.device),
        }

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Frames [N, H, W] (any N from 1, 8- or 16-bit grey levels) to probabilities [N, H, W]."""
        if not len(frames):
            raise InputError("no frames to detect in")
        return np.stack(list(self.stream(frames)))

    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the probability map [H, W] (float32) of every frame [H, W], in order.

        Windows of T frames that share int(0.1 T) frames, fused by the maximum of the sigmoid
        (published behaviour). A map is yielded once no later window can change it, at most T
        frames after its frame was read; T frames and the maps of at most two windows are held. A
        sequence shorter than T is filled up by repeating its last frame; the maps of the filling
        are dropped.

        Raises InputError if the size changes on the way, or if a map is not finite.
        """
        T = self.seqlen
        recent: deque[np.ndarray] = deque(maxlen=T)
        maps: deque[np.ndarray] = deque()  # of the frames [read - ..., covered)
        read = covered = yielded = windows = 0
        for frame in frames:
            if recent and frame.shape != recent[-1].shape:
                raise InputError(
                    f"frame {read + 1} is {size_text(frame.shape)}, the frames before are "
                    f"{size_text(recent[-1].shape)}: all frames of a sequence must have one size"
                )
            recent.append(frame)
            read += 1
            if read == window_stop(windows, T):
                self._fuse(maps, recent, read - T - yielded)
                covered, windows = read, windows + 1
            # No later window begins before this frame.
            settled = min(covered, max(read, covered + 1) - T)
            while yielded < settled:
                yield maps.popleft()
                yielded += 1
        if read > covered:
            self._fuse(maps, recent, max(0, read - T) - yielded)
        yield from maps

    def _fuse(self, maps: deque, frames: Iterable[np.ndarray], offset: int) -> None:
        """Add a window's maps to those pending, the first of them at maps[offset]."""
        window = np.stack(list(frames))
        for i, probability in enumerate(self._registered(window), start=offset):
            if i < len(maps):
                np.maximum(maps[i], probability, out=maps[i])
            else:
                maps.append(probability)

    def _registered(self, frames: np.ndarray) -> np.ndarray:
        """One window: frames [n, H, W] to probabilities [n, H, W], each in its own coordinates."""
        alignment = register(frames, self.register)
        if alignment is None:
            return self._probabilities(frames)
        return alignment.restore(self._probabilities(alignment.warp(frames)))

    @torch.inference_mode()
    def _probabilities(self, frames: np.ndarray) -> np.ndarray:
        """One window: frames [n, H, W], n <= T, to probabilities [n, H, W] float32."""
        count = len(frames)
        filling = np.repeat(frames[-1:], self.seqlen - count, axis=0)
        frames = np.concatenate([frames, filling])  # [T, H, W]
        frames = frames.astype(frames.dtype.newbyteorder("="), copy=False)
        x = torch.from_numpy(frames).to(self.device).float()  # travels as it was read
        x = (x - self.mean) / self.std
        logits = self.infer(x.to(PRECISIONS[self.precision]))  # [T, H, W]
        probabilities = logits.float().sigmoid()[:count].cpu().numpy()
        if not np.isfinite(probabilities.sum()):
            raise InputError(
                "the probability map is not finite: the weights hold NaN, infinity or what a "
                "training that diverged leaves (lower --learning_rate), or the grey levels are far "
                f"from mean {self.mean} and std {self.std}"
            )
        return probabilities
