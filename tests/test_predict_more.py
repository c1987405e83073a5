"""predict.py beyond detections: submissions, attribution, moving cameras, --compile."""

import csv
import json
import zipfile

import numpy as np
import pytest

from tests.conftest import load_command, write_image
from tests.predicting import H, N, T, W, predict_command, read_json, read_table, write_clip
from utils.errors import InputError
from utils.prediction_options import CHALLENGE
from utils.submission import Extent, read_submission


@pytest.fixture
def stacks(clip, tmp_path):
    """Two inputs: the clip, and its second half."""
    np.save(tmp_path / "one.npy", clip)
    np.save(tmp_path / "two.npy", clip[10:])
    return tmp_path / "one.npy", tmp_path / "two.npy"


@pytest.mark.parametrize("ids", ["zero", "track"])
def test_a_submission_holds_the_detections_of_all_inputs(
    run_predict,
    stacks,
    maps,
    tmp_path,
    ids,
):
    more = ("--no-video", "--threshold", maps[1], "--submission_ids", ids)
    assert run_predict(stacks[0], *more)[0] == 0  # finished before: is in it all the same
    status, out, err = run_predict(*stacks, *more, "--submission", tmp_path / "out.zip")
    assert (status, err) == (0, "")
    assert "row then column" in out
    extents = {"one": Extent(N, H, W), "two": Extent(10, H, W)}
    targets = read_submission(tmp_path / "out.zip", extents)
    for name, extent in extents.items():
        folder = tmp_path / "out" / name
        rows = read_table(folder)
        assert rows
        tracks = {t["track"]: t for t in read_json(folder, "detections")["tracks"]}
        expected = [[] for _ in range(extent.frames)]
        for row in rows:
            track = int(row["track"]) if ids == "track" else 0
            track = track if track and tracks[track]["confirmed"] else 0
            expected[int(row["frame"]) - 1].append((track, float(row["x"]), float(row["y"])))
        for found, wanted in zip(targets[name], expected, strict=True):
            np.testing.assert_allclose(found, np.array(wanted).reshape(-1, 3), atol=0.0051)


def test_a_submission_has_the_threshold_of_the_challenge(run_predict, stacks, tmp_path):
    status, _, err = run_predict(stacks[1], "--no-video", "--submission", tmp_path / "out.zip")
    assert (status, err) == (0, "")
    assert read_json(tmp_path / "out/two")["protocol"]["threshold"] == CHALLENGE
    assert zipfile.ZipFile(tmp_path / "out.zip").namelist() == ["two.txt"]


def test_a_detection_is_explained(run_predict, stacks, maps, tmp_path):
    more = ("--no-video", "--threshold", maps[1])
    assert run_predict(stacks[0], *more)[0] == 0
    with open(tmp_path / "out/one/detections.csv") as file:
        row = list(csv.DictReader(file))[-1]
    where = f"{row['frame']},{row['x']},{row['y']}"
    status, out, err = run_predict(stacks[0], *more, "--overwrite", "--attribution", where)
    assert (status, err) == (0, "")
    assert f"one, frame {row['frame']}, target" in out
    (arrays,) = (tmp_path / "out/one").glob("*.npz")
    with np.load(arrays) as found:
        assert found["frame"] == int(row["frame"])
        assert found["mask"].sum() == int(row["area"])
        assert np.isfinite(found["influence"]).all()
    assert arrays.with_suffix(".png").stat().st_size > 1000
    status, out, err = run_predict(stacks[0], *more, "--attribution", where)
    assert (status, err) == (0, "")
    assert "one: finished before" in out
    record = read_json(arrays.parent, arrays.stem)
    assert (record["frame"], record["source"]) == (int(row["frame"]), "detection")
    assert record["protocol"]["attribution"]["baseline"] == "zero"
    assert {"run", "checkpoint", "normalisation", "versions"} <= set(record["protocol"])


def test_what_an_earlier_run_left_is_removed(run_predict, stacks, maps, tmp_path):
    place = tmp_path / "out/one"
    more = ("--threshold", maps[1])
    assert run_predict(stacks[0], *more, "--save_maps", "--frames", T)[0] == 0
    for name in (
        "one_frame00003_target1.npz",
        "one_frame00003_target1.png",
        "one_frame00003_target1.json",
        ".overlay-abcd1234.mp4",
    ):
        (place / name).write_bytes(b"")
    (place / "mine.png").write_bytes(b"")
    assert run_predict(stacks[0], *more, "--frames", T, "--no-video", "--overwrite")[0] == 0
    written = ["contact_sheet.png", "detections.csv", "detections.json", "summary.json"]
    assert sorted(p.name for p in place.iterdir()) == sorted([*written, "mine.png"])

    broken = np.load(stacks[0]).astype(np.float32)
    broken[0, 0, 0] = np.nan
    np.save(stacks[0], broken)
    assert run_predict(stacks[0], *more, "--overwrite")[0] == 2
    assert [p.name for p in place.iterdir()] == ["mine.png"]


