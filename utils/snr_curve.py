"""Draw Pd against SNR of several detectors, none with more false alarms than --fa.

  python -m utils.snr_curve --out FILE.png --fa 1e-5 OUT [OUT ...]

OUT are folders (or metrics.json files) that test.py wrote for one simulated set. Every detector
works at the lowest of the published thresholds whose Fa over the whole set is at most --fa.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import InputError, run_command
from utils.options import Parser, folder, number_above, picture
from utils.plots import plot_snr_curve
from utils.reports import operating_point, text_table


class Curve(NamedTuple):
    """A detector's Pd by SNR: its name, its operating point, and by bin the mean SNR and Pd."""

    name: str
    threshold: float
    fa: float
    snr: list[float]
    pd: list[float]


def snr_curve(results: dict, fa: float, bins: int) -> Curve:
    """The curve of one evaluation: its sequences in order of SNR, in `bins` groups of equal size.

    Args:
        results: what a metrics.json holds.
        fa: the highest false-alarm rate over the whole set.
    """
    overall = results["overall"]
    try:
        point = operating_point(overall, fa)
    except InputError as error:
        raise InputError(f"{results['model']}: {error}: raise --fa") from None
    known = [r for r in results["sequences"].values() if r["snr"] is not None and r["targets"]]
    if len(known) < bins:
        raise InputError(
            f"{results['model']}: {len(known)} sequences of known SNR, {bins} bins: evaluate a "
            "larger simulated set, or lower --bins"
        )
    groups = np.array_split(sorted(known, key=lambda r: r["snr"]), bins)
    return Curve(
        results["model"],
        overall["thresholds"][point],
        overall["fa"][point],
        [float(np.mean([r["snr"] for r in group])) for group in groups],
        [sum(r["hits"][point] for r in g) / sum(r["targets"] for r in g) for g in groups],
    )


def read_results(path: Path) -> dict:
    """What test.py wrote to a folder; InputError if that is no scored evaluation."""
    path = path / "metrics.json" if path.is_dir() else path
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected the metrics.json of a test.py --output"
        ) from None
    if not isinstance(results, dict) or not results.get("overall"):
        raise InputError(f"{path}: holds no scored evaluation of test.py")
    return results


def build_parser() -> Parser:
    parser = Parser(prog="python -m utils.snr_curve", description=__doc__)
    parser.add_argument("evaluations", nargs="+", type=folder, metavar="OUT", help="of test.py")
    parser.add_argument("--out", type=picture, required=True, help="picture to write, a .png")
    parser.add_argument("--fa", type=number_above(0), default=1e-5, help="false-alarm rate")
    parser.add_argument("--bins", type=number_above(0, int), default=8, help="groups of sequences")
    parser.add_argument("--title", default="", help="above the picture")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    curves = [snr_curve(read_results(p), options.fa, options.bins) for p in options.evaluations]
    if any(curve.snr != curves[0].snr for curve in curves):
        raise InputError("the evaluations are of different data sets: their SNR differ")
    if len({curve.name for curve in curves}) < len(curves):  # two runs of one model
        named = zip(curves, options.evaluations, strict=True)
        curves = [c._replace(name=f"{c.name} in {path.stem}") for c, path in named]
    rows = [("SNR", *(f"{snr:.2f}" for snr in curves[0].snr), "threshold", "Fa")]
    rows += [
        (c.name, *(f"{pd:.3f}" for pd in c.pd), f"{c.threshold:g}", f"{c.fa:.1e}") for c in curves
    ]
    plot_snr_curve(options.out, curves, options.title)
    print(text_table(rows))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    run_command(main)
