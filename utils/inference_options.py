"""The options of what detects: test.py and predict.py have them."""

import argparse
from collections.abc import Sequence

from utils.options import Parser


def add_inference(parser: Parser, precisions: Sequence[str], registrations: Sequence[str]) -> None:
    """--register, --precision and --compile."""
    group = parser.add_argument_group("detector")
    group.add_argument(
        "--register", choices=registrations, default=registrations[0],
        help="for moving cameras: bring the frames of a window onto its middle one, as if the "
        "camera stood still, by a shift (translation), with rotation (euclidean) or perspective "
        "(homography); auto: with rotation, and only where the camera moves and it helps; still "
        "clips stay as they are",
    )  # fmt: skip
    group.add_argument(
        "--precision", choices=precisions, default=precisions[0],
        help="arithmetic of the network; bf16 and fp16 are for GPUs and change scores a little",
    )  # fmt: skip
    group.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False,
        help="compile what is done to a tile: in C++ on a CPU (with a compiler; seconds, the "
        "first time only), with torch.compile on a GPU or in less than fp32 (up to a minute)",
    )  # fmt: skip
