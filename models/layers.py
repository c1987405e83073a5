"""The building blocks of DeepPro: difference convolutions, residual blocks and the temporal probe.

Attribute names (`conv1`, `bn1`, `shortcut`, `QK_heads`, ...) are those of the released
state dicts, so that published weights load strictly.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from utils.errors import InputError


class TemporalDifferenceConv3d(nn.Conv3d):
    """A 3-D convolution that responds to change along time.

    Tap t of the kernel becomes 2 w[t] - w[t-1] - w[t+1], indices clamped at the two ends
    (published behaviour). Shapes are those of `nn.Conv3d`.
    """

    def kernel(self) -> torch.Tensor:
        w = self.weight  # [O, I, kT, kH, kW]
        before = torch.cat([w[:, :, :1], w[:, :, :-1]], dim=2)
        after = torch.cat([w[:, :, 1:], w[:, :, -1:]], dim=2)
        return 2 * w - before - after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv3d(x, self.kernel(), self.bias, self.stride, self.padding, self.dilation)


class SpatialDifferenceConv3d(nn.Conv3d):
    """A 3-D convolution that responds to a pixel's difference from its surroundings.

    In every k x k slice each tap becomes -w; the centre tap becomes the sum of all taps of the
    slice, its own included, so that a slice sums to the centre's original w (published behaviour).
    Shapes are those of `nn.Conv3d`.
    """

    def kernel(self) -> torch.Tensor:
        w = self.weight  # [O, I, kT, kH, kW]
        centre = torch.zeros_like(w[0, 0, 0])
        centre[w.shape[3] // 2, w.shape[4] // 2] = 1
        taps = w.sum(dim=(3, 4), keepdim=True)  # [O, I, kT, 1, 1]
        return torch.where(centre.bool(), taps, -w)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv3d(x, self.kernel(), self.bias, self.stride, self.padding, self.dilation)


def conv_bn(conv: nn.Module) -> list[nn.Module]:
    """A convolution and the BatchNorm of its output channels, to unpack into a Sequential."""
    return [conv, nn.BatchNorm3d(conv.out_channels)]


def pointwise(channels_in: int, channels_out: int) -> nn.Conv3d:
    """A 1 x 1 x 1 convolution."""
    return nn.Conv3d(channels_in, channels_out, 1)


def change_taps(kernel: torch.Tensor) -> torch.Tensor:
    """Of a kernel [O, I, 3, ...] whose taps in time sum to zero the two, [O, I, 2, ...], that give
    the same on differences of frames."""
    first, _, last = kernel.unbind(2)
    return torch.stack([-first, last], dim=2)


class ResidualBlock(nn.Module):
    """conv1, BN, ReLU; conv2, BN, ReLU; 1x1x1 conv, BN; plus a 1x1x1 shortcut with BN; ReLU."""

    def __init__(self, conv1: nn.Conv3d, conv2: nn.Conv3d):
        super().__init__()
        channels_in, channels_out = conv1.in_channels, conv1.out_channels
        self.conv1, self.bn1 = conv_bn(conv1)
        self.conv2, self.bn2 = conv_bn(conv2)
        self.conv3, self.bn3 = conv_bn(pointwise(channels_out, channels_out))
        self.shortcut = nn.Sequential(*conv_bn(pointwise(channels_in, channels_out)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)  # [B, C, T, H, W]
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.shortcut(x)  # in place: these are the largest arrays of the network
        return F.relu(y, inplace=True)


def temporal_block(channels_in: int, channels_out: int) -> ResidualBlock:
    """TD(a, b): looks along time only; dilation 2 in its difference convolution."""
    return ResidualBlock(
        TemporalDifferenceConv3d(
            channels_in, channels_out, (3, 1, 1), padding=(2, 0, 0), dilation=(2, 1, 1)
        ),
        nn.Conv3d(channels_out, channels_out, (3, 1, 1), padding=(1, 0, 0)),
    )


def spatio_temporal_block(channels_in: int, channels_out: int) -> ResidualBlock:
    """STD(a, b): temporal difference (dilation 2 in time), then spatial (dilation 2 in space)."""
    return ResidualBlock(
        TemporalDifferenceConv3d(
            channels_in, channels_out, 3, padding=(2, 1, 1), dilation=(2, 1, 1)
        ),
        SpatialDifferenceConv3d(
            channels_out, channels_out, 3, padding=(1, 2, 2), dilation=(1, 2, 2)
        ),
    )


class TemporalProbe(nn.Module):
    """TPro: correlates every pixel's temporal profile with learned ones.

    The channels are split into heads; each head is one T x T linear map along time, shared by all
    pixels and by the channels of the head. The published names speak of attention (`QK_heads`);
    there is none.

    Args:
        channels: C, divisible by `heads`.
        heads: m, the number of T x T maps.
        seqlen: T, fixed by the maps.
    """

    def __init__(self, channels: int, heads: int, seqlen: int):
        super().__init__()
        self.seqlen = seqlen
        self.QK_heads = nn.ModuleList(nn.Linear(seqlen, seqlen) for _ in range(heads))
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv = nn.Sequential(*conv_bn(pointwise(channels, channels)), nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, C, T, H, W = x.size()
        weight = torch.stack([head.weight for head in self.QK_heads])[:, None]  # [m, 1, t, T]
        bias = torch.stack([head.bias for head in self.QK_heads])[:, None, :, None]
        x = x.reshape(B, len(weight), -1, T, H * W)  # [B, m, C/m, T, H*W]
        x = (weight / math.sqrt(T)) @ x
        x += bias
        x = x.reshape(B, C, -1, H, W)  # [B, C, t, H, W]; t = T, or the rows that the maps have
        return self.conv(F.relu(self.norm1(x), inplace=True))


class Upsample(nn.Module):
    """Bilinear upsampling with align_corners, of every frame by itself, of a branch that works at
    1 / `stride` of the size.

    Shapes: [B, C, t, H // stride, W // stride] and the size (H, W) to [B, C, t, H, W].
    """

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: torch.Tensor, size: torch.Size) -> torch.Tensor:
        # Depth t to t at align_corners is the identity.
        size = (x.shape[2], *size)
        return F.interpolate(x, size=size, mode="trilinear", align_corners=True)


def window_length(weights: dict[str, torch.Tensor]) -> int | None:
    """T, read off the shape of a temporal probe's maps; None if there is no probe."""
    maps = (w for key, w in weights.items() if ".QK_heads." in key and w.dim() == 2)
    return next((w.shape[0] for w in maps), None)


def check_frames(x: torch.Tensor, seqlen: int, smallest: int = 1) -> None:
    """Raise InputError unless x is [B, 1, seqlen, H, W] with H and W of at least `smallest`."""
    if x.dim() != 5 or x.shape[1] != 1 or x.shape[2] != seqlen:
        raise InputError(f"expected frames [B, 1, {seqlen}, H, W], got {list(x.shape)}")
    if min(x.shape[3:]) < smallest:
        raise InputError(
            f"frames of {x.shape[3]} x {x.shape[4]} pixels, at least {smallest} needed"
        )
