"""What the prepared forms share that look around a pixel: convolutions on tiles with a halo.

A tile lies as [T, h, w, C] with a halo around it that shrinks layer by layer. What lies outside the
frame is put to zero again behind every layer: that is the zero padding of the next one.
"""

from collections.abc import Callable

import torch
from torch import nn

from models.layers import ResidualBlock, TemporalProbe, change_taps
from models.prepared import Head, folded, pointwise_matrix, tiles
from models.prepared_convolutions import Convolution, temporal_convolution
from models.tape_pool import Tapes
from models.tapes import Tape, without_tiny


def outside(h: int, w: int, room: tuple[int, int, int, int]) -> Callable[[torch.Tensor], None]:
    """A function that zeroes what lies outside the frame, in x [T, h + 2 halo, w + 2 halo, C].

    room: how many rows and columns of the frame lie above, below, left and right of the tile
    [h, w]; negative where the tile itself reaches beyond the frame.
    """

    def clear(x: torch.Tensor) -> None:
        halo = (x.shape[1] - h) // 2
        above, below, left, right = (max(0, halo - r) for r in room)
        x[:, :above] = x[:, h + 2 * halo - below :] = 0
        x[:, :, :left] = x[:, :, w + 2 * halo - right :] = 0

    return clear


class SpatioTemporalBlock:
    """STD(a, b) on a tile [T, h, w, C] whose halo shrinks by 3: whole, or but for its end."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype):
        kernel, bias = folded(block.conv1, block.bn1)
        self.difference = Convolution(change_taps(kernel), bias, dtype, dilation=(2, 1, 1))
        kernel, bias = folded(block.conv2, block.bn2)
        self.surround = temporal_convolution(kernel, bias, dtype, padding=1, dilation=2)
        matrix, bias = pointwise_matrix(block.conv3, block.bn3)
        shortcut, shortcut_bias = pointwise_matrix(*block.shortcut)
        self.mix, self.shortcut = (without_tiny(m).to(dtype) for m in (matrix, shortcut))
        self.bias = (bias + shortcut_bias).to(dtype)

    def begin(self, x: torch.Tensor, clear: Callable) -> torch.Tensor:
        """x [T, h + 6, w + 6, I] to [T, h, w, O], what conv2 gives before its ReLU."""
        T = len(x)
        change = x.new_empty(T + 2, *x.shape[1:])  # x[t + 2] - x[t] from t = -2, x outside zero
        change[:2] = 0  # of a single frame there is none at t = -1
        change[:T][:2], change[2:][-2:] = x[:2], -x[-2:]
        torch.sub(x[2:], x[:-2], out=change[2:T])
        y = self.difference(change).clamp_min_(0)
        del change  # tens of megabytes
        clear(y)
        return self.surround(y)

    def __call__(self, x: torch.Tensor, clear: Callable) -> torch.Tensor:
        """x [T, h + 6, w + 6, I] to [T, h, w, O], zero outside the frame."""
        y = self.begin(x, clear).clamp_min_(0)
        size = *y.shape[:3], len(self.mix)
        z = torch.addmm(self.bias[:, 0], y.flatten(0, 2), self.mix.T)
        x = x[:, 3:-3, 3:-3].flatten(0, 2)
        z = z.addmm_(x, self.shortcut.T).clamp_min_(0).view(size)
        clear(z)
        return z


class ProbedBlock:
    """A spatio-temporal block, the probe and pointwise layers behind it, and a last product.

    Args:
        layers: the pointwise convolutions behind the probe with their norms; a ReLU ends each.
        last: matrix [O, I] that their result goes through, float64.
    """

    def __init__(
        self,
        block: ResidualBlock,
        probe: TemporalProbe,
        *layers: tuple[nn.Conv3d, nn.BatchNorm3d],
        last: torch.Tensor,
        dtype: torch.dtype,
        compiled: bool,
    ):
        self.seqlen = probe.seqlen
        self.block = SpatioTemporalBlock(block, dtype)
        self.head = Head(probe, *layers)
        self.last = last
        self.tapes = Tapes(self._record, dtype, last.device, compiled)

    def __call__(self, x: torch.Tensor, clear: Callable) -> torch.Tensor:
        """x [T, h + 6, w + 6, I] to [O, T, h, w]."""
        y = self.block.begin(x, clear)
        T, h, w, _ = y.size()
        mix, shortcut = (m.expand(T, -1, -1) for m in (self.block.mix, self.block.shortcut))
        out = x.new_empty(len(self.last), T, h, w)
        for start, stop in tiles(h, max(1, 256 // w) if x.is_cpu else h):
            around = x[:, start + 3 : stop + 3, 3:-3].flatten(1, 2)  # [T, P, I]
            with self.tapes.borrow(stop - start, w) as tape:
                part = y[:, start:stop].clamp_min(0).flatten(1, 2).mT
                torch.baddbmm(self.block.bias, mix, part, out=tape.source)
                tape.source.baddbmm_(shortcut, around.mT).clamp_min_(0)
                tape.run()
                part = out[:, :, start:stop]
                part.copy_(tape.result.view(part.shape))
        return out

    def _record(self, tape: Tape, h: int, w: int) -> None:
        """From `source`, features [T, C, h w], to `result` [O, T, h w]."""
        pixels = h * w
        z = tape.scratch("c", self.seqlen, len(self.head.maps), pixels)
        tape.begin(z)
        tape.result = tape.scratch("d", len(self.last), self.seqlen, pixels)
        for piece in tape.pieces(pixels):
            y = self.head.record(tape, z[..., piece])
            tape.mix(tape.result[..., piece], self.last, y)
