"""DeepPro-Plus prepared for inference: tiles with a halo (see `models.prepared`)."""

from collections.abc import Callable
from itertools import product

import torch
from torch.nn import functional as F

from models.compiled_deeppro_plus import CompiledDeepProPlus
from models.deeppro_plus import DeepProPlus
from models.layers import check_frames
from models.prepared import folded, for_each, pointwise_matrix, prepares, tiles
from models.prepared_convolutions import Convolution, paired
from models.prepared_space import ProbedBlock, SpatioTemporalBlock, outside
from models.products import on_products


@prepares(DeepProPlus)
def prepared_deeppro_plus(
    network: DeepProPlus, tile: int | None, dtype: torch.dtype, compiled: bool
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The form in C++ where that does the work, else the one of torch's operations."""
    if on_products(dtype, network.conv_out2.weight.device, compiled):
        return CompiledDeepProPlus(network, tile)
    return PreparedDeepProPlus(network, tile, dtype, compiled)


class PreparedDeepProPlus:
    """Tiles with a halo of 9 pixels, which shrinks layer by layer: 3 + (1 + 2) + (1 + 2)."""

    def __init__(self, network: DeepProPlus, tile: int | None, dtype: torch.dtype, compiled: bool):
        self.seqlen = network.seqlen
        pair = paired(*folded(*network.conv_in[:2]))
        self.first = Convolution(*pair, dtype, padding=(2, 0, 0))
        first, second = network.layer1
        self.block = SpatioTemporalBlock(first, dtype)
        last, bias = pointwise_matrix(network.conv_out2)
        self.end = ProbedBlock(
            second, network.TPro, network.conv_out1[:2], last=last, dtype=dtype, compiled=compiled
        )
        self.bias = bias.to(dtype)
        self.tile = (tile, tile) if tile else (64, 256) if bias.is_cpu else (256, 256)
        self.size = None  # the tapes are for frames of this size

    @torch.inference_mode()
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        check_frames(frames[None, None], self.seqlen)
        H, W = frames.shape[1:]
        if self.size != (H, W):
            self.end.tapes.clear()
            self.size = (H, W)
        out = frames.new_empty(frames.shape)

        def fill(tile: tuple) -> None:
            (top, bottom), (left, right) = tile
            left, right = 2 * left, 2 * right  # an even width, perhaps one beyond the frame
            room = (top, H - bottom, left, W - right)
            x = frames[:, max(0, top - 9) : bottom + 9, max(0, left - 9) : right + 9]
            above, below, *sides = (max(0, 9 - r) for r in room)
            x = self._tile(F.pad(x, (*sides, above, below)), room)
            out[:, top:bottom, left:right] = x[:, :, : W - left]

        pairs = tiles(-(-W // 2), max(1, self.tile[1] // 2))  # of columns
        for_each(fill, product(tiles(H, self.tile[0]), pairs), frames.device)
        return out

    def _tile(self, x: torch.Tensor, room: tuple[int, int, int, int]) -> torch.Tensor:
        """A tile with its halo [T, h + 18, w + 18] to its logits [T, h, w].

        room: how many rows and columns of the frame lie above, below, left and right of it.
        """
        T, h, w = x.shape[0], x.shape[1] - 18, x.shape[2] - 18
        clear = outside(h, w, room)
        x = self.first(x.unflatten(2, (-1, 2))).clamp_min_(0)
        x = x.view(T, h + 12, w + 12, 8)
        clear(x)
        return self.end(self.block(x, clear), clear)[0] + self.bias
