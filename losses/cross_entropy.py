"""Binary cross-entropy and its focal form."""

import torch
from torch import nn
from torch.nn import functional as F

from losses.registry import register_loss

FOCAL_ALPHA = 5 / 6  # weight of target pixels; background has 1 - alpha = 1/6
FOCAL_GAMMA = 2.0


def bce(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy, in float32. Shapes: [B, T, H, W] both, to a scalar."""
    return F.binary_cross_entropy_with_logits(logits.float(), masks.float())


def focal_map(
    logits: torch.Tensor,
    masks: torch.Tensor,
    alpha: float = FOCAL_ALPHA,
    gamma: float = FOCAL_GAMMA,
) -> torch.Tensor:
    """The focal term of every pixel (Lin et al. 2017), float32, of the shape of `logits`."""
    logits, masks = logits.float(), masks.float()
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    wrong = torch.sigmoid(torch.where(masks > 0, -logits, logits))  # 1 - probability of the truth
    weight = torch.where(masks > 0, alpha, 1 - alpha)
    return weight * wrong**gamma * entropy


def focal_bce(
    logits: torch.Tensor,
    masks: torch.Tensor,
    alpha: float = FOCAL_ALPHA,
    gamma: float = FOCAL_GAMMA,
) -> torch.Tensor:
    """Mean focal term over all pixels. Shapes: [B, T, H, W] both, to a scalar."""
    return focal_map(logits, masks, alpha, gamma).mean()


@register_loss("BCE")
class BCELoss(nn.Module):
    """`bce` as a module."""

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return bce(logits, masks)


@register_loss("FocalBCE")
class FocalLoss(nn.Module):
    """`focal_bce` as a module."""

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return focal_bce(logits, masks)
