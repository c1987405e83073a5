"""The losses, by hand and against the obvious loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from losses import (
    bce,
    build_loss,
    focal_bce,
    hard_mining,
    loss_names,
    mine_hard_pixels,
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


# Hard mining


def slow_dilate(pixels: torch.Tensor) -> torch.Tensor:
    """[H, W] bool, grown by a 5 x 5 square."""
    grown = torch.zeros_like(pixels)
    for y, x in pixels.nonzero().tolist():
        grown[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = True
    return grown


def slow_clear(masks: torch.Tensor) -> torch.Tensor:
    """[T, H, W] to [H, W]: the pixels outside the surroundings of the targets of any frame."""
    clear = torch.ones(masks.shape[1:], dtype=torch.bool)
    for frame in masks:
        clear &= ~slow_dilate(frame)
    return clear


def slow_ranks(logits: torch.Tensor, masks: torch.Tensor) -> dict[tuple[int, int], int]:
    """Clear pixels of [T, H, W] to their rank, 1 the hardest by cross-entropy summed over time."""
    entropy = torch.zeros(masks.shape[1:], dtype=torch.float64)
    for frame, truth in zip(logits.double(), masks, strict=True):
        entropy += torch.log1p(torch.exp(torch.where(truth, -frame, frame)))
    pixels = [(y, x) for y, x in slow_clear(masks).nonzero().tolist()]
    pixels.sort(key=lambda pixel: -entropy[pixel])
    return {pixel: rank for rank, pixel in enumerate(pixels, start=1)}


@given(size=st.tuples(st.integers(1, 5), st.integers(1, 5)), data=st.data())
def test_all_of_a_small_frames_clear_background_is_mined(size, data):
    """At most 25 pixels, of which 29 are drawn: all that are clear, and no other."""
    T = data.draw(st.integers(1, 3))
    count = T * size[0] * size[1]
    on = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    masks = torch.zeros(count, dtype=torch.bool)
    masks[list(on)] = True
    masks = masks.view(1, T, *size)
    mined = mine_hard_pixels(noise(1, T, *size), masks)
    assert mined.shape == (1, *size)
    assert torch.equal(mined[0], slow_clear(masks[0]))


def test_surroundings_are_those_of_the_targets_of_every_frame():
    """A target that moves along the middle of 9 x 9 pixels leaves two rows at either side."""
    masks = torch.zeros(1, 9, 9, 9, dtype=torch.bool)
    masks[0, range(9), 4, range(9)] = True
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[[0, 1, 7, 8]] = True
    seen = torch.zeros(9, 9, dtype=torch.bool)
    for seed in range(8):
        torch.manual_seed(seed)
        seen |= mine_hard_pixels(noise(1, 9, 9, 9), masks)[0]
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("seed", range(5))
def test_mined_pixels_of_a_large_frame(seed):
    """29 of 4,000 pixels put about one among the ranks 20 to 150; the other ten are the hard."""
    logits, masks = noise(2, 3, 64, 64, seed=seed), spots(2, 3, 64, 64, seed=seed, share=2e-4)
    torch.manual_seed(seed)
    mined = mine_hard_pixels(logits, masks)
    assert mined.dtype == torch.bool
    for b in range(2):
        ranks = slow_ranks(logits[b], masks[b])
        chosen = [ranks[y, x] for y, x in mined[b].nonzero().tolist()]  # KeyError: not clear
        assert 29 <= len(chosen) <= 39
        assert 10 <= sum(20 <= rank <= 150 for rank in chosen) <= 10 + 6


def test_hard_pixels_are_the_20th_to_the_150th():
    """Over many draws of ten, from so many pixels that the 29 others hardly ever rank high."""
    generator, side = torch.Generator().manual_seed(0), 256
    order = torch.randperm(side * side, generator=generator)
    hardness = torch.linspace(8, -8, side * side)  # rank 1 first
    logits = torch.empty(side * side).index_put((order,), hardness).view(1, 1, side, side)
    masks = torch.zeros(1, 1, side, side)
    torch.manual_seed(0)
    drawn = torch.zeros(side * side)  # how often, by rank
    for _ in range(100):
        drawn += mine_hard_pixels(logits, masks).flatten()[order]
    hard = drawn[19:150]
    assert (hard > 0).float().mean() > 0.95
    assert 1000 <= hard.sum() <= 1020
    assert drawn[18] < 2 <= drawn[19]  # each is among the ten about 7 times, by chance 0.04 times
    assert drawn[150] < 2 <= drawn[149]
    assert drawn[:19].sum() <= 5


def test_ten_hard_pixels_come_even_where_fewer_than_150_are_background():
    """Of 36 pixels the 20th to the 36th hardest are the hard ones; ten of them always come."""
    logits, masks = noise(1, 2, 6, 6), torch.zeros(1, 2, 6, 6, dtype=torch.bool)
    ranks = slow_ranks(logits[0], masks[0])
    torch.manual_seed(0)
    for _ in range(30):
        chosen = [ranks[y, x] for y, x in mine_hard_pixels(logits, masks)[0].nonzero().tolist()]
        assert 29 <= len(chosen) <= 36
        assert sum(rank >= 20 for rank in chosen) >= 10


def test_mining_follows_the_seed():
    logits, masks = noise(2, 3, 32, 32), spots(2, 3, 32, 32, share=1e-3)

    def mine(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return mine_hard_pixels(logits, masks)

    assert torch.equal(mine(1), mine(1))
    assert not torch.equal(mine(1), mine(2))


def slow_hard_mining(
    logits: torch.Tensor, masks: torch.Tensor, mined: torch.Tensor, areas: bool
) -> float:
    means = []
    for b in range(len(logits)):
        area = slow_dilate(mined[b]) if areas else mined[b]
        terms = []
        for t in range(logits.shape[1]):
            for y in range(logits.shape[2]):
                for x in range(logits.shape[3]):
                    if area[y, x] or masks[b, t, y, x]:
                        terms.append(slow_focal(logits[b, t, y, x].item(), masks[b, t, y, x]))
        means.append(sum(terms) / len(terms))
    return sum(means) / len(means)


@pytest.mark.parametrize(("name", "areas"), [("HPM", False), ("HAM", True)])
@pytest.mark.parametrize("seed", [0, 1])
def test_hard_mining_is_the_loop(name, areas, seed):
    logits = noise(2, 2, 24, 24, seed=seed)
    masks = spots(2, 2, 24, 24, seed=seed, share=0.002)
    torch.manual_seed(seed)
    mined = mine_hard_pixels(logits, masks)
    torch.manual_seed(seed)
    loss = build_loss(name)(logits, masks).item()
    assert loss == pytest.approx(slow_hard_mining(logits, masks, mined, areas), rel=1e-5)
    other = slow_hard_mining(logits, masks, mined, not areas)
    assert loss != pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("name", ["HPM", "HAM"])
def test_only_mined_and_target_pixels_have_a_gradient(name):
    logits, masks = noise(1, 2, 40, 40), spots(1, 2, 40, 40, share=0.001)
    torch.manual_seed(0)
    mined = mine_hard_pixels(logits, masks)[0]
    area = slow_dilate(mined) if name == "HAM" else mined
    torch.manual_seed(0)
    build_loss(name)(logits.requires_grad_(), masks).backward()
    assert torch.equal(logits.grad[0] != 0, area | masks[0])


@pytest.mark.parametrize("name", ["HPM", "HAM"])
def test_frame_full_of_targets_leaves_the_targets(name):
    logits, masks = noise(1, 2, 6, 6), torch.ones(1, 2, 6, 6)
    expected = focal_bce(logits, masks).item()
    assert build_loss(name)(logits, masks).item() == pytest.approx(expected)
