"""What `truth.csv` of a simulated data set says of its sequences."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from utils.errors import InputError

LOW_SNR = 3.0  # the published border between the low- and high-SNR test sequences


def read_snr(root: str | Path) -> dict[str, float]:
    """The SNR of every sequence in a simulator's truth.csv; empty without one.

    A sequence's SNR is the mean over its targets of each one's mean over its frames; a sequence
    without targets has none. Raises InputError for a truth.csv that cannot be read.
    """
    path = Path(root) / "truth.csv"
    if not path.is_file():
        return {}
    ratios: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                if not math.isfinite(snr := float(row["snr"])):
                    raise ValueError(f"SNR {snr}")
                ratios[row["sequence"]][row["target"]].append(snr)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a simulator's truth ({error!r})") from None
    return {
        name: sum(sum(r) / len(r) for r in targets.values()) / len(targets)
        for name, targets in ratios.items()
    }


def snr_subsets(snr: Mapping[str, float], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The named sequences by SNR, `low_snr` (<= 3) and `high_snr`; none where no SNR is known."""
    known = [name for name in names if name in snr]
    if not snr:
        return {}
    return {
        "low_snr": tuple(name for name in known if snr[name] <= LOW_SNR),
        "high_snr": tuple(name for name in known if snr[name] > LOW_SNR),
    }
