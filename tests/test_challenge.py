"""test.py --submission, --score and --sweep from end to end, on a small set in SatVideoIRSDT's
layout, with a detector that needs no weights."""

import csv
import json
import shutil
import zipfile

import numpy as np
import pytest

from tests.conftest import load_command, write_image
from utils.submission import Extent, read_submission, write_submission

test_command = load_command("test")
FRAMES, H, W = 6, 24, 32
EXTENTS = {name: Extent(FRAMES, H, W) for name in ("000001", "000002")}


def true_targets(name):
    """Two targets of 2 x 2 pixels that cross the first sequence, one in the second: (id, x, y) of
    their top left pixels by frame."""
    if name == "000002":
        return [[(5, 4 + 2 * t, 9)] for t in range(FRAMES)]
    return [[(1, 3 + 2 * t, 4), (2, 25 - 2 * t, 18)] for t in range(FRAMES)]


@pytest.fixture(scope="session")
def satvideo(tmp_path_factory):
    """Bright targets on a flat background; masks with instance ids for val, none for test."""
    root = tmp_path_factory.mktemp("satvideo")
    for name in EXTENTS:
        for t, targets in enumerate(true_targets(name)):
            frame, mask = np.full((H, W), 50, np.uint8), np.zeros((H, W), np.uint8)
            for track, x, y in targets:
                frame[y : y + 2, x : x + 2], mask[y : y + 2, x : x + 2] = 200, track
            write_image(root / f"val/{name}/img/{t + 1:06d}.png", frame)
            write_image(root / f"val/{name}/mask/{t + 1:06d}.png", mask)
            write_image(root / f"test/{name}/img/{t + 1:06d}.png", frame)
    for split in ("val", "test"):
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in EXTENTS))
    return root


@pytest.fixture
def run_test(run_main, satvideo, tmp_path):
    """Evaluate into tmp_path/out: run_test(*more) -> (status, stdout, stderr)."""

    def run(*more):
        return run_main(
            test_command.main, "--classical", "TopHat", "--seqlen", 4, "--dataset", "SatVideoIRSDT",
            "--datapath", satvideo, "--output", tmp_path / "out", "--device", "cpu", *more,
        )  # fmt: skip

    return run


@pytest.fixture
def run_score(run_main, satvideo):
    """Score a submission: run_score(path, *more) -> (status, stdout, stderr)."""

    def run(path, *more):
        return run_main(
            test_command.main, "--score", path, "--dataset", "SatVideoIRSDT", "--datapath",
            satvideo, *more,
        )  # fmt: skip

    return run


def perfect():
    """The truth as a submission: targets (track, x, y) by sequence and frame."""
    return {
        name: [[(track, x + 0.5, y + 0.5) for track, x, y in frame] for frame in true_targets(name)]
        for name in EXTENTS
    }


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_submission_for_splits_with_and_without_masks(run_test, tmp_path, split):
    path = tmp_path / "out.zip"
    status, out, err = run_test("--submission", path, "--split", split)
    assert (status, err) == (0, "")
    assert f"  {path}\n" in out
    assert "coordinates: row then column (the other: --coordinate_order x_y)" in out
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["000001.txt", "000002.txt"]
        first = archive.read("000001.txt").decode().splitlines()[0]
    assert first == "00001   2   0     4.50  3.50   0     18.50  25.50"
    assert (tmp_path / "out/metrics.json").is_file()
    assert not (tmp_path / "out/visual").exists()


def test_x_then_y(run_test, tmp_path):
    path = tmp_path / "out.zip"
    status, out, _ = run_test("--submission", path, "--coordinate_order", "x_y")
    assert status == 0
    assert "coordinates: x y" not in out
    assert "coordinates: x then y (the other: --coordinate_order row_column)" in out
    with zipfile.ZipFile(path) as archive:
        assert archive.read("000001.txt").startswith(b"00001   2   0     3.50  4.50   0     25.50")


def test_a_submission_is_scored(run_test, run_score, tmp_path):
    path = tmp_path / "out.zip"
    assert run_test("--submission", path, "--submission_ids", "track")[0] == 0
    status, out, err = run_score(path)
    assert (status, err) == (0, "")
    assert "overall" in out
    found = json.loads((tmp_path / "out.score.json").read_text())
    assert list(found) == [
        "submission", "dataset", "protocol", "notes", "overall", "sequences"
    ]  # fmt: skip
    overall = found["overall"]
    assert (overall["targets"], overall["submitted"], overall["matched"]) == (18, 18, 18)
    assert (overall["true_tracks"], overall["submitted_tracks"]) == (3, 3)
    assert (overall["f1"], overall["bonus"], overall["total"]) == (1.0, 10, 110.0)
    assert found["protocol"]["match_radius"] == 3.0
    assert found["notes"] == []
    with open(tmp_path / "out.score.csv") as file:
        rows = {row["sequence"]: row for row in csv.DictReader(file)}
    assert [int(rows[name]["matched"]) for name in EXTENTS] == [12, 6]
    for row, name in zip(rows.values(), EXTENTS, strict=True):
        assert float(row["total"]) == found["sequences"][name]["total"]


