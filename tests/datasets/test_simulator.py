import copy

import cv2
import numpy as np
import pytest

from datasets.simulator import camera, read_recipe, scenes, simulate, targets, views
from utils.errors import InputError

RNG = np.random.default_rng


def recipe(**changes):
    """The preset nudt with `section__key` values changed."""
    changed = copy.deepcopy(read_recipe("nudt"))
    for name, value in changes.items():
        section, key = name.split("__")
        assert key in changed[section]
        changed[section][key] = value
    return changed


def test_texture_has_its_power_law():
    rng = RNG(0)
    textures = (scenes.power_law_texture((64, 64), 3.0, rng) for _ in range(20))
    power = np.mean([np.abs(np.fft.rfft2(t)) ** 2 for t in textures], axis=0)
    assert np.log2(power[0, 4] / power[0, 16]) / 2 == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("family", scenes.FAMILIES)
def test_the_frame_has_the_mean_and_contrast_of_the_recipe(family):
    settings = recipe(scene__mean=90, scene__contrast=10, scene__families={family: 1})["scene"]
    layers = scenes.build_scene(60, 40, settings, RNG(1), optics=1.0)
    seen = views.Views(layers, 40, 60, 5).at(5, np.zeros(2), np.zeros(2))
    assert seen.mean() == pytest.approx(90, abs=0.01)
    assert seen.std() == pytest.approx(10, abs=0.01)


def test_waves_and_near_clouds_move_by_the_layer_speed():
    for family, layer in (("sea", 0), ("cloud", 1)):
        settings = recipe(scene__layer_speed=0.5, scene__families={family: 1})["scene"]
        layers = scenes.build_scene(32, 20, settings, RNG(1), optics=0.7)
        assert np.hypot(*layers[layer].velocity) == pytest.approx(0.5)


def test_a_periodic_scene_has_no_seam():
    """What is seen across the edges of the picture is what is seen of the picture rolled."""
    texture = 10 * scenes.power_law_texture((40, 40), 3.0, RNG(0))
    rolled = np.roll(texture, (-30, -25), axis=(0, 1))
    across = views.Views([scenes.Layer(texture)], 0, 30, 0)
    within = views.Views([scenes.Layer(rolled)], 0, 30, 0)
    part = np.array([0.3, 0.6])
    seen = across.at(0, part + np.array([25, 30]), np.zeros(2))
    assert np.allclose(seen, within.at(0, part, np.zeros(2)), atol=1e-3)
    steps = np.abs(np.diff(seen, axis=1)).max(axis=0)
    assert steps.max() < 3 * np.median(steps)


def looking(layer, margin=20, size=40):
    return views.Views([layer], margin, size, middle=0)


def test_camera_and_layer_motion_move_the_scene_by_whole_and_part_pixels():
    ys, xs = np.mgrid[:80, :80].astype(np.float32)
    layer = scenes.Layer(3 * xs + 5 * ys)
    seen = looking(layer).at(0, np.array([1.25, -0.5]), np.zeros(2))
    assert np.allclose(seen, 3 * (xs[:40, :40] + 21.25) + 5 * (ys[:40, :40] + 19.5), atol=0.01)
    drifting = scenes.Layer(layer.level, velocity=(0.5, 0))
    seen = looking(drifting).at(4, np.zeros(2), np.array([0.5, 0]))
    assert np.allclose(seen, 3 * (xs[:40, :40] + 18) + 5 * (ys[:40, :40] + 20), atol=0.01)


def test_a_moving_camera_smears_the_scene_as_it_does_a_target():
    """A wave of frequency f smeared over d pixels keeps sinc(f d) of its amplitude."""
    _, xs = np.mgrid[:80, :80]
    wave = scenes.Layer(np.sin(2 * np.pi * xs / 8))
    kept = [looking(wave).at(0, np.zeros(2), np.array([d, 0])).std() * 2**0.5 for d in (0, 2)]
    assert kept == pytest.approx([1, np.sinc(2 / 8)], abs=0.02)

    def highest(places):
        return targets.spot(15 + places[:, None] * np.array([1, 0]), 0.7, 0, 31)[1].max()

    for motion in (0.05, 1, 2, 5):
        positions = views.exposure_times(motion) * motion
        assert highest(positions) == pytest.approx(
            highest(np.linspace(-0.5, 0.5, 99) * motion), rel=0.05
        )


@pytest.mark.parametrize("speed", [1.5, 10, 25.7, 60])
def test_a_fast_target_is_one_streak(speed):
    for heading in (0, 0.4, np.pi / 4):
        step = speed * np.array([np.cos(heading), np.sin(heading)])
        places = 50 + views.exposure_times(speed)[:, None] * step
        assert np.hypot(*np.diff(places, axis=0).T).max() <= 0.5 + 1e-9
        _, levels = targets.spot(places, 0.6, 0, 100)
        mask = (levels > 0.3 * levels.max()).astype(np.uint8)
        assert cv2.connectedComponents(mask)[0] - 1 == 1
        assert mask.any(axis=0).sum() >= 0.8 * step[0]


