"""train.py with its frames from the cache, from end to end."""

import re

import pytest
import torch

from tests.conftest import TINY, load_command, read_records
from utils.checkpoints import load_checkpoint

train = load_command("train")


@pytest.fixture
def run_train(run_main, simulated, tmp_path):
    """One epoch on the simulated set below tmp_path: run_train(*more) -> (status, out, err)."""
    where = ("--datapath", simulated, "--savepath", tmp_path, "--epoch", 1)
    return lambda *more: run_main(train.main, *TINY, *where, *more)


def weights(run):
    return load_checkpoint(run / "checkpoints/last_model.pth")["model_state_dict"]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_cache_changes_nothing(run_train, tmp_path):
    for cache in ("disk", "ram", "none"):
        where = ("--cache_dir", tmp_path / "cache")
        status, _, err = run_train("--log_dir", cache, "--cache", cache, *where)
        assert status == 0, err
    assert same(weights(tmp_path / "disk"), weights(tmp_path / "none"))
    assert same(weights(tmp_path / "ram"), weights(tmp_path / "none"))
    assert len(list((tmp_path / "cache").glob("*.sequence"))) == 3
    iou = [read_records(tmp_path / c / "epochs.jsonl")[0]["iou"] for c in ("disk", "none")]
    assert iou[0] == iou[1]


def test_a_cache_that_cannot_be_written_is_told(run_train, tmp_path):
    (tmp_path / "file").write_text("")
    status, out, err = run_train("--cache_dir", tmp_path / "file")
    assert status == 0, err
    assert f"warning: frames are not cached ({tmp_path / 'file'}: " in out
    assert re.search(r"\d s \(\d+\.\d% of it waiting for clips\)", out)
