"""test.py from end to end, on the simulated set and small folders."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from tests.conftest import load_command, write_frames
from tests.golden import read_published_log
from utils.checkpoints import load_checkpoint, save_checkpoint

test_command = load_command("test")


@pytest.fixture
def run_test(run_main, trained, simulated, tmp_path):
    """Evaluate the trained run into tmp_path/out: run_test(*more) -> (status, stdout, stderr)."""

    def run(*more):
        return run_main(
            test_command.main, "--seqlen", 8, "--dataset", "Synthetic", "--datapath", simulated,
            "--logpath", trained.parent, "--log_dir", trained.name, "--output", tmp_path / "out",
            *more,
        )  # fmt: skip

    return run


@pytest.fixture
def run_copy(trained, tmp_path):
    """A copy of the trained run to spoil."""
    return shutil.copytree(trained, tmp_path / "log" / trained.name)


def results(tmp_path):
    return json.loads((tmp_path / "out/metrics.json").read_text())


def test_published_options_and_defaults():
    options = vars(test_command.build_parser().parse_args([]))
    published = {
        "batch_size": 1, "epoch": None, "logpath": "./log/", "visual": False, "log_dir": None,
        "threshold_eval": 0.5, "attribution": False,
    }  # fmt: skip
    assert {key: options[key] for key in published} == published
    assert {"gpu", "seqlen", "datapath", "dataset"} <= set(options)


def test_metrics_json_holds_what_was_promised(run_test, tmp_path):
    status, out, err = run_test()
    assert (status, err) == (0, "")
    found = results(tmp_path)
    assert list(found) == [
        "run", "model", "dataset", "protocol", "overall", "subsets", "sequences"
    ]  # fmt: skip
    report = found["overall"]
    by_threshold = ["thresholds", "hits", "false_pixels", "pd", "fa"]
    assert list(report) == ["frames", "pixels", "targets", *by_threshold, "auc", "iou"]
    assert report["frames"] == 52
    assert report["pixels"] == 52 * 24 * 24
    assert all(len(report[k]) == 27 for k in by_threshold)
    assert report["pd"] == [h / report["targets"] for h in report["hits"]]
    sums = np.sum([s["false_pixels"] for s in found["sequences"].values()], axis=0)
    assert sums.tolist() == report["false_pixels"]
    protocol = found["protocol"]
    assert (protocol["window_radius"], protocol["border"], protocol["overlap"]) == (4, "clipped", 0)
    assert protocol["normalisation"]["source"] == "run"
    assert "overall" in out
    assert "protocol: best_model.pth (epoch" in out


def test_subsets_of_a_simulated_set_come_from_its_truth(run_test, tmp_path):
    run_test()
    found = results(tmp_path)
    assert set(found["subsets"]) == {"low_snr", "high_snr"}
    assert found["subsets"]["high_snr"] == found["overall"]  # the demo's targets have 6 and more
    assert found["subsets"]["low_snr"]["frames"] == 0


def test_the_other_files_agree_with_it(run_test, tmp_path):
    run_test()
    found = results(tmp_path)
    with open(tmp_path / "out/sequences.csv") as file:
        rows = {row["sequence"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(found["sequences"])
    for name, report in found["sequences"].items():
        middle = report["thresholds"].index(0.5)
        assert int(rows[name]["hits"]) == report["hits"][middle]
        assert float(rows[name]["fa"]) == report["fa"][middle]
    log = read_published_log(tmp_path / "out/eval.txt")
    assert log["Final"]["hits"] == found["overall"]["hits"]
    assert log["iou"] == pytest.approx(found["overall"]["iou"], abs=1e-6)
    for name in ("roc.png", "frames.png"):
        assert cv2.imread(str(tmp_path / "out" / name)).std() > 1


def test_running_again_adds_to_the_log_and_replaces_the_numbers(run_test, tmp_path):
    run_test()
    first = results(tmp_path)
    run_test()
    assert results(tmp_path) == first
    assert (tmp_path / "out/eval.txt").read_text().count("Final results") == 2


def test_border_and_radius_are_part_of_the_protocol(run_test, tmp_path):
    run_test("--border", "published", "--window_radius", 0)
    wide = results(tmp_path)
    assert wide["protocol"]["border"] == "published"
    run_test("--window_radius", 5)
    narrow = results(tmp_path)
    assert narrow["overall"]["false_pixels"][0] < wide["overall"]["false_pixels"][0]


def test_registration_is_part_of_the_protocol(run_test, tmp_path):
    for register in ("none", "auto"):
        status, out, _ = run_test("--register", register)
        assert status == 0
        assert results(tmp_path)["protocol"]["register"] == register
        assert f"registered: {register}" in out
    status, _, err = run_test("--register", "sideways")
    assert status == 2
    assert "'sideways'" in err


def test_visual_maps_are_truncated_and_numbered_from_1(run_test, tmp_path):
    run_test("--visual")
    folder = tmp_path / "out/visual"
    names = sorted(p.name for p in (folder / "Sequence4").iterdir())
    assert names[0] == "00001.png"
    assert len(names) == 26
    assert cv2.imread(str(folder / "Sequence4/00001.png"), -1).dtype == np.uint8


def test_subsets_are_taken_by_name(run_test, simulated, tmp_path):
    renamed = tmp_path / "nudt"
    for theirs, ours in (("Sequence4", "Sequence85"), ("Sequence5", "Sequence47")):
        shutil.copytree(simulated / theirs, renamed / ours)
    (renamed / "test.txt").write_text("Sequence85/1.mat\nSequence47/1.mat\n")
    run_test("--dataset", "NUDT-MIRSDT", "--datapath", renamed)
    found = results(tmp_path)
    for subset, name in (("low_snr", "Sequence47"), ("high_snr", "Sequence85")):
        assert {**found["subsets"][subset], "snr": None} == found["sequences"][name]
    assert found["protocol"]["normalisation"]["source"] == "data set NUDT-MIRSDT"


def test_normalisation_from_run_images_and_by_hand(run_test, trained, tmp_path):
    stored = load_checkpoint(trained / "checkpoints/best_model.pth")["mean"]
    used = {}
    for choice in ("dataset", "run", "images"):
        assert run_test("--normalize", choice)[0] == 0
        used[choice] = results(tmp_path)["protocol"]["normalisation"]
    assert used["dataset"]["mean"] == used["run"]["mean"] == stored
    assert used["images"]["mean"] != stored
    run_test("--mean", 50, "--std", 7)
    assert results(tmp_path)["protocol"]["normalisation"] == {
        "mean": 50.0, "std": 7.0, "source": "given"
    }  # fmt: skip


def test_a_split_without_masks_is_detected_not_scored(run_test, simulated, tmp_path):
    shutil.copytree(simulated / "Sequence4/images", tmp_path / "mine/clip/images")
    status, out, err = run_test("--dataset", "Folder", "--datapath", tmp_path / "mine")
    assert (status, err) == (0, "")
    assert "no masks: detected, drawn and stored, not scored" in out
    assert results(tmp_path)["overall"] is None
    assert len(list((tmp_path / "out/visual/clip").iterdir())) == 26
    assert (tmp_path / "out/frames.png").is_file()


@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_short_sequences_are_scored_without_their_filling(run_test, tmp_path, count):
    write_frames(tmp_path / "mine/clip/images", count)
    write_frames(tmp_path / "mine/clip/masks", count, value=0)
    status, _, err = run_test("--dataset", "Folder", "--datapath", tmp_path / "mine")
    assert status == 0, err
    overall = results(tmp_path)["overall"]
    assert (overall["frames"], overall["targets"]) == (count, count - 1)
    if count == 1:
        assert overall["pd"] == [None] * 27
        assert overall["auc"] is None


@pytest.mark.parametrize("size", [(3, 9), (1, 1), (9, 2)])
def test_frames_too_small_for_the_network_are_refused(run_test, tmp_path, size):
    write_frames(tmp_path / "mine/clip/images", 4, size=size)
    status, _, err = run_test("--dataset", "Folder", "--datapath", tmp_path / "mine")
    assert status == 2
    assert f"clip: frames of {size[0]} x {size[1]} pixels, at least 4 needed" in err


def test_the_own_data_set_keeps_the_mean_and_std_of_training(run_test, run_copy, tmp_path):
    """Others are normalised by their own, as published."""
    path = run_copy / "checkpoints/best_model.pth"
    save_checkpoint(path, {**load_checkpoint(path), "dataset": "NUDT-MIRSDT", "mean": 90.0})
    write_frames(tmp_path / "mine/clip/images", 9)
    (tmp_path / "mine/test.txt").write_text("clip\n")
    more = ("--logpath", run_copy.parent, "--datapath", tmp_path / "mine")
    used = {}
    for dataset in ("NUDT-MIRSDT", "SatVideoIRSDT"):
        if dataset == "SatVideoIRSDT":
            write_frames(tmp_path / "mine/val/clip/img", 9)
            (tmp_path / "mine/val.txt").write_text("clip\n")
        assert run_test(*more, "--dataset", dataset)[0] == 0
        used[dataset] = results(tmp_path)["protocol"]["normalisation"]["mean"]
    assert used == {"NUDT-MIRSDT": 90.0, "SatVideoIRSDT": 111.47}


def test_an_epoch_writes_under_its_own_name(run_test, run_copy, tmp_path):
    shutil.copy(run_copy / "checkpoints/best_model.pth", run_copy / "checkpoints/epoch_5_model.pth")
    assert run_test("--logpath", run_copy.parent, "--epoch", 5)[0] == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"eval_epoch-5.txt", "metrics_epoch-5.json"} <= names
    assert "metrics.json" not in names


def test_a_layout_of_ones_own(run_test, simulated, tmp_path):
    shutil.copytree(simulated / "Sequence4/images", tmp_path / "mine/film/a")
    shutil.copytree(simulated / "Sequence4/masks", tmp_path / "mine/truth/a")
    layout = tmp_path / "camera.yaml"
    layout.write_text("frames: film/{sequence}\nmasks: truth/{sequence}\nlists_required: false\n")
    assert run_test("--dataset", layout, "--datapath", tmp_path / "mine")[0] == 0
    assert results(tmp_path)["dataset"] == "camera"
    assert results(tmp_path)["overall"]["frames"] == 26


def spoil(run, fault):
    path = run / "checkpoints/best_model.pth"
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif fault == "no checkpoint":
        path.write_text("hello")
    elif fault == "another model":
        save_checkpoint(path, {**load_checkpoint(path), "model": "DeepPro-Plus"})
    elif fault == "unknown model":
        save_checkpoint(path, {**load_checkpoint(path), "model": "DeepBro"})
    elif fault == "NaN":
        state = load_checkpoint(path)
        state["model_state_dict"]["final.bias"][0] = float("nan")
        save_checkpoint(path, state)
    elif fault == "missing":
        path.unlink()
    elif fault == "code":
        torch.save({"model_state_dict": {}, "x": print}, path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", "not a checkpoint, or a truncated one"),
        ("no checkpoint", "not a checkpoint"),
        ("another model", "not the weights of DeepPro-Plus"),
        ("unknown model", "did you mean 'DeepPro'"),
        ("NaN", "NaN"),
        ("missing", "no such checkpoint"),
        ("code", "could execute code"),
    ],
)
def test_bad_checkpoints_are_refused_in_one_line(run_test, run_copy, fault, message):
    spoil(run_copy, fault)
    status, _, err = run_test("--logpath", run_copy.parent)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_code_in_a_run_folder_is_never_executed(run_test, run_copy, tmp_path):
    for name in ("DeepPro.py", "conftest.py", "__init__.py"):
        (run_copy / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (run_copy / "options.yaml").write_text("!!python/object/apply:os.system ['touch ran']")
    status, _, err = run_test("--logpath", run_copy.parent)
    assert status in (0, 2)
    assert err.count("\n") <= 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seqlen", 40], "was trained on windows of 8 frames"),
        (["--log_dir", "nothing"], "no run 'nothing'"),
        (["--dataset", "Syntetic"], "did you mean 'Synthetic'"),
        (["--datapath", "/nowhere"], "no such folder"),
        (["--split", "val"], "no split 'val'"),
        (["--epoch", 3], "epoch_3_model.pth: no such checkpoint"),
        (["--window_radius", -1], "of at least 0"),
        (["--window_radius", 30000], "at most 1000"),
        (["--threshold_eval", 2], "expected a probability"),
        (["--output", ""], "the path is empty"),
        (["--mean", "inf", "--std", 1], "expected a number"),
        (["--border", "round"], "invalid choice"),
        (["--output", "/proc/nowhere"], "cannot write to /proc/nowhere"),
        (["--mean", "1"], "go together"),
        (["--std", "0", "--mean", "1"], "above 0"),
        (["--device", "cuda", "--gpu", "99"], "GPU"),
    ],
)
def test_wrong_input_is_one_line_with_status_2(run_test, more, message):
    status, _, err = run_test(*more)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_classical_detector_needs_no_run(run_main, simulated, tmp_path):
    status, out, err = run_main(
        test_command.main, "--classical", "TopHat", "--seqlen", 8, "--dataset", "Synthetic",
        "--datapath", simulated, "--output", tmp_path / "out",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "TopHat on Synthetic\n" in out
    found = results(tmp_path)
    assert (found["run"], found["model"]) == (None, "TopHat")
    assert found["protocol"]["checkpoint"] == "no weights"
    assert found["overall"]["hits"][0] == found["overall"]["targets"]
    assert all(report["snr"] > 3 for report in found["sequences"].values())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--classical", "TopHat"], "give --output DIR"),
        (["--classical", "TopHat", "--log_dir", "r", "--output", "o"], "leave out --log_dir"),
        (["--classical", "Wiener", "--output", "o"], "invalid choice: 'Wiener'"),
    ],
)
def test_classical_options_that_do_not_fit(run_main, options, line):
    status, _, err = run_main(test_command.main, *options)
    assert status == 2
    assert line in err
    assert err.count("\n") == 1
