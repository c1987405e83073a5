"""DeepPro in training on a CPU: the same loss and gradients as the plain module, sooner.

A tile holds whole cells of 4 x 4 pixels, the pixels that are pooled together P / 4 apart; after a
pooling four tiles make one (see `models.tiles`).
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from models.deeppro import DeepPro
from models.layers import ResidualBlock, TemporalProbe, change_taps
from models.prepared_upsampling import interpolation
from models.tile_products import Differences, Pool, Profiles, Taps
from models.tiles import Features, normalised

POINT, NEAR, FIVE = Taps(0), Taps(-1, 0, 1), Taps(-2, -1, 0, 1, 2)
TILES = range(512, 16, -16)  # pixels; the first that divides a batch as it should is taken


def in_tiles(network: nn.Module) -> nn.Module:
    """The form of a network in which to train it: on tiles of pixels, where there is such a form.

    Its parameters are those of the network, in the same order.
    """
    return TiledDeepPro(network) if isinstance(network, DeepPro) else network


class TiledDeepPro(nn.Module):
    """Answers as `network` does, and its parameters get the same gradients.

    On a CPU, in training mode and for frames that tiles fit, the work is done in tiles; else by the
    network itself. In tiles, hooks on parts of the network are not called, and gradients have none
    of their own.

    Shapes: frames [B, 1, T, H, W] to logits [B, T, H, W].
    """

    def __init__(self, network: DeepPro):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        P = self.tile_for(x)
        return _forward(self.network, x, P) if P else self.network(x)

    def tile_for(self, x: torch.Tensor) -> int | None:
        """How many pixels make a tile, or None if the network itself has to do it."""
        if x.dim() != 5 or x.shape[1:3] != (1, self.network.seqlen) or not x.is_cpu:
            return None  # it says what is wrong with the shape
        if x.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
            return None
        norms = (m for m in self.network.modules() if isinstance(m, nn.BatchNorm3d))
        if not torch.is_grad_enabled() or not all(map(_learns, norms)):
            return None
        pixels = x.shape[0] * x.shape[3] * x.shape[4]
        if pixels == 0 or x.shape[3] % 4 or x.shape[4] % 4:
            return None
        return next((P for P in TILES if pixels % (16 * P) == 0), None)


def _learns(norm: nn.BatchNorm3d) -> bool:
    """Whether a norm is in training mode, and set as ours are."""
    usual = norm.affine and norm.running_mean is not None and norm.momentum is not None
    return norm.training and usual


def _forward(net: DeepPro, x: torch.Tensor, P: int) -> torch.Tensor:
    """Frames [B, 1, T, H, W] to logits [B, T, H, W], in tiles of P pixels."""
    B, _, T, H, W = x.size()
    x = x[..., _apart(H)[:, None], _apart(W)]
    x = _convolved(Features([_to_tiles(x, P)]), FIVE, net.conv_in)
    pooled = _pooled(x, left=4)
    full = _head(_through(x, net.layer1), net.TPro1, net.conv_out1_1)
    half = _head(_through(pooled, net.layer2[1:]), net.TPro2, net.conv_out1_2)
    quarter = _pooled(_block(pooled, net.layer3[1]), left=1)
    quarter = _head(_block(quarter, net.layer3[3]), net.TPro3, net.conv_out1_3)
    weights = net.conv_out2[0].weight.view(8, 1, 24).split(8, dim=2)
    small = 0
    for features, weight, stride in ((half, weights[1], 2), (quarter, weights[2], 4)):
        ((y, *_),) = features.times((POINT, weight))  # a 1 x 1 convolution, before the upsampling
        places = _from_tiles(y.view(len(y), 8, T, P), B, H // stride, W // stride, 4 // stride)
        small = small + _upsampled(places, H, W)
    small = _to_tiles(small, P).transpose(1, 2).reshape(-1, 1, 8, T * P)
    (found,) = full.times((POINT, weights[0]), added=small)
    out = normalised(found, net.conv_out2[1], net.conv_out2[0].bias)
    ((y, *_),) = out.times((POINT, net.final.weight.view(1, 1, 8)))
    return _from_tiles(y.view(-1, 1, T, P), B, H, W, 4)[:, 0] + net.final.bias


def _kernel(conv: nn.Conv3d) -> torch.Tensor:
    """[O, k, C] of a convolution along time."""
    weight = conv.kernel() if hasattr(conv, "kernel") else conv.weight
    return weight.flatten(2).transpose(1, 2)


def _convolved(
    x: Features, product: Taps, layers: Sequence[nn.Module], overwrite: bool = False
) -> Features:
    """Through a convolution, its BatchNorm and a ReLU; `overwrite` is for `Features.times`."""
    conv, norm = layers[:2]
    (found,) = x.times((product, _kernel(conv)), overwrite=overwrite)
    return normalised(found, norm, conv.bias)


def _block(x: Features, block: ResidualBlock) -> Features:
    """Through TD(a, b), [n, T, a, P] to [n, T, b, P]."""
    conv, norm = block.shortcut
    taps = change_taps(block.conv1.kernel()).flatten(2).transpose(1, 2)  # [O, 2, C]
    found, aside = x.times((Differences(2), taps), (POINT, _kernel(conv)))
    y = normalised(found, block.bn1, block.conv1.bias)
    y = _convolved(y, NEAR, [block.conv2, block.bn2], overwrite=True)
    y = _convolved(y, POINT, [block.conv3, block.bn3])
    z = normalised(aside, norm, conv.bias)
    return Features([*y.arrays, *z.arrays], [*y.scales, *z.scales], y.shift + z.shift)


def _through(x: Features, blocks: nn.Sequential) -> Features:
    for block in blocks:
        x = _block(x, block)
    return x


def _head(x: Features, probe: TemporalProbe, layers: nn.Sequential) -> Features:
    """Through a probe and the convolutions behind it, to [n, 1, 8, T P]."""
    heads = probe.QK_heads
    maps = [torch.cat([h.weight / math.sqrt(probe.seqlen), h.bias[:, None]], 1) for h in heads]
    each = probe.norm1.num_features // len(heads)
    (found,) = x.times((Profiles(), torch.stack(maps).repeat_interleave(each, dim=0)))
    y = normalised(found, probe.norm1)
    y.arrays = [y.arrays[0].flatten(2).unsqueeze(1)]  # [n, 1, C, T P]
    return _convolved(_convolved(y, POINT, probe.conv, overwrite=True), POINT, layers)


def _pooled(x: Features, left: int) -> Features:
    """Max-pooled, four tiles made one; `left` pixels of every cell are left."""
    ((y, *_),) = x.times((Pool(), torch.empty(0)))
    n, T, C, P = y.size()
    y = y.view(n // 4, 4, T, C, left, P // left).permute(0, 2, 3, 4, 1, 5)
    return Features([y.reshape(n // 4, T, C, 4 * P)])


def _apart(length: int) -> torch.Tensor:
    """The rows or columns of a frame such that those of the same place in a cell are neighbours;
    two places that are pooled together first lie furthest apart."""
    return torch.arange(length).view(-1, 2, 2).permute(2, 1, 0).flatten()


def _to_tiles(x: torch.Tensor, P: int) -> torch.Tensor:
    """[B, C, T, H, W], rows and columns apart, to [n, T, C, P]."""
    x = x.unflatten(4, (2, 2, -1)).unflatten(3, (2, 2, -1))  # [B, C, T, 2, 2, h, 2, 2, w]
    # Columns before rows: then of equal pixels the one that torch takes is the first.
    x = x.permute(2, 1, 6, 3, 7, 4, 0, 5, 8)  # [T, C, places of a cell, B, h, w]
    T, C = x.shape[:2]
    x = x.reshape(T, C, 16, -1, P // 16)  # [T, C, 16, n, P / 16]
    return x.permute(3, 0, 1, 2, 4).reshape(-1, T, C, P)


def _from_tiles(x: torch.Tensor, B: int, H: int, W: int, side: int) -> torch.Tensor:
    """[n, C, T, P], with side x side pixels of every cell, to [B, C, T, H, W]."""
    n, C, T, P = x.size()
    halvings = side.bit_length() - 1
    x = x.view(n, C, T, side**2, P // side**2).permute(1, 2, 3, 0, 4)
    x = x.reshape(C, T, *[2] * (2 * halvings), B, H // side, W // side)
    across = [2 + 2 * i for i in reversed(range(halvings))]
    down = [3 + 2 * i for i in reversed(range(halvings))]
    b = 2 + 2 * halvings
    return x.permute(b, 0, 1, b + 1, *down, b + 2, *across).reshape(B, C, T, H, W)


def _upsampled(x: torch.Tensor, H: int, W: int) -> torch.Tensor:
    """[B, C, T, h, w] to [B, C, T, H, W], rows and columns apart: bilinear with align_corners, as
    matrix products."""
    _, rows = interpolation(H, x.shape[3], (0, H))  # [h, H]
    _, columns = interpolation(W, x.shape[4], (0, W))
    x = x @ columns[:, _apart(W)].to(x)
    return rows[:, _apart(H)].T.to(x) @ x
