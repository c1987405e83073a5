import copy

import numpy as np
import pytest

from datasets.simulator import PRESETS, camera, read_recipe, scenes, simulate, targets
from datasets.simulator.draws import draw
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


def test_draws_follow_their_distribution():
    rng = RNG(0)
    assert draw(3.5, rng) == 3.5
    values = [draw([2, 4], rng) for _ in range(500)]
    assert min(values) >= 2
    assert max(values) <= 4
    assert np.mean(values) == pytest.approx(3, abs=0.1)
    choices = [draw({"a": 3, "b": 1, "c": 0}, rng) for _ in range(500)]
    assert choices.count("a") / 500 == pytest.approx(0.75, abs=0.06)
    assert "c" not in choices


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scnee: {}", "sections are scene, camera"),
        ("targets: {snrr: 3}", "unknown key 'snrr'; did you mean 'snr'"),
        ("targets: {snr: [5, 2]}", "is not what the key takes"),
        ("targets: {snr: high}", "is not what the key takes"),
        ("targets: {count: 3}", "is not what the key takes"),
        ("targets: {polarity: {bright: -1}}", "is not what the key takes"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(str(tmp_path / "mine.yaml"))


def test_a_recipe_gives_what_differs_from_nudt(tmp_path):
    (tmp_path / "mine.yaml").write_text("targets: {snr: 4}")
    assert read_recipe(str(tmp_path / "mine.yaml")) == recipe(targets__snr=4)
    with pytest.raises(InputError, match="unknown preset 'nutd'"):
        read_recipe("nutd")


def test_texture_has_its_power_law():
    rng = RNG(0)
    textures = (scenes.power_law_texture((64, 64), 3.0, rng) for _ in range(20))
    power = np.mean([np.abs(np.fft.rfft2(t)) ** 2 for t in textures], axis=0)
    assert np.log2(power[0, 4] / power[0, 16]) / 2 == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("family", scenes.FAMILIES)
def test_every_family_has_its_mean_and_contrast(family):
    settings = recipe(scene__mean=90, scene__contrast=10, scene__families={family: 1})["scene"]
    layers = scenes.build_scene((80, 90), settings, RNG(1), optics=0.3)
    seen = layers[0].level
    for layer in layers[1:]:
        seen = seen * (1 - layer.opacity) + layer.level * layer.opacity
    assert seen.shape == (80, 90)
    assert seen.mean() == pytest.approx(90, abs=2)
    assert seen.std() == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("sigma", [0.6, 1.0])
def test_a_spot_lies_where_it_should_and_keeps_its_energy(sigma):
    ys, xs = np.mgrid[:25, :25]
    shape = targets.spot(np.array([[10.3, 12.7]]), sigma, 25)
    assert (shape * xs).sum() / shape.sum() == pytest.approx(10.3, abs=1e-3)
    assert (shape * ys).sum() / shape.sum() == pytest.approx(12.7, abs=1e-3)
    centred = targets.spot(np.array([[12.0, 12.0]]), sigma, 25)
    assert centred.max() == pytest.approx(1)
    assert centred.sum() == pytest.approx(shape.sum())
    smeared = targets.spot(np.array([[11.0, 12.0], [12.0, 12.0], [13.0, 12.0]]), sigma, 25)
    assert smeared.sum() == pytest.approx(centred.sum())
    assert smeared.max() < 0.8


def test_camera_motion_moves_the_scene_by_whole_and_part_pixels():
    ys, xs = np.mgrid[:60, :60].astype(np.float32)
    layer = scenes.Layer(3 * xs + 5 * ys)
    seen = camera.view([layer], np.array([1.25, -0.5]), 0, margin=10, size=40)
    expected = 3 * (xs[:40, :40] + 11.25) + 5 * (ys[:40, :40] + 9.5)
    assert np.allclose(seen, expected, atol=0.01)
    drifting = scenes.Layer(layer.level, velocity=(0.5, 0))
    seen = camera.view([drifting], np.zeros(2), 4, margin=10, size=40)
    assert np.allclose(seen, 3 * (xs[:40, :40] + 8) + 5 * (ys[:40, :40] + 10), atol=0.01)


@pytest.mark.parametrize("motion", ["still", "jitter", "drift", "pan"])
def test_camera_paths(motion):
    settings = recipe(camera__motion={motion: 1}, camera__pan=0.5, camera__jitter=0.1)["camera"]
    path = camera.camera_path(50, settings, RNG(0))
    steps = np.hypot(*np.diff(path, axis=0).T)
    if motion == "still":
        assert not path.any()
    if motion == "pan":
        assert steps == pytest.approx(0.5)
    if motion == "jitter":
        assert path.std() == pytest.approx(0.1, rel=0.3)
    assert np.abs(path.max(axis=0) + path.min(axis=0)).max() < 1e-9


def sensor(**changes):
    settings = {f"detector__{key}": value for key, value in changes.items()}
    return camera.SensorArray(64, 300, recipe(**settings)["detector"], RNG(2))


def test_sensor_noise_is_what_it_says():
    scene = np.full((64, 64), 100.0)
    array = sensor(read_noise=3, shot_noise=4)
    frames = np.stack([array.expose(scene, t) for t in range(300)]).astype(float)
    assert np.median(frames.std(axis=0)) == pytest.approx(array.noise, rel=0.02)
    assert array.noise == pytest.approx(5, rel=0.01)
    assert frames.mean() == pytest.approx(100, abs=0.1)


def test_fixed_pattern_columns_bad_pixels_and_depth():
    scene = np.full((64, 64), 100.0)
    frame = sensor(read_noise=0, gain=0.05, offset=2).expose(scene, 0).astype(float)
    assert frame.std() == pytest.approx(np.hypot(5, 2), rel=0.05)
    frame = sensor(read_noise=0, column_noise=4).expose(scene, 0).astype(float)
    assert frame.std(axis=0).max() == 0
    assert frame.std() == pytest.approx(4, rel=0.3)
    frame = sensor(read_noise=0, bad_pixels=0.1).expose(scene, 0)
    assert np.isin(frame, (0, 255)).mean() == pytest.approx(0.1, abs=0.02)
    fine = sensor(read_noise=0, bits=16).expose(scene + 0.5, 0)
    assert fine.dtype == np.uint16
    assert (fine == round(100.5 * 256)).all()


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


@pytest.mark.parametrize("preset", PRESETS)
def test_snr_is_drawn_as_asked_and_measured_back(preset):
    """From the frames as written: highest pixel against the mean and std around the target."""
    changed = copy.deepcopy(read_recipe(preset))
    changed["targets"] |= {"snr": 6, "count": {1: 1}, "fluctuation": 0, "polarity": {"bright": 1}}
    changed["detector"] |= {"gain": 0, "offset": 0, "bad_pixels": 0, "automatic_gain": 0}
    changed["detector"] |= {"column_noise": 0, "bits": 8}
    truth, measured = [], []
    for seed in range(24):
        made = simulate(64, 9, changed, RNG([7, seed]))
        per_target = [row[5] for row in made.truth]
        truth.append(np.mean(per_target))
        for frame, _, x, y, *_ in made.truth:
            image = made.frames[frame - 1].astype(float)
            rows, columns = (slice(max(0, round(c) - 10), round(c) + 11) for c in (y, x))
            window, hidden = image[rows, columns], made.masks[frame - 1][rows, columns]
            near = image[max(0, round(y) - 1) : round(y) + 2, max(0, round(x) - 1) : round(x) + 2]
            around = window[~hidden]
            measured.append((near.max() - around.mean()) / around.std())
    assert truth == pytest.approx([6] * 24, rel=1e-6)
    assert np.mean(measured) == pytest.approx(6, rel=0.1)


def test_occluded_and_dark_targets_and_truth():
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


def test_no_targets_and_many():
    assert not simulate(32, 5, recipe(targets__count={0: 1}), RNG(0)).masks.any()
    many = simulate(64, 5, recipe(targets__count={5: 1}), RNG(0))
    assert {row[1] for row in many.truth} == {1, 2, 3, 4, 5}
