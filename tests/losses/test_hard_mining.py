"""Hard mining, against the obvious loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from losses import build_loss, focal_bce, mine_hard_pixels
from tests.losses.test_losses import noise, slow_focal, spots


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
