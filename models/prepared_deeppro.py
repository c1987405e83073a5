"""DeepPro prepared for inference: matrix products on tiles of pixels (see `models.prepared`).

Features lie as [T, C, P] (frames, channels, pixels of the tile), so k neighbouring frames are a
[k C, P] matrix where they lie, uncopied, and a temporal convolution is one matrix product a frame.
Zero frames before and after stand for the padding in time.
"""

from itertools import product

import torch
from torch import nn
from torch.nn import functional as F

from models.deeppro import DeepPro
from models.layers import ResidualBlock, check_frames
from models.prepared import Head, folded, for_each, pointwise_matrix, prepares, tiles


def neighbours(x: torch.Tensor, count: int) -> torch.Tensor:
    """Every `count` consecutive frames as one matrix: [T + count - 1, C, P] to [T, count C, P].

    A view: x must be contiguous.
    """
    T, C, P = x.size()
    return x.as_strided((T - count + 1, count * C, P), (C * P, P, 1))


class FrameProduct:
    """A matrix times every frame [K, P] of a tile, plus a bias: one layer along time."""

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor):
        self.matrix, self.bias = matrix.float(), bias.float()  # [O, K], [O, 1]

    def __call__(self, x: torch.Tensor, padding: int) -> torch.Tensor:
        """x [T, K, P] to [T + 2 padding, O, P], the frames before and after zero."""
        T, _, P = x.size()
        out = x.new_empty(T + 2 * padding, len(self.matrix), P)
        out[:padding] = out[padding + T :] = 0
        torch.baddbmm(self.bias, self.matrix.expand(T, -1, -1), x, out=out[padding : padding + T])
        return out


