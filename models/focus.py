"""A network as the score of one target: only the frame, and only the crop, that it depends on.

The score is F_t = sum over the target's mask in frame t of sigmoid(logit_t) (paper). Most of what
a network computes has no part in it, and is left out exactly, not about:

- Behind the temporal probes every frame is by itself, so the probes keep row t of their maps.
- Pixels beyond the receptive field of the mask are cut off. Inside it pooling cells are those of
  the whole frame (the crop begins at a multiple of the largest stride), and upsampling takes the
  weights that it has in the whole frame: align_corners makes them depend on where the crop lies.
  The zeros around the crop reach only what the mask does not see.
- BatchNorm in eval mode is part of the convolution before it.
"""

import copy
import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.layers import TemporalProbe, Upsample


class Crop(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of a frame of `size` (H, W)."""

    top: int
    bottom: int
    left: int
    right: int
    size: tuple[int, int]

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)


def whole_frame(size: tuple[int, int]) -> Crop:
    """The crop that cuts nothing off."""
    return Crop(0, size[0], 0, size[1], tuple(size))


def visible_crop(network: nn.Module, mask: np.ndarray) -> Crop:
    """What a network can see of a frame when it scores the pixels of a mask.

    Args:
        network: its `receptive_field` lists the stride and the halo (in pixels) of every branch; a
            network without one is given the whole frame.
        mask: [H, W] bool, not empty.
    """
    field = getattr(network, "receptive_field", None)
    if field is None:
        return whole_frame(mask.shape)
    spans = [_visible_span(field, mask.any(axis=1 - axis)) for axis in (0, 1)]
    return Crop(*spans[0], *spans[1], mask.shape)


def _visible_span(field: tuple[tuple[int, int], ...], masked: np.ndarray) -> tuple[int, int]:
    """The same along one axis: the pixels [start, stop) that the masked ones depend on."""
    n, places = len(masked), np.flatnonzero(masked)
    starts, stops = [], []
    for stride, halo in field:
        cells = n // stride
        scale = (cells - 1) / max(n - 1, 1)  # align_corners
        starts.append(math.floor(places[0] * scale) * stride - halo)
        stops.append((min(math.ceil(places[-1] * scale), cells - 1) + 1) * stride + halo)
    step = max(stride for stride, _ in field)
    start = max(0, min(starts)) // step * step
    stop = -(-max(*stops, places[-1] + 1) // step) * step
    return start, min(n, stop)


class TargetScore(nn.Module):
    """F of one target: the sum over a mask, in one frame, of the probability.

    Holds a copy of the network, in eval mode, with the weights fixed.

    Args:
        network: [B, 1, T, H, W] in, logits [B, T, H, W] out.
        frame: t, from 0.
        mask: [H, W] bool.
        crop: of the frames; see `visible_crop`.

    Shapes: normalised frames in the crop [B, T, h, w] to F [B].
    """

    def __init__(self, network: nn.Module, frame: int, mask: np.ndarray, crop: Crop):
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        weight = next(self.network.parameters())
        self.frame = frame
        _fold_norms(self.network)
        probes = [m for m in self.network.modules() if isinstance(m, TemporalProbe)]
        for probe in probes:
            self.frame = 0  # of the one frame that is left
            for head in probe.QK_heads:
                head.weight = nn.Parameter(head.weight[frame : frame + 1], requires_grad=False)
                head.bias = nn.Parameter(head.bias[frame : frame + 1], requires_grad=False)
        for name, module in list(self.network.named_modules()):
            if isinstance(module, Upsample):
                self.network.set_submodule(name, _CropUpsample(module.stride, crop).to(weight))
        self.register_buffer("mask", torch.from_numpy(mask[crop.slices]).to(weight))  # [h, w]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x[:, None])[:, self.frame]  # [B, h, w]
        return (logits.sigmoid() * self.mask).sum(dim=(1, 2))


class _CropUpsample(nn.Module):
    """Upsampling inside a crop, with the weights that the whole frame gives."""

    def __init__(self, stride: int, crop: Crop):
        super().__init__()
        down = _interpolation(stride, crop.top, crop.bottom, crop.size[0])
        across = _interpolation(stride, crop.left, crop.right, crop.size[1])
        self.register_buffer("down", down)  # [h, h // stride]
        self.register_buffer("across", across.T)  # [w // stride, w]

    def forward(self, x: torch.Tensor, size: torch.Size) -> torch.Tensor:
        return self.down @ (x @ self.across)  # [B, C, t, h, w]


def _interpolation(stride: int, start: int, stop: int, size: int) -> torch.Tensor:
    """Linear upsampling with align_corners to the pixels [start, stop) of `size`, from the cells
    that lie among them: [stop - start, cells]."""
    position = torch.arange(start, stop, dtype=torch.float64) * (size // stride - 1) / (size - 1)
    cell = start // stride + torch.arange((stop - start) // stride)
    return (1 - (position[:, None] - cell).abs()).clamp_min(0)


def _fold_norms(network: nn.Module) -> None:
    """Fold every BatchNorm that follows a convolution into it."""
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                setattr(parent, name, fuse_conv_bn_eval(conv, norm))
                setattr(parent, norm_name, nn.Identity())
