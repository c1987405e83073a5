"""The options of the SatVideoIRSTD challenge and what is said of a score and of a sweep.

A report is the plain dictionary R of `metrics.Association.report()`.
"""

import argparse
from pathlib import Path

from utils.files import write_json
from utils.options import Parser, folder, number_above
from utils.reports import text_table, write_csv
from utils.submission import ORDERS

BEST_SHOWN = 10  # rows of a sweep that are printed; the files hold all
DEFINITIONS = {
    "match": "in each frame one to one, as many pairs as can be, then the least total distance",
    "track": "correct if its pairs with one true track are at least half of the frames of either",
    "bonus": "completeness >= 25/35/50 %: 2/3/5 points; accuracy >= 55/65/80 %: 2/3/5 points",
    "total": "100 F1 + bonus",
}  # the radius and the meaning of a correct track are ours: the official ones are not published


def add_challenge(parser: Parser, centroids: tuple[str, ...], ids: tuple[str, ...]) -> None:
    """--submission, --score, --sweep and what they depend on."""
    group = parser.add_argument_group("challenge (SatVideoIRSTD)")
    _add_jobs(group)
    _add_targets(group, centroids, ids)
    _add_scoring(group)


def _add_jobs(group) -> None:
    job = group.add_mutually_exclusive_group()
    job.add_argument(
        "--submission", type=zip_file, metavar="FILE.zip",
        help="write the targets of every frame, one <sequence>.txt a sequence; needs no masks",
    )  # fmt: skip
    job.add_argument(
        "--score", type=folder, metavar="SUBMISSION",
        help="score a submission (zip file or folder) against the masks of the split; needs no run",
    )  # fmt: skip
    job.add_argument(
        "--sweep", action="store_true",
        help="score every threshold with every least area on the split, and say which is best",
    )  # fmt: skip


def _add_targets(group, centroids: tuple[str, ...], ids: tuple[str, ...]) -> None:
    group.add_argument(
        "--submission_threshold", type=number_above(0, int, or_equal=True, most=254), default=100,
        metavar="LEVEL",
        help="a pixel counts where the 8-bit map, floor(255 x probability), is above it; the "
        "published converter has 100",
    )  # fmt: skip
    group.add_argument(
        "--min_area", type=number_above(0, int), default=1, metavar="PIXELS",
        help="8-connected components of fewer pixels are left out",
    )  # fmt: skip
    group.add_argument(
        "--centroid", choices=centroids, default=centroids[0],
        help="of a component: that of the area its contour encloses, as published, or that of its "
        "pixels weighted by their scores",
    )  # fmt: skip
    add_format(group, ids)
    group.add_argument(
        "--confirmed_only", action=argparse.BooleanOptionalAction, default=False,
        help="leave out the targets of tracks that were never confirmed (seen in 3 frames)",
    )  # fmt: skip


def add_format(group, ids: tuple[str, ...]) -> None:
    """--submission_ids and --coordinate_order."""
    group.add_argument(
        "--submission_ids", choices=ids, default=ids[0],
        help="0 for every target, or the number of its track; tracks that were never confirmed "
        "have 0",
    )  # fmt: skip
    group.add_argument(
        "--coordinate_order", choices=ORDERS, default=ORDERS[0],
        help="in the files: row then column, as the published converter, or x then y, as the text "
        "of the rules",
    )  # fmt: skip


def _add_scoring(group) -> None:
    group.add_argument(
        "--match_radius", type=number_above(0), default=3.0, metavar="PIXELS",
        help="how far a submitted target may be from a true one; the official radius is not "
        "published",
    )  # fmt: skip
    group.add_argument(
        "--sweep_thresholds", type=_levels, default="20,40,60,80,100,120,140,160,180,200,220",
        metavar="LEVELS", help="for --submission_threshold, by commas",
    )  # fmt: skip
    group.add_argument(
        "--sweep_areas", type=_areas, default="1,2,3,4,6,9", metavar="PIXELS",
        help="for --min_area, by commas",
    )  # fmt: skip


def zip_file(value: str) -> Path:
    """An argparse `type`: a zip file to write."""
    path = folder(value)
    if path.suffix.lower() != ".zip" or path.is_dir():
        raise argparse.ArgumentTypeError(f"{value!r}: expected a file name that ends in .zip")
    return path


def _levels(value: str) -> tuple[int, ...]:
    return _list_of(number_above(0, int, or_equal=True, most=254), value)


def _areas(value: str) -> tuple[int, ...]:
    return _list_of(number_above(0, int), value)


def _list_of(kind, value: str) -> tuple:
    """An argparse `type`: distinct values by commas, in ascending order."""
    return tuple(sorted({kind(part.strip()) for part in value.split(",")}))


def describe_scoring(options: argparse.Namespace, split: str, **more) -> dict:
    """Everything that a score depends on; stored and printed with it."""
    return {"split": split, "match_radius": options.match_radius, **DEFINITIONS, **more}


