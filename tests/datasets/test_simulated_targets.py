"""The simulator's targets: their light, paths, contrast and truth."""

import copy

import numpy as np
import pytest

from datasets.simulator import read_recipe, simulate, targets
from tests.datasets.test_simulator import RNG, recipe


@pytest.mark.parametrize(("blur", "half"), [(0.6, 0), (1.0, 0), (0.7, 2.5)])
def test_a_spot_lies_where_it_should_and_keeps_its_energy(blur, half):
    def whole(*centres):
        frame = np.zeros((31, 31))
        place, shape = targets.spot(np.array(centres), blur, half, 31)
        frame[place] = shape
        return frame

    ys, xs = np.mgrid[:31, :31]
    off, centred = whole([14.3, 16.7]), whole([15.0, 15.0])
    assert (off * xs).sum() / off.sum() == pytest.approx(14.3, abs=1e-3)
    assert (off * ys).sum() / off.sum() == pytest.approx(16.7, abs=1e-3)
    assert centred.max() == pytest.approx(1)
    assert centred.sum() == pytest.approx(off.sum(), rel=1e-3)
    variance = (centred * (xs - 15) ** 2).sum() / centred.sum()
    assert variance == pytest.approx(blur**2 + half**2 / 3 + 1 / 12, rel=0.01)
    smeared = whole([12.0, 15.0], [15.0, 15.0], [18.0, 15.0])
    assert smeared.sum() == pytest.approx(centred.sum(), rel=1e-3)
    assert smeared.max() < 0.95
    assert half == 0 or centred[15, 14] > 0.97  # flat on top


def test_targets_of_wide_reach_nine_pixels():
    wide = copy.deepcopy(read_recipe("wide"))["targets"]
    for shape in ("gauss", "box"):
        wide |= {"extent": 2.5, "shape": {shape: 1}, "count": {1: 1}}
        (target,) = targets.draw_targets(64, 5, 1.0, wide, RNG(0))
        _, levels = targets.spot(np.array([[20.0, 20.0]]), target.blur, target.half, 64)
        mask = levels > 0.3 * levels.max()
        assert (mask.any(axis=0).sum(), mask.any(axis=1).sum()) == (9, 9)


@pytest.mark.parametrize("kind", ["straight", "turning", "hovering"])
def test_paths_have_their_speed(kind):
    settings = recipe(targets__path={kind: 1}, targets__speed=0.8, targets__turn=0.05)["targets"]
    path = targets.draw_path(100, 60, settings, RNG(3))
    steps = np.diff(path, axis=0)
    assert 0 <= path[30].min() <= path[30].max() < 100
    if kind != "hovering":
        assert np.hypot(*steps.T) == pytest.approx(0.8)
        turns = np.diff(np.unwrap(np.arctan2(steps[:, 1], steps[:, 0])))
        assert np.abs(turns) == pytest.approx(0.05 * (kind == "turning"), abs=1e-6)
    else:
        assert np.hypot(*steps.T).mean() < 0.5


def surroundings(frame, mask, x, y):
    """Levels within 10 pixels of a target that are not its own."""
    rows, columns = (slice(max(0, round(c) - 10), round(c) + 11) for c in (y, x))
    return frame[rows, columns][~mask[rows, columns]]


@pytest.mark.parametrize("preset", ["nudt", "wide", "demo"])
def test_snr_is_drawn_as_asked_and_measured_back(preset):
    """From the frames as written, all effects on: the highest or lowest of the nine pixels around
    the centre against mean and std around the target."""
    changed = copy.deepcopy(read_recipe(preset))
    changed["targets"] |= {"snr": 6, "count": {1: 1}}
    truth, measured = [], []
    for seed in range(40):
        made = simulate(64, 9, changed, RNG([7, seed]))
        levels = made.frames.astype(float)
        for frame, _, x, y, _, snr, *_ in made.truth:
            around = surroundings(levels[frame - 1], made.masks[frame - 1], x, y)
            rows, columns = (slice(max(0, round(c) - 1), round(c) + 2) for c in (y, x))
            near = levels[frame - 1][rows, columns] - around.mean()
            measured.append(np.abs(near).max() / around.std())
            truth.append(snr)
    assert np.mean(truth) == pytest.approx(6, rel=0.1)
    assert np.mean(measured) == pytest.approx(np.mean(truth), rel=0.1)
    assert np.median(np.abs(np.array(measured) / truth - 1)) < 0.2


def with_and_without(changes, seed, frames=12):
    """A sequence, and its frames without targets: in grey levels."""
    made = simulate(48, frames, recipe(**changes), RNG(seed))
    bare = simulate(48, frames, recipe(**changes | {"targets__snr": 0}), RNG(seed))
    scale = 256 if made.frames.dtype == np.uint16 else 1
    return made, made.frames / scale, bare.frames / scale


