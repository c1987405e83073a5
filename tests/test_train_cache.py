"""train.py with its frames from the cache, from end to end."""

import re

from tests.conftest import read_records
from tests.training import same, weights


def test_a_cache_changes_nothing(run_train, tmp_path):
    for cache in ("disk", "ram", "none"):
        where = ("--cache_dir", tmp_path / "cache")
        status, _, err = run_train("--epoch", 1, "--log_dir", cache, "--cache", cache, *where)
        assert status == 0, err
    assert same(weights(tmp_path / "disk"), weights(tmp_path / "none"))
    assert same(weights(tmp_path / "ram"), weights(tmp_path / "none"))
    assert len(list((tmp_path / "cache").glob("*.sequence"))) == 3
    iou = [read_records(tmp_path / c / "epochs.jsonl")[0]["iou"] for c in ("disk", "none")]
    assert iou[0] == iou[1]


def test_a_cache_that_cannot_be_written_is_told(run_train, tmp_path):
    (tmp_path / "file").write_text("")
    status, out, err = run_train("--epoch", 1, "--cache_dir", tmp_path / "file")
    assert status == 0, err
    assert f"warning: frames are not cached ({tmp_path / 'file'}: " in out
    assert re.search(r"\d s \(\d+\.\d% of it waiting for clips\)", out)
