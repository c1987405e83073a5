"""The products of tiled layers, and layers made of them, against what they stand for."""

import pytest
import torch
from torch.nn import functional as F

from models.tile_products import Differences, Pool, Profiles, Taps, padded
from models.tiles import Features


def convolved(z: torch.Tensor, kernel: torch.Tensor, offsets: tuple[int, ...]) -> torch.Tensor:
    """[n, T, C, P] through kernel [O, k, C] at offsets in frames."""
    T, ends = z.shape[1], max(offsets)
    z = F.pad(z, (0, 0, 0, 0, ends, ends))
    parts = (kernel[:, i] @ z[:, ends + o : ends + o + T] for i, o in enumerate(offsets))
    return sum(parts)


def written_down(product, weight: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """What a product makes of features [n, T, C, P]."""
    if isinstance(product, Differences):
        first, last = -weight[:, 0], weight[:, 1]
        step = product.ends
        return convolved(z, torch.stack([first, -first - last, last], 1), (-step, 0, step))
    if isinstance(product, Taps):
        return convolved(z, weight, product.offsets)
    if isinstance(product, Profiles):
        return torch.einsum("cts,nscp->nctp", weight[..., :-1], z) + weight[..., -1:]
    return z.unflatten(3, (4, -1)).amax(3)


@pytest.mark.parametrize("T", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_differences(T, step):
    torch.manual_seed(0)
    C, O, P = 3, 4, 5  # noqa: E741
    product, like = Differences(step), torch.empty(0, dtype=torch.float64)
    z, dy = padded(step, like, T, C, P), padded(step, like, T, O, P)
    z.normal_(), dy.normal_()
    weight = torch.randn(O, 2, C, dtype=torch.float64, requires_grad=True)
    features = z.clone().requires_grad_()
    expected = written_down(product, weight, features[None])[0]
    (expected * dy).sum().backward()
    with torch.no_grad():
        pairs = (
            (product.multiply(weight, z), expected.detach()),
            (product.back(weight, z, dy), features.grad),
        )
        for run, value in pairs:
            out, before = torch.full_like(value, torch.nan), torch.randn_like(value)
            run(out)
            torch.testing.assert_close(out, value)
            more = before.clone()
            run(more, add=True)
            torch.testing.assert_close(more, before + value)
        weighing = product.weigh(weight, z, dy)
        weighing.run(), weighing.run()
        torch.testing.assert_close(weighing.result(), 2 * weight.grad)


SEVERAL = [(Differences(2), Taps(0)), (Taps(0), Differences(1)), (Taps(-1, 0, 1), Taps(0))]
ONE = [(Taps(-2, -1, 0, 1, 2),), (Differences(2),), (Profiles(),), (Pool(),)]
CASES = [(products, arrays, False) for products in (*ONE, *SEVERAL) for arrays in (0, 1, 2)]
CASES += [(products, arrays, True) for products in ONE for arrays in (0, 1)]


@pytest.mark.parametrize(("products", "arrays", "overwrite"), CASES)
def test_layer(products, arrays, overwrite):
    """Results, sums and gradients; 0 `arrays`: one as it is, without scale and shift."""
    torch.manual_seed(0)
    n, T, C, P = 3, 5, 4, 8
    of_weight = {Profiles: (C, T, T + 1), Pool: (0,)}
    sizes = [(n, T, C, P)] * max(1, arrays) + [(C,)] * (arrays + (arrays > 0))
    sizes += [of_weight.get(type(p)) or (C, len(p.offsets), C) for p in products]
    values, answers = [torch.randn(size, dtype=torch.float64) for size in sizes], []
    for tiled in (False, True):
        leaves = [value.clone().requires_grad_() for value in values]
        found = layer(products, leaves, arrays, overwrite if tiled else None)
        torch.manual_seed(1)
        sum((y * torch.randn(y.shape)).sum() for y in found).backward()
        gradients = [leaf.grad for leaf in leaves]
        if tiled:  # the gradient of an array lacks its scale
            for i in range(arrays):
                gradients[i] = gradients[i] * values[arrays + i][:, None]
        answers.append([*found, *(g for g in gradients if g is not None and g.numel())])
    for expected, answer in zip(*answers, strict=True):
        torch.testing.assert_close(answer, expected, rtol=1e-9, atol=1e-9)


def layer(products, leaves: list, arrays: int, overwrite: bool | None) -> list[torch.Tensor]:
    """Results and sums of a layer, in tiles or (overwrite None) written down."""
    count = max(1, arrays)
    inputs, scales = leaves[:count], leaves[count : count + arrays]
    shift = leaves[2 * arrays] if arrays else None
    pairs = list(zip(products, leaves[-len(products) :], strict=True))
    if overwrite is not None:
        found = Features(inputs, scales, shift).times(*pairs, overwrite=overwrite)
        return [each.y for each in found] + [each.sums for each in found]
    z = inputs[0]
    if arrays:
        scaled = (x * scale[:, None] for x, scale in zip(inputs, scales, strict=True))
        z = (sum(scaled) + shift[:, None]).clamp_min(0)
    results = [written_down(product, weight, z) for product, weight in pairs]
    sums = []
    for (product, _), y in zip(pairs, results, strict=True):
        others = (0, 1, 3) if product.channels else (0, 2, 3)
        sums.append(torch.stack([y.sum(others), y.square().sum(others)]))
    return results + sums
