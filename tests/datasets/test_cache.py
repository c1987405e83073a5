"""The command that looks at the cache, clears it and measures it."""

import os
import re
import time

from datasets import cache
from tests.datasets.cached import files, on_disk, opened


def test_the_command_lists_and_clears(data, place, run_main):
    on_disk(opened(data), place)
    status, out, err = run_main(cache.main, "--cache_dir", place)
    assert (status, err) == (0, "")
    assert re.search(rf"{data} +3 +24 +0\.1 ", out)
    (old,) = place.glob("s1*")
    (torn,) = place.glob("s2*")
    os.utime(old, (0, time.time() - 31 * 86400))
    os.truncate(torn, 100)
    assert "(torn)" in run_main(cache.main, "--cache_dir", place)[1]
    out = run_main(cache.main, "--cache_dir", place, "--clear", "--unused", 30)[1]
    assert "removed 2 sequences" in out
    assert [name[:2] for name in files(place)] == ["s3"]
    assert "removed 1 sequences" in run_main(cache.main, "--cache_dir", place, "--clear")[1]
    assert not files(place)
    assert "0 sequences, 0.0 MB" in run_main(cache.main, "--cache_dir", place)[1]
    assert "0 sequences" in run_main(cache.main, "--cache_dir", place / "none", "--clear")[1]
    assert not (place / "none").exists()


def test_the_benchmark_reads_clips(data, place, run_main):
    more = ("--dataset", "Folder", "--datapath", data, "--seqlen", 5, "--patch_size", 8)
    more += ("--sample_rate", 1, "--seconds", 0.05)
    for mode in ("disk", "none"):
        command = ("--benchmark", "--cache_dir", place, "--cache", mode, *more)
        status, out, err = run_main(cache.main, *command)
        assert (status, err) == (0, "")
        assert re.match(rf"--cache {mode}: \d+ clips a second .* clips of 5 x 8 x 8", out)
    status, _, err = run_main(cache.main, "--benchmark", *more, "--batch_size", 500)
    assert status == 2
    assert "does not fill one batch" in err
