"""Evaluate a run on a data set: Pd, Fa, AUC and IoU, counted as the published evaluator does.

  python test.py --seqlen 40 --datapath DIR --dataset NUDT-MIRSDT --logpath ./log/ --log_dir RUN

finds the run at LOGPATH/RUN or LOGPATH/sem_seg/RUN (ours or a released one) and writes, to its
folder or to --output: eval.txt, metrics.json, sequences.csv, roc.png, frames.png.
"""

import argparse
from pathlib import Path

from datasets import SOURCES, layout_names
from engine import Loaded, load_classical, load_network, score
from metrics import BORDERS
from models import CLASSICAL, PRECISIONS
from utils.devices import set_up_arithmetic
from utils.errors import InputError, run_command
from utils.options import (
    Parser,
    add_common,
    add_data,
    add_device,
    add_normalisation,
    add_rule,
    folder,
    number_above,
    parse_options,
    probability,
)
from utils.reports import print_results
from utils.runs import find_run


def build_parser() -> Parser:
    parser = Parser(prog="test.py", description=__doc__)
    group = parser.add_argument_group("run")
    group.add_argument(
        "--log_dir", type=folder, metavar="RUN", help="name of the run's folder (required)"
    )
    group.add_argument("--logpath", default="./log/", help="folder that holds the runs")
    group.add_argument(
        "--epoch", type=number_above(0, int), metavar="N",
        help="checkpoint epoch_N_model.pth, results in eval_epoch-N.txt; default: the best",
    )  # fmt: skip
    group.add_argument(
        "--classical", choices=sorted(CLASSICAL),
        help="in place of a run, a detector without weights to compare with: each pixel's distance "
        "from its temporal median, or the white top-hat of each frame; give --output",
    )  # fmt: skip
    add_data(parser, layout_names())
    parser.add_argument(
        "--split", choices=("val", "test"),
        help="which list; default: the one that is published as the test list",
    )  # fmt: skip
    add_rule(parser, BORDERS)
    parser.add_argument(
        "--threshold_eval", type=probability, default=0.5,
        help="a pixel is positive for the IoU above this probability",
    )  # fmt: skip
    add_normalisation(parser, SOURCES)
    group = parser.add_argument_group("output")
    group.add_argument("--output", type=folder, help="folder to write to; default: the run's own")
    group.add_argument(
        "--visual", action=argparse.BooleanOptionalAction, default=False,
        help="write 8-bit probability PNGs under visual/<sequence>/",
    )  # fmt: skip
    group.add_argument(
        "--attribution", action=argparse.BooleanOptionalAction, default=False,
        help="published flag; the published sources hold no working tool and neither does this yet",
    )  # fmt: skip
    add_device(parser)
    parser.add_argument(
        "--precision", choices=list(PRECISIONS), default="fp32",
        help="arithmetic of the network; bf16 and fp16 are for GPUs and change counts a little",
    )  # fmt: skip
    parser.add_argument(
        "--batch_size", type=number_above(0, int), default=1,
        help="published flag; windows are processed one at a time whatever it says",
    )  # fmt: skip
    add_common(parser)
    return parser


def load(options: argparse.Namespace) -> tuple[Loaded, Path]:
    """The network that the options name, and the folder that the results go to."""
    if options.classical:
        if options.log_dir or options.epoch:
            raise InputError("--classical stands for a run: leave out --log_dir and --epoch")
        if not options.output:
            raise InputError("--classical has no run folder to write to: give --output DIR")
        return load_classical(options.classical, options.seqlen), options.output
    if not options.log_dir:
        raise InputError("--log_dir RUN is missing: it names the run to evaluate")
    run = find_run(options.logpath, options.log_dir)
    return load_network(run, options.epoch or "best", options.seqlen), options.output or run.folder


def main() -> None:
    options = parse_options(build_parser(), "test")
    if options.attribution:
        raise InputError("--attribution: not available yet; leave it out")
    set_up_arithmetic()
    loaded, folder = load(options)
    suffix = f"_epoch-{options.epoch}" if options.epoch else ""
    results, paths = score(loaded, options, folder, suffix, options.split, options.visual)
    print_results(results, paths)


if __name__ == "__main__":
    run_command(main)
