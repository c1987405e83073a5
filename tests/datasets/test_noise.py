import shutil
import zlib
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from datasets import noise
from datasets.images import read_frame
from datasets.layouts import find_layout
from datasets.sequences import open_split
from tests.conftest import write_frames, write_image
from tests.datasets.test_sequences import write_list
from utils.files import locked
from utils.processes import in_processes


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_noise_has_the_spreads_asked_for():
    """Two grey levels separate gain from offset; 64 x 64 pixels and 400 frames measure 2 %."""
    levels = np.repeat(np.uint16([10000, 30000]), 200)
    frames = np.ascontiguousarray(np.broadcast_to(levels[:, None, None], (400, 64, 64)))
    noisy = noise.add_noise(frames, 8.0, 0.015, 130.0, np.random.default_rng(0)).astype(float)
    low, high = noisy[:200], noisy[200:]
    assert low.std(axis=0).mean() == pytest.approx(8.0, rel=0.02)
    assert high.std(axis=0).mean() == pytest.approx(8.0, rel=0.02)
    gain = (high.mean(axis=0) - low.mean(axis=0)) / 20000 - 1  # [H, W]
    offset = low.mean(axis=0) - 10000 * (1 + gain)
    assert gain.mean() == pytest.approx(0, abs=0.001)
    assert gain.std() == pytest.approx(0.015, rel=0.05)
    assert offset.mean() == pytest.approx(0, abs=8)
    assert offset.std() == pytest.approx(130, rel=0.05)
    assert abs(np.corrcoef(gain.ravel(), offset.ravel())[0, 1]) < 0.06
    residual = noisy[1:200] - noisy[:199]  # independent from frame to frame: std sqrt(2) sigma
    assert residual.std() == pytest.approx(8 * 2**0.5, rel=0.02)


def test_the_published_parameters_on_eight_bits():
    frames = np.full((300, 48, 48), 100, np.uint8)
    noisy = noise.add_noise(frames, 8.0, 0.15, 1.3, np.random.default_rng(1))
    assert noisy.dtype == np.uint8
    assert noisy.std(axis=0).mean() == pytest.approx(8.0, rel=0.02)
    assert noisy.mean(axis=0).std() == pytest.approx((15**2 + 1.3**2 + 64 / 300) ** 0.5, rel=0.05)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_each_part_alone_and_the_bounds(dtype):
    most = np.iinfo(dtype).max
    frames = np.stack([np.full((9, 7), v, dtype) for v in (0, 1, 100, most)])
    rng = np.random.default_rng(0)
    assert np.array_equal(noise.add_noise(frames, 0, 0, 0, rng), frames)
    scaled = noise.add_noise(frames, 0, 0.5, 0, np.random.default_rng(3))
    factor = 1 + 0.5 * np.random.default_rng(3).standard_normal((9, 7), np.float32)
    assert not scaled[0].any()  # a gain leaves 0 where it is
    assert np.array_equal(scaled[2], np.clip(np.rint(factor * 100), 0, most))
    loud = noise.add_noise(frames, 1e5, 0, 0, rng)
    assert loud.min() == 0
    assert loud.max() == most
    shifted = noise.add_noise(frames, 0, 0, 3, rng).astype(int)
    assert np.array_equal(shifted[1] > 1, shifted[2] > 100)  # one offset for all frames
    assert noise.add_noise(frames[:0], 8, 0.1, 1, rng).shape == (0, 9, 7)


