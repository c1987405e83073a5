"""predict.py beyond detections: submissions, attribution, moving cameras, --compile."""

import csv
import json
import zipfile

import numpy as np
import pytest

from tests.predicting import H, N, W, read_json, read_table
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
