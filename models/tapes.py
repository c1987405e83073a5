"""Tapes: what a prepared form does to a tile of pixels, recorded once and run for every tile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch

# Weight decay leaves weights of 1e-30 and less behind. Products with them are denormal numbers, on
# which a CPU takes ten times as long.
TINY = 1e-18

Factors = tuple[torch.Tensor, torch.Tensor]  # matrix [O, K] or [B, O, K], and x [B, K, P]
Bias = torch.Tensor | None


def without_tiny(weight: torch.Tensor) -> torch.Tensor:
    """Weights with those of no consequence put to zero."""
    return torch.where(weight.abs() < TINY, 0, weight)


def longer(x: torch.Tensor, before: int, behind: int) -> torch.Tensor:
    """A view of a padded array x, [T, C, P], and of so many frames before and behind it."""
    start = x.storage_offset() - before * x.stride(0)
    return x.as_strided((before + len(x) + behind, *x.shape[1:]), x.stride(), start)


class Tape:
    """Operations on arrays of its own; fresh arrays for every tile would not be in the cache.

    What records it sets `source` (by `begin`), the array to fill before each run, and `result`, an
    array or a list of them.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.like = torch.empty(0, dtype=dtype, device=device)
        self.steps, self.slots, self.weights = [], {}, []
        self.source = self.result = None

    def begin(self, place: torch.Tensor) -> None:
        """All that is recorded from here on begins with what a tile brings to `place`."""
        self.source = place

    def cast(self, weight: torch.Tensor) -> torch.Tensor:
        self.weights.append(without_tiny(weight).to(self.like))
        return self.weights[-1]

    def do(self, operation: Callable, *arguments, out: torch.Tensor) -> None:
        self.steps.append(partial(operation, *arguments, out=out))

    def multiply(
        self, out: torch.Tensor, *factors: Factors, bias: Bias = None, rectify: bool = False
    ) -> None:
        """The sum of the products of all factors and of a bias [O, 1] or [B, O, 1], to out
        [B, O, P], rectified or not."""
        total = None if bias is None else self.cast(bias)
        for matrix, x in factors:
            matrix = self.cast(matrix).expand(len(x), -1, -1)
            if total is None:
                self.do(torch.bmm, matrix, x, out=out)
            else:
                self.do(torch.baddbmm, total, matrix, x, out=out)
            total = out
        if rectify:
            self.do(torch.clamp_min, out, 0, out=out)

    def convolve(
        self, out: torch.Tensor, kernel: torch.Tensor, x: torch.Tensor, bias: torch.Tensor
    ) -> None:
        """Along time by a kernel [O, C, 3], x [T + 2, C, P] contiguous, plus a bias [O, 1], to out
        [T, O, P], rectified."""
        matrix = kernel.transpose(1, 2).flatten(1)
        self.multiply(out, (matrix, self.neighbours(x, 3)), bias=bias, rectify=True)

    def convolve_changes(
        self, out: torch.Tensor, taps: torch.Tensor, x: torch.Tensor, bias: torch.Tensor
    ) -> None:
        """A convolution whose taps are two frames apart and sum to zero: x [T + 4, C, P] by two
        taps [O, C, 2] of its changes, from frame to next frame but one. Else as `convolve`."""
        change = self.scratch("a", len(x) - 2, *x.shape[1:])
        self.do(torch.sub, x[2:], x[:-2], out=change)
        first, last = taps.unbind(2)
        matrix = torch.cat([first, torch.zeros_like(first), last], dim=1)
        self.multiply(out, (matrix, self.neighbours(change, 3)), bias=bias, rectify=True)

    def mix(
        self,
        out: torch.Tensor,
        matrix: torch.Tensor,
        x: torch.Tensor,
        bias: Bias = None,
        rectify: bool = False,
    ) -> None:
        """Matrix [O, C] times x [C, T, P] plus bias [O, 1], to out [O, T, P], rectified or not."""
        out, x = self.in_batches(out), self.in_batches(x)
        self.multiply(out, (matrix, x), bias=bias, rectify=rectify)

    def in_batches(self, x: torch.Tensor) -> torch.Tensor:
        """x [C, T, P] as batches [B, C, P'] that a mix may treat alike."""
        return x.flatten(1)[None]

    def pool(self, out: torch.Tensor, x: torch.Tensor, columns: int) -> None:
        """MaxPool (1, 2, 2) of x [T, C, P], rows of so many columns, to out [T, C, P / 4]; may
        spoil x."""
        upper, lower = x.unflatten(2, (-1, 2, columns)).unbind(3)
        self.do(torch.maximum, upper, lower, out=upper)
        left, right = upper.unflatten(3, (-1, 2)).unbind(4)
        self.do(torch.maximum, left, right, out=out.view(left.shape))

    def pieces(self, pixels: int) -> Iterator[slice]:
        """Of the pixels of a tile, those to be recorded together."""
        yield slice(0, pixels)

    def scratch(self, slot: str, *size: int) -> torch.Tensor:
        """An array that lives until the slot is next asked for."""
        count = math.prod(size)
        if slot not in self.slots or len(self.slots[slot]) < count:
            self.slots[slot] = self.like.new_empty(count)
        return self.slots[slot][:count].view(size)

    def padded(self, ends: int, T: int, C: int, P: int) -> torch.Tensor:
        """An array [T, C, P] that has `ends` frames of zeros before and behind it."""
        return self.like.new_zeros(T + 2 * ends, C, P)[ends : ends + T]

    def with_ends(self, x: torch.Tensor, ends: int) -> torch.Tensor:
        """The last array that was padded, x [T, C, P], and its ends: [T + 2 ends, C, P]."""
        return longer(x, ends, ends)

    def neighbours(self, x: torch.Tensor, count: int) -> torch.Tensor:
        """Every `count` consecutive frames as one matrix: [T + count - 1, C, P] to [T, count C, P].

        A view: x must be contiguous.
        """
        T, C, P = x.size()
        return x.as_strided((T - count + 1, count * C, P), (C * P, P, 1), x.storage_offset())

    def run(self) -> None:
        for step in self.steps:
            step()
