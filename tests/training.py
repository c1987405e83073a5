"""Trainings to test: in this process (a fixture, by `conftest`), or in others that are killed or
train together.

The others are forked from a process that has imported everything, which saves seconds each.
"""

import multiprocessing
import os
import socket
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from engine import train_one_epoch
from losses import build_loss
from models import build_network
from tests.conftest import TINY, load_command
from tests.golden import REPOSITORY
from utils.checkpoints import load_checkpoint
from utils.devices import seed_everything, set_up_arithmetic
from utils.distributed import in_parallel, is_main, joined, processes, rank
from utils.errors import run_command
from utils.files import write_json

train = load_command("train")
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.training"])


@pytest.fixture(name="run_train")
def run_train_here(run_main, simulated, tmp_path):
    """Train on the simulated set below tmp_path: run_train(*more) -> (status, stdout, stderr)."""

    def run(*more):
        return run_main(train.main, *TINY, "--datapath", simulated, "--savepath", tmp_path, *more)

    return run


def weights(run: Path) -> dict:
    return load_checkpoint(run / "checkpoints/last_model.pth")["model_state_dict"]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def start(target, *arguments, count: int = 1, said: Path | None = None) -> list:
    """Start target(*arguments) in `count` processes that can meet as those of torchrun do.

    What they say goes to the files `<said><rank>`, if that is given.
    """
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    started = []
    for number in range(count):
        together = {
            "RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
            "MASTER_ADDR": "localhost", "MASTER_PORT": port,
        }  # fmt: skip
        environment = {k: str(v) for k, v in together.items()} if count > 1 else {}
        process = FORKED.Process(target=_run, args=(target, arguments, environment, said))
        process.start()
        started.append(process)
    return started


def finish(started: list) -> list[int]:
    """Wait for processes; their exit statuses."""
    for process in started:
        process.join(120)
    return [process.exitcode for process in started]


def _run(target, arguments, environment: dict, said: Path | None) -> None:
    os.environ.update(environment)
    os.chdir(REPOSITORY)
    torch.set_num_threads(1)
    if said:
        file = os.open(f"{said}{environment.get('RANK', 0)}", os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
    target(*arguments)


def run_train(*arguments) -> None:
    """train.py with these arguments."""
    sys.argv = ["train.py", *map(str, arguments)]
    run_command(train.main)


def run_train_keeping_counts(path: Path, *arguments) -> None:
    """train.py that leaves the counts of its last validation in a file, by sequence."""
    evaluate = train.evaluate

    def keep(*more) -> dict:
        counts = evaluate(*more)
        if is_main():
            write_json(path, {name: count.report() for name, count in counts.items()})
        return counts

    train.evaluate = keep
    run_train(*arguments)


def run_train_that_fails_elsewhere(*arguments) -> None:
    """train.py whose loss is no number in the second process."""
    if os.environ["RANK"] == "1":
        train.build_loss = lambda name: lambda logits, masks: logits.sum() * 1e999
    run_train(*arguments)


def run_train_on_other_data_elsewhere(folder: Path, *arguments) -> None:
    """train.py whose second process finds this folder at --datapath."""
    if os.environ["RANK"] == "1":
        make_plan = train.make_plan
        train.make_plan = lambda options, *more: make_plan(
            Namespace(**vars(options) | {"datapath": folder}), *more
        )
    run_train(*arguments)


def one_step(make_batches, path: Path) -> None:
    """Loss and gradients of the first step, BatchNorm in evaluation mode, to a file.

    make_batches(part, parts) gives a loader of one step.
    """
    set_up_arithmetic()
    with joined():
        seed_everything(0)
        network = build_network("DeepPro", seqlen=8).eval()
        network.train = lambda mode=True: network
        record = train_one_epoch(
            in_parallel(network, torch.device("cpu")), build_loss("SoftIoU"),
            torch.optim.SGD(network.parameters(), lr=0.1), make_batches(rank(), processes()),
            rate=lambda step: 0.0, device=torch.device("cpu"), iou_threshold=0.5, label="",
        )  # fmt: skip
        if is_main():
            gradients = {name: p.grad for name, p in network.named_parameters()}
            torch.save({"loss": record["loss"], "iou": record["train_iou"], **gradients}, path)
