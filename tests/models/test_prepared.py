"""The prepared networks against the plain ones in float64, and against the reference output."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import (
    build_network,
    compiled_output,
    network_names,
    prepared_deeppro,
    prepared_deeppro_plus,
    tape_pool,
)
from models.prepared import Plain, Tape, for_each, prepare, tiles
from models.prepared_convolutions import Convolution
from models.prepared_upsampling import interpolation, spans
from tests.compiler import needs_compiler
from tests.golden import needs_shared
from tests.models.test_networks import GOLDENS, load_released, run_of

forms = pytest.mark.parametrize(
    "compiled",
    [pytest.param(False, id="torch"), pytest.param(True, id="compiled", marks=needs_compiler)],
)

SMALLEST = {"DeepPro": 4, "DeepPro-Plus-Moving": 4}  # height and width; 1 for the others


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def trained(name: str, seqlen: int) -> nn.Module:
    """A network whose norms do something, negative scales among them, and whose logits spread."""
    network = build_network(name, seqlen).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm3d):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.running_var, 0.1, 2)
    with torch.no_grad():
        *_, last = (m for m in network.modules() if isinstance(m, nn.Conv3d))
        logits = network(torch.randn(1, 1, seqlen, 16, 16))
        last.weight *= 3 / logits.std()
        last.bias -= last.bias + 3 * (logits.mean() - last.bias) / logits.std()
    return network


@torch.no_grad()
def check(network: nn.Module, frames: torch.Tensor, tile: int | None, compiled: bool) -> None:
    """Of probability within 1e-4 or twice the plain module's error; logits not much worse."""
    exact = copy.deepcopy(network).double()(frames.double()[None, None])[0]
    plain = network(frames[None, None])[0]
    logits = prepare(network, tile, compiled=compiled)(frames)
    assert logits.shape == frames.shape
    assert logits.dtype == frames.dtype
    for change, factor in ((torch.sigmoid, 2), (lambda x: x, 5)):
        error, allowed = ((change(x.double()) - change(exact)).abs().max() for x in (logits, plain))
        assert error <= max(1e-4, factor * allowed)


