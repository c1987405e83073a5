import numpy as np
import pytest

from datasets.simulator import PRESETS, read_recipe
from datasets.simulator.draws import draw
from utils.errors import InputError

RNG = np.random.default_rng


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
        ("scene: 3", "sections are scene, camera"),
        ("targets: {snrr: 3}", "unknown key 'snrr'; did you mean 'snr'"),
        ("targets: {snr: [5, 2]}", r"targets: snr: \[5, 2\]: expected a number or \[low, high\]"),
        ("targets: {snr: high}", "'high': expected a number"),
        ("targets: {snr: .nan}", "nan: expected a number"),
        ("targets: {snr: [1, .inf]}", "expected a number"),
        ("targets: {snr: true}", "expected a number"),
        ("targets: {count: 3}", "choices from 0 to 1000"),
        ("targets: {count: {100000000: 1}}", "choices from 0 to 1000"),
        ("scene: {clutter: 1.0e+8}", "clutter: 100000000.0: expected a number .* from 0 to 100000"),
        ("scene: {edges: [0, 100000000]}", "edges: .*from 0 to 1000"),
        ("targets: {count: {-1: 1}}", "choices from 0 to 1000"),
        ("targets: {count: {1.5: 1}}", "choices from 0 to 1000"),
        ("targets: {occluded: 1.5}", "from 0 to 1"),
        ("targets: {polarity: {bright: -1}}", "choices from bright, dark"),
        ("targets: {polarity: {bright: 0}}", "choices from bright, dark"),
        ("targets: {path: {spiral: 1}}", "choices from straight, turning, hovering"),
        ("scene: {families: {space: 1}}", "choices from sky, cloud"),
        ("camera: {motion: {pan: 1, roll: 0}}", "choices from still"),
        ("detector: {optics: 0}", "from 0.1 to 10"),
        ("detector: {read_noise: -1}", "from 0 to 255"),
        ("detector: {bits: 12}", "bits: 12: expected 8 or 16"),
        ("detector: {bits: [8, 16]}", "expected 8 or 16"),
        ("detector: {bits: {8: 1, 16: 1}}", "expected 8 or 16"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"mine.yaml: .*{message}") as raised:
        read_recipe(str(tmp_path / "mine.yaml"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_are_good_recipes(preset):
    assert read_recipe(preset).keys() == read_recipe("nudt").keys()


def test_a_recipe_gives_what_differs_from_nudt(tmp_path):
    (tmp_path / "mine.yaml").write_text("targets: {snr: 4}")
    nudt = read_recipe("nudt")
    mine = {**nudt, "targets": {**nudt["targets"], "snr": 4}}
    assert read_recipe(str(tmp_path / "mine.yaml")) == mine
    with pytest.raises(InputError, match="unknown preset 'nutd'"):
        read_recipe("nutd")