def notes_on(reports: dict[str, dict], swapped: int, order: str) -> list[str]:
    """What a reader of a score must know, one line each.

    Args:
        reports: by sequence.
        swapped: how many targets match if the coordinates are read in the other order than `order`.
    """
    notes = []
    unlabelled = [name for name, report in reports.items() if report["unlabelled"]]
    if unlabelled:
        notes.append(
            f"tracks cannot be scored: the masks of {len(unlabelled)} of {len(reports)} sequences "
            f"({unlabelled[0]} first) do not number their targets; there, 8-connected components "
            "were taken for targets"
        )
    elif not any(report["submitted_tracks"] for report in reports.values()):
        notes.append("no tracks were submitted: all ids are 0")
    if swapped > 2 * sum(report["matched"] for report in reports.values()):
        other = ORDERS[1 - ORDERS.index(order)]
        notes.append(f"more targets ({swapped}) would match with --coordinate_order {other}")
    return notes


def rank_settings(settings: list[dict]) -> dict:
    """The settings of a sweep from the best on, the best, and notes.

    By total, or by F1 where tracks cannot be scored; among equals the lowest threshold is first.
    """
    by = "f1" if any(report["unlabelled"] for report in settings) else "total"
    ranked = sorted(settings, key=lambda report: -(report[by] or 0))
    notes = [] if by == "total" else ["ranked by F1: the masks do not number their targets"]
    if not any(report["matched"] for report in settings):
        notes.append("no setting found a single target, so none is better than another")
    return {"notes": notes, "best": ranked[0], "settings": ranked}


def write_score(stem: Path, results: dict) -> list[Path]:
    """`<stem>.score.json` and, a row a sequence, `<stem>.score.csv`; the paths."""
    paths = [stem.with_name(f"{stem.name}.score{suffix}") for suffix in (".json", ".csv")]
    write_json(paths[0], results)
    rows = [{"sequence": name, **report} for name, report in results["sequences"].items()]
    write_csv(paths[1], ["sequence", *results["overall"]], rows)
    return paths


def write_sweep(folder: Path, suffix: str, results: dict) -> list[Path]:
    """`sweep<suffix>.json` and, a row a setting, `sweep<suffix>.csv`; the paths."""
    paths = [folder / f"sweep{suffix}{kind}" for kind in (".json", ".csv")]
    write_json(paths[0], results)
    write_csv(paths[1], list(results["best"]), results["settings"])
    return paths


def print_score(results: dict, paths: list[Path]) -> None:
    """The table by sequence, the overall score and how it was counted, for people."""
    print(f"{results['submission']} on {results['dataset']}\n")
    named = {**results["sequences"], "overall": results["overall"]}
    print(_table({"": list(named)}, list(named.values())) + "\n")
    _print_rules(results, paths)


def print_sweep(results: dict, paths: list[Path]) -> None:
    """The best settings, how they were counted, and the options that choose the best."""
    settings, best = results["settings"], results["best"]
    print(f"{results['model']} on {results['dataset']}: best of {len(settings)} settings\n")
    shown = settings[:BEST_SHOWN]
    names = {key: [str(r[key]) for r in shown] for key in ("submission_threshold", "min_area")}
    print(_table(names, shown))
    chosen = " ".join(f"--{key} {best[key]}" for key in names)
    print(f"\nbest: {chosen}")
    _print_rules(results, paths)


def order_line(order: str) -> str:
    """Which coordinate comes first in the files, in words."""
    first, other = ORDERS if order == ORDERS[0] else ORDERS[::-1]
    return f"coordinates: {first.replace('_', ' then ')} (the other: --coordinate_order {other})"


def _print_rules(results: dict, paths: list[Path]) -> None:
    for note in results["notes"]:
        print(f"note: {note}")
    protocol = results["protocol"]
    if "coordinate_order" in protocol:
        print(order_line(protocol["coordinate_order"]))
    print("protocol: " + "; ".join(f"{key} {value}" for key, value in protocol.items()))
    print("\n".join(["wrote", *(f"  {path}" for path in paths)]))


# Columns of a table: heading, key of a report, format.
_COLUMNS = (
    ("targets", "targets", "d"),
    ("submitted", "submitted", "d"),
    ("matched", "matched", "d"),
    ("recall", "recall", ".4f"),
    ("precision", "precision", ".4f"),
    ("F1", "f1", ".4f"),
    ("true tracks", "true_tracks", "d"),
    ("submitted", "submitted_tracks", "d"),
    ("correct", "correct_tracks", "d"),
    ("completeness", "track_completeness", ".3f"),
    ("accuracy", "track_accuracy", ".3f"),
    ("bonus", "bonus", "d"),
    ("total", "total", ".2f"),
)
_ABOUT_TRACKS = 6  # from this column on


def _table(names: dict[str, list[str]], reports: list[dict]) -> str:
    """Reports as a table behind columns of names; - for what is undefined, and no columns about
    tracks where none can be scored."""
    columns = _COLUMNS if any(r["bonus"] is not None for r in reports) else _COLUMNS[:_ABOUT_TRACKS]
    rows = [
        ["-" if r[key] is None else format(r[key], form) for _, key, form in columns]
        for r in reports
    ]
    named = [[*name, *row] for *name, row in zip(*names.values(), rows, strict=True)]
    return text_table([(*names, *(heading for heading, _, _ in columns)), *named])
