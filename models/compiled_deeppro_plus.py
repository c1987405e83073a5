"""DeepPro-Plus with `--compile` on a CPU: strip by strip of the frame, in C++.

From the top of a strip to its bottom every layer makes 4 rows at a time, of all T frames, from the
last 8 or 12 rows of the layer before; older ones are overwritten. So no layer's features ever exist
as a whole: at T = 40 those rows take 12 MB a thread. What two strips both need is computed twice.

Features lie as [T, C, rows, w], zero outside the frame.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
from torch.nn import functional as F

from models.deeppro_plus import DeepProPlus
from models.filters import HIGH, WIDTH, Filter, Mix
from models.layers import ResidualBlock, check_frames
from models.prepared import Head, folded, for_each, pointwise_matrix, tiles
from models.products import PRODUCT, StepStruct, Weights, products, step
from models.tape_pool import Tapes, lent
from models.tapes import Tape

HALO = 9  # of the frames; that of the first layer is 6
TILE = (128, WIDTH - 10)  # the difference convolution of the first block has a halo of 5


class Strip(NamedTuple):
    """A part of a frame [H, W]."""

    top: int
    bottom: int
    left: int
    right: int
    H: int
    W: int


class Place(NamedTuple):
    """Where features go: an array [T, C, ., w], and what columns of a strip with a halo it has."""

    array: torch.Tensor
    columns: slice
    halo: int


class RowRing:
    """The last `ring` rows of features on a strip, [T + 2 ends, C, ring, w + 2 halo]. Row i,
    counted from `halo` above the strip, lies at i modulo `ring`. Outside the frame they are zero.

    Args:
        halo: how far they reach beyond the strip.
        ends: zero frames before and behind the T.
    """

    def __init__(self, T: int, channels: int, halo: int, ring: int, ends: int):
        self.halo, self.frames = halo, slice(ends, ends + T)
        width = TILE[1] + 2 * halo  # in memory a multiple of 16: rows begin where vectors do
        self.all = torch.empty(T + 2 * ends, channels, ring, -(-width // 16) * 16)[..., :width]

    def begin(self, strip: Strip) -> None:
        """This strip comes next; all rows are zero."""
        top, bottom, left, right, H, W = strip
        self.all[:] = 0
        self.count = bottom - top + 2 * self.halo
        self.inside = max(0, self.halo - top), min(self.count, self.halo + H - top)
        last = min(right - left + 2 * self.halo, self.halo + W - left)
        self.columns = slice(max(0, self.halo - left), last)

    def place(self) -> Place:
        """What is in the frame, without the ends."""
        return Place(self.all[self.frames, ..., self.columns], self.columns, self.halo)

    def around(self, place: Place, reach: int) -> torch.Tensor:
        """What `reach` around a place takes of them: [T + 2 ends, C, ring, w']."""
        shift = self.halo - place.halo
        assert shift >= reach
        first, last = place.columns.start + shift - reach, place.columns.stop + shift + reach
        return self.all[..., first:last]

    def advance(self, work: Callable[[int, int], None], part: int) -> None:
        """The part-th HIGH rows; work(i, count) makes rows i to i + count of those in the frame."""
        start, stop = HIGH * part, min(HIGH * (part + 1), self.count)
        first, last = max(start, self.inside[0]), min(stop, self.inside[1])
        if first < last:
            work(first, last - first)
        for row in range(max(start, self.inside[1]), stop):
            self.all[:, :, row % self.all.shape[2]] = 0


def filtered(
    convolution: Filter, x: RowRing, to: Place, other: RowRing | None = None
) -> Callable[[int, int], None]:
    """The filter from rows to a place, where it has a mix with those of others."""
    seen = x.around(to, convolution.dilation)
    if other is None:
        return convolution.bind(seen, to.array)
    others = other.around(to, 0)[other.frames]
    return convolution.bind(seen, to.array, others, shift=other.halo - to.halo)


class FirstConvolution:
    """A convolution of one channel, [T, h, w] to rows of [T', O, h', w'], rectified.

    Args:
        kernel, bias: [O, 1, kT, kH, kW] and [O], float64.
    """

    def __init__(self, kernel: torch.Tensor, bias: torch.Tensor):
        self.taps, self.bias = torch.cartesian_prod(*map(torch.arange, kernel.shape[2:])), bias
        self.weights = Weights(kernel.flatten(1))

    def bind(self, x: torch.Tensor, out: torch.Tensor) -> Callable[[int, int], None]:
        """For rows of out, those of x from the same one on; `RowRing.advance` calls it."""
        struct, offsets = self.weights.at(x, self.taps @ torch.tensor(x.stride()))
        factors = [(struct, (self.weights, offsets))]
        bias = self.bias[:, None]
        steps = [step(PRODUCT, out[:, :, i], factors, bias, rectify=True) for i in range(HIGH)]
        pointers = (ctypes.POINTER(StepStruct) * HIGH)(*(ctypes.pointer(s.struct) for s in steps))

        def make(first: int, count: int) -> None:
            for row, one in zip(range(first, first + count), steps, strict=False):
                one.struct.factors[0].x = x[0, row].data_ptr()
                one.struct.out = out[0, 0, row % out.shape[2]].data_ptr()
            products().run(pointers, count)

        return make


class Block:
    """STD(a, b)."""

    def __init__(self, block: ResidualBlock):
        kernel, bias = folded(block.conv1, block.bn1)
        self.difference = Filter(kernel, bias, dilation=1, difference=True)
        matrix, bias = pointwise_matrix(block.conv3, block.bn3)
        shortcut, more = pointwise_matrix(*block.shortcut)
        mix = Mix(matrix, shortcut, (bias + more)[:, 0])
        self.surround = Filter(*folded(block.conv2, block.bn2), dilation=2, mix=mix)


class CompiledDeepProPlus:
    """DeepPro-Plus on strips. Their halo of 9 pixels shrinks by 3 (conv_in), then by 1 and 2 in
    either block."""

    def __init__(self, network: DeepProPlus, tile: int | None):
        self.seqlen = network.seqlen
        self.first = FirstConvolution(*folded(*network.conv_in[:2]))
        self.one, self.two = map(Block, network.layer1)
        self.head = Head(network.TPro, network.conv_out1[:2])
        self.last, self.bias = pointwise_matrix(network.conv_out2)
        self.tile = (tile, min(tile, TILE[1])) if tile else TILE
        self.tapes = Tapes(self._record, torch.float32, self.bias.device, compiled=True)
        self.idle: list[list[RowRing]] = []  # they suit frames of any size
        self.size = None  # of the frames that the tapes suit: strips are as wide as that asks for

    @torch.inference_mode()
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        check_frames(frames[None, None], self.seqlen)
        H, W = frames.shape[1:]
        if self.size != (H, W):
            self.tapes.clear()
            self.size = (H, W)
        out = frames.new_empty(frames.shape)

        def fill(tile: tuple) -> None:
            (top, bottom), (left, right) = tile
            with lent(self.idle, self._layers) as layers:
                self._strip(frames, Strip(top, bottom, left, right, H, W), layers, out)

        for_each(fill, product(tiles(H, self.tile[0]), tiles(W, self.tile[1])), frames.device)
        return out

    def _layers(self) -> list[RowRing]:
        """The arrays of a strip. A layer makes HIGH rows of two times as many of the one before;
        what the shortcuts take as well is kept longer."""
        one, two = self.one.difference, self.two.difference
        kinds = [
            (one.channels, 6, 3, 2),
            (one.outputs, 5, 2, 1),
            (two.channels, 3, 3, 2),
            (two.outputs, 2, 2, 1),
        ]
        return [RowRing(self.seqlen, C, halo, n * HIGH, ends) for C, halo, n, ends in kinds]

    def _strip(
        self, frames: torch.Tensor, strip: Strip, layers: list[RowRing], out: torch.Tensor
    ) -> None:
        """Fill a strip of out, logits [T, H, W]."""
        top, bottom, left, right, H, W = strip
        h, w = bottom - top, right - left
        for rows in layers:
            rows.begin(strip)
        x = frames[:, max(0, top - HALO) : bottom + HALO, max(0, left - HALO) : right + HALO]
        sides = [max(0, HALO - room) for room in (left, W - right, top, H - bottom)]
        x = F.pad(x, (*sides, 2, 2))[..., layers[0].columns.start :]
        first, changed, middle, changed_again = layers
        one, two = self.one, self.two
        with self.tapes.borrow(HIGH, w) as tape:
            made = tape.source.unflatten(2, (HIGH, w))
            last = filtered(two.surround, changed_again, Place(made, slice(0, w), 0), middle)

            def finish(part: int) -> None:
                last(HIGH * part, HIGH)  # rows beyond the strip are of no consequence
                tape.run()
                rows = slice(top + HIGH * part, min(top + HIGH * (part + 1), bottom))
                to = out[:, rows, left:right]
                to.copy_(tape.result.view(made[:, 0].shape)[:, : to.shape[1]])

            makes = [
                partial(first.advance, self.first.bind(x, first.place().array)),
                partial(changed.advance, filtered(one.difference, first, changed.place())),
                partial(middle.advance, filtered(one.surround, changed, middle.place(), first)),
                partial(
                    changed_again.advance, filtered(two.difference, middle, changed_again.place())
                ),
                finish,
            ]
            # A layer comes after those rows of the one before that lie below its own.
            for part in range(-(-h // HIGH) + len(makes) - 1):
                for late, make in enumerate(makes):
                    if part >= late:
                        make(part - late)

    def _record(self, tape: Tape, h: int, w: int) -> None:
        """From `source`, rectified features [T, C, h w], to `result` [1, T, h w]."""
        pixels = h * w
        x = tape.scratch("c", self.seqlen, len(self.head.maps), pixels)
        tape.begin(x)
        tape.result = tape.scratch("d", 1, self.seqlen, pixels)
        for piece in tape.pieces(pixels):
            y = self.head.record(tape, x[..., piece])
            tape.mix(tape.result[..., piece], self.last, y, self.bias)
