"""train.py from end to end, on a simulated set of a few tiny sequences."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.conftest import TINY, read_records, write_frames
from tests.golden import REPOSITORY
from tests.training import same, train, weights
from utils.checkpoints import load_checkpoint
from utils.options import parse_options


def test_published_options_and_defaults():
    options = vars(train.build_parser().parse_args([]))
    published = {
        "model": "DeepPro-Plus", "batch_size": 4, "epoch": 32, "learning_rate": 0.001, "gpu_num": 1,
        "optimizer": "Adam", "dataset": "NUDT-MIRSDT", "log_dir": None, "savepath": Path("./log/"),
        "decay_rate": 1e-4, "seqlen": 40, "patch_size": 128, "step_size": 10, "lr_decay": 0.7,
        "threshold_eval": 0.5,
    }  # fmt: skip
    assert {key: options[key] for key in published} == published
    assert options["datapath"].parts == ("datasets", "NUDT-MIRSDT")
    argv = ["--gpu", "0", "--sample_rate", "0.1", "--optimizer", "SGD", "--log_dir", "x"]
    assert train.build_parser().parse_args(argv).optimizer == "SGD"


def test_a_run_holds_what_was_promised(trained):
    assert re.fullmatch(
        r"Synthetic__\d{4}-\d\d-\d\d_\d\d-\d\d__SoftIoU_DeepPro_DataL8", trained.name
    )
    files = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    assert files == {
        "options.yaml", "epochs.jsonl", "training.png", "logs/DeepPro.txt",
        "checkpoints/best_model.pth", "checkpoints/last_model.pth",
        "checkpoints/previous_model.pth", "eval.txt", "metrics.json", "sequences.csv", "roc.png",
        "frames.png", "summary.json",
    }  # fmt: skip
    options = yaml.safe_load((trained / "options.yaml").read_text())
    assert (options["model"], options["seqlen"], options["sample_rate"]) == ("DeepPro", 8, 0.1)
    records = read_records(trained / "epochs.jsonl")
    assert [r["epoch"] for r in records] == [1, 2]
    assert all(0 < r["loss"] <= 1 and r["seconds"] > 0 for r in records)
    state = load_checkpoint(trained / "checkpoints/best_model.pth")
    assert (state["model"], state["seqlen"], state["dataset"]) == ("DeepPro", 8, "Synthetic")
    assert state["std"] > 0
    assert state["class_avg_iou"] == max(r["iou"] for r in records)


def test_every_fifth_epoch_is_kept(run_train, tmp_path):
    assert run_train("--epoch", 6, "--log_dir", "six")[0] == 0
    kept = sorted(p.name for p in (tmp_path / "six/checkpoints").iterdir())
    assert kept == ["best_model.pth", "epoch_5_model.pth", "last_model.pth", "previous_model.pth"]


def stop_in_epoch(monkeypatch, number):
    """Ctrl-C in the middle of an epoch (counted from 1)."""
    real = train.train_one_epoch

    def interrupted(*arguments, **options):
        if options["label"].startswith(f"epoch {number}/"):
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(train, "train_one_epoch", interrupted)


def test_stopped_and_resumed_equals_never_stopped(run_train, run_main, tmp_path, monkeypatch):
    run_train("--log_dir", "whole", "--epoch", 3)
    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 2)
        status, _, err = run_train("--log_dir", "cut", "--epoch", 3)
    assert status == 130
    assert err.startswith("interrupted: 1 of 3 epochs are kept; go on with: python train.py --res")
    assert err.count("\n") == 1
    status, out, _ = run_main(train.main, "--resume", tmp_path / "cut")  # with its own options
    assert status == 0
    assert "continuing cut after epoch 1" in out
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    losses = [
        [r["loss"] for r in read_records(tmp_path / name / "epochs.jsonl")]
        for name in ("whole", "cut")
    ]
    assert losses[0] == losses[1]


def test_worker_processes_change_nothing(run_train, tmp_path):
    run_train("--log_dir", "one", "--epoch", 1)
    status, _, err = run_train("--log_dir", "two", "--epoch", 1, "--workers", 2)
    assert status == 0, err
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_a_loss_that_is_not_finite_names_the_clips(run_train, tmp_path, monkeypatch):
    run_train("--log_dir", "nan", "--epoch", 1)
    with monkeypatch.context() as patch:
        patch.setattr(train, "build_loss", lambda name: lambda logits, masks: logits.sum() * 1e999)
        status, _, err = run_train("--log_dir", "nan", "--epoch", 2)
    assert status == 2
    assert re.search(r"the loss is (nan|inf|-inf) at step 1 .*Sequence\d+ frames \d+ to \d+", err)
    assert err.count("\n") == 1
    assert load_checkpoint(tmp_path / "nan/checkpoints/last_model.pth")["epoch"] == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_keep_the_last_epoch(simulated, tmp_path, number, status):
    command = [sys.executable, "train.py", *TINY, "--datapath", simulated, "--savepath", tmp_path]
    command += ["--log_dir", "run", "--epoch", 100000]
    running = subprocess.Popen(
        [str(part) for part in command], cwd=REPOSITORY, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True,
        # A job in the background is born deaf to Ctrl-C, and so are its children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while len(read_records(tmp_path / "run/epochs.jsonl")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == status
    assert err.startswith("interrupted: ")
    assert err.count("\n") == 1
    assert "--resume" in err
    state = load_checkpoint(tmp_path / "run/checkpoints/last_model.pth")
    assert state["epoch"] >= 1
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint(simulated, run_train, tmp_path):
    """A file-size limit stands in for a full disk."""
    run_train("--log_dir", "run", "--epoch", 1)
    before = weights(tmp_path / "run")
    command = ["bash", "-c", 'ulimit -f 100; exec "$0" "$@"', sys.executable, "train.py", *TINY]
    command += ["--datapath", simulated, "--savepath", tmp_path, "--log_dir", "run", "--epoch", 3]
    done = subprocess.run(
        [str(part) for part in command], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "free some space" in done.stderr
    assert same(before, weights(tmp_path / "run")) or same(
        before, load_checkpoint(tmp_path / "run/checkpoints/previous_model.pth")["model_state_dict"]
    )
    assert not list((tmp_path / "run").rglob(".*"))


def test_selection_on_the_test_set_warns(run_train):
    status, out, _ = run_train("--select_on", "test", "--epoch", 1)
    assert status == 0
    assert "warning: the best epoch is chosen on the test set" in out


def test_config_sections_and_command_line(run_train, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("train: {loss: HPM, epoch: 7, optimizer: SGD}\ntest: {}\n")
    status, _, err = run_train("--config", config, "--log_dir", "c", "--epoch", 1)
    assert status == 0, err
    options = yaml.safe_load((tmp_path / "c/options.yaml").read_text())
    assert (options["loss"], options["epoch"], options["optimizer"]) == ("HPM", 1, "SGD")


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_configurations_that_are_shipped_parse(path):
    parse_options(train.build_parser(), "train", ["--config", str(path)])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "DeepProPlus"], "did you mean 'DeepPro-Plus'"),
        (["--dataset", "Syntetic"], "did you mean 'Synthetic'"),
        (["--loss", "SoftIou"], "did you mean 'SoftIoU'"),
        (["--datapath", "/nowhere"], "/nowhere: no such folder"),
        (["--sample_rate", "0.001"], "raise --sample_rate"),
        (["--batch_size", "50"], "does not fill one batch"),
        (["--val_fraction", "1.5"], "--val_fraction"),
        (["--resume", "nothing"], "no run 'nothing'"),
        (["--gpu_num", "2"], "run torchrun --nproc_per_node=2 "),
        (["--resume", ""], "the path is empty"),
        (["--threshold_eval", "50"], "expected a probability"),
        (["--mean", "3"], "--mean and --std go together"),
        (["--learning_rate", "-1"], "expected a number above 0"),
        (["--device", "cuda", "--gpu", "99"], "GPU"),
        (["--sed", "1"], "did you mean --seed"),
    ],
)
def test_wrong_input_is_one_line_with_status_2(run_train, tmp_path, more, message):
    status, _, err = run_train(*more)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_wrong_input_leaves_no_run_behind(run_train, tmp_path):
    for more in (
        ["--datapath", "/nowhere"], ["--dataset", "x"], ["--batch_size", "50"], ["--mean", "3"],
        ["--normalize", "run"], ["--device", "cuda", "--gpu", "99"],
    ):  # fmt: skip
        assert run_train(*more)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_missing_test_list_is_found_before_training(run_train, simulated, tmp_path):
    copy = shutil.copytree(simulated, tmp_path / "copy")
    (copy / "test.txt").unlink()
    status, _, err = run_train("--datapath", copy, "--savepath", tmp_path / "log")
    assert status == 2
    assert "test.txt: no such list" in err
    assert not (tmp_path / "log").exists()


def test_sequences_that_are_trained_and_tested_on_are_told(run_train, simulated, tmp_path):
    copy = shutil.copytree(simulated, tmp_path / "copy")
    (copy / "test.txt").write_text("Sequence1\nSequence4\n")
    status, out, _ = run_train("--datapath", copy, "--epoch", 1)
    assert status == 0
    assert "warning: 1 of 2 test sequences are in the training list" in out


def test_a_released_run_is_not_trained_over(run_train, trained, tmp_path):
    shutil.copytree(trained / "checkpoints", tmp_path / "released/checkpoints")
    status, _, err = run_train("--log_dir", "released")
    assert status == 2
    assert "is not a run that can be continued" in err
    assert not (tmp_path / "released/options.yaml").exists()
    (tmp_path / "file").write_text("")
    assert "is not a run" in run_train("--log_dir", "file")[2]


def test_the_last_evaluation_is_that_of_test_py(run_train, tmp_path):
    """With the mean and std of training and IoU at 0.5, whatever chose the best epoch."""
    more = ("--threshold_eval", 0.3, "--normalize", "images", "--epoch", 1, "--log_dir", "run")
    assert run_train(*more)[0] == 0
    protocol = json.loads((tmp_path / "run/metrics.json").read_text())["protocol"]
    state = load_checkpoint(tmp_path / "run/checkpoints/best_model.pth")
    assert protocol["normalisation"]["mean"] == state["mean"]
    assert protocol["iou"].endswith("score > 0.5")
    assert protocol["checkpoint"] == "best_model.pth (epoch 1)"


def test_training_needs_masks(run_main, tmp_path):
    for name in ("s1", "s2"):
        write_frames(tmp_path / name / "images", 12)
    arguments = ["--dataset", "Folder", "--datapath", tmp_path, "--savepath", tmp_path / "log"]
    status, _, err = run_main(train.main, *arguments)
    assert status == 2
    assert "where masks are due" in err


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_an_unreadable_frame_is_named_through_workers(run_train, simulated, tmp_path, cache):
    copy = tmp_path / "copy"
    shutil.copytree(simulated, copy)
    for path in copy.glob("*/images/*.png"):
        if path.stem > "00010":
            path.write_bytes(b"torn")
    more = ("--workers", 2, "--mean", 100, "--std", 10, "--cache", cache)
    status, _, err = run_train("--datapath", copy, *more)
    assert status == 2
    assert re.fullmatch(r"error: \S+\.png: not a readable image \(.*\)\n", err)


def test_json_lines_are_json(trained):
    for line in (trained / "epochs.jsonl").read_text().splitlines():
        assert set(json.loads(line)) >= {"epoch", "loss", "iou", "pd", "fa", "learning_rate"}
