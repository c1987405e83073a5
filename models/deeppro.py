"""DeepPro: infrared small targets from temporal profiles alone (arXiv 2506.12766)."""

import torch
from torch import nn

from models.layers import (
    TemporalProbe,
    Upsample,
    check_frames,
    conv_bn,
    pointwise,
    temporal_block,
)
from models.registry import register_network


def _branch_out() -> nn.Sequential:
    return nn.Sequential(*conv_bn(pointwise(32, 8)), nn.ReLU(inplace=True))


@register_network("DeepPro")
class DeepPro(nn.Module):
    """Temporal blocks and a probe at full, half and quarter size; 49,129 parameters at T = 40.

    Nothing but the pooling and the bilinear upsampling of the two smaller branches couples
    neighbouring pixels.

    Args:
        seqlen: T, the number of frames in a window.

    Shapes: frames [B, 1, T, H, W], H and W at least 4, to logits [B, T, H, W].
    """

    receptive_field = ((1, 0), (2, 0), (4, 0))  # of every branch: stride, halo in pixels

    def __init__(self, seqlen: int = 40):
        super().__init__()
        self.seqlen = seqlen
        self.conv_in = nn.Sequential(
            *conv_bn(nn.Conv3d(1, 8, (5, 1, 1), padding=(2, 0, 0))), nn.ReLU(inplace=True)
        )
        half = nn.MaxPool3d((1, 2, 2))
        self.layer1 = nn.Sequential(temporal_block(8, 16), temporal_block(16, 32))
        self.layer2 = nn.Sequential(half, temporal_block(8, 16), temporal_block(16, 32))
        self.layer3 = nn.Sequential(half, temporal_block(8, 16), half, temporal_block(16, 32))
        self.TPro1 = TemporalProbe(32, heads=4, seqlen=seqlen)
        self.TPro2 = TemporalProbe(32, heads=4, seqlen=seqlen)
        self.TPro3 = TemporalProbe(32, heads=4, seqlen=seqlen)
        self.conv_out1_1 = _branch_out()
        self.conv_out1_2 = _branch_out()
        self.conv_out1_3 = _branch_out()
        self.upsample_half, self.upsample_quarter = Upsample(2), Upsample(4)
        self.conv_out2 = nn.Sequential(*conv_bn(pointwise(24, 8)), nn.ReLU(inplace=True))
        self.final = pointwise(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_frames(x, self.seqlen, smallest=4)
        size = x.shape[3:]
        x = self.conv_in(x)  # [B, 8, T, H, W]
        full = self.conv_out1_1(self.TPro1(self.layer1(x)))  # [B, 8, T, H, W]
        half = self.conv_out1_2(self.TPro2(self.layer2(x)))  # [B, 8, T, H/2, W/2]
        quarter = self.conv_out1_3(self.TPro3(self.layer3(x)))  # [B, 8, T, H/4, W/4]
        small = self.upsample_half(half, size), self.upsample_quarter(quarter, size)
        x = torch.cat([full, *small], dim=1)  # [B, 24, T, H, W]
        return self.final(self.conv_out2(x)).squeeze(1)  # [B, T, H, W]
