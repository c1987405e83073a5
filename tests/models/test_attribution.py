"""Integrated gradients, the crop that a network sees, the faithfulness check."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from models import Explainer, build_network, network_names
from models.attribution import baseline_image, delete_voxels, windows_with
from models.focus import Crop, TargetScore, visible_crop, whole_frame
from models.integration import MOST, gradient_bytes, integrated_gradients
from tests.golden import REAL, RELEASED, needs_shared, released_run
from tests.models.test_networks import load_released, settled
from utils.errors import InputError

T = 8


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def disc(size, y, x, h=2, w=3):
    mask = np.zeros(size, bool)
    mask[y : y + h, x : x + w] = True
    return mask


def whole_score(network, frames, index, mask):
    """F by the slow obvious way: the plain network on the whole frame."""
    probability = network(frames[:, None])[:, index].sigmoid()
    return (probability * torch.from_numpy(mask)).sum(dim=(1, 2))


class Linear(nn.Module):
    """One weight a voxel; has neither probes nor a receptive field."""

    def __init__(self):
        super().__init__()
        self.seqlen = T
        self.weight = nn.Parameter(torch.randn(T, 6, 5))

    def forward(self, x):
        return (x[:, 0] * self.weight).sum(1, keepdim=True).expand(-1, T, 6, 5)


def test_a_linear_score_has_the_closed_form():
    """weight x (clip - baseline), whatever the number of steps."""
    weight, clip, baseline = torch.randn(3, T, 6, 5, dtype=torch.float64)
    for steps in (1, 7):
        influence, path = integrated_gradients(
            lambda x: (x * weight).sum(dim=(1, 2, 3)), clip, baseline, steps
        )
        np.testing.assert_allclose(influence, (weight * (clip - baseline)).numpy(), atol=1e-12)
        assert len(path.places) == steps + 1
        assert path.scores[-1] == pytest.approx((weight * clip).sum().item())


def test_a_quadratic_score_has_the_closed_form():
    """The gradient 2x is linear along the path, so the trapezoid rule is exact."""
    clip, baseline = torch.randn(2, T, 3, 4, dtype=torch.float64)
    influence, _ = integrated_gradients(lambda x: x.square().sum(dim=(1, 2, 3)), clip, baseline, 3)
    expected = (clip - baseline) * (clip + baseline)
    np.testing.assert_allclose(influence, expected.numpy(), atol=1e-12)


def test_a_linear_network_is_explained_by_its_weights():
    """Through the logistic function: of its pixel's gain a voxel has the share that it has of the
    logit."""
    network = Linear()
    frames = np.random.default_rng(0).integers(90, 110, (T, 6, 5)).astype(np.uint8)
    mask = disc((6, 5), 1, 1)
    found = Explainer(network, mean=100, std=50, steps=100)(frames, 3, mask)
    logit = network.weight.detach().numpy() * (frames - 100.0) / 50  # [T, H, W]
    total = logit.sum(axis=0)
    expected = logit / total * (1 / (1 + np.exp(-total)) - 0.5) * mask
    np.testing.assert_allclose(found.influence, expected, atol=1e-4 * np.abs(expected).max())
    assert found.path.scores[0] == pytest.approx(mask.sum() / 2)  # logit 0


def test_deeppro_agrees_with_finite_differences():
    """Each voxel: the mean over the path of central differences of the plain network, float64."""
    network = settled("DeepPro").double()
    mask, steps = disc((9, 11), 4, 5), 6
    crop = visible_crop(network, mask)
    score = TargetScore(network, 3, mask, crop)
    clip, baseline = torch.randn(2, T, 9, 11, dtype=torch.float64)
    inside = (slice(None), *crop.slices)
    influence, _ = integrated_gradients(score, clip[inside], baseline[inside], steps, refine=False)
    places = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    weights = torch.tensor([0.5] + [1] * (steps - 1) + [0.5]) / steps
    for t, y, x in [(0, 4, 5), (3, 5, 6), (3, 4, 4), (7, 5, 7), (5, 6, 6)]:
        poke = torch.zeros_like(clip)
        poke[t, y, x] = 1e-6
        with torch.no_grad():
            path = torch.stack([torch.lerp(baseline, clip, place) for place in places])
            above, below = (whole_score(network, path + sign * poke, 3, mask) for sign in (1, -1))
        slope = ((above - below) / 2e-6 * weights).sum()
        expected = (slope * (clip - baseline)[t, y, x]).item()
        found = influence[t, y - crop.top, x - crop.left]
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-8)


PLACES = [((40, 44), 17, 20), ((37, 53), 0, 0), ((37, 53), 35, 50), ((64, 31), 40, 3)]


@pytest.mark.parametrize("name", network_names())
@pytest.mark.parametrize(("size", "y", "x"), PLACES)
def test_the_crop_scores_as_the_whole_frame_does(name, size, y, x):
    """F to 1e-9 in float64; outside of the crop the gradient of the whole frame is 0."""
    network, mask = settled(name).double(), disc(size, y, x)
    crop = visible_crop(network, mask)
    frames = torch.randn(2, T, *size, dtype=torch.float64, requires_grad=True)
    expected = whole_score(network, frames, 5, mask)
    (gradient,) = torch.autograd.grad(expected.sum(), frames)
    cut = frames.detach()[:, :, *crop.slices].requires_grad_()
    found = TargetScore(network, 5, mask, crop)(cut)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    (inside,) = torch.autograd.grad(found.sum(), cut)
    torch.testing.assert_close(inside, gradient[:, :, *crop.slices], atol=1e-8, rtol=1e-6)
    gradient[:, :, *crop.slices] = 0
    # Upsampling in float32 places lets less than a millionth of a cell through.
    assert gradient.abs().max() < 1e-6 * inside.abs().max()


def test_the_whole_network_is_left_as_it_was():
    network = build_network("DeepPro", seqlen=T).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    mask = disc((12, 12), 4, 4)
    Explainer(network, 0, 1, steps=2)(np.ones((T, 12, 12), np.uint8), 1, mask)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_crops_by_hand():
    """DeepPro at 64 x 64, row 20 to 21: quarter cells at 20 * 15/63 = 4.76 to 5, rows 16 to 23.
    Plus: 9 pixels around."""
    mask = disc((64, 64), 20, 40, h=2, w=1)
    found = visible_crop(build_network("DeepPro", seqlen=T), mask)
    assert found == Crop(16, 24, 36, 44, (64, 64))
    found = visible_crop(build_network("DeepPro-Plus", seqlen=T), mask)
    assert found == Crop(11, 31, 31, 50, (64, 64))
    assert visible_crop(Linear(), mask) == whole_frame((64, 64))


def test_refined_steps_make_a_sudden_score_complete():
    """F rises within a thousandth of the path, between two of the steps."""
    clip, baseline = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)

    def score(x):
        return ((x.sum(dim=(1, 2, 3)) - 0.111) * 20_000).sigmoid()

    equal, path = integrated_gradients(score, clip, baseline, 50, refine=False)
    assert equal.sum() < 0.5
    assert len(path.places) == 51
    refined, path = integrated_gradients(score, clip, baseline, 50)
    assert refined.sum() == pytest.approx(1, abs=0.01)
    assert len(path.places) < 120


def test_refining_ends_where_it_cannot_succeed():
    """A step of F has no gradient at all."""
    clip, baseline = torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    influence, path = integrated_gradients(
        lambda x: (x > 0.3).float().sum(dim=(1, 2, 3)) + 0 * x.sum(), clip, baseline, 5
    )
    assert influence.sum() == 0
    assert len(path.places) == MOST * 5 + 1


@needs_shared
@pytest.mark.parametrize("model", ["DeepPro", pytest.param("DeepPro-Plus", marks=pytest.mark.slow)])
def test_released_networks_are_explained_completely(model):
    """On a real clip: within 1 %, and the map holds what the detection hangs on."""
    run = RELEASED / "sem_seg" / released_run("NUDT-MIRSDT-Noise", f"_{model}_DataL40")
    clip = REAL / "svan_bird_071"
    frames, masks = (
        np.stack([cv2.imread(str(p), -1) for p in sorted((clip / kind).iterdir())[36:76]])
        for kind in ("images", "masks")
    )
    found = Explainer(load_released(run), 105.4025, 26.6452)(frames, 24, masks[24] > 0)
    assert found.complete
    assert found.gained > 0.9 * found.mask.sum()
    at = list(found.deletion.shares).index(0.02)
    assert found.deletion.ordered[at] < 0.1 * found.gained < found.deletion.random[at]


@pytest.mark.parametrize("name", network_names())
def test_every_network_is_explained(name):
    network, mask = settled(name), disc((16, 20), 7, 9)
    frames = np.random.default_rng(1).integers(0, 256, (T, 16, 20)).astype(np.uint8)
    advanced = []
    found = Explainer(network, 128, 60, steps=10)(frames, 2, mask, advanced.append)
    # Untrained, a network gains little on its way up and down.
    missed = found.influence.sum() - found.gained
    assert abs(missed) < 0.05 * np.ptp(found.path.scores)
    assert sum(advanced) == found.steps + 1
    whole = Explainer(network, 128, 60, steps=10, whole=True)(frames, 2, mask)
    assert whole.influence.shape == (T, 16, 20)
    inside = whole.influence[:, *found.crop.slices]
    np.testing.assert_allclose(inside, found.influence, atol=0.02 * np.abs(inside).max())
    assert np.abs(whole.influence).sum() == pytest.approx(np.abs(inside).sum(), rel=1e-4)


def test_batches_do_not_change_the_map(monkeypatch):
    network, mask = settled("DeepPro"), disc((8, 8), 3, 3)
    frames = np.random.default_rng(2).integers(0, 256, (T, 8, 8)).astype(np.uint8)
    one = Explainer(network, 128, 60, steps=9)(frames, 2, mask)
    monkeypatch.setattr("models.integration.BUDGET", 1)
    other = Explainer(network, 128, 60, steps=9)(frames, 2, mask)
    np.testing.assert_allclose(one.influence, other.influence, atol=1e-5)


def test_gradient_bytes_are_those_of_the_saved_arrays():
    """exp saves its result: 4 bytes a voxel."""
    clip = torch.ones(T, 6, 5)
    assert gradient_bytes(lambda x: x.exp().sum(dim=(1, 2, 3)), clip) == 4 * clip.numel()


def test_a_short_clip_is_filled_up_and_its_last_frame_holds_the_filling():
    network, mask = settled("DeepPro"), disc((8, 8), 3, 3)
    frames = np.random.default_rng(3).integers(0, 256, (5, 8, 8)).astype(np.uint8)
    explainer = Explainer(network, 128, 60, steps=20)
    short = explainer(frames, 2, mask)
    filled = explainer(frames[[0, 1, 2, 3, 4, 4, 4, 4]], 2, mask)
    assert short.influence.shape[0] == 5
    np.testing.assert_allclose(short.influence[:4], filled.influence[:4], atol=1e-6)
    last = filled.influence[4:].sum(axis=0)
    np.testing.assert_allclose(short.influence[4], last, atol=1e-6)
    assert short.complete


def test_baselines():
    frames = np.zeros((5, 20, 20), np.uint8)
    frames[2:, 10, 10] = 81  # in three of five frames: the median there is 81
    frames[0, 3, 3] = 200
    assert (baseline_image(frames, "zero", 105.4) == np.float32(105.4)).all()
    median = baseline_image(frames, "median", 105.4)
    assert median[10, 10] == pytest.approx(1)  # 81 spread over 9 x 9
    assert median[14, 14] == pytest.approx(1)
    assert median[15, 10] == median[3, 3] == 0


def test_the_window_is_that_of_the_detectors_answer():
    """Frame 37 lies in the first two windows of 40; the one with the larger F is explained."""
    assert [w.start for w in windows_with(37, 100, 40)] == [0, 36]
    assert [w.start for w in windows_with(20, 100, 40)] == [0]
    network, mask = settled("DeepPro", 40), disc((8, 8), 3, 3)
    frames = np.random.default_rng(4).integers(0, 256, (100, 8, 8)).astype(np.uint8)
    explainer = Explainer(network, 128, 60, steps=5)
    found = explainer.explain(lambda start, stop: frames[start:stop], 100, 37, mask)
    scores = {s: explainer.score(frames[s : s + 40], 37 - s, mask) for s in (0, 36)}
    assert found.start == max(scores, key=scores.get)
    assert found.start + found.index == 37
    assert found.path.scores[-1] == pytest.approx(max(scores.values()), rel=1e-4)


def test_deletion_of_a_sum_by_hand():
    """Four voxels of ten count 4, 3, 2, 1: the order by influence loses them first."""
    clip, baseline = torch.zeros(1, 1, 10), torch.zeros(1, 1, 10)
    clip[0, 0, 5:9] = torch.tensor([1.0, 4, 3, 2])
    found = delete_voxels(lambda x: x.sum(dim=(1, 2, 3)), clip, baseline, clip.numpy())
    at = dict(zip(found.shares, found.ordered, strict=True))
    assert (at[0], at[0.1], at[0.2], at[0.5], at[1]) == (10, 6, 3, 0, 0)
    assert found.random[0] == 10
    assert found.random[-1] == 0
    assert found.random[-2] > 0


def test_bad_weights_and_levels_are_refused():
    network = build_network("DeepPro", seqlen=T)
    with torch.no_grad():
        network.final.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="not finite: the weights hold NaN"):
        Explainer(network, 0, 1, steps=2)(np.ones((T, 8, 8), np.uint8), 1, disc((8, 8), 2, 2))


def test_whole_frames_that_cannot_fit_in_memory_are_refused(monkeypatch):
    monkeypatch.setattr("models.attribution.os.sysconf", lambda name: 1000)  # a megabyte
    explainer = Explainer(build_network("DeepPro", seqlen=T), 0, 1, whole=True)
    with pytest.raises(InputError, match=r"whole frames of 80 x 90 pixels .* leave out --whole"):
        explainer(np.ones((T, 80, 90), np.uint8), 1, disc((80, 90), 2, 2))


# Which targets
