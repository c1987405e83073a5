import json
import subprocess
import sys

import pytest

from tests.golden import REPOSITORY
from utils.errors import InputError
from utils.files import cache_folder, writable_folder, write_json, write_text, written_whole


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "before")

    def fail_half_way():
        with written_whole(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """A file-size limit stands in for a full disk."""
    write_text(tmp_path / "a.txt", "before")
    code = (
        "from utils.errors import run_command\nfrom utils.files import write_text\n"
        f"run_command(lambda: write_text({str(tmp_path / 'a.txt')!r}, 'x' * 100000))"
    )
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 10; exec "$0" -c "$1"', sys.executable, code],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "a.txt" in done.stderr
    assert "free some space" in done.stderr
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"pd": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"pd": None}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"pd": float("nan")})


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="use --output"):
        writable_folder(tmp_path / "file" / "below", "use --output")


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "deeppro"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache_folder()) == "/home/someone/.cache/deeppro"
