"""test.py --attribution from end to end, on the simulated set and small folders."""

import json
import shutil

import cv2
import numpy as np
import pytest

from tests.conftest import load_command, write_frames

test_command = load_command("test")


@pytest.fixture
def explain(run_main, trained, simulated, tmp_path):
    """Explain the trained run's answers into tmp_path/out: (status, stdout, stderr)."""

    def run(*more):
        return run_main(
            test_command.main, "--attribution", "--dataset", "Synthetic", "--datapath", simulated,
            "--logpath", trained.parent, "--log_dir", trained.name, "--output", tmp_path / "out",
            "--steps", 4, *more,
        )  # fmt: skip

    return run


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take most of the time; one test looks at them."""
    monkeypatch.setattr("utils.attribution_report.plot_attribution", lambda *_: None)


def read(tmp_path):
    return json.loads((tmp_path / "out/attribution/attribution.json").read_text())


def test_a_bare_call_explains_the_middle_of_every_sequence(explain, simulated, tmp_path):
    status, out, err = explain()
    assert (status, err) == (0, "")
    protocol, found = read(tmp_path)["protocol"], read(tmp_path)["targets"]
    assert (protocol["model"], protocol["split"]) == ("DeepPro", "test")
    assert protocol["checkpoint"].startswith("best_model.pth")
    assert protocol["normalisation"]["source"] == "run"
    assert protocol["detector"]["register"] == "none"
    assert protocol["attribution"] == {
        "seqlen": 8, "overlap": 0, "steps": 4, "refine": True, "baseline": "zero",
        "whole_frame": False, "device": protocol["detector"]["device"],
    }  # fmt: skip
    assert "torch" in protocol["versions"]
    assert {record["sequence"] for record in found} == {"Sequence4", "Sequence5"}
    for record in found:
        name = f"{record['sequence']}_frame{record['frame']:05d}_target{record['target']}"
        assert cv2.imread(str(tmp_path / f"out/attribution/{name}.png")).std() > 1
        stored = json.loads((tmp_path / f"out/attribution/{name}.json").read_text())
        assert stored == {"protocol": protocol, **record}
        arrays = np.load(tmp_path / f"out/attribution/{name}.npz")
        T, h, w = arrays["influence"].shape
        top, left = int(arrays["top"]), int(arrays["left"])
        assert T == 8
        assert arrays["baseline"].shape == arrays["mask"].shape == (h, w)
        assert tuple(arrays["size"]) == (24, 24)
        assert np.abs(arrays["influence"]).sum() > 0
        # The crop is that of the frames on disk.
        path = sorted((simulated / record["sequence"] / "images").iterdir())[record["frame"] - 1]
        frame = cv2.imread(str(path), -1)
        at = int(arrays["frame"] - arrays["first_frame"])
        assert (arrays["clip"][at] == frame[top : top + h, left : left + w]).all()
        mask = cv2.imread(str(simulated / record["sequence"] / "masks" / path.name), -1)
        assert mask[top : top + h, left : left + w][arrays["mask"]].all()
        assert record["complete"]
        assert record["sum"] == pytest.approx(arrays["influence"].sum(), rel=1e-3)
        assert record["sum"] == pytest.approx(arrays["f_clip"] - arrays["f_baseline"], rel=0.01)
        assert sum(record["shares"]) == pytest.approx(1)
        line = f"{record['sequence']}, frame {record['frame']}, target {record['target']} (mask"
        assert line in out
    assert out.count("influence sums to") == len(found)


def test_chosen_sequences_frames_targets_and_baseline(explain, undrawn, tmp_path):
    status, _, err = explain(
        "--sequences", "Sequence5", "--frames", "3,20", "--targets", 1, "--baseline", "median",
        "--whole_frame",
    )  # fmt: skip
    assert (status, err) == (0, "")
    found = read(tmp_path)["targets"]
    assert [(r["sequence"], r["frame"], r["target"]) for r in found] == [
        ("Sequence5", 3, 1), ("Sequence5", 20, 1)
    ]  # fmt: skip
    assert all(r["baseline"] == "median" for r in found)
    arrays = np.load(tmp_path / "out/attribution/Sequence5_frame00020_target1.npz")
    assert arrays["influence"].shape == (8, 24, 24)


def test_steps_left_as_they_are_may_be_incomplete(explain, undrawn, monkeypatch):
    monkeypatch.setattr("models.attribution.GAP", 1e-12)
    status, out, _ = explain("--no-refine", "--sequences", "Sequence4")
    assert status == 0
    assert "(4 steps, " in out
    assert "warning: " in out
    assert "take more --steps" in out


def test_without_masks_detections_are_explained(explain, undrawn, simulated, monkeypatch, tmp_path):
    shutil.copytree(simulated / "Sequence4/images", tmp_path / "mine/clip/images")
    monkeypatch.setattr(
        "models.attribution_targets.DETECTED", 0.0
    )  # a network of two epochs finds nothing
    status, out, err = explain("--dataset", "Folder", "--datapath", tmp_path / "mine")
    assert (status, err) == (0, "")
    assert "no masks: the targets are detections" in out
    (record,) = read(tmp_path)["targets"]
    assert (record["source"], record["pixels"], record["frame"]) == ("detection", 24 * 24, 14)


def test_a_sequence_shorter_than_the_window(explain, undrawn, tmp_path):
    write_frames(tmp_path / "mine/clip/images", 5)
    write_frames(tmp_path / "mine/clip/masks", 5)
    status, _, err = explain("--dataset", "Folder", "--datapath", tmp_path / "mine")
    assert (status, err) == (0, "")
    (record,) = read(tmp_path)["targets"]
    assert record["window"] == [1, 5]
    assert len(record["shares"]) == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--frames", 27], "Sequence4: no frame 27: it has 26 frames, counted from 1"),
        (["--frames", 5, "--targets", 9], "Sequence4, frame 5: no target 9: it has"),
        (["--frames", "0"], "expected a whole number above 0"),
        (["--frames", "a,2"], "expected a whole number above 0"),
        (["--targets", ""], "expected a whole number above 0"),
        (["--sequences", "Sequence44"], "unknown sequence 'Sequence44': did you mean"),
        (["--steps", 0], "expected a whole number above 0"),
        (["--sweep"], "--attribution stands alone: leave it or --sweep out"),
        (["--score", "out.zip"], "--attribution stands alone: leave it or --score out"),
        (["--submission", "out.zip"], "--attribution stands alone: leave it or --submission out"),
        (["--baseline", "black"], "invalid choice: 'black'"),
        (["--output", "/proc/nowhere"], "cannot write to /proc/nowhere"),
    ],
)
def test_wrong_input_is_one_line_with_status_2(explain, more, message):
    status, _, err = explain(*more)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_nothing_to_explain_and_no_network(explain, run_main, tmp_path):
    write_frames(tmp_path / "mine/clip/images", 1)
    write_frames(tmp_path / "mine/clip/masks", 1, value=0)
    status, _, err = explain("--dataset", "Folder", "--datapath", tmp_path / "mine")
    assert status == 2
    assert "nothing to explain: no frame holds a target" in err
    status, _, err = run_main(
        test_command.main, "--attribution", "--classical", "TopHat", "--output", tmp_path / "o"
    )
    assert status == 2
    assert "give --log_dir RUN, not --classical" in err


def test_choices_without_attribution_are_refused(run_main, trained, simulated):
    status, _, err = run_main(
        test_command.main, "--dataset", "Synthetic", "--datapath", simulated, "--log_dir",
        trained.name, "--logpath", trained.parent, "--sequences", "Sequence4",
    )  # fmt: skip
    assert (status, err.count("\n")) == (2, 1)
    assert "--sequences chooses what to explain" in err
