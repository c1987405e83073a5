"""Train a network on a data set, then evaluate its best checkpoint on the test list.

  python train.py --model 'DeepPro' --seqlen 40 --dataset NUDT-MIRSDT --datapath DIR

writes a run folder under --savepath: options.yaml, checkpoints/, logs/, epochs.jsonl, training.png
and the results of the evaluation. Stopped in any way, it goes on with

  python train.py --resume RUN
"""

import argparse
import signal
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from datasets import (
    ClipDataset,
    ClipSampler,
    Sequence,
    collate,
    find_layout,
    layout_names,
    open_split,
    split_validation,
)
from engine import choose_normalisation, evaluate, learning_rate, score_run, train_one_epoch
from losses import build_loss, loss_names
from metrics import BORDERS, Counts, ShootingRule
from models import Detector, build_network, network_names
from utils.checkpoints import load_newest, save_checkpoint
from utils.devices import choose_device, keep_freed_memory, seed_everything
from utils.errors import InputError, Interrupted, run_command
from utils.logs import Log, write_records
from utils.options import (
    Parser,
    add_common,
    add_data,
    add_device,
    add_scoring,
    number_above,
    one_of,
    parse_options,
)
from utils.plots import plot_training
from utils.reports import print_results
from utils.runs import Run, create_run, find_run

FIXED_BY_RUN = ("model", "dataset", "seqlen", "loss", "optimizer")  # a resumed run keeps these


def build_parser() -> Parser:
    parser = Parser(prog="train.py", description=__doc__)
    positive, fraction = number_above(0), number_above(0, or_equal=True)
    group = parser.add_argument_group("network and loss")
    names = network_names()
    group.add_argument(
        "--model", type=one_of("model", names), choices=names, default="DeepPro-Plus"
    )
    names = loss_names()
    group.add_argument("--loss", type=one_of("loss", names), choices=names, default="SoftIoU")

    add_data(parser, layout_names(), seqlen=40)
    group = parser.add_argument_group("clips")
    group.add_argument("--batch_size", type=number_above(0, int), default=4)
    group.add_argument(
        "--patch_size", type=number_above(3, int), default=128,
        help="side of the training crop in pixels; smaller frames are used whole",
    )  # fmt: skip
    group.add_argument(
        "--sample_rate", type=positive, metavar="SHARE",
        help="clips drawn in an epoch for each clip position; default: the data set's (NUDT 0.1)",
    )  # fmt: skip
    group.add_argument(
        "--mask_resize", choices=("nearest", "bicubic"), default="nearest",
        help="where a data set is resized for training; bicubic is published and dilates targets",
    )  # fmt: skip
    group.add_argument(
        "--workers", type=number_above(0, int, or_equal=True), metavar="N",
        help="processes that read clips; default: 4 beside a GPU, 0 on the CPU",
    )  # fmt: skip

    group = parser.add_argument_group("optimisation")
    group.add_argument("--epoch", type=number_above(0, int), default=32, help="epochs to train")
    group.add_argument("--optimizer", choices=("Adam", "SGD"), default="Adam")
    group.add_argument("--learning_rate", type=positive, default=0.001, help="its highest value")
    group.add_argument("--decay_rate", type=fraction, default=1e-4, help="weight decay")
    group.add_argument(
        "--schedule", choices=("step", "one_cycle"), default="step",
        help="step: x lr_decay every step_size epochs; one_cycle: up, then down to nearly 0",
    )  # fmt: skip
    group.add_argument("--step_size", type=number_above(0, int), default=10, metavar="EPOCHS")
    group.add_argument("--lr_decay", type=positive, default=0.7, metavar="FACTOR")
    group.add_argument("--seed", type=number_above(0, int, or_equal=True), default=0)

    group = parser.add_argument_group("selection of the best epoch, by pixel IoU")
    group.add_argument(
        "--select_on", choices=("val", "test"), default="val",
        help="val: sequences taken from the training list; test: as published",
    )  # fmt: skip
    group.add_argument(
        "--val_fraction", type=positive, default=0.1, help="share of the training sequences"
    )
    add_scoring(parser, BORDERS)

    group = parser.add_argument_group("run")
    group.add_argument("--savepath", default="./log/", help="folder that holds the runs")
    group.add_argument(
        "--log_dir", metavar="NAME",
        help="name of the run's folder, continued if there is one; default: a fresh name",
    )  # fmt: skip
    group.add_argument(
        "--resume", metavar="RUN",
        help="continue a run (folder, or name under --savepath) with its own options",
    )  # fmt: skip
    add_device(parser)
    parser.add_argument("--gpu_num", type=number_above(0, int), default=1, help="GPUs; one so far")
    add_common(parser)
    return parser


