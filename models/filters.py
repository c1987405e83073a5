"""Convolutions of 3 x 3 x 3 taps by `filters.cpp`, in fp32 on a CPU, a few rows at a time.

They multiply less (Toom, Cook, Winograd; see `temporal.h`). Along time six products give four
frames; of a difference convolution, which has two taps on differences of frames, five do. Along
the rows four products give two rows, F(2, 3).
"""

from __future__ import annotations

import ctypes

import torch

from models.layers import change_taps
from models.products import fits, in_blocks, make_struct, products, temporal_images
from models.tapes import without_tiny

HIGH, WIDTH = 4, 100  # rows that are made at a time, and their columns, at most

RowsStruct = make_struct("Rows", "*at frame channel row first ring")
FilterStruct = make_struct(
    "Filter",
    "apart reach frames channels outputs rows columns *weights *bias *out out_frame out_channel "
    "out_row mix_outputs other_channels *mix_weights *other_weights *mix_bias",
    x=RowsStruct,
    other=RowsStruct,
)


def rows_struct(x: torch.Tensor) -> RowsStruct:
    assert fits(x)
    return RowsStruct(x.data_ptr(), *x.stride()[:3], 0, x.shape[2])


class Mix:
    """What follows a filter: a product of its channels plus one of another array's, rectified.

    Args:
        matrix, other, bias: [O, C], [O, I] and [O], float64.
    """

    def __init__(self, matrix: torch.Tensor, other: torch.Tensor, bias: torch.Tensor):
        self.weights, self.other = (in_blocks(without_tiny(m).float()) for m in (matrix, other))
        self.outputs, self.other_channels = other.shape
        self.bias = without_tiny(bias).float().contiguous()


class Filter:
    """A convolution [T, I, h, w] to [T', O, h - 2 d, w - 2 d], rectified.

    Args:
        kernel, bias: [O, I, 3, 3, 3] and [O], float64.
        dilation: d in space, 1 or 2.
        difference: whether the taps in time are those of a difference convolution, 2 frames apart,
            whose sum is zero; T is T' + 4. Else T is T' + 2.
        mix: what follows.
    """

    def __init__(
        self,
        kernel: torch.Tensor,
        bias: torch.Tensor,
        dilation: int,
        difference: bool = False,
        mix: Mix | None = None,
    ):
        assert kernel.shape[2:] == (3, 3, 3)
        assert dilation in (1, 2)
        self.dilation, self.apart, self.mix = dilation, 2 if difference else 1, mix
        kernels = temporal_images(change_taps(kernel) if difference else kernel)
        # G of F(2, 3); its B and A are in filters.cpp.
        rows = kernel.new_tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
        kernels = torch.einsum("qh,noihw->nqoiw", rows, kernels).flatten(3)
        self.weights = in_blocks(without_tiny(kernels).float())
        self.outputs, self.channels = kernel.shape[:2]
        self.bias = without_tiny(bias).float().contiguous()

    def bind(
        self, x: torch.Tensor, out: torch.Tensor, other: torch.Tensor | None = None, shift: int = 0
    ) -> BoundFilter:
        """The filter from rows of x [T, I, ., w] to rows of out [T', O, ., w - 2 d], where there is
        a mix with row i + `shift` of other [T', I', ., w - 2 d] at row i of out.

        Row i of an array lies at i modulo its number of rows.
        """
        return BoundFilter(self, x, out, other, shift)


class BoundFilter:
    """A filter on arrays (see `Filter.bind`)."""

    def __init__(
        self,
        convolution: Filter,
        x: torch.Tensor,
        out: torch.Tensor,
        other: torch.Tensor | None,
        shift: int,
    ):
        T, O, _, w = out.size()  # noqa: E741
        d, apart, mix = convolution.dilation, convolution.apart, convolution.mix
        assert fits(out)
        assert w <= WIDTH
        assert (mix or convolution).outputs == O
        assert (mix is None) == (other is None)
        assert shift >= 0
        assert (len(x), x.shape[1], x.shape[3]) == (T + 2 * apart, convolution.channels, w + 2 * d)
        struct = FilterStruct(apart, d, T, x.shape[1], convolution.outputs)
        struct.columns, struct.x = w, rows_struct(x)
        struct.out_frame, struct.out_channel, struct.out_row = out.stride()[:3]
        struct.weights, struct.bias = (
            a.data_ptr() for a in (convolution.weights, convolution.bias)
        )
        if mix:
            assert (len(other), other.shape[1], other.shape[3]) == (T, mix.other_channels, w)
            struct.mix_outputs, struct.other_channels = O, mix.other_channels
            struct.mix_weights, struct.other_weights = (
                m.data_ptr() for m in (mix.weights, mix.other)
            )
            struct.mix_bias, struct.other = mix.bias.data_ptr(), rows_struct(other)
        self.struct, self.shift, self.out = struct, shift, out
        self.alive = convolution, x, other

    def __call__(self, first: int, count: int) -> None:
        """Make rows `first` to `first` + `count` of out, at most HIGH and not beyond its last one,
        from row `first` of x on."""
        out, struct = self.out, self.struct
        start = first % out.shape[2]
        assert first >= 0
        assert 0 < count <= min(HIGH, out.shape[2] - start)
        assert count + 2 * struct.reach <= struct.x.ring
        assert not struct.mix_outputs or count <= struct.other.ring
        struct.x.first, struct.other.first, struct.rows = first, first + self.shift, count
        struct.out = out.data_ptr() + 4 * start * out.stride(2)
        products().filter(ctypes.byref(struct))
