"""What training offers beyond the published recipe."""

import json
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from models import build_network
from tests.conftest import read_records
from tests.training import same, train, weights
from utils.checkpoints import load_checkpoint
from utils.devices import seed_everything


def test_the_average_is_what_is_validated_kept_and_used(run_train, tmp_path, monkeypatch):
    validated = []

    class Watched(train.Detector):
        def __init__(self, network, *more):
            validated.append({k: v.clone() for k, v in network.state_dict().items()})
            super().__init__(network, *more)

    assert run_train("--log_dir", "plain")[0] == 0
    monkeypatch.setattr(train, "Detector", Watched)
    assert run_train("--ema", 0.9, "--log_dir", "ema")[0] == 0
    state = load_checkpoint(tmp_path / "ema/checkpoints/last_model.pth")
    assert state["averaged"] == 4  # two epochs of two steps
    assert same(state["raw_state_dict"], weights(tmp_path / "plain"))
    assert not same(state["model_state_dict"], state["raw_state_dict"])
    assert same(state["model_state_dict"], validated[-1])
    status, _, err = run_train("--log_dir", "ema", "--ema", 0.5)
    assert status == 2
    assert "--ema 0.5: ema was begun with 0.9" in err


def test_a_step_is_no_longer_than_the_clipped_gradient(run_train, tmp_path):
    sgd = ("--optimizer", "SGD", "--learning_rate", 1, "--decay_rate", 0, "--epoch", 1)
    assert run_train(*sgd, "--clip_grad", 1e-3, "--log_dir", "clipped")[0] == 0
    seed_everything(0)
    begun = build_network("DeepPro", 8).named_parameters()
    now = weights(tmp_path / "clipped")
    moved = sum((now[name] - p).square().sum() for name, p in begun) ** 0.5
    assert 1e-4 < moved < 1e-3 * (1 + 1.9) * 1.01  # momentum 0.9, two steps


def test_flips_reach_the_clips(run_train, tmp_path):
    """With Plus: DeepPro answers a flipped clip with the flipped map, to the same loss."""
    more = ("--model", "DeepPro-Plus", "--epoch", 1)
    for name in ("none", "flip"):
        assert run_train(*more, "--augment", name, "--log_dir", name)[0] == 0
    none, flip = (read_records(tmp_path / n / "epochs.jsonl")[0]["loss"] for n in ("none", "flip"))
    assert abs(none - flip) > 1e-6


def test_fine_tuning_begins_with_a_run_and_normalises_anew_or_as_it_did(
    run_train, trained, tmp_path
):
    best = load_checkpoint(trained / "checkpoints/best_model.pth") | {"mean": 7.0, "std": 3.0}
    (tmp_path / "other/checkpoints").mkdir(parents=True)
    torch.save(best, tmp_path / "other/checkpoints/best_model.pth")
    slow = ("--learning_rate", 1e-5, "--decay_rate", 0, "--epoch", 1)
    tuned = {}
    for name, more in (("new", ()), ("kept", ("--normalize", "run"))):
        status, out, err = run_train("--weights", "other", *slow, "--log_dir", name, *more)
        assert status == 0, err
        assert f"begins with the best weights of {tmp_path / 'other'}" in out
        tuned[name] = load_checkpoint(tmp_path / name / "checkpoints/last_model.pth")
        for key, _ in build_network("DeepPro", 8).named_parameters():
            now, before = tuned[name]["model_state_dict"][key], best["model_state_dict"][key]
            torch.testing.assert_close(now, before, rtol=0, atol=3e-5)  # Adam, two steps
    assert (tuned["kept"]["mean"], tuned["kept"]["std"]) == (7.0, 3.0)
    assert tuned["new"]["mean"] > 50


def test_wrong_weights_are_one_line_and_leave_no_run(run_train, trained, tmp_path):
    for more, message in (
        (("--model", "DeepPro-Plus"), "is a DeepPro; say --model DeepPro"),
        (("--seqlen", 9), "--seqlen 9: "),
        (("--weights", "nothing"), "no run 'nothing'"),
    ):
        status, _, err = run_train("--weights", trained, *more)
        assert (status, err.count("\n")) == (2, 1)
        assert message in err
    assert list(tmp_path.iterdir()) == []


class Writer:
    """Stands for TensorBoard's, which is an optional package."""

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.figures = folder, purge_step, [], []
        Writer.last = self

    def add_scalar(self, name, value, epoch):
        self.scalars.append((name, float(value), epoch))

    def add_figure(self, name, figure, epoch):
        self.figures.append((name, len(figure.axes), epoch))

    def flush(self):
        pass


def test_tensorboard_gets_numbers_and_a_picture(run_train, tmp_path, monkeypatch):
    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert run_train("--tensorboard", "--log_dir", "run")[0] == 0
    records = read_records(tmp_path / "run/epochs.jsonl")
    assert ("loss", records[1]["loss"], 2) in Writer.last.scalars
    assert ("frames", 2, 1) in Writer.last.figures  # a validation frame and its map
    assert Writer.last.folder == tmp_path / "run/tensorboard"
    assert run_train("--log_dir", "run", "--tensorboard", "--epoch", 3)[0] == 0
    assert Writer.last.purge_step == 3
    assert {epoch for _, _, epoch in Writer.last.figures} == {3}


def test_without_tensorboard_it_is_one_line(run_train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if not installed
    status, _, err = run_train("--tensorboard")
    assert (status, err.count("\n")) == (2, 1)
    assert "pip install tensorboard" in err
    assert list(tmp_path.iterdir()) == []


def test_the_summary_says_where_the_time_went(run_train, tmp_path):
    run_train("--log_dir", "run", "--epoch", 1)
    status, out, _ = run_train("--log_dir", "run", "--epoch", 3)  # what came before counts too
    assert status == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    seconds = summary["seconds"]
    assert summary["epochs"] == 3
    assert list(seconds) == [
        "data", "forward", "backward", "optimiser", "validation", "test", "other", "all"
    ]  # fmt: skip
    assert sum(v for k, v in seconds.items() if k != "all") == pytest.approx(seconds["all"], 0.01)
    assert all(value > 0 for key, value in seconds.items() if key != "other")
    records = read_records(tmp_path / "run/epochs.jsonl")
    assert seconds["forward"] == pytest.approx(sum(r["forward_seconds"] for r in records), abs=0.01)
    assert summary["clips_per_second"] == pytest.approx(
        3 * 4 / sum(r["seconds"] for r in records), rel=0.01
    )
    line = r"3 epochs and the test took [\d.]+ s: data [\d.]+ s \(\d+%\), forward .* test "
    assert re.search(line, out)
    assert re.search(line, (tmp_path / "run/logs/DeepPro.txt").read_text())
