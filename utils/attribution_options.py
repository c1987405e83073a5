"""The options of --attribution."""

import argparse

from utils.errors import InputError
from utils.options import Parser, number_above


def numbers(value: str) -> list[int]:
    """An argparse `type`: whole numbers from 1, with commas between."""
    return list(dict.fromkeys(number_above(0, int)(part) for part in value.split(",")))


def names(value: str) -> list[str]:
    """An argparse `type`: names with commas between."""
    return list(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def check_attribution(options: argparse.Namespace) -> None:
    """InputError for what --attribution cannot explain."""
    if options.attribution and options.register != "none":
        raise InputError(
            f"--attribution explains frames as they are, --register {options.register} detects in "
            "moved ones: leave out one of them"
        )


def add_attribution(parser: Parser, baselines: tuple[str, ...]) -> None:
    """--attribution and what it takes."""
    group = parser.add_argument_group("attribution: what did the detector look at?")
    group.add_argument(
        "--attribution", action=argparse.BooleanOptionalAction, default=False,
        help="instead of scoring, show which pixels of which frames the answer for a target "
        "depends on (integrated gradients), in the folder attribution/ of the output; without "
        "more options: in every sequence, the middle one of the frames with targets",
    )  # fmt: skip
    group.add_argument(
        "--sequences", type=names, metavar="NAME[,NAME]", help="only these; default: all of them"
    )
    group.add_argument(
        "--frames", type=numbers, metavar="N[,N]", help="frames of each sequence, counted from 1"
    )
    group.add_argument(
        "--targets", type=numbers, metavar="N[,N]",
        help="targets of each frame, counted from 1 in raster order; default: all",
    )  # fmt: skip
    group.add_argument(
        "--baseline", choices=baselines, default=baselines[0],
        help="what the clip is compared with: the training mean everywhere, or each pixel's median "
        "over the clip, blurred 9 x 9",
    )  # fmt: skip
    group.add_argument(
        "--steps", type=number_above(0, int, most=100_000), default=50,
        help="equal steps from the baseline to the clip",
    )  # fmt: skip
    group.add_argument(
        "--refine", action=argparse.BooleanOptionalAction, default=True,
        help="halve the steps that miss most, until the map is complete within 1 %%",
    )  # fmt: skip
    group.add_argument(
        "--whole_frame", action=argparse.BooleanOptionalAction, default=False,
        help="run on whole frames, not on the crop that the network can see of them: the same map "
        "with zeros around, at the cost of the whole frame",
    )  # fmt: skip
