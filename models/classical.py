"""Classical detectors, to compare the networks with: no weights, nothing to train.

They answer as networks do, with logits. Their score is a contrast z in root mean squares of its
kind over the whole window, whatever the normalisation of the grey levels (a median would be 0 on
frames of few grey levels); its logit log(z / 5) makes the probability z / (z + 5): 0.5 where z is
5, and thresholds from 0.1 to 0.99 reach from 0.6 to 495.
"""

import torch
from torch import nn
from torch.nn import functional as F

from models.layers import check_frames

HALF = 5.0  # root mean squares at probability 0.5


def contrast_logits(contrast: torch.Tensor) -> torch.Tensor:
    """Contrast [B, T, H, W], none below 0, to logits; those of none at all about -28."""
    contrast = contrast.float()
    scale = HALF * contrast.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    return (contrast / (scale + 1e-12)).clamp_min(1e-12).log()


class Classical(nn.Module):
    """A contrast of its own behind the interface of the networks.

    Args:
        seqlen: T, the number of frames in a window.

    Shapes: frames [B, 1, T, H, W] to logits [B, T, H, W].
    """

    def __init__(self, seqlen: int = 40):
        super().__init__()
        self.seqlen = seqlen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_frames(x, self.seqlen)
        return contrast_logits(self.contrast(x[:, 0]))


class MedianResidual(Classical):
    """Distance of every pixel from its own temporal median: finds what moves, either polarity."""

    def contrast(self, frames: torch.Tensor) -> torch.Tensor:
        return (frames - frames.median(1, keepdim=True).values).abs()  # [B, T, H, W]


class TopHat(Classical):
    """White top-hat of every frame by itself: what is brighter than its surroundings and smaller
    than 7 x 7 pixels."""

    def contrast(self, frames: torch.Tensor) -> torch.Tensor:
        pool = {"kernel_size": 7, "stride": 1, "padding": 3}
        eroded = -F.max_pool2d(-frames, **pool)
        return frames - F.max_pool2d(eroded, **pool)  # [B, T, H, W]


CLASSICAL = {"MedianResidual": MedianResidual, "TopHat": TopHat}
