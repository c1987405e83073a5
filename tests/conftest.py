"""Fixtures that several folders share."""

import atexit
import gc
import importlib.util
import json
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from datasets.simulator import read_recipe
from datasets.synthetic import write_dataset
from tests.golden import REPOSITORY
from utils.errors import run_command

pytest_plugins = ["tests.predicting", "tests.training"]

torch.set_num_threads(1)  # the arrays are small, and other processes may share the machine
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")  # whatever else runs on the machine


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """Tests, and the commands they start, cache below a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield home


@pytest.fixture
def three_threads():
    """Torch has 3 threads during a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """A small simulated data set: 3 training and 2 test sequences of 26 frames of 24 x 24."""
    folder = tmp_path_factory.mktemp("simulated")
    write_dataset(folder, 3, 2, frames=26, size=24, seed=1, recipe=read_recipe("demo"), workers=1)
    return folder


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Run a command in this process: run_main(main, *arguments) -> (status, stdout, stderr)."""

    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        status = 0
        try:
            run_command(main)
        except SystemExit as end:
            status = end.code
        finally:
            torch.set_flush_denormal(False)  # commands set it, hypothesis wants it unset
            gc.unfreeze()  # as commands end, no garbage is looked for; here others come
            atexit.unregister(gc.freeze)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def write_image(path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.asarray(image))[1].tobytes())


def write_frames(folder, count, size=(6, 8), value=100, first=1, digits=5) -> None:
    """`count` flat PNG frames of growing grey level."""
    for i in range(count):
        image = np.full(size, value + i, np.uint8)
        write_image(folder / f"{first + i:0{digits}d}.png", image)


def read_records(path) -> list[dict]:
    """The records of a JSON-lines file; none where there is no file yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def load_command(name):
    """A command of the top level as a module (a plain `import test` would hide Python's own)."""
    spec = importlib.util.spec_from_file_location(f"{name}_command", REPOSITORY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = (
    *("--model", "DeepPro", "--seqlen", 8, "--dataset", "Synthetic", "--device", "cpu"),
    *("--batch_size", 2, "--patch_size", 16, "--sample_rate", 0.1, "--epoch", 2),
)  # two steps an epoch on the simulated set


@pytest.fixture(scope="session")
def trained(simulated, tmp_path_factory):
    """The folder of a run trained for two epochs on the simulated set."""
    root = tmp_path_factory.mktemp("log")
    command = [sys.executable, "train.py", *TINY, "--datapath", simulated, "--savepath", root]
    done = subprocess.run(
        [str(part) for part in command], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (run,) = root.iterdir()
    return run
