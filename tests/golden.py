"""Where the reference outputs lie, and how the published evaluation logs are read.

The folder is given by the environment variable DEEPPRO_SHARED, by default `shared` beside the
repository. Tests that need it skip where it is absent.
"""

import os
import re
import tarfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SHARED = Path(os.environ.get("DEEPPRO_SHARED", REPOSITORY.parent / "shared"))
GOLDEN, REAL, RELEASED = SHARED / "golden", SHARED / "real", SHARED / "released" / "log"

needs_shared = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"no reference data at {SHARED} (set DEEPPRO_SHARED)"
)

_LINE = re.compile(r"Th_Seg = (\S+):\tPD:\[(\d+)/(\d+), \S+\]\tFA:\[(\d+), \S+\]")
_TITLE = re.compile(r"INFO - (.+?) results:(?:\tAUC:(\S+))?")


def read_published_log(path: Path) -> dict[str, dict]:
    """Blocks by title (`Sequence85`, `Low SNR`, `Final`): thresholds, hits, false_pixels, targets,
    auc; and under `iou` the pixel IoU."""
    blocks, block = {}, None
    for line in path.read_text().splitlines():
        if title := _TITLE.search(line):
            auc = float(title[2]) if title[2] else None
            block = blocks.setdefault(
                title[1], {"thresholds": [], "hits": [], "false_pixels": [], "auc": auc}
            )
        elif row := _LINE.search(line):
            block["thresholds"].append(float(row[1]))
            block["hits"].append(int(row[2]))
            block["targets"] = int(row[3])
            block["false_pixels"].append(int(row[4]))
        elif "class IoU" in line:
            blocks["iou"] = float(line.split()[-1])
    return blocks


def unpack_minis(folder: Path) -> Path:
    """The small made-up data sets in the published layouts."""
    with tarfile.open(GOLDEN / "minis.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def released_run(start: str, end: str) -> str:
    """The released run whose name starts and ends so."""
    (run,) = (
        p.name for p in (RELEASED / "sem_seg").iterdir()
        if p.name.startswith(start) and p.name.endswith(end)
    )  # fmt: skip
    return run


def check_against_golden(reports: dict[str, dict], golden: dict, blocks: list[str]) -> None:
    """Targets exact; hits within 1 and false pixels within max(2, 0.2 %) from threshold 1e-4 on."""
    for name in blocks:
        ours, theirs = reports[name], golden[name]
        assert ours["targets"] == theirs["targets"], name
        assert ours["thresholds"] == pytest.approx(theirs["thresholds"])
        for i, threshold in enumerate(theirs["thresholds"]):
            if threshold < 1e-4:
                continue
            assert abs(ours["hits"][i] - theirs["hits"][i]) <= 1, (name, threshold)
            allowed = max(2, 0.002 * theirs["false_pixels"][i])
            off = abs(ours["false_pixels"][i] - theirs["false_pixels"][i])
            assert off <= allowed, (name, threshold, off)
        if theirs["auc"] is not None:
            assert ours["auc"] == pytest.approx(theirs["auc"], abs=2e-4), name
