"""The losses, by hand and against the obvious loops."""

import math

import pytest
import torch

from losses import (
    bce,
    build_loss,
    focal_bce,
    hard_mining,
    loss_names,
    soft_iou,
)
from utils.errors import InputError

NAMES = ["SoftIoU", "BCE", "FocalBCE", "HPM", "HAM"]


def noise(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spots(*shape: int, seed: int = 0, share: float = 0.05) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


# Registry


def test_names():
    assert set(NAMES) <= set(loss_names())


def test_unknown_name_gives_the_nearest():
    with pytest.raises(InputError, match=r"unknown loss 'softiou': did you mean 'SoftIoU'\?.*HAM"):
        build_loss("softiou")


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("SoftIoU", soft_iou),
        ("BCE", bce),
        ("FocalBCE", focal_bce),
        ("HPM", lambda logits, masks: hard_mining(logits, masks, areas=False)),
        ("HAM", lambda logits, masks: hard_mining(logits, masks, areas=True)),
    ],
)
def test_module_is_its_function(name, function):
    logits, masks = noise(2, 3, 16, 16), spots(2, 3, 16, 16)
    torch.manual_seed(1)
    by_name = build_loss(name)(logits, masks)
    torch.manual_seed(1)
    assert by_name.item() == function(logits, masks).item()


# Every loss the same way

SCENES = {
    "random": (noise(2, 3, 16, 16), spots(2, 3, 16, 16)),
    "right": (60000 * (2.0 * spots(2, 3, 16, 16) - 1), spots(2, 3, 16, 16)),
    "wrong": (60000 * (1 - 2.0 * spots(2, 3, 16, 16)), spots(2, 3, 16, 16)),
    "all on": (torch.full((2, 3, 16, 16), 60000.0), spots(2, 3, 16, 16)),
    "all off": (torch.full((2, 3, 16, 16), -60000.0), spots(2, 3, 16, 16)),
    "no target": (noise(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)),
    "no target, all on": (torch.full((2, 3, 16, 16), 60000.0), torch.zeros(2, 3, 16, 16)),
    "no target, all off": (torch.full((2, 3, 16, 16), -60000.0), torch.zeros(2, 3, 16, 16)),
    "all target": (noise(2, 3, 16, 16), torch.ones(2, 3, 16, 16)),
    "all target, all off": (torch.full((2, 3, 16, 16), -60000.0), torch.ones(2, 3, 16, 16)),
    "few pixels": (noise(2, 3, 4, 4), spots(2, 3, 4, 4, seed=3)),
    "few pixels, no target": (noise(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)),
    "no background left": (noise(1, 3, 4, 4), torch.ones(1, 3, 4, 4) * torch.eye(4)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_finite(name, scene, dtype):
    logits, masks = SCENES[scene]
    logits = logits.to(dtype, copy=True).requires_grad_()
    loss = build_loss(name)(logits, masks)
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(loss)
    assert loss >= 0
    assert logits.grad.dtype == dtype
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_cost_less_than_wrong_ones(name):
    right, wrong = (build_loss(name)(*SCENES[scene]).item() for scene in ("right", "wrong"))
    assert right == pytest.approx(0, abs=1e-6)
    assert wrong > 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32], ids=str)
def test_masks_of_any_type(name, dtype):
    logits, masks = SCENES["random"]
    torch.manual_seed(0)
    expected = build_loss(name)(logits, masks)
    torch.manual_seed(0)
    assert build_loss(name)(logits, masks.to(dtype)).item() == expected.item()


@pytest.mark.parametrize("name", NAMES)
def test_step_against_the_gradient_lowers_the_loss(name):
    logits, masks = SCENES["random"]
    logits = logits.clone().requires_grad_()
    torch.manual_seed(0)
    before = build_loss(name)(logits, masks)
    before.backward()
    with torch.no_grad():
        stepped = logits - 0.01 * logits.grad / logits.grad.norm()
    torch.manual_seed(0)
    assert build_loss(name)(stepped, masks) < before


# SoftIoU


def test_soft_iou_by_hand():
    """Half sure of four pixels, one of them target: I = 1/2, P = 2, G = 1; I / (P + G - I) = .2"""
    masks = torch.tensor([1.0, 0, 0, 0]).view(1, 1, 2, 2)
    assert soft_iou(torch.zeros(1, 1, 2, 2), masks).item() == pytest.approx(0.8)


def test_soft_iou_sums_over_time_before_the_ratio():
    logits = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1)  # probabilities 3/4 and 1/2
    masks = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert soft_iou(logits, masks).item() == pytest.approx(1 - 0.75 / (1.25 + 1 - 0.75))


def test_soft_iou_is_a_mean_over_samples():
    logits, masks = noise(3, 2, 8, 8), spots(3, 2, 8, 8, share=0.3)
    alone = [soft_iou(logits[b : b + 1], masks[b : b + 1]).item() for b in range(3)]
    assert soft_iou(logits, masks).item() == pytest.approx(sum(alone) / 3)


@pytest.mark.parametrize("level", [-60000.0, -5.0, 0.0, 60000.0])
def test_sample_without_target_contributes_one_and_no_gradient(level):
    logits = torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), level)]).requires_grad_()
    masks = torch.zeros(2, 1, 2, 2)
    masks[0, 0, 0, 0] = 1
    loss = soft_iou(logits, masks)
    loss.backward()
    assert loss.item() == pytest.approx((0.8 + 1) / 2)
    assert torch.count_nonzero(logits.grad[0]) == 4
    assert torch.count_nonzero(logits.grad[1]) == 0
    assert soft_iou(logits[1:], masks[1:]).item() == 1


def test_soft_iou_of_half_precision_sums_beyond_its_range():
    """400 x 400 pixels at probability 1/2 sum to 80,000; float16 ends at 65,504."""
    logits = torch.zeros(1, 1, 400, 400, dtype=torch.float16)
    assert soft_iou(logits, torch.ones_like(logits)).item() == pytest.approx(0.5)


# Cross-entropy


def slow_focal(logit: float, truth: bool, alpha: float = 5 / 6, gamma: float = 2.0) -> float:
    probability = 1 / (1 + math.exp(-logit))
    if truth:
        return -alpha * (1 - probability) ** gamma * math.log(probability)
    return -(1 - alpha) * probability**gamma * math.log(1 - probability)


def test_bce_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).view(1, 1, 1, 2)  # probabilities 1/2, 3/4
    masks = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert bce(logits, masks).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_focal_by_hand():
    logits, masks = torch.zeros(1, 1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    expected = (5 / 6 + 1 / 6) * 0.25 * math.log(2) / 2
    assert focal_bce(logits, masks).item() == pytest.approx(expected)


@pytest.mark.parametrize(("alpha", "gamma"), [(5 / 6, 2.0), (0.25, 0.0), (0.5, 3.5)])
def test_focal_is_the_loop(alpha, gamma):
    logits, masks = noise(2, 3, 5, 6), spots(2, 3, 5, 6, share=0.3)
    pairs = zip(logits.flatten().tolist(), masks.flatten().tolist(), strict=True)
    terms = [slow_focal(logit, truth, alpha, gamma) for logit, truth in pairs]
    result = focal_bce(logits, masks, alpha=alpha, gamma=gamma).item()
    assert result == pytest.approx(sum(terms) / len(terms), rel=1e-5)