def test_a_changed_input_is_not_finished(run_predict, clip, tmp_path):
    folder = write_clip(tmp_path / "clip", clip[:12])
    more = ("--no-video", "--threshold", 0.5)
    assert run_predict(folder / "?.png", "--no-video")[0] == 0  # the default is 0.5 too
    status, out, _ = run_predict(folder / "?.png", *more)
    assert status == 0
    assert "finished before" in out
    status, _, err = run_predict(folder, *more)
    assert (status, err.count("\n")) == (2, 1)
    assert "was made with length 10, now it is 12: --overwrite" in err
    write_image(folder / "3.png", clip[15])
    status, _, err = run_predict(folder / "?.png", *more)
    assert (status, err.count("\n")) == (2, 1)
    assert f"was made before files of {folder} changed: --overwrite" in err


def test_a_truncated_end_is_a_warning_and_no_frame(run_predict, clip, tmp_path):
    path = tmp_path / "cut.npz"
    np.savez_compressed(path, clip)
    content = bytearray(path.read_bytes())
    content[9000:9010] = bytes(10)
    path.write_bytes(content)
    status, out, err = run_predict(path, "--no-video", "--skip_bad")
    assert (status, err.count("\n")) == (0, 1)
    assert "warning: cut: " in err
    assert "cannot be read on" in err
    summary = read_json(tmp_path / "out/cut")
    assert 0 < summary["input"]["frames"] < N
    assert summary["input"]["bad_frames"] == []
    assert "cannot be read on" in summary["warnings"][0]
    assert "bad" not in out


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("21,3,3", "no frame 21: one has 20"),
        ("5,400,400", "frame 5: nothing is detected near 400,400; the nearest is at"),
        ("5,3", "expected FRAME,X,Y"),
        ("0,3,3", "expected a whole number"),
        ("5,nan,3", "expected a number"),
    ],
)
def test_what_cannot_be_explained_is_one_line(run_predict, stacks, where, message):
    more = ("--no-video", "--threshold", 0)
    status, _, err = run_predict(stacks[0], *more, "--attribution", where)
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


def test_what_fails_to_be_explained_costs_nothing_else(run_predict, stacks, tmp_path, monkeypatch):
    def fail(*_):
        raise InputError("too large")

    monkeypatch.setattr(predict_command.Explainer, "explain", fail)
    more = (stacks[1], "--no-video", "--threshold", 0)
    assert run_predict(*more, "--attribution", "3,3,3")[0] == 2
    monkeypatch.undo()
    assert "finished before" in run_predict(*more)[1]
    status, _, err = run_predict(*more, "--attribution", "3,3,3")
    assert (status, err.count("\n")) == (2, 1)
    assert "made with attribution None, now it is [3, 3.0, 3.0]: --overwrite" in err


def test_a_wrong_place_is_said_when_its_frame_passes(run_predict, stacks, monkeypatch):
    passed = []

    def pass_on(scores):
        passed.append(1)
        return np.zeros((H, W), np.uint8)

    monkeypatch.setattr(predict_command, "thumbnail", pass_on)
    more = ("--no-video", "--threshold", 0)
    assert run_predict(stacks[0], *more, "--attribution", "21,3,3")[0] == 2
    assert passed == []
    assert run_predict(stacks[0], *more, "--attribution", "5,400,400")[0] == 2
    assert len(passed) == 4


def test_only_what_is_detected_is_explained(run_predict, clip, tmp_path):
    """No components below --min_area, none of bad frames."""
    np.save(tmp_path / "clip.npy", clip)
    more = ("--no-video", "--threshold", 0, "--skip_bad", "--attribution", "3,3,3")
    status, _, err = run_predict(tmp_path / "clip.npy", *more, "--min_area", H * W + 1)
    assert (status, err.count("\n")) == (2, 1)
    assert "frame 3: nothing is detected near 3,3" in err
    broken = clip.astype(np.float32)
    broken[2, 0, 0] = np.nan
    np.save(tmp_path / "clip.npy", broken)
    status, _, err = run_predict(tmp_path / "clip.npy", *more)
    assert (status, err.count("\n")) == (2, 1)
    assert "frame 3: nothing is detected near 3,3" in err


def test_attribution_is_of_frames_as_they_are(run_predict, run_main, stacks, tmp_path):
    status, _, err = run_predict(stacks[1], "--register", "auto", "--attribution", "1,1,1")
    assert (status, err.count("\n")) == (2, 1)
    assert "--register auto detects in moved ones" in err
    status, _, err = run_main(
        load_command("test").main, "--attribution", "--register", "auto", "--log_dir", "x"
    )
    assert (status, err.count("\n")) == (2, 1)
    assert "--register auto detects in moved ones" in err


def test_one_input_is_explained_at_a_time(run_predict, stacks):
    status, _, err = run_predict(*stacks, "--attribution", "1,1,1")
    assert (status, err.count("\n")) == (2, 1)


def test_registration_is_part_of_the_protocol(run_predict, stacks, tmp_path):
    assert run_predict(stacks[1], "--no-video", "--register", "auto")[0] == 0
    summary = json.loads((tmp_path / "out/two/summary.json").read_text())
    assert summary["protocol"]["register"] == "auto"
    status, _, err = run_predict(stacks[1], "--no-video")
    assert (status, err.count("\n")) == (2, 1)
    assert "was made with register auto" in err
