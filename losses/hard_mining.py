"""Hard mining along time: HPM takes hard pixels, HAM the areas around them (published losses)."""

import torch
from torch import nn
from torch.nn import functional as F

from losses.cross_entropy import focal_map
from losses.registry import register_loss

HARDEST, LEAST_HARD = 19, 150  # the 20th to the 150th hardest pixel, as a slice
HARD_PIXELS = 10  # of those, at random
ANY_PIXELS = 29  # of all, at random
SURROUNDINGS = 5  # side of the square kept clear around targets, and of HAM's areas


def mine_hard_pixels(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Background pixels to train on: [B, H, W] bool, without gradient.

    Per sample, of the BCE summed over time at pixels outside the 5 x 5 surroundings of targets:
    10 at random out of the 20th to 150th hardest, and 29 at random from all. Fewer where a small
    frame has fewer. Draws from torch's global generator.
    """
    with torch.no_grad():
        entropy = F.binary_cross_entropy_with_logits(
            logits.float(), masks.float(), reduction="none"
        )
        hardness = entropy.sum(1).flatten(1)  # [B, H*W]
        clear = ~_dilate(masks.amax(1) > 0).flatten(1)
        chosen = torch.zeros_like(clear)
        for b in range(len(chosen)):
            background = clear[b].nonzero().squeeze(1)
            order = hardness[b, background].argsort(descending=True)
            hard = background[order[HARDEST:LEAST_HARD]]
            chosen[b, _sample(hard, HARD_PIXELS)] = True
            chosen[b, _sample(background, ANY_PIXELS)] = True
        return chosen.unflatten(1, masks.shape[2:])


def hard_mining(logits: torch.Tensor, masks: torch.Tensor, areas: bool) -> torch.Tensor:
    """Mean focal term over the mined pixels in every frame and the target pixels.

    Args:
        logits, masks: [B, T, H, W].
        areas: dilate the mined pixels 5 x 5 (HAM) or not (HPM).

    Returns the mean over the batch of every sample's mean, a scalar.
    """
    mined = mine_hard_pixels(logits, masks)  # [B, H, W]
    if areas:
        mined = _dilate(mined)
    chosen = (mined[:, None] | (masks > 0)).flatten(1)  # [B, T*H*W]
    terms = focal_map(logits, masks).flatten(1)
    return ((terms * chosen).sum(1) / chosen.sum(1).clamp_min(1)).mean()


def _dilate(pixels: torch.Tensor) -> torch.Tensor:
    """[B, H, W] bool, grown by a 5 x 5 square."""
    grown = F.max_pool2d(pixels[:, None].float(), SURROUNDINGS, 1, SURROUNDINGS // 2)
    return grown[:, 0] > 0


def _sample(candidates: torch.Tensor, count: int) -> torch.Tensor:
    shuffled = torch.randperm(len(candidates), device=candidates.device)
    return candidates[shuffled[:count]]


@register_loss("HPM")
class HPMLoss(nn.Module):
    """Hard pixel mining."""

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return hard_mining(logits, masks, areas=False)


@register_loss("HAM")
class HAMLoss(nn.Module):
    """Hard area mining."""

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return hard_mining(logits, masks, areas=True)
