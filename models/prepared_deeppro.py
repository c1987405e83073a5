"""DeepPro prepared for inference: matrix products on tiles of pixels (see `models.prepared`).

Features lie as [T, C, P] (frames, channels, pixels of the tile), so k neighbouring frames are a
[k C, P] matrix where they lie, uncopied, and a temporal convolution is one matrix product a frame.
Frames before and after, of what stands for zero, are the padding in time.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.deeppro import DeepPro
from models.layers import ResidualBlock, check_frames
from models.prepared import Head, folded, for_each, pointwise_matrix, prepares
from models.prepared_upsampling import Output, Upsampling, spans
from models.tapes import Tape, Tapes


def multiply(tape: Tape, matrix: torch.Tensor, x: torch.Tensor, out: torch.Tensor) -> None:
    """Record: matrix [O, K] times every frame of [T, K, P], to [T, O, P]."""
    tape.do(torch.bmm, tape.cast(matrix).expand(len(x), -1, -1), x, out=out)


class FirstConvolution:
    """conv_in on a tile, but for its ReLU: rectified to `floor` it lacks `offset` [8]."""

    def __init__(self, conv: nn.Conv3d, norm: nn.BatchNorm3d):
        kernel, self.offset = folded(conv, norm)
        self.matrix, self.floor = kernel.flatten(1), -self.offset[:, None]

    def record(self, tape: Tape, x: torch.Tensor, ends: bool) -> torch.Tensor:
        """The array [T, 8, P] that will hold the result for x [T + 4, 1, P]; `ends`: padded."""
        size = len(x) - 4, len(self.floor), x.shape[2]
        y = tape.padded(2, *size, self.floor) if ends else tape.scratch("a", *size)
        multiply(tape, self.matrix, tape.neighbours(x, 5), y)
        return y


class TemporalBlock:
    """TD(a, b) on a tile, but for the ReLU at its end: rectified to `floor` it lacks `offset` [O].

    Args:
        offset: what its input lacks, [I] float64.
    """

    def __init__(self, block: ResidualBlock, offset: torch.Tensor):
        kernel, bias = folded(block.conv1, block.bn1)
        first, _, last = kernel.flatten(2).unbind(2)  # [O, I]
        taps = torch.cat([-first, torch.zeros_like(first), last], dim=1)
        self.difference, self.difference_floor = taps, -bias[:, None]
        kernel, own = folded(block.conv2, block.bn2)
        bias = own + kernel.flatten(2).sum(2) @ bias
        self.smooth = kernel.flatten(2).transpose(1, 2).flatten(1)
        self.smooth_floor = -bias[:, None]
        self.mix, own = pointwise_matrix(block.conv3, block.bn3)
        self.shortcut, more = pointwise_matrix(*block.shortcut)
        self.offset = (own + more)[:, 0] + self.mix @ bias + self.shortcut @ offset
        self.floor = -self.offset[:, None]

    def record(self, tape: Tape, x: torch.Tensor, ends: bool) -> torch.Tensor:
        """The array [T, O, P] that will hold the result for x [T + 4, I, P]; `ends`: padded."""
        T, O, P = len(x) - 4, len(self.floor), x.shape[2]  # noqa: E741
        change = tape.scratch("a", T + 2, x.shape[1], P)
        tape.do(torch.sub, x[2:], x[:-2], out=change)
        y = tape.padded(1, T, O, P, self.difference_floor)
        multiply(tape, self.difference, tape.neighbours(change, 3), y)
        tape.rectify(y, self.difference_floor)
        z = tape.scratch("a", T, O, P)
        multiply(tape, self.smooth, tape.neighbours(tape.with_ends(y, 1), 3), z)
        tape.rectify(z, self.smooth_floor)
        y = tape.padded(2, T, O, P, self.floor) if ends else y
        multiply(tape, self.mix, z, y)
        shortcut = tape.cast(self.shortcut).expand(T, -1, -1)
        tape.do(torch.baddbmm, y, shortcut, x[2:-2], out=y)
        return y


def record_pooling(tape: Tape, x: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """The array [T, C, P], padded with `floor`, that will hold MaxPool (1, 2, 2) of x [T, C, 4 P],
    where the pixels of a cell lie P apart; spoils x."""
    out = tape.padded(2, *x.shape[:2], x.shape[2] // 4, floor)
    x, other = x.chunk(2, dim=2)
    tape.do(torch.maximum, x, other, out=x)
    tape.do(torch.maximum, *x.chunk(2, dim=2), out=out)
    return out


class Branch:
    """One of DeepPro's three branches, from conv_in (pooled, if it begins so) to its 8 channels in
    conv_out2.

    Args:
        number: 1, 2 or 3.
        offset: what its input lacks, [8] float64.
        mix: its part of conv_out2, [8, 8] float64.

    The result lacks `offset` [8, T].
    """

    def __init__(self, network: DeepPro, number: int, offset: torch.Tensor, mix: torch.Tensor):
        self.number, self.stages, self.pooled = number, [], []
        for layer in getattr(network, f"layer{number}"):
            if not isinstance(layer, nn.MaxPool3d):
                self.stages.append(TemporalBlock(layer, offset))
                self.pooled.append(False)
                offset = self.stages[-1].offset
            elif self.stages:
                self.pooled[-1] = True
        last = getattr(network, f"conv_out1_{number}")[:2]
        self.head = Head(getattr(network, f"TPro{number}"), last, offset=offset)
        self.mix, self.offset = mix, mix @ self.head.offset

    def record(self, tape: Tape, x: torch.Tensor) -> torch.Tensor:
        """The array [8, T, P'] that will hold the result for x [T + 4, 8, P], padded."""
        for stage, pooled in zip(self.stages, self.pooled, strict=True):
            last = stage is self.stages[-1]
            y = stage.record(tape, x, ends=not (pooled or last))
            if pooled:
                y = record_pooling(tape, y, stage.floor)
            tape.rectify(y, stage.floor)
            x = y if last else tape.with_ends(y, 2)
        T, _, P = x.size()
        y = self.head.record(tape, x)
        out = tape.scratch(f"result {self.number}", len(self.mix), T, P)
        tape.do(torch.mm, tape.cast(self.mix), y.flatten(1), out=out.flatten(1))
        return out


class Trunk:
    """conv_in and branches that go on from it, at full size or, with `shrink` 4, from half size.

    Max-pooling needs no geometry: a tile holds the pixels of a cell one after the other. A tape's
    result is what each of the branches gives.

    Args:
        mixes: by number of the branch, its part of conv_out2, [8, 8] float64.
        shrink: side of a cell in pixels: 1 for branch 1; 4 for 2 and 3, which begin with a pooling.
    """

    def __init__(
        self,
        network: DeepPro,
        mixes: dict[int, torch.Tensor],
        shrink: int,
        dtype: torch.dtype,
        compiled: bool,
    ):
        self.seqlen, self.shrink = network.seqlen, shrink
        self.first = FirstConvolution(*network.conv_in[:2])
        self.branches = [Branch(network, i, self.first.offset, mix) for i, mix in mixes.items()]
        self.tapes = Tapes(self.record, dtype, self.first.floor.device, compiled)

    def record(self, tape: Tape, cells: int) -> None:
        """From `source` [T, cells of shrink**2 pixels] to `result`."""
        T, P, pooled = self.seqlen, cells * self.shrink**2, self.shrink > 1
        # The largest array first: all others in slot "a" lie in it.
        tape.scratch("a", T, len(self.branches[0].head.maps), P // 4 if pooled else P)
        x = tape.padded(2, T, 1, P, self.first.floor.new_zeros(1, 1))
        tape.begin(x[:, 0])
        x = self.first.record(tape, tape.with_ends(x, 2), ends=not pooled)
        if pooled:
            x = record_pooling(tape, x, self.first.floor)
        tape.rectify(x, self.first.floor)
        x = tape.with_ends(x, 2)
        tape.result = [branch.record(tape, x) for branch in self.branches]

    def maps(self, frames: torch.Tensor, shape: tuple[int, int]) -> list[torch.Tensor]:
        """Where shrink is 4: frames [T, H, W] to what branches 2 and 3 give, [H // 2, 8, T, W // 2]
        and [H // 4, 8, T, W // 4], in tiles of `shape` cells."""
        T, H, W = frames.size()
        out = [frames.new_empty(H // s, 8, T, W // s) for s in (2, 4)]
        rest = (-H % 4, -W % 4)  # whole cells may reach beyond the frame
        frames = F.pad(frames, (0, rest[1], 0, rest[0])) if any(rest) else frames
        down, across = (
            spans(-(-side // 4), size) for side, size in zip((H, W), shape, strict=True)
        )

        def fill(rows: tuple[int, int]) -> None:
            for columns in across:
                h, w = rows[1] - rows[0], columns[1] - columns[0]
                with self.tapes.borrow(h * w) as tape:
                    band = frames[:, rows[0] * 4 : rows[1] * 4, columns[0] * 4 : columns[1] * 4]
                    cells_apart(tape.source, band, h, w)
                    tape.run()
                    for m, s, result in zip(out, (2, 1), tape.result, strict=True):
                        part = m[s * rows[0] : s * rows[1], ..., s * columns[0] : s * columns[1]]
                        y = cells_together(result, s, h, w)
                        part.copy_(y[: part.shape[0], ..., : part.shape[3]])

        for_each(fill, down, frames.device)
        return out


def cells_together(x: torch.Tensor, side: int, h: int, w: int) -> torch.Tensor:
    """[C, T, side**2 h w], the pixels of a cell h w apart, to [h side, C, T, w side]."""
    x = x.view(*x.shape[:2], side, side, h, w).permute(4, 2, 0, 1, 5, 3)
    return x.reshape(h * side, *x.shape[2:4], w * side)


def cells_apart(out: torch.Tensor, tile: torch.Tensor, h: int, w: int) -> None:
    """Copy [T, 4 h, 4 w] to out [T, 16 h w]: for every place in a cell the pixels there; two places
    that are pooled together first lie furthest apart."""
    tile = tile.unflatten(2, (w, 2, 2)).unflatten(1, (h, 2, 2))  # [T, h, 2, 2, w, 2, 2]
    tile = tile.permute(0, 3, 6, 2, 5, 1, 4)
    out.view(tile.shape).copy_(tile)


@prepares(DeepPro)
class PreparedDeepPro:
    """Half and quarter branch first; then the full-size one, upsampling and output tile by tile."""

    def __init__(self, network: DeepPro, tile: int | None, dtype: torch.dtype, compiled: bool):
        self.seqlen = network.seqlen
        matrix, offset = pointwise_matrix(*network.conv_out2[:2])  # [8, 24], [8, 1]
        full, half, quarter = matrix.chunk(3, dim=1)
        self.full = Trunk(network, {1: full}, 1, dtype, compiled)
        self.small = Trunk(network, {2: half, 3: quarter}, 4, dtype, compiled)
        branches = *self.full.branches, *self.small.branches
        offset = offset + sum(branch.offset for branch in branches)  # [8, T]
        self.output = Output(network.final, offset, dtype)
        on_cpu = self.output.bias.is_cpu
        self.tile = (tile, tile) if tile else (4, 64) if on_cpu else (64, 64)
        self.upsampling = None  # it and the tapes are for frames of one size

    @torch.inference_mode()
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        check_frames(frames[None, None], self.seqlen, smallest=4)
        if self.upsampling is None or self.upsampling.size != frames.shape[1:]:
            self._prepare_for(*frames.shape[1:])
        small = self.small.maps(frames, tuple(max(1, side // 2) for side in self.tile))
        out = torch.empty_like(frames)

        def fill(band: tuple[int, int]) -> None:
            rows = self.upsampling.rows(small, band)
            for columns in self.upsampling.columns:
                tile = (slice(None), slice(*band), slice(*columns))
                self._fill(out[tile], frames[tile], rows, columns)

        for_each(fill, self.upsampling.bands, frames.device)
        return out

    def _fill(self, out: torch.Tensor, frames: torch.Tensor, rows: list, columns: tuple) -> None:
        """Logits [T, h, w] of a tile, from its frames and the small branches at its band."""
        with self.full.tapes.borrow(out[0].numel()) as tape:
            tape.source.view(out.shape).copy_(frames)
            tape.run()
            (sum_of_branches,) = tape.result
            self.upsampling.add(sum_of_branches, rows, columns)
            self.output(sum_of_branches, out)

    def _prepare_for(self, H: int, W: int) -> None:
        self.upsampling = Upsampling((H, W), (2, 4), self.tile, self.output.bias)
        for trunk in (self.full, self.small):
            trunk.tapes.clear()
