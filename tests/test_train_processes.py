"""Training in several processes: the same numbers, one writer, one line when one of them ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from functools import partial

import pytest
import torch
import yaml

from datasets import ClipDataset, ClipSampler, find_layout, load_batches, open_split
from engine import load_network, score
from tests.conftest import TINY, read_records
from tests.golden import REPOSITORY
from tests.training import (
    finish,
    one_step,
    run_train,
    run_train_keeping_counts,
    run_train_on_other_data_elsewhere,
    run_train_that_fails_elsewhere,
    same,
    start,
    weights,
)
from utils.runs import Run

TWO = (*TINY, "--batch_size", 1, "--select_on", "test")


def first_batches(folder, part, parts):
    sequences = open_split(find_layout("Synthetic"), folder, "train")
    sampler = ClipSampler([len(s) for s in sequences], 8, 0.08, seed=0)
    clips = ClipDataset(sequences, sampler, 0, seqlen=8, mean=100.0, std=20.0, patch_size=16)
    clips.clips = clips.clips[:4]
    return load_batches(clips, 4 // parts, 0, False, part, parts)


def test_the_first_step_is_that_of_the_joint_batch(simulated, tmp_path):
    make = partial(first_batches, simulated)
    for count in (1, 2):
        assert finish(start(one_step, make, tmp_path / f"{count}.pt", count=count)) == [0] * count
    alone, together = (torch.load(tmp_path / f"{count}.pt") for count in (1, 2))
    assert together["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    assert together["iou"] == alone["iou"]
    del alone["loss"], alone["iou"]
    largest = max(gradient.abs().max() for gradient in alone.values())
    assert largest > 1e-4
    for name, gradient in alone.items():
        torch.testing.assert_close(together[name], gradient, rtol=1e-5, atol=1e-5 * float(largest))


def test_parts_make_the_steps_of_the_joint_batch(simulated):
    whole = [batch.draws for batch in first_batches(simulated, 0, 1)]
    parts = [[batch.draws for batch in first_batches(simulated, part, 2)] for part in (0, 1)]
    assert whole == [[0, 1, 2, 3]]
    assert parts == [[[0, 1]], [[2, 3]]]


@pytest.fixture(scope="module")
def together(simulated, tmp_path_factory):
    """The folder of a run that two processes trained for three epochs."""
    root = tmp_path_factory.mktemp("log")
    arguments = (*TWO, "--datapath", simulated, "--savepath", root, "--epoch", 3)
    said = root / "said"
    target = (run_train_keeping_counts, root / "validation.json")
    status = finish(start(*target, *arguments, "--log_dir", "whole", count=2, said=said))
    assert status == [0, 0], (root / "said0").read_text() + (root / "said1").read_text()
    assert (root / "said1").read_text() == ""  # only the main process speaks
    assert (root / "said0").read_text().count("epoch 1/3") == 1
    return root / "whole"


@pytest.mark.parametrize(("checkpoint", "of"), [("best", "test"), ("last", "validation")])
def test_two_processes_count_what_one_counts(together, tmp_path, checkpoint, of):
    """At every threshold; the last validation (on the test set here) was of the last weights."""
    options = yaml.safe_load((together / "options.yaml").read_text())
    assert options["gpu_num"] == 2
    options |= {"normalize": "run", "mean": None, "std": None, "precision": "fp32"}
    options |= {"register": "none", "compile": False, "gpu": None}
    alone, _ = score(load_network(Run(together), checkpoint), Namespace(**options), tmp_path)
    alone = alone["sequences"]
    if of == "test":
        of_two = json.loads((together / "metrics.json").read_text())["sequences"]
    else:
        of_two = json.loads((together.parent / "validation.json").read_text())
        alone = {n: {k: v for k, v in r.items() if k != "snr"} for n, r in alone.items()}
    assert of_two == alone
    assert list(of_two) == list(alone)


def test_killing_one_ends_the_other_with_a_line_and_both_go_on(together, simulated, tmp_path):
    arguments = (*TWO, "--datapath", simulated, "--savepath", tmp_path, "--log_dir", "run")
    begun = start(run_train, *arguments, "--epoch", 100000, count=2, said=tmp_path / "said")
    deadline = time.monotonic() + 100
    while not read_records(tmp_path / "run/epochs.jsonl") and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(begun[1].pid, signal.SIGKILL)
    killed = time.monotonic()
    assert finish(begun) == [2, -signal.SIGKILL]
    assert time.monotonic() - killed < 20
    errors = re.findall(r"^error: .*", (tmp_path / "said0").read_text(), re.MULTILINE)
    assert len(errors) == 1
    assert re.search(
        r"another of the 2 processes has ended .* epochs are kept; go on with: "
        r"torchrun --nproc_per_node 2 train\.py --resume /\S+/run$", errors[0],
    )  # fmt: skip
    assert "Traceback" not in (tmp_path / "said0").read_text()
    epochs = len(read_records(tmp_path / "run/epochs.jsonl")) + 1
    whole = (*arguments[:-1], "whole", "--epoch", epochs)
    resume = ("--resume", tmp_path / "run", "--epoch", epochs)
    assert finish(start(run_train, *resume, count=2)) == [0, 0]
    assert finish(start(run_train, *whole, count=2)) == [0, 0]
    assert same(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_bad_data_in_one_process_is_one_line(simulated, tmp_path):
    arguments = (*TWO, "--datapath", simulated, "--savepath", tmp_path, "--log_dir", "run")
    begun = start(run_train_that_fails_elsewhere, *arguments, count=2, said=tmp_path / "said")
    assert all(status in (1, 2) for status in finish(begun))
    said = (tmp_path / "said0").read_text() + (tmp_path / "said1").read_text()
    assert len(re.findall("error", said)) == 1
    assert re.search(r"the loss is \S+ at step 1 of epoch 1/2, on Sequence\d", said)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("shorter", "process 2 has other training sequences than process 1 ("),
        ("nothing", "nothing: no such folder"),
    ],
)
def test_other_data_in_one_process_are_one_line_and_no_run(simulated, tmp_path, other, message):
    copy = shutil.copytree(simulated, tmp_path / "shorter")
    (copy / "train.txt").write_text("Sequence1\nSequence2\n")
    arguments = (*TWO, "--datapath", simulated, "--savepath", tmp_path / "log")
    target = (run_train_on_other_data_elsewhere, tmp_path / other)
    begun = start(*target, *arguments, count=2, said=tmp_path / "said")
    assert all(status in (1, 2) for status in finish(begun))
    said = (tmp_path / "said0").read_text() + (tmp_path / "said1").read_text()
    assert len(re.findall("error", said)) == 1
    assert message in said
    assert not (tmp_path / "log").exists()


@pytest.mark.slow
def test_torchrun_starts_it(simulated, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "train.py"]
    arguments = [*TWO, "--datapath", simulated, "--savepath", tmp_path, "--log_dir", "run"]
    command = [*torchrun, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1
    wrong = [*command, "--gpu_num", "3"]
    done = subprocess.run(wrong, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode != 0
    assert len(re.findall(r"^error: --gpu_num 3, but 2 process", done.stderr, re.MULTILINE)) == 1
