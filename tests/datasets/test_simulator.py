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