def test_frames_change_and_every_other_file_is_the_same(tmp_path, run_main):
    source, target = tmp_path / "clean", tmp_path / "noisy"
    for name in ("s1", "s2", "unlisted"):
        for kind, value in (("images", 90), ("masks", 0), ("masks_centroid", 0)):
            write_frames(source / name / kind, 5, value=value)
    write_list(source / "train.txt", "s1/1", end="\r\n")
    write_list(source / "test.txt", "s2")
    (source / "truth.csv").write_text("sequence,frame\n")
    write_image(source / "s1/overview.png", np.zeros((4, 4), np.uint8))
    (source / "s1/images/.hidden.png").write_bytes(b"no image at all")
    (source / "empty").mkdir()
    target.mkdir()  # empty: allowed
    status, out, err = run_main(noise.main, source, target, "--dataset", "Synthetic")
    assert (status, err) == (0, "")
    assert "10 noisy frames of 2 sequences, 40 other files copied" in out
    before, after = contents(source), contents(target)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{s}/images/0000{i}.png" for s in ("s1", "s2") for i in range(1, 6)}
    assert (target / "empty").is_dir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clean", "noisy"]
    layout = find_layout("Synthetic")
    (noisy,) = open_split(layout, target, "test", masks_due=True)
    (clean,) = open_split(layout, source, "test")
    rng = np.random.default_rng([0, zlib.crc32(b"s2")])
    wanted = noise.add_noise(clean.frames(0, 5), 8.0, 0.15, 1.3, rng)
    assert np.array_equal(noisy.frames(0, 5), wanted)


def test_links_are_followed_but_not_in_circles(tmp_path, run_main):
    write_frames(tmp_path / "elsewhere/images", 2)
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean/s1").symlink_to(tmp_path / "elsewhere")
    assert run_main(noise.main, tmp_path / "clean", tmp_path / "noisy")[0] == 0
    assert not (tmp_path / "noisy/s1").is_symlink()
    assert len(contents(tmp_path / "noisy")) == 2
    (tmp_path / "clean/again").symlink_to(tmp_path / "clean")
    status, _, err = run_main(noise.main, tmp_path / "clean", tmp_path / "other")
    assert status == 2
    assert "clean/again: a link to a folder that it lies in" in err
    assert not (tmp_path / "other").exists()


def test_same_seed_same_bytes_whatever_the_workers(tmp_path, run_main):
    for name in ("s1", "s2", "s3"):
        write_frames(tmp_path / "clean" / name / "images", 4)
    for name, seed, workers in (("a", 5, 1), ("b", 5, 3), ("c", 6, 3)):
        run = ("--seed", seed, "--workers", workers)
        assert run_main(noise.main, tmp_path / "clean", tmp_path / name, *run)[0] == 0
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert all(a[name] != c[name] for name in a)
    assert a["s1/images/00001.png"] != a["s2/images/00001.png"]  # each sequence its own noise
    shutil.rmtree(tmp_path / "clean/s2")  # whatever other sequences there are
    run_main(noise.main, tmp_path / "clean", tmp_path / "d", "--seed", 5, "--workers", 1)
    assert contents(tmp_path / "d").items() < a.items()


