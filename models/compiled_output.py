"""The output of the prepared forms with `--compile` on a CPU (see `end` in products.cpp)."""

import ctypes

import torch
from torch import nn

from models.prepared_upsampling import Others, Output, Upsampling
from models.products import EndStruct, MapStruct, fits, on_products, products


class Columns:
    """Where the columns of a tile lie between those of a map of smaller size.

    Args:
        size, samples: columns of the frame and of the map, whose ends lie on each other.
        span: of the tile.
    """

    def __init__(self, size: int, samples: int, span: tuple[int, int]):
        position = torch.arange(*span, dtype=torch.float64) * (samples - 1) / (size - 1)
        self.samples, self.left = samples, position.to(torch.int32)
        self.share = (position - self.left).float()  # of the next column

    def struct(self, x: torch.Tensor) -> MapStruct:
        return MapStruct(x.data_ptr(), self.samples, self.left.data_ptr(), self.share.data_ptr())


class CompiledOutput(Output):
    """Upsamples along the columns, adds, rectifies and makes logits in one go."""

    def __init__(self, conv: nn.Conv3d, dtype: torch.dtype):
        super().__init__(conv, dtype)
        self.arrays = [a.contiguous() for a in (self.matrix, self.bias)]
        self.columns: dict[tuple, list[Columns]] = {}

    def __call__(self, x: torch.Tensor, others: Others, out: torch.Tensor) -> None:
        places = self._places(others.upsampling, others.columns)  # alive until all is done
        assert fits(out)
        assert all(fits(a) and a.is_contiguous() for a in (x, *others.rows))
        struct = EndStruct(*x.shape[:2], *out.shape[1:], x.data_ptr())
        struct.weights, struct.bias = (a.data_ptr() for a in self.arrays)
        struct.out, struct.out_frame, struct.out_row = out.data_ptr(), *out.stride()[:2]
        struct.count = len(places)
        struct.maps = tuple(map(Columns.struct, places, others.rows))
        products().end(ctypes.byref(struct))

    def _places(self, upsampling: Upsampling, columns: tuple[int, int]) -> list[Columns]:
        """Those of a tile in each of the maps."""
        width = upsampling.size[1]
        if (width, columns) not in self.columns:
            places = [Columns(width, width // shrink, columns) for shrink in upsampling.shrinks]
            self.columns.setdefault((width, columns), places)  # another thread may have been here
        return self.columns[width, columns]


def make_output(conv: nn.Conv3d, dtype: torch.dtype, compiled: bool) -> Output:
    """The output for weights of this type, on the device of `conv`."""
    kind = CompiledOutput if on_products(dtype, conv.weight.device, compiled) else Output
    return kind(conv, dtype)
