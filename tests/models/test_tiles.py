"""DeepPro in tiles, as it trains on a CPU, against the plain module."""

import copy

import pytest
import torch
from torch import nn

from models import build_network, in_tiles
from models.tiled_deeppro import TiledDeepPro, _apart, _upsampled

T = 6


def make(seed: int = 0) -> nn.Module:
    """A DeepPro in float64 whose norms do something, of both signs."""
    torch.manual_seed(seed)
    network = build_network("DeepPro", seqlen=T).double().train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm3d):
            nn.init.uniform_(norm.weight, -1.5, 1.5)
            nn.init.normal_(norm.bias)
    return network


def step(network: nn.Module, form: nn.Module, size: tuple[int, ...]) -> torch.Tensor:
    """The logits for made-up frames [B, 1, T, H, W]; leaves gradients and running statistics."""
    torch.manual_seed(1)
    logits = form(torch.randn(size, dtype=torch.float64))
    (logits * torch.randn_like(logits)).sum().backward()
    return logits.detach()


def check_same(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is None:
            continue
        scale = a.grad.abs().max().clamp_min(1e-2)
        assert torch.allclose(a.grad, b.grad, rtol=0, atol=1e-9 * scale), name
    for (name, a), b in zip(one.named_buffers(), other.named_buffers(), strict=True):
        assert torch.allclose(a, b[1], rtol=1e-9), name


@pytest.mark.parametrize("size", [(1, 32, 32), (2, 16, 16), (3, 48, 16), (4, 16, 64)])
def test_same_answer_gradients_and_statistics(size, monkeypatch):
    B, H, W = size
    network = make()
    tiled = copy.deepcopy(network)
    plain = step(network, network, (B, 1, T, H, W))
    monkeypatch.setattr(tiled, "forward", None)  # it has to be done in tiles
    found = step(tiled, in_tiles(tiled), (B, 1, T, H, W))
    assert torch.allclose(found, plain, rtol=1e-9, atol=1e-9)
    check_same(network, tiled)


@pytest.mark.parametrize("value", [0.0, 1e-9, -1e-5])
def test_a_norm_that_lets_next_to_nothing_through(value):
    """Where the sums over a scale's gradient cannot be had by a division."""
    network = make()
    for norm in (network.layer1[0].bn1, network.layer1[1].bn3, network.TPro1.norm1):
        norm.weight.data[::2] = value
    tiled = copy.deepcopy(network)
    step(network, network, (1, 1, T, 32, 32))
    step(tiled, in_tiles(tiled), (1, 1, T, 32, 32))
    check_same(network, tiled)


@pytest.mark.parametrize("name", ["conv_in.0", "bias", "conv_out2.1", "layer3.3.bn"])
@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_parts(name, frozen):
    """Some parameters do not learn, or nothing but those."""
    network = make()
    for key, parameter in network.named_parameters():
        parameter.requires_grad_((name in key) != frozen)
    tiled = copy.deepcopy(network)
    step(network, network, (1, 1, T, 32, 32))
    step(tiled, in_tiles(tiled), (1, 1, T, 32, 32))
    check_same(network, tiled)


def test_pixels_alike_in_a_pooling():
    """The gradient goes to the same one of them as in torch."""
    network = make()
    for norm in (network.conv_in[1], network.layer3[1].bn3, network.layer3[1].shortcut[1]):
        nn.init.zeros_(norm.weight[::2])
        nn.init.constant_(norm.bias, 0.3)
    forms = network, in_tiles(copy.deepcopy(network))
    levels = torch.randint(2, (1, 1, T, 32, 32), generator=torch.Generator().manual_seed(0))
    frames = [levels.double().requires_grad_() for _ in forms]
    for form, x in zip(forms, frames, strict=True):
        form(x).square().mean().backward()
    check_same(network, forms[1].network)
    assert torch.allclose(frames[0].grad, frames[1].grad, atol=1e-9)


def test_single_precision():
    """As near to exact gradients as the plain module; a ReLU that flips keeps both from nearer."""
    torch.manual_seed(0)
    exact = build_network("DeepPro", seqlen=40).double().train()
    plain, tiled = (copy.deepcopy(exact).float() for _ in range(2))
    frames = torch.randn(2, 1, 40, 32, 32, dtype=torch.float64)
    gradients = []
    for form, x in ((exact, frames), (plain, frames.float()), (in_tiles(tiled), frames.float())):
        form(x).sigmoid().mean().backward()
        gradients.append(torch.cat([p.grad.double().flatten() for p in form.parameters()]))
    wanted, of_plain, of_tiled = gradients
    assert (of_plain - wanted).norm() < 1e-3 * wanted.norm()
    assert (of_tiled - wanted).norm() < 1e-3 * wanted.norm()


def test_what_tiles_do_not_fit_goes_to_the_network():
    network = make()
    form = in_tiles(network)
    frames = torch.randn(1, 1, T, 32, 32, dtype=torch.float64)
    assert form.tile_for(frames)
    assert form.tile_for(frames[..., :30]) is None  # no whole cells
    assert form.tile_for(frames[..., :16, :16]) is None  # no 16 tiles
    assert form.tile_for(frames[..., :28]) is None  # its cells make no whole tiles
    assert form.tile_for(frames.half()) is None
    with torch.no_grad():
        assert form.tile_for(frames) is None
    assert form.tile_for(frames[:0]) is None
    with torch.autocast("cpu"):
        assert form.tile_for(frames) is None
    network.TPro2.norm1.momentum = None
    assert form.tile_for(frames) is None
    network.TPro2.norm1.momentum = 0.1
    network.TPro2.norm1.eval()
    assert form.tile_for(frames) is None
    small = frames[..., :30]
    assert torch.equal(form(small), network(small))


def test_frames_of_a_wrong_shape_are_told_by_the_network():
    with pytest.raises(Exception, match="expected frames"):
        in_tiles(make())(torch.randn(1, 1, T + 1, 32, 32))


def test_frames_all_alike():
    """No variance at all: the norms divide by the root of their eps."""
    network = make()
    tiled = copy.deepcopy(network)
    frames = torch.full((1, 1, T, 32, 32), 7.0, dtype=torch.float64)
    assert torch.allclose(in_tiles(tiled)(frames), network(frames), atol=1e-4)


def test_only_deeppro_has_tiles():
    network = build_network("DeepPro-Plus", seqlen=T)
    assert in_tiles(network) is network
    assert isinstance(in_tiles(make()), TiledDeepPro)


def test_no_number_stays_none():
    form = in_tiles(make())
    frames = torch.randn(1, 1, T, 32, 32, dtype=torch.float64)
    frames[0, 0, 2, 5, 5] = torch.nan
    assert not form(frames).isfinite().any()


def test_upsampling_is_that_of_torch():
    x = torch.randn(2, 3, 4, 8, 6, dtype=torch.float64)
    expected = nn.functional.interpolate(
        x, size=(4, 16, 12), mode="trilinear", align_corners=True
    )  # fmt: skip
    expected = expected[..., _apart(16)[:, None], _apart(12)]
    assert torch.allclose(_upsampled(x, 16, 12), expected)
