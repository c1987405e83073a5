"""Results for people (tables, the published log) and for programs (JSON, CSV).

A report is the plain dictionary R of `metrics.Counts.report()`: frames, pixels, targets,
thresholds, hits, false_pixels, pd, fa, auc, iou.
"""

import csv
import io
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np
import torch

from utils.errors import InputError
from utils.files import write_json, write_text
from utils.plots import plot_roc

VERSION = "0.1.0"
OPERATING_POINT = 0.5  # the threshold that tables quote


def versions() -> dict[str, str]:
    """The versions that a number may depend on."""
    return {
        "deeppro": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }


def write_results(folder: Path, suffix: str, parameters: str, results: dict) -> list[Path]:
    """Write what `metrics.json` holds to `folder`, for people and for programs.

    `eval<suffix>.txt` (published wording, appended), `metrics<suffix>.json`,
    `sequences<suffix>.csv` and `roc<suffix>.png`; only the JSON where nothing was scored. Returns
    the paths.
    """
    metrics = folder / f"metrics{suffix}.json"
    write_json(metrics, results)
    if results["overall"] is None:
        return [metrics]
    log, table = folder / f"eval{suffix}.txt", folder / f"sequences{suffix}.csv"
    roc = folder / f"roc{suffix}.png"
    append_published_log(log, parameters, results)
    write_sequences_csv(table, results["sequences"])
    plot_roc(
        roc,
        {"all": results["overall"], **results["subsets"]},
        f"{results['model']} on {results['dataset']}",
    )
    return [metrics, log, table, roc]


def protocol_line(protocol: dict) -> str:
    """A protocol in one line, to print with a result."""
    norm, r = protocol["normalisation"], protocol["window_radius"]
    return (
        f"protocol: {protocol['checkpoint']}, {protocol['split']} split; hit {protocol['hit']}, "
        f"windows {2 * r + 1} x {2 * r + 1} (r = {r}, border {protocol['border']}), "
        f"{protocol['comparison']}, {len(protocol['thresholds'])} thresholds; "
        f"IoU of {protocol['iou']}; T = {protocol['seqlen']}, overlap {protocol['overlap']}, "
        f"fused by the {protocol['fusion']}, registered: {protocol['register']}; "
        f"mean {norm['mean']:.4f}, std {norm['std']:.4f} ({norm['source']}); "
        f"{protocol['precision']} on {protocol['device']}; "
        + ", ".join(f"{name} {version}" for name, version in protocol["versions"].items())
    )


def at_threshold(report: dict, threshold: float = OPERATING_POINT) -> dict:
    """One row of a report: hits, false_pixels, pd and fa at a threshold."""
    i = report["thresholds"].index(threshold)
    return {key: report[key][i] for key in ("hits", "false_pixels", "pd", "fa")}


def operating_point(report: dict, fa: float) -> int:
    """Index of the lowest threshold with a false-alarm rate of at most `fa`.

    Raises InputError if there is none.
    """
    rates = [float("inf") if rate is None else rate for rate in report["fa"]]
    allowed = [i for i, rate in enumerate(rates) if rate <= fa]
    if not allowed:
        raise InputError(
            f"Fa is above {fa:g} at every threshold; at least {min(rates):.1e} is possible"
        )
    return min(allowed, key=lambda i: report["thresholds"][i])


def results_table(reports: dict[str, dict]) -> str:
    """Pd, Fa, AUC and IoU of named reports as a text table."""
    rows = [("", "frames", "targets", "Pd", "Fa", "AUC", "IoU")]
    for name, report in reports.items():
        point = at_threshold(report)
        rows.append(
            (
                name,
                str(report["frames"]),
                str(report["targets"]),
                _text(point["pd"], ".4f"),
                _text(point["fa"], ".2e"),
                _text(report["auc"], ".4f"),
                _text(report["iou"], ".4f"),
            )
        )
    return text_table(rows)


