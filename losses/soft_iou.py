"""SoftIoU, the published training loss."""

import torch
from torch import nn

from losses.registry import register_loss


def soft_iou(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """1 - mean over the batch of I / (P + G - I), sums over T, H, W of the sigmoid.

    A sample without a target pixel contributes the constant 1 with zero gradient. Sums are taken
    in float32, since half precision overflows at 65,504 pixels.

    Shapes: [B, T, H, W] both, to a scalar. Source: paper, and the published code measured.
    """
    probability = logits.float().sigmoid().flatten(1)  # [B, T*H*W]
    truth = masks.float().flatten(1)
    intersection = (probability * truth).sum(1)
    union = probability.sum(1) + truth.sum(1) - intersection
    tiny = torch.finfo(union.dtype).tiny  # nothing predicted, nothing there: 0 / tiny = 0
    return 1 - (intersection / union.clamp_min(tiny)).mean()


@register_loss("SoftIoU")
class SoftIoULoss(nn.Module):
    """`soft_iou` as a module."""

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return soft_iou(logits, masks)
