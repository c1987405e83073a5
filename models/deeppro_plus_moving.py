"""DeepPro-Plus-Moving: the published two-level variant for moving scenes."""

import torch
from torch import nn

from models.layers import (
    SpatialDifferenceConv3d,
    TemporalProbe,
    Upsample,
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

    # Of either level: stride, halo in pixels. 3 of conv_in, 3 cells of every block.
    receptive_field = ((2, 3 + 6 + 6), (4, 3 + 6 + 12))

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
        self.upsample1, self.upsample2 = Upsample(2), Upsample(4)
        self.conv_out1 = nn.Sequential(*conv_bn(pointwise(16, 8)), nn.ReLU(inplace=True))
        self.conv_out2 = pointwise(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_frames(x, self.seqlen, smallest=4)
        size = x.shape[3:]
        x = self.layer1(self.conv_in(x))  # [B, 16, T, H/2, W/2]
        coarse = self.upsample1(self.level1(x), size), self.upsample2(self.level2(x), size)
        return self.conv_out2(self.conv_out1(torch.cat(coarse, dim=1))).squeeze(1)  # [B, T, H, W]
