"""benchmark.py from end to end, on frames so small that nothing is measured but that it works."""

import json
import multiprocessing
import subprocess
import sys

import pytest
import torch

from tests.conftest import load_command
from tests.golden import REPOSITORY
from utils.errors import InputError

benchmark = load_command("benchmark")
SMALL = ("--model", "DeepPro", "--height", 16, "--width", 12, "--seqlen", 4, "--device", "cpu")


def test_rows_hold_what_was_promised(tmp_path):
    path = tmp_path / "out.json"
    more = ("--repeats", 1, "--paths", "plain", "prepared", "--output", path)
    command = [sys.executable, "benchmark.py", *map(str, (*SMALL, *more))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(path.read_text())
    assert (found["model"], found["height"], found["width"]) == ("DeepPro", 16, 12)
    plain, prepared = found["rows"]
    assert (plain["path"], prepared["path"]) == ("plain", "prepared")
    for row in found["rows"]:
        assert row["fps"] == pytest.approx(4000 / row["ms_per_window"])
        assert 0 <= row["max_probability_error"] < 1e-4
        assert row["share_of_matmul_rate"] > 0
        assert 0 < row["peak_memory_mb"] < 100
        assert row["device"] == "cpu"
        # 13,968 at T = 40, less what the probes' maps are shorter: 36 x 32 x (1 + 1/4 + 1/16)
        assert row["macs_per_frame"] / (16 * 12) == pytest.approx(13_968 - 1512, abs=1)
    assert plain["times_plain"] == 1
    assert "DeepPro, " in done.stdout


def test_a_stream_is_drawn(run_main, tmp_path):
    status, out, _ = run_main(
        benchmark.main, *SMALL, "--stream", 110, "--output", tmp_path / "m.png"
    )
    assert status == 0
    assert "MB after the first tenth" in out
    assert (tmp_path / "m.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--model", "DeepPr"], "did you mean 'DeepPro'"),
        (["--stream", 9], "give --output FILE.png"),
        (["--model", "DeepPro", "--weights", "run"], "leave out --model"),
        (["--paths", "fast"], "invalid choice: 'fast'"),
        (["--weights", "nowhere"], "no run 'nowhere'"),
        (["--height", 2], "expected a whole number above 3"),
    ],
)
def test_bad_options(run_main, options, line):
    status, _, err = run_main(benchmark.main, *options)
    assert status == 2
    assert line in err
    assert err.count("\n") == 1


def test_a_process_that_dies_is_said():
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with pytest.raises(RuntimeError, match="the process of path 'plain' ended"):
        benchmark.ask(ours, "plain", "window")


def test_what_goes_wrong_in_a_process_is_said_in_one_line(run_main, tmp_path):
    ours, theirs = multiprocessing.Pipe()
    setting = benchmark.Setting("No such", None, 4, 8, 8, torch.device("cpu"), "fp32", False)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(benchmark, "end_with_main", lambda: None)
        benchmark.serve(theirs, "prepared", setting)
    with pytest.raises(InputError, match="path 'prepared': unknown model 'No such'"):
        benchmark.ask(ours, "prepared")