@pytest.mark.parametrize("read_noise", [0.0, 2.0])
@pytest.mark.parametrize("bits", [8, 16])
def test_both_ratios_are_what_the_target_changed(read_noise, bits):
    """Against the same sequence without targets, exactly as defined."""
    changes = {"detector__read_noise": read_noise, "detector__bits": bits, "targets__snr": 8}
    changes |= {"targets__count": {1: 1}, "camera__motion": {"still": 1}, "detector__gain": 0.05}
    for seed in range(3):
        made, levels, bare = with_and_without(changes, seed)
        rounding = (1 if bits == 8 else 1 / 256) / 12**0.5
        for frame, _, x, y, _, snr, _, temporal in made.truth:
            added = levels[frame - 1] - bare[frame - 1]
            peak = np.unravel_index(np.argmax(added), added.shape)
            around = surroundings(bare[frame - 1], np.zeros((48, 48), bool), x, y)
            assert snr == pytest.approx(added[peak] / around.std(), rel=0.1)
            # Rounding leaves open which of nearly equal pixels is the highest.
            highest = np.argwhere(added > added[peak] - 1.5)
            ratios = [added[*p] / max(bare[:, *p].std(), rounding) for p in highest]
            assert read_noise or ratios[0] == pytest.approx(added[peak] / rounding, rel=0.2)
            assert np.min(np.abs(np.array(ratios) / temporal - 1)) < 0.1


def test_without_room_a_target_is_as_bright_as_can_be_and_the_truth_says_so():
    changes = {"scene__mean": 240, "scene__contrast": 3, "targets__snr": 20}
    changes |= {"targets__count": {1: 1}, "detector__column_pattern": 5}
    made, levels, bare = with_and_without(changes, 4)
    assert np.mean([row[5] for row in made.truth]) < 15
    for frame, _, x, y, _, snr, *_ in made.truth:
        around = surroundings(bare[frame - 1], np.zeros((48, 48), bool), x, y)
        added = (levels[frame - 1] - bare[frame - 1]).max()
        assert added / around.std() == pytest.approx(snr, abs=0.2)


def test_a_target_leaves_by_fading_over_the_edge():
    """Its light is drawn while it reaches the frame; its truth ends with its centre."""
    changes = {"targets__speed": 2.0, "targets__path": {"straight": 1}, "targets__snr": 40}
    changes |= {"targets__count": {1: 1}, "targets__extent": 1.5, "camera__motion": {"still": 1}}
    made, levels, bare = with_and_without(changes, 1, frames=60)
    inside = {row[0] - 1 for row in made.truth}
    lit = {t for t in range(60) if (levels[t] != bare[t]).sum() > 3}
    assert inside < lit
    assert len(lit - inside) <= 8
    assert all(-0.5 <= c < 47.5 for row in made.truth for c in row[2:4])
    for t in range(60):
        assert made.masks[t].any() == made.centroids[t].any() == (t in inside)


@pytest.mark.parametrize("frames", [1, 3, 60])
def test_occlusions_have_ramps_and_hide_at_least_a_frame(frames):
    settings = recipe(targets__occluded=1, targets__count={1: 1})["targets"]
    for seed in range(10):
        (target,) = targets.draw_targets(48, frames, 0.7, settings, RNG(seed))
        hidden = np.flatnonzero(target.shown == 0)
        assert 1 <= len(hidden) <= max(1, frames // 4)
        assert np.array_equal(hidden, np.arange(hidden[0], hidden[0] + len(hidden)))
        before = target.shown[: hidden[0]][-3:]
        assert before == pytest.approx(np.array([1, 2 / 3, 1 / 3])[3 - len(before) :])


def test_hidden_and_dark_targets():
    changed = recipe(
        targets__occluded=1, targets__polarity={"dark": 1}, targets__count={1: 1}, targets__snr=9
    )
    made = simulate(48, 40, changed, RNG(11))
    shown = {row[0] for row in made.truth}
    assert 0 < len(shown) < 40
    for t in range(40):
        assert made.masks[t].any() == made.centroids[t].any() == (t + 1 in shown)
    frame, _, x, y, *_ = made.truth[0]
    image = made.frames[frame - 1].astype(float)
    assert image[round(y), round(x)] < np.median(image[made.masks[frame - 1] == 0])


def test_no_targets_many_and_one_frame():
    assert not simulate(32, 5, recipe(targets__count={0: 1}), RNG(0)).masks.any()
    many = simulate(64, 5, recipe(targets__count={5: 1}), RNG(0))
    assert {row[1] for row in many.truth} == {1, 2, 3, 4, 5}
    assert simulate(16, 1, read_recipe("wide"), RNG(0)).frames.shape == (1, 16, 16)
