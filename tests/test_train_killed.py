"""Training that is killed outright, at any moment, goes on to the same weights bit for bit."""

import os
import random
import re
import signal
import time

import pytest

from tests.conftest import TINY, read_records
from tests.training import finish, run_train, same, start
from utils.checkpoints import load_checkpoint

# Everything that a checkpoint has to bring back.
REFINED = ("--ema", 0.9, "--clip_grad", 0.1, "--augment", "flip", "--schedule", "one_cycle")


def timeless(records: list[dict]) -> list[dict]:
    return [{k: v for k, v in r.items() if not k.endswith("seconds")} for r in records]


def assert_same_training(run, whole):
    for name in ("last", "best"):
        one, other = (load_checkpoint(r / f"checkpoints/{name}_model.pth") for r in (run, whole))
        for key in ("model_state_dict", "raw_state_dict"):
            assert same(one[key], other[key]), (name, key)
        for key in ("epoch", "averaged", "best_iou"):
            assert one[key] == other[key], (name, key)
        moments = [state["optimizer_state_dict"]["state"] for state in (one, other)]
        assert all(same(moments[0][i], moments[1][i]) for i in moments[1])
    assert timeless(read_records(run / "epochs.jsonl")) == timeless(
        read_records(whole / "epochs.jsonl")
    )
    assert not [p for p in run.rglob(".*") if p.is_file()]  # nothing half-written is left


@pytest.mark.parametrize(
    ("kills", "options"),
    [
        pytest.param(3, REFINED, id="3"),
        pytest.param(20, REFINED, id="20", marks=pytest.mark.slow),
        pytest.param(20, ("--ema", 0.9, "--loss", "HPM"), id="20-HPM", marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments(simulated, tmp_path, kills, options):
    arguments = (*TINY, *options, "--datapath", simulated, "--savepath", tmp_path, "--epoch", 4)
    assert finish(start(run_train, *arguments, "--log_dir", "whole")) == [0]
    seconds = max(
        r["seconds"] + r["validation_seconds"]
        for r in read_records(tmp_path / "whole/epochs.jsonl")
    )
    moments, killed, attempt, run = random.Random(kills), 0, 0, None
    while killed < kills or run:
        run = run or tmp_path / f"killed{killed}"
        attempt += 1
        assert attempt < 20 * kills
        (process,) = begun = start(
            run_train, *arguments, "--log_dir", run.name, said=tmp_path / f"said{attempt}_"
        )
        if killed < kills:
            epochs = moments.randrange(3)
            while len(read_records(run / "epochs.jsonl")) < epochs and process.is_alive():
                time.sleep(0.01)
            process.join(moments.uniform(0.05, 0.3 + seconds))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
        (status,) = finish(begun)
        if status == -signal.SIGKILL:
            killed += 1
            continue
        assert status == 0, (tmp_path / f"said{attempt}_0").read_text()
        assert_same_training(run, tmp_path / "whole")
        run = None
    assert killed == kills
    said = "".join(path.read_text() for path in tmp_path.glob("said*"))
    assert re.search(r"continuing killed\d+ after epoch \d", said)  # not all before the first one
