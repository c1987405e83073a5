import cv2
import numpy as np
import pytest

from datasets import compare
from datasets.simulator.scenes import power_law_texture
from tests.conftest import write_frames, write_image


def test_spectrum_finds_the_frequency_of_a_wave():
    _, xs = np.mgrid[:64, :64]
    spectrum = compare.spatial_spectrum(10 * np.sin(2 * np.pi * 0.25 * xs))
    ring = int(np.argmax(spectrum))
    assert compare.FREQUENCIES[ring] <= 0.26
    assert compare.FREQUENCIES[ring + 1] >= 0.24


def test_spectrum_of_white_noise_is_flat_at_its_variance():
    frame = np.random.default_rng(0).normal(0, 3, (128, 128))
    assert compare.spatial_spectrum(frame)[2:].mean() == pytest.approx(9, rel=0.05)


def test_spectrum_falls_with_the_power_of_a_texture():
    rng = np.random.default_rng(0)
    spectra = [compare.spatial_spectrum(power_law_texture((128, 128), 3, rng)) for _ in range(10)]
    mean = np.mean(spectra, axis=0)
    centres = (compare.FREQUENCIES[1:] + compare.FREQUENCIES[:-1]) / 2
    slope = np.polyfit(np.log(centres[3:28]), np.log(mean[3:28]), 1)[0]
    assert slope == pytest.approx(-3, abs=0.4)


def test_autocorrelation_by_hand():
    rng = np.random.default_rng(1)
    white = rng.normal(0, 1, (60, 20, 20))
    found = compare.temporal_autocorrelation(white, 5)
    assert found[0] == 1
    assert np.abs(found[1:]).max() < 0.05
    wave = np.cos(2 * np.pi * np.arange(60) / 12)[:, None, None] * np.ones((1, 3, 3))
    found = compare.temporal_autocorrelation(wave, 13)
    assert found[6] == pytest.approx(-1, abs=0.05)
    assert found[12] == pytest.approx(1, abs=0.05)
    assert np.isnan(compare.temporal_autocorrelation(np.ones((9, 3, 3)), 4)).all()


def test_the_picture_and_wrong_input(simulated, tmp_path, run_main):
    out = tmp_path / "compare.png"
    assert run_main(compare.main, "--out", out, simulated)[0] == 0
    assert cv2.imread(str(out)).std() > 1
    for wrong in ((out, tmp_path / "none"), (tmp_path / "picture.jpg", simulated)):
        status, _, err = run_main(compare.main, "--out", *wrong)
        assert status == 2
        assert err.count("\n") == 1


@pytest.fixture
def drawn(monkeypatch):
    """What `compare.draw` was asked to draw."""
    found = {}
    monkeypatch.setattr(compare, "draw", lambda path, measured: found.update(measured))
    return found


def test_folders_named_alike_and_sequences_have_curves_of_their_own(tmp_path, run_main, drawn):
    folders = [tmp_path / "a/set", tmp_path / "b/set", tmp_path / "other"]
    for folder in folders:
        for name in ("s1", "s2"):
            write_frames(folder / name / "images", 3)
    run = (compare.main, "--out", tmp_path / "compare.png")
    assert run_main(*run, *folders)[0] == 0
    assert {name: len(s) for name, s in drawn.items()} == {
        str(folders[0]): 2, str(folders[1]): 2, "other": 2
    }  # fmt: skip
    drawn.clear()
    assert run_main(*run, "--each", folders[2])[0] == 0
    assert {name: len(s) for name, s in drawn.items()} == {"other/s1": 1, "other/s2": 1}


def test_every_sequence_is_read_whatever_the_lists_and_masks(tmp_path, run_main, drawn):
    """As of a set simulated with --test 0, and one clip of several with masks."""
    for name in ("s1", "s2", "s3", ".Sequence4"):
        write_frames(tmp_path / "set" / name / "images", 3)
    write_frames(tmp_path / "set/s1/masks", 2)
    (tmp_path / "set/train.txt").write_text("s1\ns2\ns3\n")
    assert run_main(compare.main, "--out", tmp_path / "compare.png", tmp_path / "set")[0] == 0
    assert {name: len(s) for name, s in drawn.items()} == {"set": 3}


def test_16_bit_is_measured_in_levels_of_8(tmp_path, run_main, drawn):
    rng = np.random.default_rng(0)
    for number in range(1, 9):  # so dark that no level is above 255
        image = rng.integers(0, 250, (16, 16)).astype(np.uint16)
        write_image(tmp_path / f"set/s1/images/{number}.png", image)
    run_main(compare.main, "--out", tmp_path / "compare.png", tmp_path / "set")
    assert drawn["set"][0].temporal_std == pytest.approx(250 / 12**0.5 / 256, rel=0.2)
