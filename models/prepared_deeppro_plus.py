"""DeepPro-Plus prepared for inference: tiles with a halo (see `models.prepared`)."""

from collections.abc import Callable
from itertools import product

import torch
from torch.nn import functional as F

from models.deeppro_plus import DeepProPlus
from models.layers import ResidualBlock, check_frames
from models.prepared import (
    Head,
    Tape,
    Tapes,
    folded,
    for_each,
    pointwise_matrix,
    prepares,
    tiles,
    without_tiny,
)


class SpatioTemporalBlock:
    """STD(a, b) but for its pointwise end, on a tile [T, h, w, C] whose halo shrinks by 3."""

    def __init__(self, block: ResidualBlock, dtype: torch.dtype):
        kernel, bias = folded(block.conv1, block.bn1)
        first, _, last = kernel.unbind(2)
        self.difference = convolution(torch.stack([-first, last], dim=2), bias, dtype)
        self.surround = convolution(*folded(block.conv2, block.bn2), dtype)
        matrix, bias = pointwise_matrix(block.conv3, block.bn3)
        shortcut, shortcut_bias = pointwise_matrix(*block.shortcut)
        self.mix, self.shortcut = (without_tiny(m).to(dtype) for m in (matrix, shortcut))
        self.bias = bias + shortcut_bias

    def __call__(self, x: torch.Tensor, clear: Callable) -> tuple[torch.Tensor, torch.Tensor]:
        """x [T, h + 6, w + 6, I] to y [T, h, w, O] before conv3 and x [T, h, w, I]."""
        T, h, w, _ = x.size()
        change = x.new_zeros(T + 2, *x.shape[1:])  # x[t + 2] - x[t] from t = -2
        change[:T] = x
        change[2:] -= x
        y = convolve(change, self.difference, dilation=(2, 1, 1)).clamp_min_(0)
        clear(y)
        y = convolve(y, self.surround, padding=(1, 0, 0), dilation=(1, 2, 2)).clamp_min_(0)
        return y, x[:, 3 : h - 3, 3 : w - 3].contiguous()


def convolution(kernel: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> tuple:
    """Kernel and bias for `convolve`."""
    kernel = without_tiny(kernel).to(dtype)
    return kernel.contiguous(memory_format=torch.channels_last_3d), bias.to(dtype)


def convolve(x: torch.Tensor, convolution: tuple, **geometry) -> torch.Tensor:
    """3-D convolution of [T, h, w, I], which torch calls channels_last_3d, to [T', h', w', O]."""
    y = F.conv3d(x.permute(3, 0, 1, 2)[None], *convolution, **geometry)
    return y[0].permute(1, 2, 3, 0).contiguous()


@prepares(DeepProPlus)
class PreparedDeepProPlus:
    """Tiles with a halo of 9 pixels, which shrinks layer by layer: 3 + (1 + 2) + (1 + 2).

    Convolutions do not pad in space. What lies outside the frame is put to zero again behind every
    layer: that is the zero padding of the next one.
    """

    def __init__(self, network: DeepProPlus, tile: int | None, dtype: torch.dtype):
        self.seqlen, self.dtype = network.seqlen, dtype
        kernel, bias = folded(*network.conv_in[:2])  # [8, 1, 5, 7, 7]
        # Two neighbouring pixels as 16 channels fill the vector registers.
        pair = torch.cat([F.pad(kernel, (0, 1)), F.pad(kernel, (1, 0))])
        self.first = convolution(pair, bias.repeat(2), dtype)
        self.blocks = [SpatioTemporalBlock(block, dtype) for block in network.layer1]
        offset = self.blocks[-1].bias
        self.head = Head(network.TPro, network.conv_out1[:2], offset=offset[:, 0])
        self.floor = -offset
        self.tapes, self.size = Tapes(), None  # the tapes are for frames of this size
        self.final, bias = pointwise_matrix(network.conv_out2)
        self.bias = (bias + self.final @ self.head.offset).to(dtype).view(-1, 1)
        self.side = tile or (64 if self.bias.is_cpu else 256)

    @torch.inference_mode()
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        check_frames(frames[None, None], self.seqlen)
        H, W = frames.shape[1:]
        if self.size != (H, W):
            self.tapes, self.size = Tapes(), (H, W)
        padded = F.pad(frames, (9, 10, 9, 9))
        out = torch.empty_like(frames)

        def fill(tile: tuple) -> None:
            (top, bottom), (left, right) = tile
            left, right = 2 * left, 2 * right  # an even width, perhaps one beyond the frame
            x = padded[:, top : bottom + 18, left : right + 18]
            x = self._tile(x, (top, H - bottom, left, W - right))
            out[:, top:bottom, left:right] = x[:, :, : W - left]

        pairs = tiles(-(-W // 2), max(1, self.side // 2))  # of columns
        for_each(fill, product(tiles(H, self.side), pairs), frames.device)
        return out

    def _tile(self, x: torch.Tensor, room: tuple[int, int, int, int]) -> torch.Tensor:
        """A tile with its halo [T, h + 18, w + 18] to its logits [T, h, w].

        room: how many rows and columns of the frame lie above, below, left and right of it.
        """
        T, h, w = x.shape[0], x.shape[1] - 18, x.shape[2] - 18

        def clear(x: torch.Tensor) -> None:
            """Zero outside the frame, for x [T, h + 2 halo, w + 2 halo, C]."""
            halo = (x.shape[1] - h) // 2
            above, below, left, right = (max(0, halo - r) for r in room)
            x[:, :above] = x[:, h + 2 * halo - below :] = 0
            x[:, :, :left] = x[:, :, w + 2 * halo - right :] = 0

        x = convolve(x[..., None], self.first, padding=(2, 0, 0), stride=(1, 1, 2)).clamp_min_(0)
        x = x.view(T, h + 12, w + 12, 8)
        clear(x)
        first, second = self.blocks
        y, x = first(x, clear)
        x = (y @ first.mix.T).add_(x @ first.shortcut.T)
        x = x.add_(first.bias[:, 0].to(x)).clamp_min_(0)
        clear(x)
        y, x = second(x, clear)
        y, x = y.flatten(1, 2).mT, x.flatten(1, 2).mT  # [T, C, P]
        out = x.new_empty(T, h * w)
        for start, stop in tiles(h * w, 256 if x.is_cpu else h * w):
            with self.tapes.borrow(stop - start, self._record) as tape:
                torch.bmm(second.mix.expand(T, -1, -1), y[..., start:stop], out=tape.features)
                tape.features.baddbmm_(second.shortcut.expand(T, -1, -1), x[..., start:stop])
                tape.run()
                torch.add(tape.result.view(T, -1), self.bias, out=out[:, start:stop])
        return out.view(T, h, w)

    def _record(self, pixels: int) -> Tape:
        """The tape with `features` [T, 32, P] before their ReLU and `result` [1, T P]."""
        tape = Tape(self.dtype, self.final.device)
        z = tape.features = tape.scratch("c", self.seqlen, len(self.floor), pixels)
        tape.rectify(z, self.floor)
        y = self.head.record(tape, z)
        tape.result = tape.scratch("d", 1, self.seqlen * pixels)
        tape.do(torch.mm, tape.cast(self.final), y.flatten(1), out=tape.result)
        return tape
