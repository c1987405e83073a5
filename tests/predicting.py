"""What the tests of predict.py share: a clip, a run, and what came out; fixtures by `conftest`."""

import csv
import json

import numpy as np
import pytest

from models import Detector, build_network
from tests.conftest import load_command, write_image
from utils.checkpoints import load_checkpoint, load_weights

predict_command = load_command("predict")
N, H, W, T = 20, 24, 32, 8


@pytest.fixture(scope="module")
def clip():
    """[N, H, W] uint8: noise and a bright target that moves a pixel a frame."""
    frames = np.random.default_rng(0).normal(100, 4, (N, H, W))
    for i in range(N):
        frames[i, 10:12, 4 + i : 6 + i] += 90
    return np.clip(frames, 0, 255).astype(np.uint8)


@pytest.fixture
def run_predict(run_main, trained, tmp_path):
    """run_predict(*inputs and options) -> (status, stdout, stderr); writes to tmp_path/out."""

    def run(*more, weights=trained.name):
        return run_main(
            predict_command.main, *more, "--weights", weights, "--logpath", trained.parent,
            "--output", tmp_path / "out", "--device", "cpu",
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def maps(clip, trained):
    """The Detector's maps [N, H, W] of the clip, and a threshold that a part of them reaches."""
    state = load_checkpoint(trained / "checkpoints/best_model.pth")
    network = build_network("DeepPro", T)
    load_weights(network, state, "DeepPro", trained)
    scores = Detector(network, state["mean"], state["std"])(clip)
    return scores, float(np.quantile(scores, 0.98))


def write_clip(folder, frames):
    for i, frame in enumerate(frames):
        write_image(folder / f"{i}.png", frame)
    return folder


def read_table(folder):
    with open(folder / "detections.csv") as file:
        return list(csv.DictReader(file))


def read_json(folder, name="summary"):
    return json.loads((folder / f"{name}.json").read_text())