def test_a_score_by_hand(run_score, tmp_path):
    """One target off by 5 pixels in every frame, one a false alarm once, no ids in sequence 2."""
    targets = perfect()
    targets["000001"] = [[(8, a[1], a[2]), (9, b[1] + 3, b[2] + 4)] for a, b in targets["000001"]]
    targets["000001"][0].append((0, 15.0, 12.0))
    targets["000002"] = [[(0, x, y) for _, x, y in frame] for frame in targets["000002"]]
    path = tmp_path / "out.zip"
    write_submission(path, targets, EXTENTS)
    results = {}
    for radius in (3, 5):
        assert run_score(path, "--match_radius", radius, "--output", tmp_path / "o")[0] == 0
        results[radius] = json.loads((tmp_path / "o/out.score.json").read_text())["overall"]
    near, wide = results[3], results[5]
    assert (near["targets"], near["submitted"], near["matched"]) == (18, 19, 12)
    assert (near["recall"], near["precision"]) == (12 / 18, 12 / 19)
    assert (near["true_tracks"], near["submitted_tracks"], near["correct_tracks"]) == (3, 2, 1)
    assert near["bonus"] == 2 + 0  # 1 of 3 complete, 1 of 2 accurate
    assert near["total"] == 100 * 24 / 37 + 2
    assert (wide["matched"], wide["correct_tracks"], wide["bonus"]) == (18, 2, 5 + 5)


def test_a_folder_is_scored_and_written_beside(run_score, tmp_path):
    path = tmp_path / "team/out.zip"
    path.parent.mkdir()
    write_submission(path, perfect(), EXTENTS)
    shutil.unpack_archive(path, tmp_path / "team/mine.v2")
    status, out, _ = run_score(tmp_path / "team/mine.v2")
    assert status == 0
    assert "110.00" in out
    assert (tmp_path / "team/mine.v2.score.json").is_file()
    assert (tmp_path / "team/mine.v2.score.csv").is_file()


def test_white_masks_leave_tracks_unscored(run_score, run_main, satvideo, tmp_path):
    root = tmp_path / "white"
    shutil.copytree(satvideo, root)
    for path in root.glob("val/*/mask/*.png"):
        white = np.zeros((H, W), np.uint8)
        for _, x, y in true_targets(path.parent.parent.name)[int(path.stem) - 1]:
            white[y : y + 2, x : x + 2] = 255
        write_image(path, white)
    path = tmp_path / "out.zip"
    write_submission(path, perfect(), EXTENTS)
    status, out, _ = run_score(path, "--datapath", root)
    assert status == 0
    assert "note: tracks cannot be scored: the masks of 2 of 2 sequences" in out
    overall = json.loads((tmp_path / "out.score.json").read_text())["overall"]
    assert (overall["f1"], overall["total"], overall["true_tracks"]) == (1.0, None, None)


def test_a_likelier_order_is_pointed_out(run_score, tmp_path):
    """Targets near the diagonal lie inside the frame in either order."""
    swapped = {
        name: [[(t, min(y, H - 1), min(x, H - 1)) for t, x, y in frame] for frame in frames]
        for name, frames in perfect().items()
    }
    path = tmp_path / "out.zip"
    write_submission(path, swapped, EXTENTS)
    status, out, _ = run_score(path)
    assert status == 0
    assert "would match with --coordinate_order x_y" in out
    assert "would match" not in run_score(path, "--coordinate_order", "x_y")[1]


def test_the_best_of_a_sweep_scores_as_promised(run_test, run_score, tmp_path):
    status, out, err = run_test(
        "--sweep", "--submission_ids", "track", "--sweep_thresholds", "150, 10,100",
        "--sweep_areas", "1,4,5",
    )  # fmt: skip
    assert (status, err) == (0, "")
    found = json.loads((tmp_path / "out/sweep.json").read_text())
    protocol, best = found["protocol"], found["best"]
    assert (protocol["register"], protocol["precision"]) == ("none", "fp32")
    assert {"seqlen", "overlap", "fusion", "compiled", "device", "versions"} <= set(protocol)
    assert len(found["settings"]) == 9
    assert [r["total"] for r in found["settings"] if r["min_area"] == 5] == [0.0] * 3
    assert best == found["settings"][0] == max(found["settings"], key=lambda r: r["total"])
    chosen = [f"--{key}={best[key]}" for key in ("submission_threshold", "min_area")]
    assert f"best: {' '.join(chosen).replace('=', ' ')}\n" in out
    path = tmp_path / "out.zip"
    assert run_test("--submission", path, "--submission_ids", "track", *chosen)[0] == 0
    assert run_score(path)[0] == 0
    overall = json.loads((tmp_path / "out.score.json").read_text())["overall"]
    assert overall == {key: best[key] for key in overall}
    with open(tmp_path / "out/sweep.csv") as file:
        assert [float(r["f1"]) for r in csv.DictReader(file)] == [
            r["f1"] for r in found["settings"]
        ]


