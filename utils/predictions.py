"""The files of detections: a CSV written as they come, a JSON made of it."""

from __future__ import annotations

import csv
import glob
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError
from utils.files import remove_unfinished, written_whole
from utils.reports import versions
from utils.submission import Extent, write_submission


class Row(NamedTuple):
    """A line of detections.csv; frame and track count from 1, the rest is a Detection's.

    x, y: centroid, the centre of the top left pixel being (0, 0). left, top, width, height: the
    box. All in pixels.
    """

    frame: int
    x: float
    y: float
    width: int
    height: int
    area: int
    peak: float
    mean: float
    track: int
    left: int
    top: int


# Written for every input; the summary last.
_OUTPUTS = ["detections.csv", "detections.json", "overlay.mp4", "contact_sheet.png", "summary.json"]
_KINDS = {"x": float, "y": float, "peak": float, "mean": float}  # the others are whole numbers


@contextmanager
def detection_writer(path: Path) -> Iterator[Callable[[Iterable[Row]], None]]:
    """A function that adds rows to a fresh detections.csv; they are on the disk when it returns."""
    with open(path, "w", encoding="ascii", newline="") as file:

        def write(rows: Iterable[Row]) -> None:
            file.write("".join(map(_line, rows)))
            file.flush()

        file.write(",".join(Row._fields) + "\n")
        write([])
        yield write


def _line(row: Row) -> str:
    """Pixels with 3 decimals, scores with 6."""
    texts = (
        f"{value:.{6 if name in ('peak', 'mean') else 3}f}" if name in _KINDS else str(value)
        for name, value in zip(Row._fields, row, strict=True)
    )
    return ",".join(texts) + "\n"


def read_detections(path: Path) -> Iterator[Row]:
    """The lines of a detections.csv, one at a time."""
    with open(path, encoding="ascii", newline="") as file:
        for line in csv.DictReader(file):
            yield Row(**{name: _KINDS.get(name, int)(line[name]) for name in Row._fields})


def by_frame(rows: Iterable[Row], frames: int) -> Iterator[list[Row]]:
    """The rows of frame 1, 2, ... up to `frames`, in memory one frame at a time."""
    rows = iter(rows)
    row = next(rows, None)
    for number in range(1, frames + 1):
        there = []
        while row is not None and row.frame == number:
            there.append(row)
            row = next(rows, None)
        yield there


def keep_tracks(path: Path, wanted: Callable[[int], bool]) -> None:
    """Leave only the detections of the wanted tracks in a detections.csv."""
    with written_whole(path) as temporary, detection_writer(temporary) as write:
        for row in read_detections(path):
            if wanted(row.track):
                write([row])


def write_json_detections(
    path: Path, rows: Iterable[Row], heading: dict, confirmed: Callable[[int], bool]
) -> dict[str, int]:
    """A JSON of the heading, all detections and their tracks; how many there are of each.

    Written line by line: detections may be many.
    """
    tracks: dict[int, dict] = {}
    count = 0
    with written_whole(path) as temporary, open(temporary, "w") as file:
        file.write(json.dumps(heading, indent=1, allow_nan=False)[:-2] + ',\n "detections": [')
        for row in rows:
            file.write(("," if count else "") + "\n  " + json.dumps(row._asdict()))
            count += 1
            _note(tracks, row)
        for number, track in tracks.items():
            track["confirmed"] = confirmed(number)
        lines = ",\n  ".join(map(json.dumps, tracks.values()))
        file.write("\n ],\n" + ' "tracks": [\n  ' + lines + "\n ]\n}\n")
    sure = sum(track["confirmed"] for track in tracks.values())
    return {"detections": count, "tracks": len(tracks), "confirmed_tracks": sure}


def _note(tracks: dict[int, dict], row: Row) -> None:
    """Count a detection in with its track."""
    track = tracks.setdefault(
        row.track,
        {"track": row.track, "first_frame": row.frame, "last_frame": 0, "observations": 0,
         "peak": 0.0, "from": [row.x, row.y], "to": None},
    )  # fmt: skip
    track["last_frame"], track["to"] = row.frame, [row.x, row.y]
    track["observations"] += 1
    track["peak"] = max(track["peak"], row.peak)