def open_run() -> tuple[Run, argparse.Namespace]:
    """The run to train and its resolved options: a fresh one, or one to continue."""
    parser = build_parser()
    options = parse_options(parser, "train")
    named = options.log_dir and Path(options.savepath, options.log_dir, "options.yaml").is_file()
    if options.resume or named:
        run = find_run(options.savepath, options.resume or options.log_dir)
        saved = run.options()
        if not saved:
            raise InputError(f"{run.folder}: no options.yaml, so it cannot be continued")
        options = parse_options(parser, "train", saved=saved)
        for key in FIXED_BY_RUN:
            if getattr(options, key) != saved.get(key):
                raise InputError(
                    f"--{key} {getattr(options, key)}: {run.name} was begun with "
                    f"{saved.get(key)}; leave it out, or begin a fresh run"
                )
    else:
        check_options(options)
        name = find_layout(options.dataset).name
        run = create_run(
            options.savepath, options.log_dir, name, options.loss, options.model, options.seqlen
        )
    check_options(options)
    passing = ("resume", "log_dir", "savepath", "config", "debug")
    kept = {key: value for key, value in vars(options).items() if key not in passing}
    run.save_options({k: str(v) if isinstance(v, Path) else v for k, v in kept.items()})
    return run, options


def check_options(options: argparse.Namespace) -> None:
    """Settle what depends on other options; InputError before anything is written."""
    layout = find_layout(options.dataset)
    if options.sample_rate is None:
        options.sample_rate = layout.sample_rate
    if options.gpu_num > 1:
        raise InputError(f"--gpu_num {options.gpu_num}: trains on one GPU so far; leave it out")
    if not options.val_fraction < 1:
        raise InputError(f"--val_fraction {options.val_fraction}: expected a share below 1")
    options.datapath = options.datapath.absolute()
    if options.dataset.endswith((".yaml", ".yml")):
        options.dataset = str(Path(options.dataset).absolute())
    choose_device(options.device, options.gpu)
    plan_epoch(options, choose_sequences(options)[0])


def choose_sequences(options: argparse.Namespace) -> tuple[list[Sequence], list[Sequence]]:
    """Training sequences, and those on which the best epoch is chosen."""
    layout = find_layout(options.dataset)
    training = open_split(layout, options.datapath, "train", masks_due=True)
    if options.select_on == "test":
        split = layout.evaluation_split
        return training, open_split(layout, options.datapath, split, masks_due=True)
    return split_validation(training, options.val_fraction, options.seed)


def plan_epoch(options: argparse.Namespace, training: list[Sequence]) -> tuple[ClipSampler, int]:
    """The sampler of clips and the steps of an epoch; InputError if there is not one step."""
    lengths = [len(s) for s in training]
    sampler = ClipSampler(lengths, options.seqlen, options.sample_rate, options.seed)
    steps = sampler.draws // options.batch_size
    if not steps:
        raise InputError(
            f"an epoch of {sampler.draws} clips does not fill one batch of {options.batch_size}: "
            "raise --sample_rate or lower --batch_size"
        )
    return sampler, steps