def test_a_sweep_counts_what_its_thresholds_find(run_test, satvideo, tmp_path):
    """A dim neighbour: found at a low threshold, gone at a high one, too small for a least area."""
    root = tmp_path / "dim"
    shutil.copytree(satvideo, root)
    for path in root.glob("val/000002/img/*.png"):
        frame = np.full((H, W), 50, np.uint8)
        ((_, x, y),) = true_targets("000002")[int(path.stem) - 1]
        frame[y : y + 2, x : x + 2] = 200
        frame[20, 2] = 90
        write_image(path, frame)
    assert run_test("--datapath", root, "--sweep", "--sweep_thresholds", "5,120")[0] == 0
    settings = json.loads((tmp_path / "out/sweep.json").read_text())["settings"]
    submitted = {(r["submission_threshold"], r["min_area"]): r["submitted"] for r in settings}
    assert submitted[5, 1] == 18 + FRAMES
    assert submitted[5, 2] == submitted[120, 1] == 18
    assert submitted[5, 6] == submitted[120, 9] == 0


def test_a_sweep_that_finds_nothing_says_so(run_test):
    status, out, _ = run_test("--sweep", "--sweep_areas", "5,6")
    assert status == 0
    assert "note: no setting found a single target" in out
    assert "no setting" not in run_test("--sweep", "--sweep_areas", "4,5")[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--submission", "out.txt"], "expected a file name that ends in .zip"),
        (["--submission", "/proc/nowhere/out.zip"], "cannot write to /proc/nowhere"),
        (["--submission", "out.zip", "--sweep"], "not allowed with argument"),
        (["--submission_threshold", "255"], "'255': expected a whole number"),
        (["--submission_threshold", "0.4"], "'0.4': expected a whole number"),
        (["--min_area", "0"], "above 0"),
        (["--centroid", "mean"], "invalid choice"),
        (["--sweep", "--split", "test"], "no masks of the test split: --sweep needs them"),
        (["--sweep", "--sweep_thresholds", "10,,20"], "'': expected a whole number"),
        (["--sweep", "--sweep_areas", "1;2"], "'1;2': expected a whole number"),
        (["--score", "out.zip"], "--score needs no run"),
        (["--sweep", "--split", "train"], "invalid choice"),
    ],
)
def test_wrong_options_are_one_line_with_status_2(run_test, more, message):
    status, _, err = run_test(*more)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("spoil", "more", "message"),
    [
        ("absent", [], "no such file; --score takes a zip file or a folder"),
        ("text", [], "not a zip file that can be read"),
        ("one sequence", [], "000002.txt is missing"),
        ("none", ["--split", "test"], "no masks of the test split: --score needs them"),
        ("none", ["--match_radius", "0"], "above 0"),
        ("none", ["--datapath", "/nowhere"], "/nowhere: no such folder"),
        ("none", ["--output", "/proc/nowhere"], "cannot write to /proc/nowhere"),
        ("none", ["--coordinate_order", "x_y"], "all lie inside with --coordinate_order row_col"),
    ],
)
def test_bad_submissions_are_one_line_with_status_2(run_score, tmp_path, spoil, more, message):
    path = tmp_path / "out.zip"
    if spoil == "text":
        path.write_text("00001   0\n")
    elif spoil == "one sequence":
        write_submission(path, {"000001": perfect()["000001"]}, {"000001": EXTENTS["000001"]})
    elif spoil == "none":
        write_submission(path, perfect(), EXTENTS)
    status, _, err = run_score(path, *more)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_an_interrupted_run_leaves_no_submission(run_test, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.submission.SubmissionWriter.write", stop)
    path = tmp_path / "zip/out.zip"
    assert run_test("--submission", path)[0] == 130
    assert list(path.parent.iterdir()) == []


def test_what_is_written_is_what_is_read(run_test, tmp_path):
    path = tmp_path / "out.zip"
    run_test("--submission", path, "--centroid", "weighted", "--submission_ids", "track")
    read = read_submission(path, EXTENTS)
    for name, frames in perfect().items():
        for found, true in zip(read[name], frames, strict=True):
            assert found[:, 1:].tolist() == [[x, y] for _, x, y in true]
