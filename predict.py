"""Detect targets in any video with a trained run.

  python predict.py INPUT --weights RUN

INPUT is a folder of images, a video, a multi-page TIFF, a .npy or .npz stack [N, H, W], a glob in
quotes, the number of a camera or the address of a stream; there may be several. RUN is the folder
of a run (ours or a released one), or its name under --logpath. For each INPUT a folder
predictions/<its name>/ (see --output) gets

  detections.csv     a line a detection, written as they come; detections.json: the same, and tracks
  overlay.mp4        the frames with boxes, scores and tracks, the probability map in a corner
  contact_sheet.png  twelve of its pictures
  summary.json       what was done with which options, counts, speed

An INPUT that was finished before is skipped. A camera or a stream ends with Ctrl-C.
"""

import argparse
import gzip
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

import numpy as np

from datasets import Source, choose_input_normalisation, open_sources
from engine import Loaded, load_detector, load_network
from models import (
    IDS,
    PRECISIONS,
    REGISTRATIONS,
    Explainer,
    Target,
    Tracker,
    find_detections,
    target_at,
)
from utils.attribution_options import check_attribution
from utils.attribution_report import describe_line, write_attribution
from utils.challenge import order_line
from utils.devices import set_up_arithmetic
from utils.errors import InputError, Interrupted, explain, run_command
from utils.files import locked, writable_folder, write_json
from utils.inference_options import add_inference
from utils.logs import progress, warn
from utils.options import (
    Parser,
    add_common,
    add_device,
    folder,
    number_above,
    parse_options,
)
from utils.overlay import draw_predictions, thumbnail
from utils.pictures import ProbabilityWriter
from utils.prediction_options import (
    DEFAULT_RATE,
    add_detection,
    add_input,
    add_output,
    add_submission,
    choose_threshold,
    decisive,
)
from utils.predictions import (
    Row,
    clear_results,
    describe_protocol,
    detection_writer,
    is_finished,
    keep_tracks,
    read_detections,
    submit,
    summarise,
    write_json_detections,
)
from utils.processes import stop_when_told
from utils.runs import find_run
from utils.video import VideoWriter, open_video, read_pictures


def build_parser() -> Parser:
    parser = Parser(prog="predict.py", description=__doc__)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="see above")
    group = parser.add_argument_group("run")
    group.add_argument("--weights", type=folder, required=True, metavar="RUN", help="see above")
    group.add_argument(
        "--logpath", type=folder, default="./log/", help="folder that holds the runs"
    )
    group.add_argument(
        "--epoch", type=number_above(0, int), metavar="N",
        help="checkpoint epoch_N_model.pth; default: the best",
    )  # fmt: skip
    add_input(parser)
    add_detection(parser)
    add_output(parser)
    add_submission(parser, IDS)
    add_device(parser)
    add_inference(parser, list(PRECISIONS), REGISTRATIONS)
    add_common(parser)
    return parser


