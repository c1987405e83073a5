"""Runs that go on with `train.py --resume`: what they keep, and what may be lost meanwhile."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import TINY, read_records
from tests.golden import REPOSITORY
from tests.training import same, train, weights
from utils.checkpoints import load_checkpoint


def test_a_torn_newest_checkpoint_falls_back_and_says_so(run_train, tmp_path):
    run_train("--log_dir", "whole", "--epoch", 3)
    run_train("--log_dir", "torn", "--epoch", 2)
    saved = yaml.safe_load((tmp_path / "torn/options.yaml").read_text())
    (tmp_path / "torn/options.yaml").write_text(yaml.safe_dump({**saved, "epoch": 3}))
    last = tmp_path / "torn/checkpoints/last_model.pth"
    last.write_bytes(last.read_bytes()[:1000])
    status, out, _ = run_train("--log_dir", "torn", "--epoch", 3)  # as published: goes on
    assert status == 0
    assert "torn, left aside" in out
    assert "last_model.pth" in out
    assert "after epoch 1 (previous_model.pth)" in out
    names = {p.name for p in (tmp_path / "torn/checkpoints").iterdir()}
    assert names == {
        "best_model.pth", "last_model.pth", "last_model.torn", "previous_model.pth"
    }  # fmt: skip
    assert load_checkpoint(tmp_path / "torn/checkpoints/previous_model.pth")["epoch"] == 1
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "torn"))
    assert [r["epoch"] for r in read_records(tmp_path / "torn/epochs.jsonl")] == [1, 2, 3]


def test_a_resumed_run_keeps_its_model(run_train):
    run_train("--log_dir", "run", "--epoch", 1)
    status, _, err = run_train("--log_dir", "run", "--model", "DeepPro-Plus")
    assert status == 2
    assert "--model DeepPro-Plus: run was begun with DeepPro" in err


@pytest.mark.parametrize(
    "more", [("--seed", 5), ("--val_fraction", 0.5), ("--loss", "BCE"), ("--normalize", "images")]
)
def test_a_resumed_run_keeps_its_validation_sequences(run_train, run_main, tmp_path, more):
    run_train("--log_dir", "run", "--epoch", 1)
    status, _, err = run_main(train.main, "--resume", tmp_path / "run", *more)
    assert status == 2
    assert f"{more[0]} {more[1]}: run was begun with" in err


def test_other_options_of_a_resumed_run_are_told(run_train, run_main, tmp_path):
    run_train("--log_dir", "run", "--epoch", 1)
    more = ("--epoch", 2, "--learning_rate", 0.01)
    status, out, _ = run_main(train.main, "--resume", tmp_path / "run", *more)
    assert status == 0
    assert "warning: --learning_rate is now 0.01, it was 0.001" in out
    assert "warning: --epoch is now 2, it was 1" in out


def test_two_trainings_do_not_share_a_folder(run_train, tmp_path):
    run_train("--log_dir", "run", "--epoch", 1)
    held = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    status, _, err = run_train("--log_dir", "run", "--epoch", 2)
    os.close(held)
    assert status == 2
    assert "another process is writing to it" in err


def test_the_same_command_goes_on_with_a_layout_of_ones_own(run_train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("centroids: '{sequence}/masks_centroid'\n")
    command = ("--dataset", "mine.yaml", "--log_dir", "run")
    assert run_train(*command, "--epoch", 1)[0] == 0
    status, out, err = run_train(*command, "--epoch", 2)
    assert status == 0, err
    assert "continuing run after epoch 1" in out


def test_a_layout_of_whole_numbers_goes_on_and_is_tested(run_train, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "centroids: '{sequence}/masks_centroid'\nmean: 100\nstd: 20\n"
    )
    command = ("--dataset", tmp_path / "mine.yaml", "--log_dir", "run")
    for epochs in (1, 2):
        status, _, err = run_train(*command, "--epoch", epochs)
        assert status == 0, err
    state = load_checkpoint(tmp_path / "run/checkpoints/best_model.pth")
    assert (repr(state["mean"]), repr(state["std"])) == ("100.0", "20.0")


def tear(path):
    path.write_bytes(path.read_bytes()[:1000])


@pytest.fixture
def best_torn(trained, tmp_path):
    """torn(newest) gives a copy of a run whose best checkpoint is torn.

    The newest epoch is as good as the best one was, or it is not.
    """

    def torn(newest_is_best):
        run = shutil.copytree(trained, tmp_path / "run")
        last = run / "checkpoints/last_model.pth"
        state = load_checkpoint(last)
        state["best_iou"] = state["class_avg_iou"] + (0.0 if newest_is_best else 0.1)
        torch.save(state, last)
        tear(run / "checkpoints/best_model.pth")
        return run

    return torn


def test_a_torn_best_checkpoint_is_that_of_the_newest_epoch(best_torn, run_main):
    run = best_torn(newest_is_best=True)
    status, out, err = run_main(train.main, "--resume", run)
    assert status == 0, err
    assert "torn, left aside as best_model.torn: " in out
    assert "epoch 2 is the best one and takes its place" in out
    names = {p.name for p in (run / "checkpoints").iterdir()}
    assert {"best_model.pth", "best_model.torn"} <= names
    best = load_checkpoint(run / "checkpoints/best_model.pth")["model_state_dict"]
    assert same(best, weights(run))


def test_without_a_best_checkpoint_the_last_is_tested_then_the_next_is_the_best(
    best_torn, run_main
):
    run = best_torn(newest_is_best=False)
    for said in ("torn, left aside as best_model.torn: ", "best_model.pth: no such checkpoint"):
        status, out, err = run_main(train.main, "--resume", run)
        assert status == 0, err
        assert said in out
        assert "none is left to train: the last one is tested" in out
        assert not (run / "checkpoints/best_model.pth").exists()
        assert str(run / "checkpoints/last_model.pth") in out
    status, out, err = run_main(train.main, "--resume", run, "--epoch", 3)
    assert status == 0, err
    best = load_checkpoint(run / "checkpoints/best_model.pth")
    assert (best["epoch"], best["best_iou"]) == (2, best["class_avg_iou"])


def test_what_a_run_was_tuned_from_may_be_gone(run_train, run_main, trained, tmp_path):
    best = load_checkpoint(trained / "checkpoints/best_model.pth") | {"mean": 7.0, "std": 3.0}
    (tmp_path / "other/checkpoints").mkdir(parents=True)
    torch.save(best, tmp_path / "other/checkpoints/best_model.pth")
    tuning = ("--weights", "other", "--normalize", "run", "--log_dir", "tuned", "--epoch", 1)
    assert run_train(*tuning)[0] == 0
    shutil.rmtree(tmp_path / "other")
    status, out, err = run_main(train.main, "--resume", tmp_path / "tuned", "--epoch", 2)
    assert status == 0, err
    assert "mean 7.0000, std 3.0000" in out
    assert "continuing tuned after epoch 1" in out
    for path in (tmp_path / "tuned/checkpoints").iterdir():
        path.unlink()
    status, _, err = run_main(train.main, "--resume", tmp_path / "tuned", "--epoch", 3)
    assert (status, err.count("\n")) == (2, 1)  # with nothing to go on from it is needed
    assert "other' with checkpoints under" in err


def test_a_run_killed_with_its_workers_goes_on_at_once(simulated, run_main, tmp_path):
    """Its workers may outlive it for seconds, but not keep the folder."""
    command = [sys.executable, "train.py", *TINY, "--datapath", simulated, "--savepath", tmp_path]
    command += ["--log_dir", "run", "--cache", "none", "--workers", 2]
    command += ["--sample_rate", 100]  # an epoch without end
    running = subprocess.Popen(
        [str(part) for part in command], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 100
    while len(children(running.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)  # for them to be at work
    running.kill()
    running.wait()
    short = ("--workers", 0, "--sample_rate", 0.1, "--epoch", 1)
    status, _, err = run_main(train.main, "--resume", tmp_path / "run", *short)
    assert status == 0, err


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # one that has ended
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("name", ["/", "../elsewhere", "a/b", ".."])
def test_a_run_lies_below_the_folder_of_runs(run_train, tmp_path, name):
    status, _, err = run_train("--log_dir", name)
    assert (status, err.count("\n")) == (2, 1)
    assert "expected a plain name" in err
    assert not list(tmp_path.iterdir())


def test_one_name_of_a_run_at_a_time(run_train):
    status, _, err = run_train("--resume", "a", "--log_dir", "b")
    assert (status, err.count("\n")) == (2, 1)
    assert "give one of them" in err
