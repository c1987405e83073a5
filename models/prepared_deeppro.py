"""DeepPro prepared for inference: matrix products on tiles of pixels (see `models.prepared`).

Features lie as [T, C, P] (frames, channels, pixels of the tile), so k neighbouring frames are a
[k C, P] matrix where they lie, uncopied, and a temporal convolution is one matrix product a frame
(with `--compile`, fewer: see temporal.h).
Frames of zeros before and after are the padding in time.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.compiled_output import make_output
from models.deeppro import DeepPro
from models.layers import ResidualBlock, change_taps, check_frames
from models.prepared import Head, folded, for_each, pointwise_matrix, prepares
from models.prepared_upsampling import Others, Upsampling, spans
from models.products import on_products
from models.tape_pool import Tapes
from models.tapes import Tape, without_tiny


class FirstConvolution:
    """conv_in on a tile."""

    def __init__(self, conv: nn.Conv3d, norm: nn.BatchNorm3d):
        kernel, bias = folded(conv, norm)
        self.matrix, self.bias = kernel.flatten(1), bias[:, None]

    def record(self, tape: Tape, x: torch.Tensor, ends: bool = True) -> torch.Tensor:
        """The array [T, 8, P] that will hold the result for x [T, 5, P], frames with neighbours;
        `ends`: padded."""
        size = len(x), len(self.matrix), x.shape[2]
        y = tape.padded(2, *size) if ends else tape.scratch("a", *size)
        tape.multiply(y, (self.matrix, x), bias=self.bias, rectify=True)
        return y


class TemporalBlock:
    """TD(a, b) on a tile."""

    def __init__(self, block: ResidualBlock):
        kernel, bias = folded(block.conv1, block.bn1)
        self.difference, self.difference_bias = change_taps(kernel).flatten(2), bias[:, None]
        kernel, bias = folded(block.conv2, block.bn2)
        self.smooth, self.smooth_bias = kernel.flatten(2), bias[:, None]
        self.mix, own = pointwise_matrix(block.conv3, block.bn3)
        self.shortcut, more = pointwise_matrix(*block.shortcut)
        self.bias = own + more
        # Weight decay may leave a block's shortcut only; what is added to it is a constant then.
        self.only_shortcut = not without_tiny(self.smooth).any()
        if self.only_shortcut:
            self.bias = self.bias + self.mix @ self.smooth_bias.clamp_min(0)

    def record(self, tape: Tape, x: torch.Tensor, ends: bool) -> torch.Tensor:
        """The array [T, O, P] that will hold the result for x [T + 4, I, P]; `ends`: padded."""
        T, O, P = len(x) - 4, len(self.mix), x.shape[2]  # noqa: E741
        shortcut = self.shortcut, x[2:-2]
        if self.only_shortcut:
            y = tape.padded(2 if ends else 0, T, O, P)
            tape.multiply(y, shortcut, bias=self.bias, rectify=True)
            return y
        y = tape.padded(1, T, O, P)
        tape.convolve_changes(y, self.difference, x, self.difference_bias)
        z = tape.scratch("a", T, O, P)
        tape.convolve(z, self.smooth, tape.with_ends(y, 1), self.smooth_bias)
        y = tape.padded(2, T, O, P) if ends else y
        tape.multiply(y, (self.mix, z), shortcut, bias=self.bias, rectify=True)
        return y


def record_pooling(tape: Tape, x: torch.Tensor, columns: int) -> torch.Tensor:
    """The array [T, C, P / 4], padded, that will hold MaxPool (1, 2, 2) of x [T, C, P], rows of so
    many columns; spoils x."""
    out = tape.padded(2, *x.shape[:2], x.shape[2] // 4)
    tape.pool(out, x, columns)
    return out


class Branch:
    """One of DeepPro's three branches, from conv_in (pooled, if it begins so) to its 8 channels in
    conv_out2.

    Args:
        number: 1, 2 or 3.
        mix: its part of conv_out2, [8, 8] float64.
        bias: what to add to the result, [8, 1], or None.
    """

    def __init__(self, network: DeepPro, number: int, mix: torch.Tensor, bias: torch.Tensor | None):
        self.number, self.stages, self.pooled = number, [], []
        for layer in getattr(network, f"layer{number}"):
            if not isinstance(layer, nn.MaxPool3d):
                self.stages.append(TemporalBlock(layer))
                self.pooled.append(False)
            elif self.stages:
                self.pooled[-1] = True
        last = getattr(network, f"conv_out1_{number}")[:2]
        self.head = Head(getattr(network, f"TPro{number}"), last)
        self.mix, self.bias = mix, bias

    def record(
        self, tape: Tape, x: torch.Tensor, columns: int = 0, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """An array [8, T, P'], `out` if it is given, that will hold the result for x [T + 4, 8, P],
        which is padded; where the branch pools, rows of so many columns."""
        for stage, pooled in zip(self.stages, self.pooled, strict=True):
            last = stage is self.stages[-1]
            y = stage.record(tape, x, ends=not (pooled or last))
            if pooled:
                y = record_pooling(tape, y, columns)
            x = y if last else tape.with_ends(y, 2)
        T, _, P = x.size()
        y = self.head.record(tape, x)
        if out is None:
            out = tape.scratch(f"result {self.number}", len(self.mix), T, P)
        tape.mix(out, self.mix, y, self.bias)
        return out


class Trunk:
    """conv_in and branches that go on from it, at full size or, with `shrink` 4, from half size.

    A tape's result is what each of the branches gives.

    Args:
        mixes: by number of the branch, its part of conv_out2 and of the bias there (see `Branch`).
        shrink: side of a cell in pixels: 1 for branch 1; 4 for 2 and 3, which begin with a pooling.
    """

    def __init__(
        self,
        network: DeepPro,
        mixes: dict[int, tuple[torch.Tensor, torch.Tensor | None]],
        shrink: int,
        dtype: torch.dtype,
        compiled: bool,
    ):
        self.seqlen, self.shrink = network.seqlen, shrink
        self.first = FirstConvolution(*network.conv_in[:2])
        self.branches = [Branch(network, i, *mix) for i, mix in mixes.items()]
        self.tapes = Tapes(self.record, dtype, self.first.bias.device, compiled)

    def record(self, tape: Tape, h: int, w: int) -> None:
        """From `source` [T, h w] to `result`."""
        T, P, pooled = self.seqlen, h * w, self.shrink > 1
        # The largest array first: all others in slot "a" lie in it.
        tape.scratch("a", T, len(self.branches[0].head.maps), P // 4 if pooled else P)
        x = tape.padded(2, T, 1, P)
        tape.begin(x[:, 0])
        frames = tape.neighbours(tape.with_ends(x, 2), 5)
        if pooled:
            x = record_pooling(tape, self.first.record(tape, frames, ends=False), w)
            x = tape.with_ends(x, 2)
            tape.result = [branch.record(tape, x, w // 2) for branch in self.branches]
            return
        (branch,) = self.branches
        out = tape.scratch("result", len(branch.mix), T, P)
        for piece in tape.pieces(P):
            x = self.first.record(tape, frames[..., piece])
            branch.record(tape, tape.with_ends(x, 2), out=out[..., piece])
        tape.result = [out]

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
                with self.tapes.borrow(4 * h, 4 * w) as tape:
                    band = frames[:, rows[0] * 4 : rows[1] * 4, columns[0] * 4 : columns[1] * 4]
                    tape.source.view(band.shape).copy_(band)
                    tape.run()
                    for m, s, x in zip(out, (2, 1), tape.result, strict=True):
                        part = m[s * rows[0] : s * rows[1], ..., s * columns[0] : s * columns[1]]
                        x = x.unflatten(2, (s * h, s * w))[:, :, : len(part), : part.shape[3]]
                        part.copy_(x.permute(2, 0, 1, 3))

        for_each(fill, down, frames.device)
        return out


@prepares(DeepPro)
class PreparedDeepPro:
    """Half and quarter branch first; then the full-size one, upsampling and output tile by tile."""

    def __init__(self, network: DeepPro, tile: int | None, dtype: torch.dtype, compiled: bool):
        self.seqlen = network.seqlen
        matrix, bias = pointwise_matrix(*network.conv_out2[:2])  # [8, 24], [8, 1]
        full, half, quarter = matrix.chunk(3, dim=1)
        self.full = Trunk(network, {1: (full, bias)}, 1, dtype, compiled)
        self.small = Trunk(network, {2: (half, None), 3: (quarter, None)}, 4, dtype, compiled)
        self.output = make_output(network.final, dtype, compiled)
        if tile:
            self.tile, self.cells = (tile, tile), (max(1, tile // 2), max(1, tile // 2))
        elif on_products(dtype, bias.device, compiled):
            self.tile, self.cells = (6, 64), (3, 16)
        else:
            self.tile, self.cells = ((4, 64), (2, 32)) if bias.is_cpu else ((64, 64), (32, 32))
        self.upsampling = None  # it and the tapes are for frames of one size

    @torch.inference_mode()
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        check_frames(frames[None, None], self.seqlen, smallest=4)
        if self.upsampling is None or self.upsampling.size != frames.shape[1:]:
            self._prepare_for(*frames.shape[1:])
        small = self.small.maps(frames, self.cells)
        out = frames.new_empty(frames.shape)

        def fill(band: tuple[int, int]) -> None:
            rows = self.upsampling.rows(small, band)
            for columns in self.upsampling.columns:
                tile = (slice(None), slice(*band), slice(*columns))
                self._fill(out[tile], frames[tile], rows, columns)

        for_each(fill, self.upsampling.bands, frames.device)
        return out

    def _fill(self, out: torch.Tensor, frames: torch.Tensor, rows: list, columns: tuple) -> None:
        """Logits [T, h, w] of a tile, from its frames and the small branches at its band."""
        with self.full.tapes.borrow(*out.shape[1:]) as tape:
            tape.source.view(out.shape).copy_(frames)
            tape.run()
            self.output(*tape.result, Others(self.upsampling, rows, columns), out)

    def _prepare_for(self, H: int, W: int) -> None:
        self.upsampling = Upsampling((H, W), (2, 4), self.tile, self.output.bias)
        for trunk in (self.full, self.small):
            trunk.tapes.clear()