class Prediction:
    """One input under way: first detections, frame by frame; then what is made of them all."""

    def __init__(self, source: Source, loaded: Loaded, options: argparse.Namespace, recorded: dict):
        self.source, self.loaded, self.options, self.recorded = source, loaded, options, recorded
        self.folder = options.output / source.name
        self.scratch = self.folder / ".work"
        self.table = self.folder / "detections.csv"
        self.tracker = Tracker(options.gate, options.growth, options.misses, options.observations)
        self.reading: deque[tuple[str | None, float]] = deque()  # fault and time, by frame read
        self.faults: list[str] = []
        self.warnings: list[str] = []
        self.length = source.length and min(source.length, options.frames or sys.maxsize)
        self.frames = 0  # answered so far
        self.waited, self.longest, self.behind = 0.0, 0.0, 0  # seconds; frames

    def run(self) -> dict:
        """Do everything; the summary. What an earlier run left in the folder is replaced."""
        self.check_place(self.length)
        clear_results(self.folder, self.source.name)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        try:
            began = time.perf_counter()
            with stop_when_told(self.source.live) as told:
                self.detect(self.read(told))
            return self.finish(time.perf_counter() - began)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{self.frames} frames of {self.source.name} are in {self.table}; run again to "
                "begin it anew (finished inputs are skipped)"
            ) from None
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def read(self, told) -> Iterator[np.ndarray]:
        """The frames [H, W], until there are no more or `told` is set."""
        recording = VideoWriter(self.scratch / "seen.avi", DEFAULT_RATE, "MJPG")
        try:
            frames = self.source.frames(self.options.skip_bad, self.warn)
            for levels, fault in islice(frames, self.options.frames):
                self.reading.append((fault, time.perf_counter()))
                if self.source.live:  # cannot be read again for the pictures
                    recording.write(levels)
                yield levels
                if told.is_set():
                    return
        finally:
            recording.close()

    def detect(self, frames: Iterator[np.ndarray]) -> None:
        """Write detections.csv, a frame as soon as its map is there."""
        options = self.options
        head = list(islice(frames, self.loaded.network.seqlen))
        self.shape, self.depth = head[0].shape, str(head[0].dtype)
        self.normalisation, warnings = choose_input_normalisation(
            np.stack(head), options.normalize, self.loaded.normalisation, options.mean, options.std
        )
        for warning in warnings:
            self.warn(warning)
        self.detector = load_detector(self.loaded, self.normalisation, options)
        save = ProbabilityWriter(self.folder / "visual") if options.save_maps else None
        with (
            detection_writer(self.table) as write,
            gzip.open(self.scratch / "maps.gz", "wb", compresslevel=1) as maps,
            progress(self.length or options.frames, "frame", self.source.name) as bar,
        ):
            for i, scores in enumerate(self.detector.stream(chain(head, frames))):
                write(self.rows(scores))
                maps.write(thumbnail(scores).tobytes())
                if save:
                    save(self.source, i, scores)
                bar.update()

    def rows(self, scores: np.ndarray) -> list[Row]:
        """The detections of the next frame, by its probability map [H, W]."""
        self.behind = max(self.behind, len(self.reading))
        fault, read_at = self.reading.popleft()
        waited = time.perf_counter() - read_at
        self.waited, self.longest = self.waited + waited, max(self.longest, waited)
        self.frames += 1
        if fault:
            self.faults.append(f"frame {self.frames}: {fault}")
        options = self.options
        if options.attribution and options.attribution[0] == self.frames:
            self.seen = (scores >= options.threshold) & (not fault)  # [H, W]
            if not self.source.live:  # what cannot be repeated is finished first
                self.target()
        found = [] if fault else find_detections(scores, options.threshold, options.min_area)
        tracks = self.tracker.update(found)
        return [
            Row(self.frames, track=track, **d._asdict())
            for d, track in zip(found, tracks, strict=True)
        ]

    def finish(self, seconds: float) -> dict:
        """Make everything else of detections.csv, the frames (once more) and the small maps."""
        options, source = self.options, self.source
        if options.confirmed_only:
            keep_tracks(self.table, self.tracker.confirmed)
        protocol = describe_protocol(self)
        counts = write_json_detections(
            self.folder / "detections.json", read_detections(self.table),
            {"input": source.place, "frames": self.frames, "protocol": protocol},
            self.tracker.confirmed,
        )  # fmt: skip
        with gzip.open(self.scratch / "maps.gz") as maps:
            draw_predictions(
                self.folder, source.name, self.again(), self.frames, self.table, maps,
                self.tracker.confirmed,
                (options.fps or source.rate or DEFAULT_RATE) if options.video else None,
            )  # fmt: skip
        summary = summarise(self, counts, protocol, seconds)
        if options.attribution:  # if that fails, everything else is done
            without = {"options": self.recorded | {"attribution": None}}
            write_json(self.folder / "summary.json", summary | without)
            self.explain()
        write_json(self.folder / "summary.json", summary)
        return summary

    def check_place(self, length: int | None) -> None:
        """InputError if --attribution names a frame beyond so many."""
        number = self.options.attribution and self.options.attribution[0]
        if number and length and number > length:
            raise InputError(
                f"--attribution: no frame {number}: {self.source.name} has {length}, counted from 1"
            )

    def target(self) -> Target:
        """The detection at the place of --attribution, once its frame was seen."""
        number, x, y = self.options.attribution
        return target_at(number - 1, self.seen, x, y, self.options.min_area)

    def explain(self) -> None:
        """Show what the detection at the place of --attribution depends on; say it in a line."""
        self.check_place(self.frames)
        target = self.target()

        def read(start: int, stop: int) -> np.ndarray:
            return np.stack(list(islice(self.again(), start, stop)))

        explainer = Explainer(self.loaded.network, *self.normalisation[:2], self.detector.device)
        found = explainer.explain(read, self.frames, target.index, target.mask)
        name = self.source.name
        protocol = {**describe_protocol(self), "attribution": explainer.describe()}
        record, _ = write_attribution(self.folder, found, name, False, target, protocol)
        print(describe_line(record), flush=True)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        warn(f"{self.source.name}: {text}")

    def again(self) -> Iterator[np.ndarray]:
        """The frames [H, W] once more, those of a camera or stream from what was recorded."""
        if self.source.live:
            seen = read_pictures(open_video(str(self.scratch / "seen.avi")))
            height, width = self.shape  # what was recorded may be one wider and higher
            return (picture[:height, :width, 2] for picture in seen)
        return (levels for levels, _ in self.source.frames(self.options.skip_bad))


