import csv
import filecmp

import pytest

from datasets import synthetic
from datasets.layouts import find_layout
from datasets.sequences import open_split


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


def test_interrupted_it_leaves_no_lists_and_can_be_run_again(tmp_path, run_main, monkeypatch):
    size = ("--out", tmp_path / "a", "--train", 1, "--test", 1, "--frames", 2, "--size", 16)
    size += ("--workers", 1)
    run_main(synthetic.main, *size)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "write_sequence", interrupted)
        assert run_main(synthetic.main, *size)[0] == 130
    assert not (tmp_path / "a/test.txt").exists()
    assert run_main(synthetic.main, *size)[0] == 0
    assert (tmp_path / "a/test.txt").exists()


def test_a_foreign_folder_is_left_alone(tmp_path, run_main):
    (tmp_path / "thesis.txt").write_text("precious")
    status, _, err = run_main(synthetic.main, "--out", tmp_path)
    assert status == 2
    assert "not empty" in err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "option",
    [("--frames", 0), ("--size", 3), ("--train", -1), ("--seed", -2), ("--preset", "nutd")],
)
def test_bad_numbers_are_one_line(tmp_path, run_main, option):
    status, _, err = run_main(synthetic.main, "--out", tmp_path / "x", *option)
    assert status == 2
    assert err.count("\n") == 1
