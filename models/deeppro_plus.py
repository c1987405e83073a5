"""DeepPro-Plus: temporal profiles with a little space around them (arXiv 2506.12766)."""

import torch
from torch import nn

from models.layers import (
    SpatialDifferenceConv3d,
    TemporalProbe,
    check_frames,
    conv_bn,
    pointwise,
    spatio_temporal_block,
)
from models.registry import register_network


@register_network("DeepPro-Plus")
class DeepProPlus(nn.Module):
    """Spatio-temporal blocks and one probe at full size; 70,913 parameters at T = 40.

    Args:
        seqlen: T, the number of frames in a window.

    Shapes: frames [B, 1, T, H, W] to logits [B, T, H, W].
    """

    receptive_field = ((1, 9),)  # stride, halo in pixels: 3 of conv_in, 1 + 2 of either block

    def __init__(self, seqlen: int = 40):
        super().__init__()
        self.seqlen = seqlen
        self.conv_in = nn.Sequential(
            *conv_bn(SpatialDifferenceConv3d(1, 8, (5, 7, 7), padding=(2, 3, 3))),
            nn.ReLU(inplace=True),
        )
        self.layer1 = nn.Sequential(spatio_temporal_block(8, 16), spatio_temporal_block(16, 32))
        self.TPro = TemporalProbe(32, heads=8, seqlen=seqlen)
        self.conv_out1 = nn.Sequential(*conv_bn(pointwise(32, 8)), nn.ReLU(inplace=True))
        self.conv_out2 = pointwise(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_frames(x, self.seqlen)
        x = self.layer1(self.conv_in(x))  # [B, 32, T, H, W]
        return self.conv_out2(self.conv_out1(self.TPro(x))).squeeze(1)  # [B, T, H, W]
