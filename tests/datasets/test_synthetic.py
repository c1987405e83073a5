import csv
import errno
import filecmp
import time

import cv2
import numpy as np
import pytest

from datasets import synthetic
from datasets.layouts import find_layout
from datasets.sequences import open_split
from datasets.unfinished import unfinished
from utils.processes import in_processes


def test_it_writes_what_the_layout_reads(simulated):
    layout = find_layout("Synthetic")
    for split, count in (("train", 3), ("test", 2)):
        sequences = open_split(layout, simulated, split, masks_due=True)
        assert [len(s) for s in sequences] == [26] * count
        assert sequences[0].size == (24, 24)


def test_truth_agrees_with_the_masks(simulated):
    sequences = {s.name: s for s in open_split(find_layout("Synthetic"), simulated, "test")}
    with open(simulated / "truth.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["sequence"] in sequences]
    assert rows
    for row in rows:
        frame = int(row["frame"]) - 1
        centroids = sequences[row["sequence"]].centroids(frame, frame + 1)[0]
        mask = sequences[row["sequence"]].masks(frame, frame + 1)[0]
        y, x = round(float(row["y"])), round(float(row["x"]))
        assert centroids[y, x]
        assert mask[y, x]
        assert float(row["snr"]) > 0
        assert float(row["temporal_snr"]) > 0


def test_same_seed_same_bytes_and_a_rerun_replaces(tmp_path, run_main):
    size = ("--train", 1, "--test", 1, "--frames", 4, "--size", 16)
    for name, seed, workers in (("a", 5, 1), ("b", 5, 2), ("c", 6, 1)):
        options = (*size, "--seed", seed, "--workers", workers)
        assert run_main(synthetic.main, "--out", tmp_path / name, *options)[0] == 0
    run_main(synthetic.main, "--out", tmp_path / "b", *size, "--seed", 5)
    files = [str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*.*")]
    assert len(files) == 2 * 3 * 4 + 3
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)[0] != files


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
@pytest.mark.parametrize("failing", [0, 1])
def test_a_rerun_that_fails_leaves_the_set_as_it_is(
    tmp_path, run_main, monkeypatch, error, failing
):
    run = (synthetic.main, "--out", tmp_path, "--train", 1, "--test", 1, *SMALL)
    write, made = synthetic.write_sequence, []

    def fails(*arguments):
        made.append(write(*arguments))
        if len(made) > failing:
            raise error

    def fail() -> dict[str, bytes]:
        made.clear()
        with monkeypatch.context() as patch:
            patch.setattr(synthetic, "write_sequence", fails)
            assert run_main(*run, "--seed", 3)[0] == (130 if error is KeyboardInterrupt else 1)
        return contents(tmp_path)

    assert fail() == {}
    assert run_main(*run)[0] == 0
    before = contents(tmp_path)
    assert len(before) == 3 + 2 * 3 * 2
    assert fail() == before
    assert run_main(*run, "--seed", 3)[0] == 0
    assert contents(tmp_path).keys() == before.keys()
    assert contents(tmp_path) != before


def nap(seconds):
    time.sleep(seconds)


def interrupt(results):
    """As Ctrl-C would; a real one is swallowed where it comes in the callback of a weakref."""
    next(results)
    raise KeyboardInterrupt


def test_interrupted_workers_say_nothing(capfd):
    for _ in range(10):
        with pytest.raises(KeyboardInterrupt), in_processes(nap, [0.002] * 200, 2) as made:
            interrupt(made)
    assert capfd.readouterr() == ("", "")


def test_what_a_killed_first_run_left_is_replaced(tmp_path, run_main):
    (tmp_path / synthetic.UNFINISHED / "Sequence1/images").mkdir(parents=True)
    (tmp_path / synthetic.UNFINISHED / "Sequence1/images/00009.png").touch()
    run = (synthetic.main, "--out", tmp_path, "--train", 0, "--test", 1, *SMALL)
    assert run_main(*run)[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"Sequence1", "test.txt", "truth.csv"}
    assert len(contents(tmp_path)) == 2 + 3 * 2
    (tmp_path / "Sequence7").write_text("mine")
    before = contents(tmp_path)
    status, _, err = run_main(*run)
    assert status == 2
    assert "Sequence7: is no folder of a sequence" in err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("header", [None, "sequence,frame\n", ""])
def test_a_foreign_folder_is_left_alone(tmp_path, run_main, header):
    (tmp_path / "Sequence1").mkdir()
    (tmp_path / "Sequence1/thesis.txt").write_text("precious")
    (tmp_path / "train.txt").write_text("Sequence1")
    if header is not None:
        (tmp_path / "truth.csv").write_text(header)
    before = {p: p.is_file() and p.read_text() for p in tmp_path.rglob("*")}
    status, _, err = run_main(synthetic.main, "--out", tmp_path, "--train", 1, "--test", 1)
    assert status == 2
    assert "not empty" in err
    assert {p: p.is_file() and p.read_text() for p in tmp_path.rglob("*")} == before


SMALL = ("--frames", 2, "--size", 16, "--workers", 1)


def test_fewer_sequences_leave_none_of_the_former_set(tmp_path, run_main):
    run_main(synthetic.main, "--out", tmp_path, "--train", 2, "--test", 2, *SMALL)
    (tmp_path / "Sequences.txt").write_text("mine")
    (tmp_path / ".Sequence9/images").mkdir(parents=True)  # of a run that was killed
    run_main(synthetic.main, "--out", tmp_path, "--train", 0, "--test", 1, *SMALL)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"Sequence1", "Sequences.txt", "test.txt", "truth.csv"}