@pytest.mark.parametrize("name", network_names())
class TestEveryNetwork:
    @forms
    @pytest.mark.parametrize("seqlen", [4, 8, 40])
    @pytest.mark.parametrize("size", [(4, 4), (12, 20), (13, 17)])
    def test_same_maps(self, name, seqlen, size, compiled):
        check(trained(name, seqlen), torch.randn(seqlen, *size), tile=6, compiled=compiled)

    @forms
    @pytest.mark.parametrize("seqlen", [1, 2, 3, 5])
    def test_same_maps_in_odd_windows(self, name, seqlen, compiled):
        check(trained(name, seqlen), torch.randn(seqlen, 9, 10), tile=4, compiled=compiled)

    @forms
    @pytest.mark.parametrize("tile", [None, 1, 3, 8, 100])
    def test_the_tile_does_not_matter(self, name, tile, compiled):
        check(trained(name, 4), torch.randn(4, 11, 14), tile, compiled=compiled)

    @forms
    @settings(max_examples=15)
    @given(data=st.data())
    def test_any_size(self, name, data, compiled):
        torch.manual_seed(0)
        sides = st.integers(SMALLEST.get(name, 1), 30)
        H, W, tile = data.draw(sides), data.draw(sides), data.draw(st.integers(2, 16))
        check(trained(name, 4), torch.randn(4, H, W), tile, compiled=compiled)

    @forms
    def test_larger_than_its_own_tiles(self, name, compiled):
        check(trained(name, 4), torch.randn(4, 37, 71), tile=None, compiled=compiled)

    @forms
    def test_still_frames_far_from_the_mean(self, name, compiled):
        """A constant offset shows every border that is not padded with zeros."""
        check(trained(name, 4), torch.full((4, 21, 23), 50.0), tile=8, compiled=compiled)

    @forms
    @torch.no_grad()
    def test_errors_are_those_of_the_plain_module(self, name, compiled):
        """Of many networks, in the geometric mean: no single one decides."""
        ratios = []
        for seed in range(24):
            torch.manual_seed(seed)
            network, frames = trained(name, 8), torch.randn(8, 9, 10)
            exact = copy.deepcopy(network).double()(frames.double()[None, None])[0].sigmoid()
            both = prepare(network, compiled=compiled)(frames), network(frames[None, None])[0]
            errors = torch.stack([logits.double().sigmoid() - exact for logits in both])
            prepared, plain = errors.square().mean((1, 2, 3)).sqrt()
            ratios.append(prepared / plain)
        assert torch.stack(ratios).log().mean().exp() <= 1.3

    @forms
    @pytest.mark.parametrize("size", [(8, 9), (9, 10), (10, 11), (11, 8)])
    def test_rows_and_columns_that_max_pooling_drops(self, name, size, compiled):
        check(trained(name, 4), torch.full((4, *size), 50.0), tile=4, compiled=compiled)

    def test_it_has_a_form_of_its_own(self, name):
        assert not isinstance(prepare(build_network(name, seqlen=4)), Plain)

    def test_it_is_a_snapshot(self, name):
        network, frames = trained(name, 4), torch.randn(4, 8, 8)
        before, prepared = frames.clone(), prepare(network)
        logits = prepared(frames)
        for parameter in network.parameters():
            parameter.data.zero_()
        assert torch.equal(prepared(frames), logits)
        assert torch.equal(frames, before)

    def test_a_network_in_training_is_prepared_for_inference(self, name):
        network, frames = trained(name, 4), torch.randn(4, 8, 8)
        logits = prepare(network)(frames)
        assert torch.equal(prepare(network.train())(frames), logits)
        assert network.training
        assert all(p.requires_grad and p.dtype == torch.float32 for p in network.parameters())

    @forms
    def test_frames_need_not_be_contiguous(self, name, compiled):
        network, frames = trained(name, 4), torch.randn(4, 9, 14)
        network = prepare(network, tile=6, compiled=compiled)
        turned = frames.transpose(1, 2).contiguous().transpose(1, 2)
        assert torch.equal(network(turned), network(frames))

    @forms
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
    def test_frames_of_another_type_raise(self, name, dtype, compiled):
        with pytest.raises((RuntimeError, AssertionError)):
            prepare(trained(name, 4), compiled=compiled)(torch.randn(4, 9, 14).to(dtype))

    @pytest.mark.parametrize("shape", [(3, 8, 8), (5, 8, 8), (1, 4, 8, 8)])
    def test_wrong_shape_raises(self, name, shape):
        with pytest.raises(ValueError, match="expected frames"):
            prepare(build_network(name, seqlen=4))(torch.randn(shape))


@needs_compiler
def test_several_strips_of_full_size():
    check(trained("DeepPro-Plus", 4), torch.randn(4, 131, 203), tile=None, compiled=True)


@forms
@pytest.mark.parametrize("name", network_names())
def test_decayed_weights_change_nothing(name, compiled):
    network = trained(name, 4)
    for parameter in network.parameters():
        parameter.data.view(-1)[::3] *= 1e-30
    check(network, torch.randn(4, 12, 12), tile=6, compiled=compiled)


def decayed(seqlen: int) -> nn.Module:
    """DeepPro with blocks of which weight decay has left the shortcut, behind poolings and before
    one."""
    network = trained("DeepPro", seqlen)
    for block in (*network.layer1, network.layer2[1], network.layer3[1], network.layer3[3]):
        block.conv2.weight.data *= 1e-30
    return network


@forms
@pytest.mark.parametrize("seqlen", [1, 2, 5, 40])
def test_blocks_of_which_the_shortcut_is_left(seqlen, compiled):
    check(decayed(seqlen), torch.randn(seqlen, 13, 18), tile=6, compiled=compiled)


def test_what_has_decayed_is_not_computed():
    """As with the blocks at full size of the released Noise weights."""

    def steps(network: nn.Module) -> int:
        tape = Tape(torch.float32, torch.device("cpu"))
        prepare(network).full.record(tape, 4, 64)
        return len(tape.steps)

    assert steps(trained("DeepPro", 8)) - steps(decayed(8)) == 12  # of eight a block two are left


def test_decayed_weights_leave_no_denormal_numbers():
    """They made the released Noise weights six times slower."""
    weights = torch.tensor([1e-30, -1e-20, 1e-17, -0.5], dtype=torch.float64)
    tape = Tape(torch.float32, torch.device("cpu"))
    assert tape.cast(weights).tolist() == pytest.approx([0, 0, 1e-17, -0.5], rel=1e-6, abs=0)
    kernel = Convolution(weights.view(1, 1, 4, 1, 1), weights[:1], torch.float32).kernel
    assert kernel.flatten().tolist() == pytest.approx([0, 0, 1e-17, -0.5], rel=1e-6, abs=0)


