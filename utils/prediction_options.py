"""The options of predict.py: what is read, what is detected, what is written."""

import argparse
from pathlib import Path

from utils.challenge import add_format, zip_file
from utils.errors import InputError
from utils.logs import warn
from utils.options import Parser, finite, folder, number_above, probability
from utils.reports import operating_point

CHALLENGE = 101 / 255  # probability; floor(255 x probability) > 100, as the challenge has it
DEFAULT_RATE = 10.0  # frames a second of the overlay where the input does not say
# Options that the results depend on: with others, a finished input is not the same.
_DECISIVE = (
    *("threshold", "normalize", "mean", "std", "skip_bad", "frames", "min_area", "gate", "growth"),
    *("misses", "observations", "confirmed_only", "save_maps", "video", "fps", "precision"),
    *("register", "attribution"),
)


def decisive(options: argparse.Namespace) -> dict:
    """The options that the results depend on, by name."""
    return {name: getattr(options, name) for name in _DECISIVE}


def add_input(parser: Parser) -> None:
    """How the input is read and normalised."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "--normalize", choices=("run", "auto"),
        help="grey levels: by the mean and std that the run was trained with, or by median and "
        "median absolute deviation of the first window; default: run for 8-bit frames, auto for "
        "all others, whose levels no run knows",
    )  # fmt: skip
    group.add_argument("--mean", type=finite, help="mean grey level, with --std")
    group.add_argument("--std", type=number_above(0), help="standard deviation of grey levels")
    group.add_argument(
        "--skip_bad", action=argparse.BooleanOptionalAction, default=False,
        help="go on after a frame that cannot be read: the one before stands in for it, so that "
        "the timing stays, and nothing is reported in it",
    )  # fmt: skip
    group.add_argument(
        "--frames", type=number_above(0, int), metavar="N", help="read no more than N frames"
    )


def add_detection(parser: Parser) -> None:
    """What a detection is, and how detections are linked."""
    group = parser.add_argument_group("detections")
    group.add_argument(
        "--threshold", type=probability, metavar="P",
        help="a pixel is detected at this probability; default: 0.5, with --submission 101/255",
    )  # fmt: skip
    group.add_argument(
        "--target_fa", type=number_above(0, most=1), metavar="FA",
        help="in place of --threshold: the lowest one that kept the false-alarm rate at or below "
        "this on the validation data of the run (one trained here), such as 1e-5",
    )  # fmt: skip
    group.add_argument(
        "--min_area", type=number_above(0, int), default=1, metavar="PIXELS",
        help="leave out smaller detections",
    )  # fmt: skip
    group = parser.add_argument_group("tracks")
    group.add_argument(
        "--gate", type=number_above(0), default=20.0, metavar="PIXELS",
        help="how far from its predicted place a track may go on",
    )  # fmt: skip
    group.add_argument(
        "--growth", type=number_above(0, or_equal=True), default=5.0, metavar="PIXELS",
        help="how much further for each frame that it missed",
    )  # fmt: skip
    group.add_argument(
        "--misses", type=number_above(0, int, or_equal=True), default=2, metavar="FRAMES",
        help="frames in a row that a track may miss",
    )  # fmt: skip
    group.add_argument(
        "--observations", type=number_above(0, int), default=3, metavar="N",
        help="detections that confirm a track",
    )  # fmt: skip
    group.add_argument(
        "--confirmed_only", action=argparse.BooleanOptionalAction, default=False,
        help="keep only the detections of confirmed tracks: no false alarms of a frame or two",
    )  # fmt: skip


def add_output(parser: Parser) -> None:
    """What is written where."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--output", type=folder, default=Path("predictions"), metavar="DIR",
        help="results go to DIR/<name of the input>/",
    )  # fmt: skip
    group.add_argument(
        "--overwrite", action=argparse.BooleanOptionalAction, default=False,
        help="do inputs anew that were finished before",
    )  # fmt: skip
    group.add_argument(
        "--save_maps", action=argparse.BooleanOptionalAction, default=False,
        help="write 8-bit probability PNGs under visual/<name>/",
    )  # fmt: skip
    group.add_argument(
        "--video", action=argparse.BooleanOptionalAction, default=True, help="write overlay.mp4"
    )
    group.add_argument(
        "--fps", type=number_above(0, most=1000), metavar="RATE",
        help=f"of the overlay; default: the input's, or {DEFAULT_RATE:g}",
    )  # fmt: skip
    group.add_argument(
        "--attribution", type=place, metavar="FRAME,X,Y",
        help="also show which pixels of which frames the detection at X,Y (in pixels) of a frame "
        "(counted from 1) depends on: integrated gradients, of one INPUT",
    )  # fmt: skip


def add_submission(parser: Parser, ids: tuple[str, ...]) -> None:
    """--submission and the form of its files."""
    group = parser.add_argument_group("challenge (SatVideoIRSTD)")
    group.add_argument(
        "--submission", type=zip_file, metavar="FILE.zip",
        help="write the detections of all inputs, one <name>.txt each; test.py --submission does "
        "the same for a data set, with the published converter's centroids",
    )  # fmt: skip
    add_format(group, ids)


def place(value: str) -> tuple[int, float, float]:
    """An argparse `type`: FRAME,X,Y, the frame counted from 1."""
    parts = value.split(",")
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"{value!r}: expected FRAME,X,Y")
    inside = number_above(0, or_equal=True)
    return number_above(0, int)(parts[0]), inside(parts[1]), inside(parts[2])


def choose_threshold(
    options: argparse.Namespace, run: str, validation: dict | None
) -> tuple[float, str]:
    """The threshold and where it comes from.

    Args:
        validation: the report of the run's validation, if it holds one.

    Raises InputError if a false-alarm rate is asked of a run that does not know its own.
    """
    if options.target_fa is None:
        given = options.threshold is not None
        usual = (CHALLENGE, "above 100 of 255") if options.submission else (0.5, "default")
        return (options.threshold, "given") if given else usual
    if options.threshold is not None:
        raise InputError("--threshold and --target_fa: give one of them")
    if not validation:
        raise InputError(
            f"--target_fa: {run} holds no validation results (a released run, or trained "
            "before they were kept): give --threshold"
        )
    try:
        point = operating_point(validation, options.target_fa)
    except InputError as error:
        raise InputError(f"--target_fa: on validation data {error}: raise it") from None
    except (KeyError, TypeError, ValueError):
        raise InputError(f"--target_fa: the validation results of {run} are torn") from None
    if options.target_fa * validation["pixels"] < 1:
        warn(
            f"--target_fa {options.target_fa:g}: {validation['pixels']} validation pixels cannot "
            f"tell rates below {1 / validation['pixels']:.1g} apart"
        )
    return validation["thresholds"][point], (
        f"lowest with Fa <= {options.target_fa:g} on {validation['pixels']} validation "
        f"pixels, where Fa = {validation['fa'][point]:.1e}, "
        f"Pd = {validation['pd'][point]}"
    )