def test_depth_colour_and_stored_size_are_the_frames_own(tmp_path, run_main):
    """16 bit stays so; of colour the red channel; nothing is resized, whatever the layout reads."""
    clean = tmp_path / "clean"
    write_list(clean / "annotations/train_sequences.txt", "deep")
    write_list(clean / "annotations/val_sequences.txt", "deep", "colour")
    colour = np.zeros((5, 9, 3), np.uint8)
    colour[:, :, 2] = 50
    write_image(clean / "images/colour/1.BMP", colour)
    write_image(clean / "images/deep/1.tif", np.full((5, 9), 40000, np.uint16))
    run = ("--dataset", "IRSatVideo-LEO", "--sigma", 0, "--gain", 0, "--offset", 0)
    assert run_main(noise.main, clean, tmp_path / "noisy", *run)[0] == 0
    grey = cv2.imread(str(tmp_path / "noisy/images/colour/1.BMP"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(grey, np.full((5, 9), 50, np.uint8))
    deep = read_frame(tmp_path / "noisy/images/deep/1.tif")
    assert deep.dtype == np.uint16
    assert np.array_equal(deep, np.full((5, 9), 40000))


def test_jpeg_frames_become_pngs_that_pair_with_their_masks(tmp_path, run_main):
    clean, noisy = tmp_path / "clean", tmp_path / "noisy"
    for number in ("00001", "00002"):
        write_image(clean / f"s1/images/{number}.JPG", np.full((64, 64), 100, np.uint8))
        write_image(clean / f"s1/masks/{number}.png", np.eye(64, dtype=np.uint8))
    assert run_main(noise.main, clean, noisy)[0] == 0
    assert sorted(p.name for p in (noisy / "s1/images").iterdir()) == ["00001.png", "00002.png"]
    (sequence,) = open_split(find_layout("Folder"), noisy, "test", masks_due=True)
    assert sequence.masks(0, 2).sum() == 128
    wanted = np.hypot(np.hypot(8, 15), 1.3)
    assert sequence.frames(0, 1).std() == pytest.approx(wanted, rel=0.05)


def _interrupted_after_one(made):
    yield next(made)
    raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("damage", ["interrupted", "unreadable"])
def test_a_broken_run_leaves_nothing(tmp_path, run_main, monkeypatch, workers, damage):
    for name in ("s1", "s2"):
        write_frames(tmp_path / "clean" / name / "images", 3)
    if damage == "unreadable":
        (tmp_path / "clean/s2/images/00002.png").write_bytes(b"no image")
    else:

        @contextmanager
        def interrupted_processes(make, items, workers):
            with in_processes(make, items, workers) as made:
                yield _interrupted_after_one(made)

        monkeypatch.setattr(noise, "in_processes", interrupted_processes)
    status, _, err = run_main(
        noise.main, tmp_path / "clean", tmp_path / "noisy", "--workers", workers
    )
    assert status == (2 if damage == "unreadable" else 130)
    assert err.count("\n") == 1
    assert damage == "interrupted" or "s2/images/00002.png: not a readable image" in err
    assert [p.name for p in tmp_path.iterdir()] == ["clean"]


def test_what_a_killed_run_left_goes_but_not_what_a_running_one_makes(tmp_path, run_main):
    write_frames(tmp_path / "clean/s1/images", 2)
    torn = tmp_path / ".noisy-unfinished/noisy/s1/images"
    torn.mkdir(parents=True)
    (torn / "00009.png").write_bytes(b"torn")
    with locked(tmp_path / ".noisy-unfinished"):
        status, _, err = run_main(noise.main, tmp_path / "clean", tmp_path / "noisy")
    assert status == 2
    assert ".noisy-unfinished: another process" in err
    assert (torn / "00009.png").exists()
    assert run_main(noise.main, tmp_path / "clean", tmp_path / "noisy")[0] == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clean", "noisy"]
    assert len(contents(tmp_path / "noisy")) == 2


@pytest.mark.parametrize(
    ("source", "target", "options", "said"),
    [
        ("nowhere", "new", (), "nowhere: no such folder"),
        ("clean", "clean", (), "must lie apart from SRC"),
        ("clean", "clean/new", (), "must lie apart from SRC"),
        ("clean/s1", "clean", (), "must lie apart from SRC"),
        ("clean", "full", (), "full: exists already"),
        ("clean", "full/file", (), "file: exists already"),
        ("full", "new", (), "no sequences found"),
        ("clean", "new", ("--dataset", "NUDT-MIRSDT"), "train.txt: no such list"),
        ("clean", "new", ("--dataset", "Foldr"), "did you mean 'Folder'"),
        ("clean", "new", ("--dataset", "Synthetic"), "train.txt: no such list"),
        ("both", "new", (), "00001.jpg: would be written as 00001.png"),
        ("clean", "new", ("--sigma", -1), "of at least 0"),
        ("clean", "new", ("--gain", "nan"), "of at least 0"),
        ("clean", "new", ("--seed", -1), "of at least 0"),
        ("clean", "new", ("--workers", 0), "whole number above 0"),
        ("clean", "new", ("--workers", 99999999999), "--workers: '99999999999': expected a whole"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, run_main, source, target, options, said):
    write_frames(tmp_path / "clean/s1/images", 2)
    for suffix in ("jpg", "png"):
        write_image(tmp_path / f"both/s1/images/00001.{suffix}", np.zeros((8, 8), np.uint8))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    before = contents(tmp_path)
    status, _, err = run_main(noise.main, tmp_path / source, tmp_path / target, *options)
    assert status == 2
    assert err.count("\n") == 1
    assert said in err
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()
