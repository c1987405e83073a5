"""DeepPro-Plus-Moving: the published two-level variant for moving scenes."""

import torch
from torch import nn
from torch.nn import functional as F

from models.layers import (
    SpatialDifferenceConv3d,
    TemporalProbe,
    check_frames,
    conv_bn,
    pointwise,
    spatio_temporal_block,
)
from models.registry import register_network


def _level(seqlen: int, *before: nn.Module) -> nn.Sequential:
    """A spatio-temporal block, a probe and 8 channels at one size."""
    return nn.Sequential(
        *before,
        spatio_temporal_block(16, 32),
        TemporalProbe(32, heads=8, seqlen=seqlen),
        *conv_bn(pointwise(32, 8)),
        nn.ReLU(inplace=True),
    )


@register_network("DeepPro-Plus-Moving")
class DeepProPlusMoving(nn.Module):
    """Spatio-temporal blocks and probes at half and quarter size; 129,041 parameters at T = 40.

    Args:
        seqlen: T, the number of frames in a window.

    Shapes: frames [B, 1, T, H, W], H and W at least 4, to logits [B, T, H, W].
    """

    def __init__(self, seqlen: int = 40):
        super().__init__()
        self.seqlen = seqlen
        half = nn.MaxPool3d((1, 2, 2))
        self.conv_in = nn.Sequential(
            *conv_bn(SpatialDifferenceConv3d(1, 8, (5, 7, 7), padding=(2, 3, 3))),
            nn.ReLU(inplace=True),
        )
        self.layer1 = nn.Sequential(half, spatio_temporal_block(8, 16))
        self.level1 = _level(seqlen)
        self.level2 = _level(seqlen, half)
        self.conv_out1 = nn.Sequential(*conv_bn(pointwise(16, 8)), nn.ReLU(inplace=True))
        self.conv_out2 = pointwise(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_frames(x, self.seqlen, smallest=4)
        # Depth T to T at align_corners is the identity: every frame is upsampled by itself.
        size = {"size": x.shape[2:], "mode": "trilinear", "align_corners": True}
        x = self.layer1(self.conv_in(x))  # [B, 16, T, H/2, W/2]
        levels = [F.interpolate(level(x), **size) for level in (self.level1, self.level2)]
        return self.conv_out2(self.conv_out1(torch.cat(levels, dim=1))).squeeze(1)  # [B, T, H, W]
