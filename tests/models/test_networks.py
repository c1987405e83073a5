"""Every network of the registry the same way; the released ones against their reference output."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models import build_network, network_names
from tests.golden import GOLDEN, RELEASED, needs_shared, released_run
from utils.checkpoints import load_checkpoint, load_weights
from utils.errors import InputError

T = 8


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def settled(name: str, seqlen: int = T) -> nn.Module:
    """Fresh weights in eval mode, BatchNorms as after training: else whole layers may be dead."""
    network = build_network(name, seqlen=seqlen).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm3d):
            norm.momentum = 1
    with torch.no_grad():
        network(torch.randn(4, 1, seqlen, 16, 16))
    return network.eval()


@pytest.mark.parametrize("name", network_names())
class TestEveryNetwork:
    """What any network must do, whatever is inside."""

    @pytest.mark.parametrize("shape", [(1, T, 16, 24), (2, T, 13, 17), (1, 40, 8, 8)])
    def test_one_map_a_frame(self, name, shape):
        B, frames, H, W = shape
        network = settled(name, frames)
        with torch.no_grad():
            logits = network(torch.randn(B, 1, frames, H, W))
        assert logits.shape == shape
        assert logits.dtype == torch.float32
        assert torch.isfinite(logits).all()
        assert logits.std() > 0.01

    def test_knows_its_window(self, name):
        assert build_network(name).seqlen == 40
        assert build_network(name, seqlen=T).seqlen == T

    def test_gradients_reach_every_parameter(self, name):
        network = settled(name)  # in train mode BatchNorm subtracts the biases
        network(torch.randn(2, 1, T, 16, 16)).square().mean().backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().max() > 0, key

    def test_trains_to_lower_loss(self, name):
        network = build_network(name, seqlen=T).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        frames = torch.randn(1, 1, T, 16, 16)
        truth = (frames[:, 0] > 1.5).float()
        losses = []
        for _ in range(10):
            loss = nn.functional.binary_cross_entropy_with_logits(network(frames), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.8 * losses[0]

    def test_samples_of_a_batch_do_not_mix(self, name):
        network = settled(name)
        frames = torch.randn(2, 1, T, 12, 16)
        with torch.no_grad():
            alone = torch.cat([network(frames[:1]), network(frames[1:])])
            torch.testing.assert_close(network(frames), alone, atol=1e-5, rtol=1e-5)

    def test_input_is_left_alone(self, name):
        frames = torch.randn(1, 1, T, 12, 12)
        before = frames.clone()
        settled(name)(frames)
        assert torch.equal(frames, before)

    @pytest.mark.parametrize(
        "shape",
        [(1, 1, T - 1, 16, 16), (1, 1, T + 1, 16, 16), (1, 3, T, 16, 16), (1, T, 16, 16)],
        ids=["short", "long", "colour", "no-channels"],
    )
    def test_wrong_shape_raises(self, name, shape):
        with pytest.raises(ValueError, match=rf"\[B, 1, {T}, H, W\]"):
            build_network(name, seqlen=T)(torch.randn(shape))

    def test_state_dict_round_trip(self, name):
        one, other = settled(name), settled(name)
        frames = torch.randn(1, 1, T, 12, 12)
        with torch.no_grad():
            assert not torch.equal(one(frames), other(frames))
            other.load_state_dict(one.state_dict())
            assert torch.equal(one(frames), other(frames))


@pytest.mark.parametrize(
    ("name", "count"),
    [("DeepPro", 49_129), ("DeepPro-Plus", 70_913), ("DeepPro-Plus-Moving", 129_041)],
)
def test_parameter_counts(name, count):
    assert sum(p.numel() for p in build_network(name).parameters()) == count


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("deeppro", "DeepPro"), ("DeepPro-plus", "DeepPro-Plus"), ("DepPro_Plus", "DeepPro-Plus")],
)
def test_unknown_name_gives_the_nearest(typed, meant):
    with pytest.raises(InputError, match=rf"did you mean '{meant}'\?.*choose from .*DeepPro-Plus"):
        build_network(typed)


def test_hopeless_name_gives_the_list_only():
    with pytest.raises(InputError) as caught:
        build_network("yolo")
    assert "did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in network_names())


@pytest.mark.parametrize("size", [(3, 8), (8, 3), (1, 1)])
def test_deeppro_needs_four_pixels(size):
    with pytest.raises(ValueError, match=f"{size[0]} x {size[1]} pixels, at least 4"):
        build_network("DeepPro", seqlen=T)(torch.randn(1, 1, T, *size))


@pytest.mark.parametrize(("name", "size"), [("DeepPro", 4), ("DeepPro-Plus", 1)])
@torch.no_grad()
def test_smallest_frames(name, size):
    logits = build_network(name, seqlen=T).eval()(torch.randn(1, 1, T, size, size))
    assert logits.shape == (1, T, size, size)


@torch.no_grad()
def test_deeppro_full_branch_does_not_care_where_a_pixel_lies():
    network = settled("DeepPro")
    full = nn.Sequential(network.conv_in, network.layer1, network.TPro1, network.conv_out1_1)
    frames, shuffled = torch.randn(1, 1, T, 6, 7), torch.randperm(6 * 7)

    def shuffle(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(3)[..., shuffled].unflatten(3, (6, 7))

    torch.testing.assert_close(full(shuffle(frames)), shuffle(full(frames)), atol=1e-5, rtol=1e-5)
    assert full(frames).std(dim=(3, 4)).max() > 0.01


def change(name: str, size: tuple[int, int], pixel: tuple[int, int]) -> torch.Tensor:
    """Where the logits change, in any frame, if one pixel does in frame 0: [H, W] bool."""
    network = settled(name)
    frames = torch.randn(1, 1, T, *size)
    poked = frames.clone()
    poked[:, :, 0, *pixel] += 1000
    with torch.no_grad():
        difference = (network(poked) - network(frames)).abs()[0]  # [T, H, W]
    return difference.amax(0) > 1e-3


def test_deeppro_spreads_a_pixel_over_its_upsampled_quarter_cell_only():
    """4 x 4 quarter cells on 16 x 16 pixels lie 5 pixels apart: cell 0 ends before pixel 5."""
    ys, xs = change("DeepPro", (16, 16), (0, 0)).nonzero().T
    assert (ys.max(), xs.max()) == (4, 4)


def test_deeppro_plus_reaches_nine_pixels():
    """3 of the 7 x 7 convolution, 1 + 2 (dilated) of either block."""
    ys, xs = change("DeepPro-Plus", (25, 27), (12, 13)).nonzero().T
    assert (ys.min(), ys.max()) == (12 - 9, 12 + 9)
    assert (xs.min(), xs.max()) == (13 - 9, 13 + 9)


@pytest.mark.parametrize("name", ["DeepPro", "DeepPro-Plus"])
def test_every_frame_of_the_window_is_seen(name):
    network = settled(name)
    frames = torch.randn(1, 1, T, 8, 8, requires_grad=True)
    network(frames)[0, 0].sum().backward()  # the map of the first frame
    assert (frames.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()


# Reference data

RUNS = sorted((RELEASED / "sem_seg").glob("*__*"))
CHECKPOINTS = [path for run in RUNS for path in sorted((run / "checkpoints").glob("*.pth"))]
GOLDENS = sorted(p for p in (GOLDEN / "networks").glob("*.npz") if "DTUM" not in p.name)


def load_released(run: Path, checkpoint: str = "best_model.pth") -> nn.Module:
    (log,) = (run / "logs").glob("*.txt")  # its stem names the model
    path = run / "checkpoints" / checkpoint
    network = build_network(log.stem)
    load_weights(network, load_checkpoint(path), log.stem, path)
    return network.eval()


def run_of(golden: Path) -> Path:
    if golden.name.startswith("odd_size.Noise."):
        model = golden.stem.removeprefix("odd_size.Noise.")
        return RELEASED / "sem_seg" / released_run("NUDT-MIRSDT-Noise", f"_{model}_DataL40")
    return RELEASED / "sem_seg" / golden.stem


@needs_shared
def test_there_is_reference_data():
    assert len(RUNS) == 7
    assert len(CHECKPOINTS) == 8
    assert len(GOLDENS) == 9


@needs_shared
@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda p: f"{p.parts[-3]}-{p.stem}")
def test_released_weights_load_strictly(path):
    network = load_released(path.parent.parent, path.name)
    released, ours = load_checkpoint(path)["model_state_dict"], network.state_dict()
    assert released.keys() == ours.keys()
    assert all(torch.equal(released[key], ours[key]) for key in ours)


@needs_shared
@pytest.mark.parametrize("path", GOLDENS, ids=lambda p: p.stem)
@torch.no_grad()
def test_logits_are_the_published_ones(path):
    golden = np.load(path)
    frames = torch.from_numpy((golden["frames"] - golden["mean"]) / golden["std"])  # float32
    logits, expected = load_released(run_of(path))(frames[None, None])[0], golden["logits"]
    expected = torch.from_numpy(expected)
    torch.testing.assert_close(logits, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(logits.sigmoid(), expected.sigmoid(), atol=1e-4, rtol=0)