class TemporalBlock:
    """TD(a, b) on a tile, from and to two zero frames at either end."""

    def __init__(self, block: ResidualBlock):
        kernel, bias = folded(block.conv1, block.bn1)
        first, _, last = kernel.flatten(2).unbind(2)  # [O, I]
        taps = torch.cat([-first, torch.zeros_like(first), last], dim=1)
        self.difference = FrameProduct(taps, bias[:, None])
        kernel, bias = folded(block.conv2, block.bn2)
        self.smooth = FrameProduct(kernel.flatten(2).transpose(1, 2).flatten(1), bias[:, None])
        matrix, bias = pointwise_matrix(block.conv3, block.bn3)
        shortcut, shortcut_bias = pointwise_matrix(*block.shortcut)
        self.mix = FrameProduct(matrix, bias + shortcut_bias)
        self.shortcut = shortcut.float()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [T + 4, I, P] to [T + 4, O, P]."""
        y = self.difference(neighbours(x[2:] - x[:-2], 3), padding=1).clamp_min_(0)
        y = self.smooth(neighbours(y, 3), padding=0).clamp_min_(0)  # [T, O, P]
        y = self.mix(y, padding=2)
        y[2:-2].baddbmm_(self.shortcut.expand(len(x) - 4, -1, -1), x[2:-2])
        return y.clamp_min_(0)


class Branch:
    """One of DeepPro's three branches, up to its 8 channels in conv_out2.

    Max-pooling needs no geometry either: a tile holds the pixels of a cell one after the other.
    """

    def __init__(self, network: DeepPro, number: int, mix: torch.Tensor, bias: torch.Tensor):
        kernel, first_bias = folded(*network.conv_in[:2])
        self.first = FrameProduct(kernel.flatten(1), first_bias[:, None])
        layers = getattr(network, f"layer{number}")
        self.steps = [halve if isinstance(m, nn.MaxPool3d) else TemporalBlock(m) for m in layers]
        self.head = Head(
            getattr(network, f"TPro{number}"), getattr(network, f"conv_out1_{number}")[:2]
        )
        self.shrink = 2 ** self.steps.count(halve)
        self.mix, self.bias = mix.float(), bias.float()

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames [T, cells of shrink**2 pixels] to [8, T, cells]."""
        T = len(frames)
        x = F.pad(frames, (0, 0, 2, 2))[:, None]  # [T + 4, 1, P]
        x = self.first(neighbours(x, 5), padding=2).clamp_min_(0)  # [T + 4, 8, P]
        for step in self.steps:
            x = step(x)
        x = torch.addmm(self.bias, self.mix, self.head(x[2:-2]))
        return x.unflatten(1, (T, -1))  # [8, T, P]

    def map(self, frames: torch.Tensor, pixels: int) -> torch.Tensor:
        """Frames [T, H, W] to [8, T, H // shrink, W // shrink], in bands of about `pixels`."""
        T, H, W = frames.size()
        rows, columns = H // self.shrink, W // self.shrink
        out = frames.new_empty(8, T, rows, columns)

        def fill(band: tuple[int, int]) -> None:
            top, bottom = band
            band = frames[:, top * self.shrink : bottom * self.shrink, : columns * self.shrink]
            band = band[:, None]
            for _ in range(self.steps.count(halve)):
                band = F.pixel_unshuffle(band, 2)  # the phases of the first pooling come first
            out[:, :, top:bottom] = self(band.flatten(1)).unflatten(2, (bottom - top, columns))

        height = max(1, pixels // (columns * self.shrink**2))
        for_each(fill, tiles(rows, height), frames.device)
        return out


def halve(x: torch.Tensor) -> torch.Tensor:
    """MaxPool (1, 2, 2) of [..., 4 P] where the four pixels of a cell lie P apart."""
    x = torch.maximum(*x.chunk(2, dim=-1))
    return torch.maximum(*x.chunk(2, dim=-1))


def interpolation(
    size: int, small: torch.Tensor, dim: int, span: tuple[int, int]
) -> tuple[slice, torch.Tensor]:
    """Linear upsampling of a dimension to `size` samples with align_corners, only those in `span`.

    Returns the samples that it needs and the matrix [needed, stop - start].
    """
    last = small.shape[dim] - 1
    position = torch.arange(*span, dtype=torch.float64) * last / (size - 1)
    needed = slice(int(position[0]), min(int(position[-1]) + 1, last) + 1)
    samples = torch.arange(needed.start, needed.stop)
    matrix = (1 - (position - samples[:, None]).abs()).clamp_min(0)
    return needed, matrix.to(small)


@prepares(DeepPro)
class PreparedDeepPro:
    """Half and quarter branch first; then the full-size one, upsampling and output tile by tile.

    A 1 x 1 convolution and bilinear upsampling may change places, so the small branches go through
    their part of conv_out2 before they are upsampled: one matrix product from the window of their
    pixels to those of the tile.
    """

    def __init__(self, network: DeepPro, tile: int | None = None):
        self.seqlen = network.seqlen
        matrix, bias = pointwise_matrix(*network.conv_out2[:2])  # [8, 24], [8, 1]
        full, half, quarter = matrix.chunk(3, dim=1)
        self.full = Branch(network, 1, full, bias)
        self.small = [Branch(network, 2, half, 0 * bias), Branch(network, 3, quarter, 0 * bias)]
        self.final, self.bias = (m.float() for m in pointwise_matrix(network.final))
        self.side = tile or (16 if self.bias.is_cpu else 64)

    @torch.inference_mode()
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        check_frames(frames[None, None], self.seqlen, smallest=4)
        H, W = frames.shape[1:]
        small = [branch.map(frames, 4 * self.side**2) for branch in self.small]
        across = {
            span: [interpolation(W, m, 3, span) for m in small] for span in tiles(W, self.side)
        }
        out = torch.empty_like(frames)

        def fill(tile: tuple) -> None:
            (top, bottom), (left, right) = tile
            x = self.full(frames[:, top:bottom, left:right].flatten(1))  # [8, T, P]
            window, matrix = [], []
            for low, (columns, along) in zip(small, across[left, right], strict=True):
                rows, down = interpolation(H, low, 2, (top, bottom))
                window.append(low[:, :, rows, columns].flatten(2))
                matrix.append(torch.kron(down, along))
            window, matrix = torch.cat(window, dim=2), torch.cat(matrix)  # [8, T, N], [N, P]
            x.flatten(0, 1).addmm_(window.flatten(0, 1), matrix).clamp_min_(0)
            x = torch.addmm(self.bias, self.final, x.flatten(1))
            out[:, top:bottom, left:right] = x.view(-1, bottom - top, right - left)

        for_each(fill, product(tiles(H, self.side), across), frames.device)
        return out