def test_two_runs_do_not_write_to_one_folder(tmp_path, run_main):
    with unfinished(tmp_path / synthetic.UNFINISHED):
        status, _, err = run_main(synthetic.main, "--out", tmp_path, "--test", 1, *SMALL)
    assert status == 2
    assert str(tmp_path) in err
    assert not list(tmp_path.iterdir())


def test_test_sequences_are_their_own_whatever_the_training(tmp_path, run_main):
    for name, train in (("a", 0), ("b", 1)):
        run_main(synthetic.main, "--out", tmp_path / name, "--train", train, "--test", 1, *SMALL)
    frames = [
        (tmp_path / path / "images/00001.png").read_bytes()
        for path in ("a/Sequence1", "b/Sequence2", "b/Sequence1")
    ]
    assert frames[0] == frames[1] != frames[2]


def test_the_scene_can_be_fixed_and_16_bit_read_back(tmp_path, run_main, monkeypatch):
    families = []
    simulate = synthetic.simulate

    def noted(size, frames, recipe, rng):
        families.append(recipe["scene"]["families"])
        return simulate(size, frames, recipe, rng)

    monkeypatch.setattr(synthetic, "simulate", noted)
    (tmp_path / "deep.yaml").write_text("detector: {bits: 16}")
    options = ("--preset", tmp_path / "deep.yaml", "--scene", "sea", "--train", 0, "--test", 1)
    assert run_main(synthetic.main, "--out", tmp_path / "a", *options, *SMALL)[0] == 0
    assert families == [{"sea": 1}]
    frame = cv2.imread(str(tmp_path / "a/Sequence1/images/00001.png"), cv2.IMREAD_UNCHANGED)
    assert frame.dtype == np.uint16
    assert 256 * 85 < frame.mean() < 256 * 125


@pytest.mark.parametrize(
    "option",
    [
        ("--frames", 0),
        ("--size", 3),
        ("--train", -1),
        ("--seed", -2),
        ("--preset", "nutd"),
        ("--scene", "space"),
        ("--workers", 99999999999),
        ("--size", 99999999999),
        ("--frames", 99999999999),
        ("--train", 100000000),
        ("--frames", 100000, "--size", 8192),
    ],
)
def test_bad_numbers_are_one_line(tmp_path, run_main, option):
    status, _, err = run_main(synthetic.main, "--out", tmp_path / "x", *option)
    assert status == 2
    assert option[0].strip("-") in err
    assert not (tmp_path / "x").exists()
    assert err.count("\n") == 1
