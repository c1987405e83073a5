"""What the prepared forms share that have branches at smaller sizes: upsampling and the output.

A 1 x 1 convolution and bilinear upsampling may change places, so a small branch goes through its
part of the convolution over all branches before it is upsampled, first to the rows of a band of
the frame, then to the columns of a tile.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from models.prepared import pointwise_matrix


def spans(length: int, size: int) -> list[tuple[int, int]]:
    """[start, stop) of pieces of one size, `size` at most, that cover a length.

    The fewest such pieces, no larger than they must be but for rounding up to a multiple of 4,
    where `size` and the length allow it: matrix products of an odd width take longer than those of
    the width that overlapping wastes.
    """
    count = -(-length // size)
    size = min(size, length, -(-length // (4 * count)) * 4)
    starts = [i * (length - size) // max(1, count - 1) for i in range(count)]
    return [(start, start + size) for start in starts]


def interpolation(size: int, samples: int, span: tuple[int, int]) -> tuple[slice, torch.Tensor]:
    """Linear upsampling from `samples` to `size` with align_corners, only what lies in `span`.

    Returns the samples that it needs and the matrix [needed, stop - start], float64.
    """
    last = samples - 1
    position = torch.arange(*span, dtype=torch.float64) * last / (size - 1)
    needed = slice(int(position[0]), min(int(position[-1]) + 1, last) + 1)
    place = torch.arange(needed.start, needed.stop)
    return needed, (1 - (position - place[:, None]).abs()).clamp_min(0)


class Upsampling:
    """Bilinear upsampling with align_corners of maps of several sizes to `size`, tile by tile.

    Args:
        size: (H, W) of the frame.
        shrinks: how many times smaller each of the maps is; odd sizes round down.
        tile: (h, w) of the tiles.
        like: a tensor of the dtype and on the device of the maps.

    `bands` and `columns` list the tiles as (start, stop) of rows and of columns.
    """

    def __init__(
        self,
        size: tuple[int, int],
        shrinks: Sequence[int],
        tile: tuple[int, int],
        like: torch.Tensor,
    ):
        def matrices(length: int, side: int) -> dict[tuple[int, int], list]:
            """By tile: for each of the maps, what it needs of it and the matrix."""
            found = {}
            for span in spans(length, side):
                each = (interpolation(length, length // shrink, span) for shrink in shrinks)
                found[span] = [(needed, matrix.to(like)) for needed, matrix in each]
            return found

        self.size, self.shrinks = torch.Size(size), tuple(shrinks)
        self.bands = matrices(size[0], tile[0])
        start, stop = next(iter(self.bands))  # all have the same height
        self.columns = {
            span: [(needed, matrix.expand(stop - start, -1, -1)) for needed, matrix in each]
            for span, each in matrices(size[1], tile[1]).items()
        }

    def rows(self, maps: list[torch.Tensor], band: tuple[int, int]) -> list[torch.Tensor]:
        """Maps [H', C, T, W'] to the rows of a band of the frame, [h, C T, W']."""
        return [
            (matrix.T @ m[needed].flatten(1)).view(matrix.shape[1], -1, m.shape[3])
            for m, (needed, matrix) in zip(maps, self.bands[band], strict=True)
        ]

    def add(self, out: torch.Tensor, rows: list[torch.Tensor], columns: tuple[int, int]) -> None:
        """Add what `rows` answered, at the columns of a tile, to out [C, T, h w]."""
        h, CT, _ = rows[0].size()
        out = out.view(CT, h, -1).transpose(0, 1)  # [h, C T, w]
        for low, (needed, matrices) in zip(rows, self.columns[columns], strict=True):
            out.baddbmm_(low[..., needed], matrices)


class Others(NamedTuple):
    """What branches of smaller size add to a tile, as for `Upsampling.add`."""

    upsampling: Upsampling
    rows: list[torch.Tensor]
    columns: tuple[int, int]


class Output:
    """The end of a network: a ReLU of what all branches add up to, and a convolution to logits."""

    def __init__(self, conv: nn.Conv3d, dtype: torch.dtype):
        self.matrix, self.bias = (a.to(dtype) for a in pointwise_matrix(conv))

    def __call__(self, x: torch.Tensor, others: Others, out: torch.Tensor) -> None:
        """x [C, T, h w], which is spoilt, and what smaller branches add to it, to logits out
        [T, h, w]."""
        others.upsampling.add(x, others.rows, others.columns)
        x = x.clamp_min_(0).flatten(1)
        torch.add((self.matrix @ x).view(out.shape), self.bias, out=out)