class Sum(nn.Module):
    """A network that has no prepared form."""

    def forward(self, x):
        return x[:, 0] + x[:, 0].sum()


def test_other_networks_run_as_they_are():
    frames = torch.randn(4, 3, 5)
    assert torch.equal(prepare(Sum())(frames), frames + frames.sum())


@given(length=st.integers(1, 200), side=st.integers(1, 70))
def test_tiles_cover_a_length_once(length, side):
    spans = tiles(length, side)
    assert [i for start, stop in spans for i in range(start, stop)] == list(range(length))
    assert all(0 < stop - start <= side for start, stop in spans)


@given(length=st.integers(1, 200), size=st.integers(1, 70))
def test_spans_cover_a_length_in_pieces_of_one_size(length, size):
    pieces = spans(length, size)
    assert {i for start, stop in pieces for i in range(start, stop)} == set(range(length))
    (one,) = {stop - start for start, stop in pieces}
    assert len(pieces) == -(-length // size)
    assert one <= min(size, length)
    assert one % 4 == 0 or one == min(size, length)
    assert one - length / len(pieces) < 4


@given(data=st.data())
def test_interpolation_is_that_of_torch(data):
    size = data.draw(st.integers(2, 40))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    small = torch.randn(1, 3, data.draw(st.integers(1, size)), dtype=torch.float64)
    expected = nn.functional.interpolate(small, size, mode="linear", align_corners=True)
    needed, matrix = interpolation(size, small.shape[2], (start, stop))
    torch.testing.assert_close(small[..., needed] @ matrix, expected[..., start:stop])


@pytest.mark.usefixtures("three_threads")
def test_threads_raise_what_a_job_raised_and_leave_torch_as_it_was():
    with pytest.raises(ZeroDivisionError):
        for_each(lambda job: 1 / job, [2, 1, 0, 3], torch.device("cpu"))
    assert torch.get_num_threads() == 3


@forms
@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("name", network_names())
def test_threads_change_nothing(name, compiled):
    network, frames = trained(name, 4), torch.randn(4, 37, 71)
    logits = [prepare(network, tile=8, compiled=compiled)(frames) for _ in range(3)]
    torch.set_num_threads(1)
    alone = prepare(network, tile=8, compiled=compiled)(frames)
    assert all(torch.equal(one, alone) for one in logits)


@forms
@pytest.mark.parametrize("name", network_names())
def test_frames_of_another_size_after_the_first(name, compiled):
    network = trained(name, 4)
    large, small = torch.randn(4, 30, 41), torch.randn(4, 9, 12)
    form = prepare(network, compiled=compiled)
    first, _ = form(large), form(small)
    assert torch.equal(form(small), prepare(network, compiled=compiled)(small))
    assert torch.equal(form(large), first)


# Reference data


@forms
@needs_shared
@pytest.mark.parametrize("path", GOLDENS, ids=lambda p: p.stem)
def test_logits_are_the_published_ones(path, compiled):
    golden = np.load(path)
    mean, std = float(golden["mean"]), float(golden["std"])
    frames = (torch.from_numpy(golden["frames"]).float() - mean) / std
    expected = torch.from_numpy(golden["logits"])
    logits = prepare(load_released(run_of(path)), compiled=compiled)(frames)
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(logits.sigmoid(), expected.sigmoid(), atol=1e-4, rtol=0)


@pytest.mark.slow  # the first function that torch compiles takes half a minute
@pytest.mark.parametrize(
    "make",
    [decayed, *(partial(trained, name) for name in network_names())],
    ids=["decayed", *network_names()],
)
def test_as_a_function_of_torch_the_maps_are_the_same(make, monkeypatch):
    """As on a GPU."""
    for room in (compiled_output, prepared_deeppro, prepared_deeppro_plus, tape_pool):
        monkeypatch.setattr(room, "on_products", lambda *about: False)
    network, frames = make(8), torch.randn(8, 13, 17)
    with torch.no_grad():
        compiled = prepare(network, compiled=True)
        torch.testing.assert_close(compiled(frames), prepare(network)(frames), rtol=1e-4, atol=1e-4)
        assert compiled(frames[:, :12]).shape == (8, 12, 17)
