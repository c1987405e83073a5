"""Options that only a training has."""

import argparse
import shlex
import sys
from pathlib import Path

from utils.distributed import processes
from utils.errors import InputError
from utils.options import Parser, folder, number_above, one_of, parse_options, probability
from utils.runs import Run, find_run

# What a resumed run keeps: another value would mix two trainings, or let sequences that were
# trained on become validation.
FIXED_BY_RUN = (
    *("model", "dataset", "seqlen", "loss", "optimizer", "seed"),
    *("select_on", "val_fraction", "threshold_eval", "normalize", "mean", "std"),
    *("weights", "ema"),
)


def add_training(
    parser: Parser, networks: list[str], losses: list[str], augmentations: tuple[str, ...]
) -> None:
    """What is trained, by how many processes, and what the published recipe does without."""
    group = parser.add_argument_group("network and loss")
    group.add_argument(
        "--model", type=one_of("model", networks), choices=networks, default="DeepPro-Plus",
        help="the network",
    )  # fmt: skip
    group.add_argument(
        "--loss", type=one_of("loss", losses), choices=losses, default="SoftIoU",
        help="published: SoftIoU",
    )  # fmt: skip
    group.add_argument(
        "--gpu_num", type=number_above(0, int), default=1, metavar="N",
        help="processes that train together, a GPU each, as torchrun --nproc_per_node N starts "
        "them; a step takes N x batch_size clips",
    )  # fmt: skip
    group = parser.add_argument_group("beyond the published recipe, off by default")
    group.add_argument(
        "--weights", type=folder, metavar="RUN",
        help="begin with the best weights of a run, ours or released (folder, or name under "
        "--savepath), to fine-tune them; grey levels are normalised as in any training, or with "
        "--normalize run as that run's were",
    )  # fmt: skip
    group.add_argument(
        "--ema", type=probability, metavar="DECAY",
        help="keep a running average of the weights, DECAY x average + (1 - DECAY) x weights "
        "after every step; it is what is validated and used. DECAY such as 0.99",
    )  # fmt: skip
    group.add_argument(
        "--clip_grad", type=number_above(0), metavar="NORM",
        help="scale the gradient of a step down to this norm where it is larger",
    )  # fmt: skip
    group.add_argument(
        "--augment", choices=augmentations, default=augmentations[0],
        help="flip: clips left to right and upside down by chance, for Plus: DeepPro answers a "
        "flipped clip with the flipped map anyway",
    )  # fmt: skip
    group.add_argument(
        "--tensorboard", action=argparse.BooleanOptionalAction, default=False,
        help="write scalars and a picture an epoch for TensorBoard, which must be installed",
    )  # fmt: skip


def settle_options(parser: Parser) -> tuple[argparse.Namespace, Run | None]:
    """The resolved options of train.py, with paths that hold in any folder, and the run that goes
    on, if one does."""
    options = parse_options(parser, "train")
    if options.resume and options.log_dir:
        raise InputError("--resume and --log_dir both name a run: give one of them")
    named = options.log_dir and Path(options.savepath, options.log_dir, "options.yaml").is_file()
    run, saved = None, {}
    if options.resume or named:
        run = find_run(options.savepath, options.resume or options.log_dir)
        saved = run.options()
        if not saved:
            raise InputError(f"{run.folder}: no options.yaml, so it cannot be continued")
        options = parse_options(parser, "train", saved=saved)
    options.datapath = options.datapath.absolute()
    options.cache_dir = options.cache_dir and options.cache_dir.absolute()
    if options.dataset.endswith((".yaml", ".yml")):
        options.dataset = str(Path(options.dataset).absolute())
    options.weights = options.weights and str(options.weights)
    if options.weights != saved.get("weights"):  # those of a run that goes on may be gone
        options.weights = str(find_run(options.savepath, options.weights).folder)
    check_training(options, saved, run.name if run else None)
    return options, run


def check_training(options: argparse.Namespace, saved: dict, run: str | None) -> None:
    """InputError for options that do not fit the processes or the run that goes on.

    Args:
        saved: the options of that run; empty, and `run` None, for a fresh one.
    """
    for key in FIXED_BY_RUN if run else ():
        if getattr(options, key) != saved.get(key):
            raise InputError(
                f"--{key} {getattr(options, key)}: {run} was begun with {saved.get(key)}; "
                "leave it out, or begin a fresh run"
            )
    if options.gpu_num not in (1, processes()):
        again = shlex.join(["torchrun", f"--nproc_per_node={options.gpu_num}", *sys.argv])
        raise InputError(
            f"--gpu_num {options.gpu_num}, but {processes()} process(es) were started: "
            f"run {again}, or say --gpu_num 1"
        )
    options.gpu_num = processes()