def test_a_scene_too_wide_for_memory_is_refused():
    changed = recipe(camera__motion={"pan": 1}, camera__pan=10)
    with pytest.raises(InputError, match=r"too far for one picture .*: lower --frames, --size"):
        simulate(64, 2000, changed, RNG(0))


def test_near_layers_hide_what_is_behind():
    opacity = np.zeros((20, 20))
    opacity[:, 12:] = 0.75
    layers = [scenes.Layer(opacity), scenes.Layer(opacity, opacity, velocity=(1.0, 0.0))]
    seen = views.Views(layers, 4, 10, middle=0)
    assert seen.passed(0, 7, 5) == 1
    assert seen.passed(0, 8, 5) == 0.25
    assert seen.passed(3, 8, 5) == 1
    assert seen.passed(3, 11, 5) == 0.25


@pytest.mark.parametrize("motion", ["still", "jitter", "drift", "pan"])
def test_camera_paths(motion):
    settings = recipe(camera__motion={motion: 1}, camera__pan=0.5, camera__jitter=0.1)["camera"]
    path, velocity = camera.camera_path(50, settings, RNG(0))
    steps = np.hypot(*np.diff(path, axis=0).T)
    if motion in ("still", "jitter"):
        assert not velocity.any()
    if motion == "still":
        assert not path.any()
    if motion == "pan":
        assert steps == pytest.approx(0.5)
        assert np.hypot(*velocity.T) == pytest.approx(0.5)
    if motion == "jitter":
        assert path.std() == pytest.approx(0.1, rel=0.3)
    assert np.abs(path.max(axis=0) + path.min(axis=0)).max() < 1e-9


def sensor(**changes):
    settings = {f"detector__{key}": value for key, value in changes.items()}
    return camera.SensorArray(64, recipe(**settings)["detector"], RNG(2))


def written(array, scene, count):
    """Frames [count, H, W] in grey levels."""
    made = (array.quantise(array.expose(scene)) for _ in range(count))
    return np.stack(list(made)).astype(float) * array.step


FLAT = np.full((64, 64), 100.0)


def test_sensor_noise_is_what_it_says():
    frames = written(sensor(read_noise=3, shot_noise=4), FLAT, 300)
    assert np.median(frames.std(axis=0)) == pytest.approx(5, rel=0.02)
    assert frames.mean() == pytest.approx(100, abs=0.1)
    bright = written(sensor(read_noise=0, shot_noise=4), 2 * FLAT, 300)
    assert np.median(bright.std(axis=0)) == pytest.approx(4 * 2**0.5, rel=0.02)


def test_read_noise_is_added_after_the_gains():
    array = sensor(read_noise=3, gain=0.3)
    frames = written(array, FLAT / 2, 300)
    strong, weak = array.gain > 1.3, array.gain < 0.7
    assert frames.mean(axis=0)[strong].mean() > 1.5 * frames.mean(axis=0)[weak].mean()
    assert frames.std(axis=0)[strong].mean() == pytest.approx(3, rel=0.03)
    assert frames.std(axis=0)[weak].mean() == pytest.approx(3, rel=0.03)


def test_fixed_pattern_columns_bad_pixels_and_depth():
    frame = written(sensor(read_noise=0, gain=0.05, offset=2), FLAT, 1)[0]
    assert frame.std() == pytest.approx(np.hypot(5, 2), rel=0.05)
    fleeting, fixed = ({"read_noise": 0, key: 4} for key in ("column_noise", "column_pattern"))
    for settings, changes in ((fleeting, True), (fixed, False)):
        frames = written(sensor(**settings), FLAT, 2)
        assert frames[0].std(axis=0).max() == 0
        assert frames[0].std() == pytest.approx(4, rel=0.3)
        assert np.any(frames[0] != frames[1]) == changes
    frame = written(sensor(read_noise=0, bad_pixels=0.1), FLAT, 1)[0]
    assert np.isin(frame, (0, 255)).mean() == pytest.approx(0.1, abs=0.02)
    array = sensor(read_noise=0, bits=16)
    fine = array.quantise(array.expose(FLAT + 0.5))
    assert fine.dtype == np.uint16
    assert (fine == round(100.5 * 256)).all()


@pytest.mark.parametrize("strength", [1, 0.5])
def test_automatic_gain_follows_the_scene_with_a_lag(strength):
    array = sensor(automatic_gain=strength)
    before = 100 + 10 * scenes.power_law_texture((64, 64), 2.0, RNG(0))
    after = 130 + 4 * (before - 100)
    assert [array.follow(before) for _ in range(3)] == [pytest.approx((1, 0), abs=1e-9)] * 3
    mapped = [array.follow(after) for _ in range(60)]
    slopes = [slope for slope, _ in mapped]
    assert slopes[0] == pytest.approx(1)  # it has not seen the change yet
    assert slopes[1] > slopes[5] > slopes[20]
    assert slopes[-1] == pytest.approx(0.25**strength, rel=0.01)
    middle = np.percentile(after, 50) * mapped[-1][0] + mapped[-1][1]
    assert middle == pytest.approx(130 - 30 * strength, abs=3)
    assert sensor(automatic_gain=0).follow(after) == (1, 0)


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