def clear_results(folder: Path, name: str) -> None:
    """Remove what an earlier run, finished or not, left in the folder of the results of `name`."""
    for output in reversed(_OUTPUTS):  # without the summary nothing counts as finished
        (folder / output).unlink(missing_ok=True)
    for explained in folder.glob(f"{glob.escape(name)}_frame[0-9]*_target[0-9]*.*"):
        if explained.suffix in (".npz", ".png", ".json"):
            explained.unlink()
    shutil.rmtree(folder / "visual" / name, ignore_errors=True)
    with suppress(OSError):  # there is none, or it holds something else
        (folder / "visual").rmdir()
    remove_unfinished(folder)


def describe_protocol(prediction) -> dict:
    """Everything that a number of a `predict.Prediction` (here known by its fields) depends on."""
    options, loaded = prediction.options, prediction.loaded
    return {
        "run": loaded.run,
        "model": loaded.model,
        "checkpoint": loaded.checkpoint,
        "threshold": options.threshold,
        "threshold_source": options.threshold_source,
        "comparison": "score >= threshold, in float64",
        "components": f"8-connected, of at least {options.min_area} pixels",
        "tracks": {k: getattr(options, k) for k in ("gate", "growth", "misses", "observations")}
        | {"only_confirmed": options.confirmed_only},
        **prediction.detector.describe(),
        "normalisation": prediction.normalisation._asdict(),
        "bad_frames": "the one before stands in, nothing is reported",
        "versions": versions(),
    }


def summarise(prediction, counts: dict[str, int], protocol: dict, seconds: float) -> dict:
    """What summary.json says of a `predict.Prediction` that took so long to detect."""
    p, source = prediction, prediction.source
    return {
        "input": {
            "place": source.place, "frames": p.frames, "size": list(p.shape), "levels": p.depth,
            "frames_per_second": source.rate, "bad_frames": p.faults,
        },
        **counts,
        "speed": {
            "seconds": round(seconds, 3),
            "frames_per_second": round(p.frames / seconds, 3),
            "latency_seconds": {
                "mean": round(p.waited / p.frames, 4), "most": round(p.longest, 4)
            },
            "latency_frames": p.behind - 1,
        },
        "warnings": p.warnings,
        "protocol": protocol,
        "options": p.recorded,
    }  # fmt: skip


def read_summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def is_finished(folder: Path, recorded: dict, live: bool) -> bool:
    """Whether an input was finished before.

    Args:
        recorded: the input, its length, the fingerprint of its `files`, and the options.

    Raises InputError if it was, but with other options or before the input changed.
    """
    try:
        before = read_summary(folder)["options"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if live:
        raise InputError(f"{folder} holds an earlier recording: --overwrite, or another --output")
    for key, value in json.loads(json.dumps(recorded)).items():  # tuples as lists
        if before.get(key) != value:
            how = f"with {key} {before.get(key)}, now it is {value}"
            if key == "files":
                how = f"before files of {recorded['input']} changed"
            raise InputError(f"{folder} was made {how}: --overwrite, or another --output")
    return True


def submit(path: Path, folders: list[Path], ids: str, order: str) -> None:
    """Write a submission of the detections in finished folders, each a sequence of its name."""
    targets, extents = {}, {}
    for folder in folders:
        targets[folder.name], extents[folder.name] = submitted(folder, ids)
    write_submission(path, targets, extents, order)


def submitted(folder: Path, ids: str) -> tuple[list[list[tuple]], Extent]:
    """What a finished input adds to a submission: (track, x, y) of its targets by frame, and what
    must be covered.

    Args:
        ids: `zero`, or `track`; tracks that were never confirmed have 0.
    """
    about = read_summary(folder)["input"]
    confirmed = set()
    if ids == "track":
        tracks = json.loads((folder / "detections.json").read_text())["tracks"]
        confirmed = {track["track"] for track in tracks if track["confirmed"]}
    frames = [
        [(row.track if row.track in confirmed else 0, row.x, row.y) for row in rows]
        for rows in by_frame(read_detections(folder / "detections.csv"), about["frames"])
    ]
    return frames, Extent(about["frames"], *about["size"])
