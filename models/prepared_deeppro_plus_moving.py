"""DeepPro-Plus-Moving prepared for inference: half and quarter size on tiles with a halo, then the
output, upsampled tile by tile (see `models.prepared`)."""

from collections.abc import Callable
from itertools import product

import torch
from torch.nn import functional as F

from models.compiled_output import make_output
from models.deeppro_plus_moving import DeepProPlusMoving
from models.layers import check_frames
from models.prepared import folded, for_each, pointwise_matrix, prepares, tiles
from models.prepared_convolutions import Convolution, paired
from models.prepared_space import ProbedBlock, SpatioTemporalBlock, outside
from models.prepared_upsampling import Others, Upsampling

HALO = 9  # at half size: 3 for each of the two blocks, or 3 + 2 * 3 by way of the quarter size
REACH = 2 * HALO + 3  # at full size, with that of the first convolution


@prepares(DeepProPlusMoving)
class PreparedDeepProPlusMoving:
    """Both levels on a tile, from one first block; what they give is kept at its own size, as
    8 channels of conv_out1, until the output is put together.

    Tiles are whole cells of the quarter size, so they may reach beyond the frame by what
    max-pooling drops.
    """

    def __init__(
        self, network: DeepProPlusMoving, tile: int | None, dtype: torch.dtype, compiled: bool
    ):
        self.seqlen = network.seqlen
        pair = paired(*folded(*network.conv_in[:2]))
        self.first = Convolution(*pair, dtype, padding=(2, 0, 0), stride=(1, 2, 1))
        self.block = SpatioTemporalBlock(network.layer1[1], dtype)
        matrix, bias = pointwise_matrix(*network.conv_out1[:2])  # [8, 16], [8, 1]
        parts = zip((network.level1, network.level2[1:]), matrix.chunk(2, dim=1), strict=True)
        self.levels = [
            ProbedBlock(block, probe, (conv, norm), last=part, dtype=dtype, compiled=compiled)
            for (block, probe, conv, norm, _), part in parts
        ]
        self.bias = bias[..., None].to(dtype)
        self.output = make_output(network.conv_out2, dtype, compiled)
        on_cpu = self.output.bias.is_cpu
        self.half_tile = (tile, tile) if tile else (64, 128) if on_cpu else (128, 128)
        self.tile = (tile, tile) if tile else (4, 64) if on_cpu else (64, 64)  # of the output
        self.upsampling = None  # it and the tapes are for frames of one size

    @torch.inference_mode()
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        check_frames(frames[None, None], self.seqlen, smallest=4)
        size = frames.shape[1:]
        if self.upsampling is None or self.upsampling.size != size:
            self.upsampling = Upsampling(size, (2, 4), self.tile, self.output.bias)
            for level in self.levels:
                level.tapes.clear()
        maps = self._levels(frames)
        out = frames.new_empty(frames.shape)

        def fill(band: tuple[int, int]) -> None:
            rows = self.upsampling.rows(maps, band)
            for columns in self.upsampling.columns:
                part = out[:, slice(*band), slice(*columns)]  # [T, h, w]
                x = self.bias.repeat(1, self.seqlen, part[0].numel())  # [8, T, h w]
                self.output(x, Others(self.upsampling, rows, columns), part)

        for_each(fill, self.upsampling.bands, frames.device)
        return out

    def _levels(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Frames [T, H, W] to what the levels give, [H // 2, 8, T, W // 2] and quarter."""
        T, H, W = frames.size()
        maps = [frames.new_empty(H // s, 8, T, W // s) for s in (2, 4)]
        padded = F.pad(frames, (REACH, REACH + 2) * 2)

        def fill(tile: tuple) -> None:
            (top, bottom), (left, right) = tile  # at quarter size
            band = slice(4 * top, 4 * bottom + 2 * REACH)
            x = padded[:, band, 4 * left : 4 * right + 2 * REACH]
            for out, s, y in zip(maps, (2, 1), self._tile(x, tile, maps), strict=True):
                part = out[s * top : s * bottom, :, :, s * left : s * right]
                part.copy_(y[:, :, : part.shape[0], : part.shape[3]].permute(2, 0, 1, 3))

        # Cells that hold any pixel of the half size, so at most 2 rows and columns too many.
        sizes = zip((H, W), self.half_tile, strict=True)
        cells = [tiles((length + 2) // 4, max(1, side // 2)) for length, side in sizes]
        for_each(fill, product(*cells), frames.device)
        return maps

    def _tile(self, x: torch.Tensor, tile: tuple, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        """A tile with its halo [T, 4 h + 42, 4 w + 42] to [8, T, 2 h, 2 w] and [8, T, h, w]."""
        (top, bottom), (left, right) = tile

        def clearing(scale: int, out: torch.Tensor) -> Callable:
            rows = (scale * top, len(out) - scale * bottom)
            columns = (scale * left, out.shape[3] - scale * right)
            return outside(scale * (bottom - top), scale * (right - left), (*rows, *columns))

        half, quarter = clearing(2, maps[0]), clearing(1, maps[1])
        x = self._first(x)
        half(x)
        x = self.block(x, half)  # [T, 2 h + 12, 2 w + 12, 16]
        small = halved(x)
        quarter(small)  # max-pooling drops the last row and column of an odd size
        return [self.levels[0](x[:, 3:-3, 3:-3], half), self.levels[1](small, quarter)]

    def _first(self, x: torch.Tensor) -> torch.Tensor:
        """The first convolution and max-pooling: [T, 2 h + 6, 2 w + 6] to [T, h, w, 8]."""
        x = x.unflatten(2, (-1, 2))  # [T, 2 h + 6, w + 3, 2]
        even, odd = self.first(x[:, :-1]), self.first(x[:, 1:])  # [T, h, w, 16]
        left, right = torch.maximum(even, odd, out=even).chunk(2, dim=3)
        return torch.maximum(left, right).clamp_min_(0)


def halved(x: torch.Tensor) -> torch.Tensor:
    """MaxPool (1, 2, 2) of [T, 2 h, 2 w, C]."""
    x = torch.maximum(x[:, ::2], x[:, 1::2])
    return torch.maximum(x[:, :, ::2], x[:, :, 1::2])
