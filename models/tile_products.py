"""The products that a tiled layer is made of (see `models.tiles`), each with its way back.

A product is bound to the arrays of a tile once; what it returns is called for every tile.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch

from models.tapes import longer

# where_positive(x, where, 0, grad_input=out): x where `where` is positive, else 0, in one pass
where_positive = torch.ops.aten.threshold_backward.grad_input


def padded(ends: int, like: torch.Tensor, T: int, *size: int) -> torch.Tensor:
    """An array [T, *size] that has `ends` frames of zeros before and behind it."""
    array = like.new_empty(T + 2 * ends, *size)
    array[:ends] = array[ends + T :] = 0
    return array[ends : ends + T]


class Taps:
    """A convolution along time as matrix products. Weights are [O, k, C] for k `offsets` in frames,
    as many before as behind.

    All products have what follows. Features z [T, C, P] and the gradient dy of the result, as
    `size` says, here [T, O, P], are arrays used again for every tile, with `ends` frames of zeros
    before and behind them. The result and the gradient of z are written to whatever array is
    passed. `channels` is the dimension of the channels in a result.
    """

    channels = 1

    def __init__(self, *offsets: int):
        self.offsets, self.ends = offsets, max(offsets)
        self.joined = all(b - a == 1 for a, b in pairwise(offsets))

    def size(self, weight: torch.Tensor, T: int, C: int, P: int) -> tuple[int, ...]:
        """Of the result for features [T, C, P]."""
        return T, len(weight), P

    def multiply(self, weight: torch.Tensor, z: torch.Tensor) -> Callable:
        """A function that writes the result for what the array z holds into another, or, if asked,
        adds it to what is there."""
        matrices = [weight.flatten(1)] if self.joined else weight.unbind(1)
        matrices = [matrix.expand(len(z), -1, -1) for matrix in matrices]
        pairs = list(zip(matrices, self._at(z), strict=True))

        def run(out: torch.Tensor, add: bool = False) -> None:
            for matrix, frames in pairs:
                torch.baddbmm(out, matrix, frames, beta=float(add), out=out)
                add = True

        return run

    def back(self, weight: torch.Tensor, z: torch.Tensor, dy: torch.Tensor) -> Callable:
        """A function that writes the gradient of z, from that of the result, into an array."""
        return self.multiply(weight.flip(1).permute(2, 1, 0).contiguous(), dy)

    def weigh(self, weight: torch.Tensor, z: torch.Tensor, dy: torch.Tensor) -> Weighing:
        """What adds up the gradient of the weight."""
        windows, across = self._at(z), dy.transpose(1, 2)
        sums = [dy.new_zeros(*window.shape[:2], dy.shape[1]) for window in windows]

        def run() -> None:
            for total, window in zip(sums, windows, strict=True):
                torch.baddbmm(total, window, across, out=total)  # the other way round is slower

        def result() -> torch.Tensor:
            return torch.cat([total.sum(0) for total in sums]).T.reshape(weight.shape)

        return Weighing(run, result)

    def effect(self, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The sum over z times the gradient of z by channel, [C]: as the result is proportional to
        z, it is that over the weights times their gradient."""
        return (weight * gradient).sum((0, 1))

    def _at(self, x: torch.Tensor) -> list[torch.Tensor]:
        """x [T, C, P] and its ends at the offsets: one view [T, k C, P] of neighbours, or k."""
        T, C, P = x.size()
        channels = len(self.offsets) * C if self.joined else C
        starts = self.offsets[:1] if self.joined else self.offsets
        return [
            x.as_strided((T, channels, P), (C * P, P, 1), x.storage_offset() + start * C * P)
            for start in starts
        ]


