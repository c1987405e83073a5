import signal
import subprocess
import sys

import pytest

from tests.golden import REPOSITORY


def run_code(code: str, *before: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*before, sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "work",
    [
        "from datasets.images import write_image; import numpy; from pathlib import Path\n"
        "work = lambda: write_image(Path('{new}'), numpy.random.rand(300, 300) * 255)",
        "import shutil; work = lambda: shutil.copyfile('{old}', '{new}')",
    ],
    ids=["image", "copy"],
)
def test_a_full_disk_is_named_by_what_was_written(tmp_path, work):
    """A file-size limit stands in for a full disk."""
    old, new = tmp_path / "old.png", tmp_path / "new.png"
    old.write_bytes(bytes(30_000))
    work = work.format(old=old, new=new)
    code = f"from utils.errors import run_command\n{work}\nrun_command(work)"
    done = run_code(code, "bash", "-c", 'ulimit -f 10; exec "$@"', "bash")
    assert done.returncode == 1
    assert done.stderr == f"error: {new}: File too large: free some space, then run again\n"


def test_a_second_ctrl_c_ends_without_a_word():
    code = """
import signal
from utils.errors import run_command

class Slow(Exception):
    def __str__(self):
        signal.raise_signal(signal.SIGINT)

def work():
    raise Slow

run_command(work)
"""
    done = run_code(code)
    assert done.returncode == -signal.SIGINT
    assert not done.stderr