def epoch_line(record: dict, epochs: int) -> str:
    """A training epoch (a record of `epochs.jsonl`) in one line."""
    iou, pd, fa = (
        _text(record[key], form) for key, form in (("iou", ".4f"), ("pd", ".3f"), ("fa", ".1e"))
    )
    return (
        f"epoch {record['epoch']}/{epochs}: loss {record['loss']:.4f}, IoU {iou}, Pd {pd}, "
        f"Fa {fa}, lr {record['learning_rate']:.1e}, {record['seconds']:.1f} s "
        f"({record['data_seconds'] / record['seconds']:.1%} of it waiting for clips)"
    )


def text_table(rows: list[tuple[str, ...]]) -> str:
    """Aligned columns under a rule; the first row is the heading, the first column the names."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if c else cell.ljust(width)
            for c, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def append_published_log(path: Path, parameters: str, results: dict) -> None:
    """Add an evaluation to an `eval.txt` in the published wording.

    What stood there stays, as in the published evaluator: released runs hold logs of their own.
    `results` is what `metrics.json` holds.
    """
    before = path.read_text() if path.is_file() else ""
    stamp = f"{datetime.now():%Y-%m-%d %H:%M:%S,%f}"[:-3]
    messages = ["PARAMETER ...", parameters, "---- EVALUATION----"]
    for name, report in results["sequences"].items():
        messages += [f"{name} results:\n", *_threshold_lines(report)]
    titles = {"low_snr": "Low SNR", "high_snr": "High SNR"}
    for name, report in results["subsets"].items():
        messages += [
            f"{titles.get(name, name)} results:\t{_auc(report)}\n",
            *_threshold_lines(report),
        ]
    overall = results["overall"]
    messages += [f"Final results:\t{_auc(overall)}\n", *_threshold_lines(overall)]
    messages += [f"Eval avg class IoU of prediction: {_text(overall['iou'], '.6f')}"]
    write_text(path, before + "".join(f"{stamp} - Model - INFO - {text}\n" for text in messages))


def _threshold_lines(report: dict) -> list[str]:
    return [
        f"Th_Seg = {threshold:e}:\tPD:[{hits}/{report['targets']}, {_text(pd, '.5f')}]"
        f"\tFA:[{false}, {_text(fa, 'e')}]\n"
        for threshold, hits, pd, false, fa in zip(
            *(report[key] for key in ("thresholds", "hits", "pd", "false_pixels", "fa")),
            strict=True,
        )
    ]


def _auc(report: dict) -> str:
    return f"AUC:{_text(report['auc'], '.5f')}"


def _text(value: float | None, form: str) -> str:
    return "nan" if value is None else format(value, form)


SEQUENCE_COLUMNS = (
    *("sequence", "frames", "pixels", "targets", "hits", "false_pixels"),
    *("pd", "fa", "auc", "iou", "snr"),
)


def write_sequences_csv(path: Path, reports: dict[str, dict]) -> None:
    """A row a sequence: counts and ratios at threshold 0.5, AUC, IoU and a simulated one's SNR;
    empty where 0/0 or unknown."""
    rows = [{"sequence": name, **r, **at_threshold(r)} for name, r in reports.items()]
    write_csv(path, SEQUENCE_COLUMNS, rows)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """A row a dictionary; other keys are left out, and None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def print_results(results: dict, paths: list[Path]) -> None:
    """The table, the protocol and the paths, for people."""
    of = f", run {results['run']}" if results["run"] else ""
    print(f"{results['model']} on {results['dataset']}{of}\n")
    if results["overall"] is None:
        print("no masks: detected, drawn and stored, not scored")
    else:
        named = {**results["sequences"], **results["subsets"], "overall": results["overall"]}
        print(results_table({name: r for name, r in named.items() if r["frames"]}))
        print(f"\nPd and Fa at threshold {OPERATING_POINT}")
    print(protocol_line(results["protocol"]))
    print("\n".join(["wrote", *(f"  {path}" for path in paths)]))
