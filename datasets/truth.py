"""What `truth.csv` of a simulated data set says of its sequences."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from utils.errors import InputError

LOW_SNR = 3.0  # the published border between the low- and high-SNR test sequences


def snr_subsets(root: str | Path, names: list[str]) -> dict[str, tuple[str, ...]]:
    """The named sequences by SNR, `low_snr` (<= 3) and `high_snr`; empty without a truth.csv.

    A sequence's SNR is the mean over its targets of each one's mean over its frames; a sequence
    without targets is in neither. Raises InputError for a truth.csv that cannot be read.
    """
    path = Path(root) / "truth.csv"
    if not path.is_file():
        return {}
    ratios: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                ratios[row["sequence"]][row["target"]].append(float(row["snr"]))
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a simulator's truth ({error!r})") from None
    snr = {
        name: sum(sum(r) / len(r) for r in ratios[name].values()) / len(ratios[name])
        for name in names
        if name in ratios
    }
    return {
        "low_snr": tuple(name for name, ratio in snr.items() if ratio <= LOW_SNR),
        "high_snr": tuple(name for name, ratio in snr.items() if ratio > LOW_SNR),
    }