class Differences(Taps):
    """A convolution of three taps, `step` frames apart, that sum to zero: two products, not three,
    of the differences of frames so far apart, change[t] = z[t] - z[t - step] for t < T + step.

    Its weight is the taps of those: minus the first of the three, and the last.
    """

    def __init__(self, step: int):
        super().__init__(0, step)

    def multiply(self, weight: torch.Tensor, z: torch.Tensor) -> Callable:
        find, change = self._change(z)
        multiply = super().multiply(weight, change[: len(z)])

        def run(out: torch.Tensor, add: bool = False) -> None:
            find()
            multiply(out, add)

        return run

    def back(self, weight: torch.Tensor, z: torch.Tensor, dy: torch.Tensor) -> Callable:
        T, step = len(z), self.ends
        d_change = z.new_empty(T + step, *z.shape[1:])
        # dy from `step` frames earlier on: that mirrors the offsets, 0 and step.
        back = Taps(*self.offsets).back(weight, d_change, longer(dy, step, 0))

        def run(out: torch.Tensor, add: bool = False) -> None:
            back(d_change)
            if add:
                out += d_change[:T]
                out -= d_change[step:]
            else:
                torch.sub(d_change[:T], d_change[step:], out=out)

        return run

    def weigh(self, weight: torch.Tensor, z: torch.Tensor, dy: torch.Tensor) -> Weighing:
        find, change = self._change(z)
        weighing = super().weigh(weight, change[: len(z)], dy)

        def run() -> None:
            find()
            weighing.run()

        return weighing._replace(run=run)

    def _change(self, z: torch.Tensor) -> tuple[Callable[[], None], torch.Tensor]:
        """A function that finds the differences, and the array [T + step, C, P] it writes."""
        step = self.ends
        around = longer(z, step, step)
        change = torch.empty_like(around[step:])
        return lambda: torch.sub(around[step:], around[:-step], out=change), change


class Weighing(NamedTuple):
    """`run` adds what a tile contributes to the gradient of a weight, `result` gives it."""

    run: Callable[[], None]
    result: Callable[[], torch.Tensor]


class Profiles:
    """The temporal probe's maps, [C, T, T + 1] with their biases: [T, C, P] to [C, T, P]."""

    ends, channels = 0, 0

    def size(self, weight: torch.Tensor, T: int, C: int, P: int) -> tuple[int, ...]:
        return C, T, P

    def multiply(self, weight: torch.Tensor, z: torch.Tensor) -> Callable:
        maps, biases, profiles = weight[:, :, :-1], weight[:, :, -1:], z.transpose(0, 1)

        def run(out: torch.Tensor, add: bool = False) -> None:
            torch.bmm(maps, profiles, out=out)
            out += biases

        return run

    def back(self, weight: torch.Tensor, z: torch.Tensor, dy: torch.Tensor) -> Callable:
        maps = weight[:, :, :-1].transpose(1, 2)
        return lambda out, add=False: torch.bmm(maps, dy, out=out.transpose(0, 1))

    def weigh(self, weight: torch.Tensor, z: torch.Tensor, dy: torch.Tensor) -> Weighing:
        profiles = z.permute(1, 2, 0)  # [C, P, T]
        maps, biases = torch.zeros_like(weight[:, :, :-1]), torch.zeros_like(weight[:, :, -1:])

        def run() -> None:
            torch.baddbmm(maps, dy, profiles, out=maps)
            biases.add_(dy.sum(2, keepdim=True))

        return Weighing(run, lambda: torch.cat([maps, biases], dim=2))

    def effect(self, weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        return (weight * gradient)[:, :, :-1].sum((1, 2))


class Pool:
    """Max-pooling of four pixels to one. Those of a cell lie P / 4 apart in the tile; of equal
    ones the first is taken. [T, C, P] to [T, C, P / 4], without weights."""

    ends, channels = 0, 1

    def size(self, weight: torch.Tensor, T: int, C: int, P: int) -> tuple[int, ...]:
        return T, C, P // 4

    def multiply(self, weight: torch.Tensor, z: torch.Tensor) -> Callable:
        halves = z.chunk(2, dim=2)
        best = torch.empty_like(halves[0])
        quarters = best.chunk(2, dim=2)

        def run(out: torch.Tensor, add: bool = False) -> None:
            torch.maximum(*halves, out=best)
            torch.maximum(*quarters, out=out)

        return run

    def back(self, weight: torch.Tensor, z: torch.Tensor, dy: torch.Tensor) -> Callable:
        halves = z.chunk(2, dim=2)
        best, middle = torch.empty_like(halves[0]), torch.empty_like(halves[0])
        quarters = best.chunk(2, dim=2)

        def run(out: torch.Tensor, add: bool = False) -> None:
            torch.maximum(*halves, out=best)
            for (one, other), above, below in ((quarters, dy, middle), (halves, middle, out)):
                to_one, to_other = below.chunk(2, dim=2)
                where_positive(above, other - one, 0, grad_input=to_other)
                torch.sub(above, to_other, out=to_one)

        return run

    def weigh(self, weight: torch.Tensor, z: torch.Tensor, dy: torch.Tensor) -> Weighing:
        return Weighing(lambda: None, lambda: torch.zeros_like(weight))