class Training:
    """One run under way: network, optimiser and what is saved of them every epoch."""

    def __init__(self, run: Run, options: argparse.Namespace):
        self.run, self.options = run, options
        self.layout = find_layout(options.dataset)
        self.device = choose_device(options.device, options.gpu)
        self.training, self.validation = choose_sequences(options)
        self.log = Log(run.folder / "logs" / f"{options.model}.txt")
        seed_everything(options.seed)
        self.network = build_network(options.model, options.seqlen).to(self.device)
        self.loss = build_loss(options.loss)
        self.optimizer = build_optimizer(self.network, options)
        self.records: list[dict] = []
        self.best = -1.0
        self.epoch = 0  # the next to train, from 0
        self.mean_std: tuple[float, float] | None = None
        self._continue()
        if self.mean_std is None:
            norm = choose_normalisation(
                self.layout, self.training,
                mean=options.mean, std=options.std, prefer=options.normalize,
            )  # fmt: skip
            self.mean_std = (norm.mean, norm.std)
        self.sampler, self.steps = plan_epoch(options, self.training)

    def _continue(self) -> None:
        """Take up the newest whole checkpoint, if the run has any."""
        state, path, torn = load_newest(self.run, self.device)
        for damaged in torn:
            self.log.say(f"torn, left aside: {damaged}")
        if state is None:
            return
        self.network.load_state_dict(state["model_state_dict"])
        self.optimizer.load_state_dict(state["optimizer_state_dict"])
        self.epoch, self.best = state["epoch"] + 1, state["best_iou"]
        self.records, self.mean_std = state["records"], (state["mean"], state["std"])
        self.log.say(f"continuing {self.run.name} after epoch {self.epoch} ({path.name})")

    def announce(self) -> None:
        options, say = self.options, self.log.say
        say(f"run {self.run.folder}")
        say(
            f"{options.model} (T = {options.seqlen}), {options.loss}, on {self.device}: "
            f"{len(self.training)} training and {len(self.validation)} validation sequences of "
            f"{self.layout.name}, {self.steps} steps of {options.batch_size} clips an epoch, "
            f"mean {self.mean_std[0]:.4f}, std {self.mean_std[1]:.4f}"
        )
        if options.select_on == "test":
            say("warning: the best epoch is chosen on the test set (published), which flatters it")
        elif not self._has_test_list():
            say("warning: no test list, so the final evaluation includes the training sequences")

    def _has_test_list(self) -> bool:
        lists = self.layout.lists
        return Path(self.options.datapath, lists[self.layout.evaluation_split]).is_file()

    def run_epoch(self) -> None:
        """Train one epoch, choose the best, save everything."""
        options, epoch = self.options, self.epoch
        seed_everything(options.seed, epoch)
        label = f"epoch {epoch + 1}/{options.epoch}"
        record = {"epoch": epoch + 1} | train_one_epoch(
            self.network, self.loss, self.optimizer, self.batches(),
            rate=partial(self.rate, epoch), device=self.device,
            iou_threshold=options.threshold_eval, label=label,
        )  # fmt: skip
        report = self.validate(f"{label} validation").report()
        i = report["thresholds"].index(0.5)
        record |= {"iou": report["iou"], "pd": report["pd"][i], "fa": report["fa"][i]}
        self.records.append(record)
        self.save(record["iou"] or 0.0)
        self.log.say(describe(record, options.epoch))
        self.epoch += 1

    def batches(self) -> DataLoader:
        """The clips of the epoch, in batches; the last partial one is dropped (published)."""
        options, on_gpu = self.options, self.device.type == "cuda"
        clips = ClipDataset(
            self.training, self.sampler, self.epoch, seqlen=options.seqlen,
            mean=self.mean_std[0], std=self.mean_std[1], patch_size=options.patch_size,
            train_size=self.layout.train_size, mask_resize=options.mask_resize,
        )  # fmt: skip
        workers = options.workers if options.workers is not None else 4 * on_gpu
        return DataLoader(
            clips, options.batch_size, drop_last=True, collate_fn=collate, num_workers=workers,
            pin_memory=on_gpu, worker_init_fn=leave_signals_to_main,
        )  # fmt: skip

    def rate(self, epoch: int, step: int) -> float:
        options = self.options
        done = (epoch * self.steps + step) / (options.epoch * self.steps)
        return learning_rate(
            options.schedule, options.learning_rate, epoch, done,
            step_size=options.step_size, decay=options.lr_decay,
        )  # fmt: skip

    def validate(self, label: str) -> Counts:
        options = self.options
        rule = ShootingRule(
            options.window_radius, options.border, iou_threshold=options.threshold_eval
        )
        detector = Detector(self.network, *self.mean_std, self.device)
        counts = evaluate(detector, self.validation, rule, label=label)
        return sum(counts.values(), start=Counts(rule.thresholds))

    def save(self, iou: float) -> None:
        """Write the epoch's checkpoints, log line and plot; each appears whole or not at all."""
        options, run, number = self.options, self.run, self.epoch + 1
        best = iou >= self.best
        self.best = max(iou, self.best)
        state = {
            "epoch": self.epoch,
            "class_avg_iou": iou,
            "model_state_dict": self.network.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "model": options.model,
            "seqlen": options.seqlen,
            "dataset": self.layout.name,
            "mean": self.mean_std[0],
            "std": self.mean_std[1],
            "best_iou": self.best,
            "records": self.records,
        }
        if best:
            save_checkpoint(run.checkpoint("best"), state)
        if number % 5 == 0:
            save_checkpoint(run.checkpoint(number), state)
        if run.checkpoint("last").is_file():
            run.checkpoint("last").replace(run.checkpoint("previous"))
        save_checkpoint(run.checkpoint("last"), state)
        write_records(run.folder / "epochs.jsonl", self.records)
        plot_training(run.folder / "training.png", self.records)


def build_optimizer(network: torch.nn.Module, options: argparse.Namespace) -> torch.optim.Optimizer:
    settings = {"lr": options.learning_rate, "weight_decay": options.decay_rate}
    if options.optimizer == "SGD":
        return torch.optim.SGD(network.parameters(), momentum=0.9, **settings)
    return torch.optim.Adam(network.parameters(), betas=(0.9, 0.999), **settings)


def leave_signals_to_main(worker: int) -> None:
    """In a worker process: Ctrl-C is the main process' to handle, SIGTERM just ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def describe(record: dict, epochs: int) -> str:
    """An epoch in one line."""
    iou, pd, fa = (
        "-" if record[key] is None else f"{record[key]:{form}}"
        for key, form in (("iou", ".4f"), ("pd", ".3f"), ("fa", ".1e"))
    )
    return (
        f"epoch {record['epoch']}/{epochs}: "
        f"loss {record['loss']:.4f}, IoU {iou}, Pd {pd}, Fa {fa}, "
        f"lr {record['learning_rate']:.1e}, {record['seconds']:.1f} s "
        f"({record['data_seconds']:.1f} s of it waiting for clips)"
    )


def main() -> None:
    run, options = open_run()
    keep_freed_memory()
    training = Training(run, options)
    training.announce()
    try:
        while training.epoch < options.epoch:
            training.run_epoch()
        results, paths = score_run(run, options)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{training.epoch} of {options.epoch} epochs are kept; "
            f"go on with: python train.py --resume {run.folder}"
        ) from None
    print_results(results, [run.checkpoint("best"), run.folder / "training.png", *paths])


if __name__ == "__main__":
    run_command(main)
