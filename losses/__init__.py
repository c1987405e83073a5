"""Logits and masks in, a scalar out. Every loss takes logits and masks [B, T, H, W]."""

from losses.cross_entropy import BCELoss, FocalLoss, bce, focal_bce
from losses.hard_mining import HAMLoss, HPMLoss, hard_mining, mine_hard_pixels
from losses.registry import build_loss, loss_names
from losses.soft_iou import SoftIoULoss, soft_iou

__all__ = [
    "BCELoss",
    "FocalLoss",
    "HAMLoss",
    "HPMLoss",
    "SoftIoULoss",
    "bce",
    "build_loss",
    "focal_bce",
    "hard_mining",
    "loss_names",
    "mine_hard_pixels",
    "soft_iou",
]