def predict(source: Source, loaded: Loaded, options: argparse.Namespace, recorded: dict) -> str:
    """Detect in one input; a line that says what came out."""
    place = options.output / source.name
    if source.folder and source.folder in (place.resolve(), *place.resolve().parents):
        raise InputError(f"{place} lies inside the input {source.place}: name another --output")
    recorded = {
        "input": os.path.abspath(source.place), "length": source.length,
        "files": source.fingerprint(), **recorded,
    }  # fmt: skip
    if not options.overwrite and is_finished(place, recorded, source.live):
        return f"{source.name}: finished before, in {place} (--overwrite does it anew)"
    with locked(writable_folder(place, "name another folder with --output DIR")):
        summary = Prediction(source, loaded, options, recorded).run()
    bad = len(summary["input"]["bad_frames"])
    return (
        f"{source.name}: {summary['input']['frames']} frames"
        + (f" ({bad} of them bad)" if bad else "")
        + f", {summary['detections']} detections in {summary['tracks']} tracks "
        f"({summary['confirmed_tracks']} confirmed), "
        f"{summary['speed']['frames_per_second']:.1f} frames/s; see {place}"
    )


def main() -> None:
    options = parse_options(build_parser(), "predict")
    if (options.mean is None) != (options.std is None):
        raise InputError("--mean and --std go together: give both or neither")
    check_attribution(options)
    set_up_arithmetic()
    sources = open_sources(options.inputs)
    run = find_run(options.logpath, options.weights)
    loaded = load_network(run, options.epoch or "best")
    options.threshold, options.threshold_source = choose_threshold(
        options, loaded.run, loaded.validation
    )
    recorded = {"run": str(run.folder), "checkpoint": loaded.checkpoint, **decisive(options)}
    if options.submission:
        writable_folder(options.submission.parent, "name another file with --submission FILE.zip")
    if options.attribution and len(sources) > 1:
        raise InputError("--attribution is of one INPUT: name only that")
    failed = []
    for source in sources:
        try:
            print(predict(source, loaded, options, recorded), flush=True)
        except InputError as error:
            if len(sources) == 1:
                raise
            print(explain(error)[0], file=sys.stderr)
            failed.append(source.name)
    if failed:
        raise InputError(f"{len(failed)} of {len(sources)} inputs failed: {', '.join(failed)}")
    if options.submission:
        folders = [options.output / source.name for source in sources]
        submit(options.submission, folders, options.submission_ids, options.coordinate_order)
        print(f"wrote {options.submission}; {order_line(options.coordinate_order)}")


if __name__ == "__main__":
    run_command(main)
