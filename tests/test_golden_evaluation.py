"""The published evaluator's counts, by the command that a reviewer would run."""

import json
import subprocess
import sys
import zipfile

import pytest

from tests.golden import (
    GOLDEN,
    REAL,
    RELEASED,
    REPOSITORY,
    check_against_golden,
    needs_shared,
    read_published_log,
    released_run,
    unpack_minis,
)

NOISE = "NUDT-MIRSDT-Noise8.0_FJY(g0.15-o1.3)"

# golden file; data path below the minis; --dataset; start and end of the run's name
EVALUATIONS = [
    ("NUDT-MIRSDT.DeepPro", "NUDT-MIRSDT", "NUDT-MIRSDT", "NUDT-MIRSDT__", "DeepPro_DataL40"),
    ("NUDT-MIRSDT.DeepPro-Plus", "NUDT-MIRSDT", "NUDT-MIRSDT", "NUDT-MIRSDT__", "Plus_DataL40"),
    ("NUDT-MIRSDT-Noise.DeepPro", f"NUDT-MIRSDT-Noise/{NOISE}", NOISE, NOISE, "DeepPro_DataL40"),
    ("NUDT-MIRSDT-Noise.DeepPro-Plus", f"NUDT-MIRSDT-Noise/{NOISE}", NOISE, NOISE, "Plus_DataL40"),
    ("RGB-T.DeepPro-Plus", "RGB-T", "RGB-T", "RGB-T", "DataL40"),
    (
        "IRDST-simulation.DeepPro-Plus", "IRDST-simulation", "IRDST-simulation",
        "NUDT-MIRSDT__", "Plus_DataL40",
    ),
    (
        "SatVideoIRSDT.DeepPro-Plus-2025-06-19", "SatVideoIRSDT", "SatVideoIRSDT",
        "SatVideoIRSDT__2025-06-19", "DataL40",
    ),
    (
        "SatVideoIRSDT.DeepPro-Plus-2025-07-22", "SatVideoIRSDT", "SatVideoIRSDT",
        "SatVideoIRSDT__2025-07-22", "DataL40",
    ),
]  # fmt: skip
CONVERTED = "RGB-T.DeepPro-Plus"  # the one whose targets the published converter wrote
SUBSETS = {"low_snr": "Low SNR", "high_snr": "High SNR", "overall": "Final"}


def run_test_command(*arguments) -> None:
    command = [sys.executable, "test.py", "--seqlen", "40", "--logpath", RELEASED, *arguments]
    done = subprocess.run(
        [str(part) for part in command], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def check_output(output, golden_name: str, sequences: list[str] | None = None) -> None:
    results = json.loads((output / "metrics.json").read_text())
    golden = read_published_log(GOLDEN / f"{golden_name}.eval.txt")
    titles = {SUBSETS[name]: report for name, report in results["subsets"].items()}
    reports = {**results["sequences"], **titles, "Final": results["overall"]}
    blocks = sequences or [name for name in golden if name != "iou"]
    check_against_golden(reports, golden, blocks)
    if sequences is None:
        assert set(reports) == set(blocks)
        assert results["overall"]["iou"] == pytest.approx(golden["iou"], abs=1e-4)


@pytest.fixture(scope="session")
def minis(tmp_path_factory):
    return unpack_minis(tmp_path_factory.mktemp("minis"))


@needs_shared
@pytest.mark.parametrize(("golden", "path", "dataset", "start", "end"), EVALUATIONS)
def test_minis(golden, path, dataset, start, end, minis, tmp_path):
    run_test_command(
        "--datapath", minis / path, "--dataset", dataset, "--log_dir", released_run(start, end),
        "--border", "published", "--output", tmp_path, "--submission", tmp_path / "out.zip",
    )  # fmt: skip
    check_output(tmp_path, golden)
    written = read_published_log(tmp_path / "eval.txt")  # our log reads as the published one does
    assert set(written) == set(read_published_log(GOLDEN / f"{golden}.eval.txt"))
    if golden == CONVERTED:
        check_submission(tmp_path / "out.zip")


def check_submission(path) -> None:
    """The same bytes as the published converter's, whose file names begin with one more 0."""
    with zipfile.ZipFile(path) as archive:
        ours = {f"0{name}": archive.read(name) for name in archive.namelist()}
    theirs = {p.name: p.read_bytes() for p in (GOLDEN / "RGB-T.out_centroid").iterdir()}
    assert len(theirs) == 2
    assert ours == theirs


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("model", ["DeepPro", "DeepPro-Plus"])
def test_real_clips(model, tmp_path):
    run = released_run(NOISE, f"_{model}_DataL40")
    run_test_command(
        "--datapath", REAL, "--dataset", "Folder", "--log_dir", run, "--border", "published",
        "--output", tmp_path,
    )  # fmt: skip
    check_output(tmp_path, f"real.Noise.{model}")
