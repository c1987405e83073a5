"""Difference kernels, residual blocks and the temporal probe, against the obvious loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from models.layers import (
    SpatialDifferenceConv3d,
    TemporalDifferenceConv3d,
    TemporalProbe,
    spatio_temporal_block,
    temporal_block,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomise_norms(module: torch.nn.Module) -> None:
    """BatchNorms that do something in eval mode."""
    for norm in module.modules():
        if isinstance(norm, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(norm.weight, 0.5, 2)
            torch.nn.init.normal_(norm.bias)
            torch.nn.init.normal_(norm.running_mean)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)


def slow_temporal_kernel(w: torch.Tensor) -> torch.Tensor:
    outputs, inputs, T, H, W = w.size()
    kernel = torch.zeros_like(w)
    for o in range(outputs):
        for i in range(inputs):
            for t in range(T):
                for y in range(H):
                    for x in range(W):
                        before = w[o, i, max(t - 1, 0), y, x]
                        after = w[o, i, min(t + 1, T - 1), y, x]
                        kernel[o, i, t, y, x] = 2 * w[o, i, t, y, x] - before - after
    return kernel


def slow_spatial_kernel(w: torch.Tensor) -> torch.Tensor:
    outputs, inputs, T, H, W = w.size()
    kernel = torch.zeros_like(w)
    for o in range(outputs):
        for i in range(inputs):
            for t in range(T):
                total = 0.0
                for y in range(H):
                    for x in range(W):
                        total += w[o, i, t, y, x]
                        kernel[o, i, t, y, x] = -w[o, i, t, y, x]
                kernel[o, i, t, H // 2, W // 2] = total
    return kernel


def slow_batch_norm(norm: torch.nn.BatchNorm3d, x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    for c in range(x.shape[1]):
        scale = norm.weight[c] / math.sqrt(norm.running_var[c].item() + norm.eps)
        y[:, c] = (x[:, c] - norm.running_mean[c]) * scale + norm.bias[c]
    return y


def test_temporal_kernel_by_hand():
    conv = TemporalDifferenceConv3d(1, 1, (3, 1, 1))
    conv.weight.data = torch.tensor([1.0, 4.0, 9.0]).view(1, 1, 3, 1, 1)
    assert conv.kernel().flatten().tolist() == [-3, -2, 5]


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 1), (3, 1, 1), (5, 3, 3)])
def test_temporal_kernel_is_the_loop(size):
    conv = TemporalDifferenceConv3d(2, 3, size)
    torch.testing.assert_close(conv.kernel(), slow_temporal_kernel(conv.weight))


def test_spatial_kernel_by_hand():
    conv = SpatialDifferenceConv3d(1, 1, (1, 3, 3))
    conv.weight.data = torch.arange(1.0, 10).view(1, 1, 1, 3, 3)
    assert conv.kernel().flatten().tolist() == [-1, -2, -3, -4, 45, -6, -7, -8, -9]


@pytest.mark.parametrize("size", [(1, 3, 3), (3, 3, 3), (5, 7, 7)])
def test_spatial_kernel_is_the_loop(size):
    conv = SpatialDifferenceConv3d(2, 3, size)
    torch.testing.assert_close(conv.kernel(), slow_spatial_kernel(conv.weight))


@pytest.mark.parametrize("size", [3, (3, 5, 5), (5, 7, 7)])
def test_spatial_slices_sum_to_the_original_centre(size):
    conv = SpatialDifferenceConv3d(2, 3, size)
    H, W = conv.weight.shape[3:]
    centres = conv.weight[..., H // 2, W // 2]
    torch.testing.assert_close(conv.kernel().sum(dim=(3, 4)), centres, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("conv", "slow_kernel"),
    [
        (TemporalDifferenceConv3d, slow_temporal_kernel),
        (SpatialDifferenceConv3d, slow_spatial_kernel),
    ],
)
def test_difference_convolutions_convolve_with_their_kernel(conv, slow_kernel):
    geometry = {"stride": (1, 2, 1), "padding": (2, 1, 2), "dilation": (2, 1, 2)}
    layer, x = conv(2, 3, 3, **geometry), torch.randn(1, 2, 6, 7, 8)
    expected = F.conv3d(x, slow_kernel(layer.weight), layer.bias, **geometry)
    torch.testing.assert_close(layer(x), expected)


def test_gradients_reach_the_weight_through_the_temporal_kernel():
    conv = TemporalDifferenceConv3d(1, 1, (3, 1, 1))
    conv(torch.tensor([1.0, 10.0, 100.0]).view(1, 1, 3, 1, 1)).sum().backward()
    # out = 1 (w0 - w1) + 10 (2 w1 - w0 - w2) + 100 (w2 - w1)
    assert conv.weight.grad.flatten().tolist() == [-9, -81, 90]


def test_still_scene_gives_a_temporal_difference_of_nothing_but_the_bias():
    conv = TemporalDifferenceConv3d(1, 4, (3, 1, 1))
    still = torch.rand(1, 1, 1, 5, 6).expand(-1, -1, 9, -1, -1)
    expected = conv.bias.view(1, 4, 1, 1, 1).expand(1, 4, 7, 5, 6)
    torch.testing.assert_close(conv(still), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("build", [temporal_block, spatio_temporal_block])
def test_block_is_three_convolutions_plus_the_shortcut(build):
    block = build(2, 4).eval()
    randomise_norms(block)
    x = torch.randn(2, 2, 6, 5, 7)
    before = x.clone()
    y = slow_batch_norm(block.bn1, block.conv1(x)).clamp(min=0)
    y = slow_batch_norm(block.bn2, block.conv2(y)).clamp(min=0)
    y = slow_batch_norm(block.bn3, block.conv3(y))
    shortcut = slow_batch_norm(block.shortcut[1], block.shortcut[0](x))
    torch.testing.assert_close(block(x), (y + shortcut).clamp(min=0), atol=1e-5, rtol=1e-5)
    assert torch.equal(x, before)  # its in-place steps leave the input alone


def reach(block: torch.nn.Module) -> tuple[int, ...]:
    """How far (frames, rows, columns) a change of one value carries through a block."""
    x = torch.randn(1, 2, 15, 15, 15)
    poked = x.clone()
    poked[:, :, 7, 7, 7] += 100
    changed = ((block(poked) - block(x)).abs() > 1e-4).nonzero()[:, 2:]
    return tuple((changed - 7).abs().amax(0).tolist())


def test_temporal_block_looks_along_time_only():
    assert reach(temporal_block(2, 16).eval()) == (3, 0, 0)  # 2 (dilated) + 1


def test_spatio_temporal_block_reaches_three_pixels():
    assert reach(spatio_temporal_block(2, 16).eval()) == (3, 3, 3)  # in space 1 + 2 (dilated)


def slow_probe(probe: TemporalProbe, x: torch.Tensor) -> torch.Tensor:
    B, C, T, H, W = x.size()
    profiles = torch.zeros_like(x)
    per_head = C // len(probe.QK_heads)
    for b in range(B):
        for c in range(C):
            head = probe.QK_heads[c // per_head]
            for y in range(H):
                for column in range(W):
                    profile = x[b, c, :, y, column] / math.sqrt(T)
                    for t in range(T):
                        dot = sum(head.weight[t, s] * profile[s] for s in range(T))
                        profiles[b, c, t, y, column] = dot + head.bias[t]
    profiles = slow_batch_norm(probe.norm1, profiles).clamp(min=0)
    mix, norm = probe.conv[0], probe.conv[1]
    mixed = torch.zeros_like(x)
    for o in range(C):
        mixed[:, o] = mix.bias[o] + sum(mix.weight[o, c].item() * profiles[:, c] for c in range(C))
    return slow_batch_norm(norm, mixed).clamp(min=0)


@pytest.mark.parametrize(("channels", "heads", "seqlen"), [(4, 2, 5), (6, 3, 4), (4, 1, 3)])
def test_probe_is_one_linear_map_a_head_and_pixel(channels, heads, seqlen):
    probe = TemporalProbe(channels, heads, seqlen).eval()
    randomise_norms(probe)
    x = torch.randn(2, channels, seqlen, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(probe(x), slow_probe(probe, x), atol=1e-5, rtol=1e-5)
