"""Train a network on a data set, then evaluate its best checkpoint on the test list.

  python train.py --model 'DeepPro' --seqlen 40 --dataset NUDT-MIRSDT --datapath DIR

writes a run folder under --savepath: options.yaml, checkpoints/, logs/, epochs.jsonl, training.png
and the results of the evaluation. Stopped in any way, it goes on with

  python train.py --resume RUN
"""

import argparse
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from datasets import (
    CACHE_MODES,
    ClipDataset,
    ClipSampler,
    Layout,
    Normalisation,
    Sequence,
    cache_sequences,
    choose_normalisation,
    find_layout,
    layout_names,
    load_batches,
    open_split,
    split_validation,
)
from engine import evaluate, load_network, score, train_one_epoch
from losses import build_loss, loss_names
from metrics import BORDERS, Counts, ShootingRule
from models import Detector, build_network, network_names
from utils.checkpoints import load_newest, load_weights, save_checkpoint
from utils.devices import choose_device, seed_everything, set_up_arithmetic
from utils.errors import InputError, Interrupted, run_command
from utils.files import locked
from utils.logs import Log, write_records
from utils.options import (
    Parser,
    add_cache,
    add_clips,
    add_common,
    add_data,
    add_device,
    add_normalisation,
    add_optimisation,
    add_rule,
    add_run,
    add_selection,
    number_above,
    one_of,
    parse_options,
)
from utils.plots import plot_training
from utils.reports import OPERATING_POINT, epoch_line, print_results
from utils.runs import Run, create_run, find_run
from utils.schedules import OPTIMIZERS, SCHEDULES, build_optimizer, learning_rate

# What a resumed run keeps: another value would mix two trainings, or let sequences that were
# trained on become validation.
FIXED_BY_RUN = (
    *("model", "dataset", "seqlen", "loss", "optimizer", "seed"),
    *("select_on", "val_fraction", "threshold_eval", "normalize", "mean", "std"),
)


def build_parser() -> Parser:
    parser = Parser(prog="train.py", description=__doc__)
    group = parser.add_argument_group("network and loss")
    networks, losses = network_names(), loss_names()
    group.add_argument(
        "--model", type=one_of("model", networks), choices=networks, default="DeepPro-Plus",
        help="the network",
    )  # fmt: skip
    group.add_argument(
        "--loss", type=one_of("loss", losses), choices=losses, default="SoftIoU",
        help="published: SoftIoU",
    )  # fmt: skip
    add_data(parser, layout_names(), seqlen=40)
    add_clips(parser)
    add_cache(parser, CACHE_MODES)
    add_optimisation(parser, OPTIMIZERS, SCHEDULES)
    add_selection(parser)
    add_rule(parser, BORDERS)
    add_normalisation(parser, ("dataset", "images"))
    add_run(parser)
    add_device(parser)
    parser.add_argument("--gpu_num", type=number_above(0, int), default=1, help="GPUs; one so far")
    add_common(parser)
    return parser


def open_run() -> tuple[Run, argparse.Namespace, "Plan"]:
    """The run to train, fresh or continued, its resolved options, and what they ask for.

    Everything that can be wrong with the options or the data is found before a folder is made.
    """
    parser = build_parser()
    options = parse_options(parser, "train")
    named = options.log_dir and Path(options.savepath, options.log_dir, "options.yaml").is_file()
    run, saved = None, {}
    if options.resume or named:
        run = find_run(options.savepath, options.resume or options.log_dir)
        saved = run.options()
        if not saved:
            raise InputError(f"{run.folder}: no options.yaml, so it cannot be continued")
        options = parse_options(parser, "train", saved=saved)
    settle_paths(options)
    for key in FIXED_BY_RUN if run else ():  # continued
        if getattr(options, key) != saved.get(key):
            raise InputError(
                f"--{key} {getattr(options, key)}: {run.name} was begun with {saved.get(key)}; "
                "leave it out, or begin a fresh run"
            )
    plan = make_plan(options)
    if run is None:
        name, model, T = plan.layout.name, options.model, options.seqlen
        run = create_run(options.savepath, options.log_dir, name, options.loss, model, T)
    return run, options, plan


def save_options(run: Run, options: argparse.Namespace) -> list[str]:
    """Write the resolved options; a line for each that differs from those of the run so far."""
    passing = ("resume", "log_dir", "savepath", "config", "debug")
    kept = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(options).items()
        if key not in passing
    }
    before = run.options()
    run.save_options(kept)
    return [
        f"--{key} is now {kept[key]}, it was {before[key]}"
        for key in kept
        if key in before and kept[key] != before[key]
    ]


def settle_paths(options: argparse.Namespace) -> None:
    """Make paths absolute, so that a run goes on from any folder."""
    options.datapath = options.datapath.absolute()
    options.cache_dir = options.cache_dir and options.cache_dir.absolute()
    if options.dataset.endswith((".yaml", ".yml")):
        options.dataset = str(Path(options.dataset).absolute())


@dataclass(frozen=True)
class Plan:
    """What to train on, and where the best epoch is chosen."""

    layout: Layout
    device: torch.device
    training: list[Sequence]
    validation: list[Sequence]
    sampler: ClipSampler
    steps: int
    normalisation: Normalisation
    warnings: list[str]


def make_plan(options: argparse.Namespace) -> Plan:
    """Open the data and settle what depends on it. InputError for what cannot be trained."""
    if options.gpu_num > 1:
        raise InputError(f"--gpu_num {options.gpu_num}: trains on one GPU so far; leave it out")
    if not options.val_fraction < 1:
        raise InputError(f"--val_fraction {options.val_fraction}: expected a share below 1")
    layout = find_layout(options.dataset)
    device = choose_device(options.device, options.gpu)
    listed = open_split(layout, options.datapath, "train", masks_due=True)
    test = open_split(layout, options.datapath, layout.evaluation_split)
    warnings = []
    if options.select_on == "test":
        training, validation = listed, test
        warnings.append("the best epoch is chosen on the test set (published), which flatters it")
        if not test[0].has_masks:
            raise InputError("--select_on test: the test sequences have no masks")
    else:
        training, validation = split_validation(listed, options.val_fraction, options.seed)
    shared = {s.frame_paths[0] for s in listed} & {s.frame_paths[0] for s in test}
    if shared:
        warnings.append(f"{len(shared)} of {len(test)} test sequences are in the training list")
    options.sample_rate = options.sample_rate or layout.sample_rate
    sampler = ClipSampler(map(len, training), options.seqlen, options.sample_rate, options.seed)
    steps = sampler.draws // options.batch_size
    if not steps:
        raise InputError(
            f"an epoch of {sampler.draws} clips does not fill one batch of {options.batch_size}: "
            "raise --sample_rate or lower --batch_size"
        )
    normalisation = choose_normalisation(
        layout, training, mean=options.mean, std=options.std, prefer=options.normalize
    )
    resized = [s.resized(layout.train_size, options.mask_resize) for s in training]
    cached, uncached = cache_sequences(resized + validation, options.cache, options.cache_dir)
    training, validation = cached[: len(training)], cached[len(training) :]
    warnings += uncached
    return Plan(layout, device, training, validation, sampler, steps, normalisation, warnings)


class Training:
    """One run under way: network, optimiser and what is saved of them every epoch."""

    def __init__(self, run: Run, options: argparse.Namespace, plan: Plan):
        self.run, self.options, self.plan = run, options, plan
        self.log = Log(run.folder / "logs" / f"{options.model}.txt")
        seed_everything(options.seed)
        self.network = build_network(options.model, options.seqlen).to(plan.device)
        self.loss = build_loss(options.loss)
        self.optimizer = build_optimizer(
            options.optimizer, self.network, options.learning_rate, options.decay_rate
        )
        self.mean, self.std = plan.normalisation[:2]
        self.records: list[dict] = []
        self.best = -1.0
        self.epoch = 0  # the next to train, from 0
        self._continue()

    def _continue(self) -> None:
        """Take up the newest whole checkpoint, if the run has any."""
        state, path, torn = load_newest(self.run, self.plan.device)
        for damaged, reason in torn.items():
            damaged.rename(damaged.with_suffix(".torn"))
            self.log.say(f"torn, left aside as {damaged.stem}.torn: {reason}")
        if state is None:
            return
        load_weights(self.network, state, self.options.model, path)
        self.optimizer.load_state_dict(state["optimizer_state_dict"])
        self.epoch, self.best = state["epoch"] + 1, state["best_iou"]
        self.records, self.mean, self.std = state["records"], state["mean"], state["std"]
        self.log.say(f"continuing {self.run.name} after epoch {self.epoch} ({path.name})")

    def announce(self, warnings: list[str]) -> None:
        """Say what is trained where, and what the user should know before."""
        options, plan = self.options, self.plan
        self.log.say(f"run {self.run.folder}")
        self.log.say(
            f"{options.model} (T = {options.seqlen}), {options.loss}, on {plan.device}: "
            f"{len(plan.training)} training and {len(plan.validation)} validation sequences of "
            f"{plan.layout.name}, {plan.steps} steps of {options.batch_size} clips an epoch, "
            f"mean {self.mean:.4f}, std {self.std:.4f}"
        )
        for warning in warnings:
            self.log.say(f"warning: {warning}")

    def run_epoch(self) -> None:
        """Train one epoch, see whether it is the best, save everything."""
        options = self.options
        seed_everything(options.seed, self.epoch + 1)
        label = f"epoch {self.epoch + 1}/{options.epoch}"
        record = {"epoch": self.epoch + 1} | train_one_epoch(
            self.network, self.loss, self.optimizer, self.batches(),
            rate=partial(self.rate, self.epoch), device=self.plan.device,
            iou_threshold=options.threshold_eval, label=label,
        )  # fmt: skip
        counts = self.validate(f"{label} validation")
        values = (counts.iou, *counts.at(OPERATING_POINT))
        values = [None if value != value else value for value in values]  # NaN: nothing to find
        record |= dict(zip(("iou", "pd", "fa"), values, strict=True))
        self.records.append(record)
        self.save(record["iou"] or 0.0)
        self.log.say(epoch_line(record, options.epoch))
        self.epoch += 1

    def batches(self) -> DataLoader:
        """The clips of the epoch, in batches."""
        options, plan = self.options, self.plan
        clips = ClipDataset(
            plan.training, plan.sampler, self.epoch, seqlen=options.seqlen,
            mean=self.mean, std=self.std, patch_size=options.patch_size,
        )  # fmt: skip
        on_gpu = plan.device.type == "cuda"
        workers = options.workers if options.workers is not None else 4 * on_gpu
        return load_batches(clips, options.batch_size, workers, pin_memory=on_gpu)

    def rate(self, epoch: int, step: int) -> float:
        options, steps = self.options, self.plan.steps
        done = (epoch * steps + step) / (options.epoch * steps)
        return learning_rate(
            options.schedule, options.learning_rate, epoch, done,
            step_size=options.step_size, decay=options.lr_decay,
        )  # fmt: skip

    def validate(self, label: str) -> Counts:
        options = self.options
        rule = ShootingRule(
            options.window_radius, options.border, iou_threshold=options.threshold_eval
        )
        detector = Detector(self.network, self.mean, self.std, self.plan.device)
        counts = evaluate(detector, self.plan.validation, rule, label=label)
        return sum(counts.values(), start=Counts(rule.thresholds))

    def save(self, iou: float) -> None:
        """Write the epoch's checkpoints, log line and plot; each appears whole or not at all."""
        options, run, number = self.options, self.run, self.epoch + 1
        best, self.best = iou >= self.best, max(iou, self.best)
        state = {
            "epoch": self.epoch,
            "class_avg_iou": iou,
            "model_state_dict": self.network.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "model": options.model,
            "seqlen": options.seqlen,
            "dataset": self.plan.layout.name,
            "mean": self.mean,
            "std": self.std,
            "best_iou": self.best,
            "records": self.records,
        }
        if best:
            save_checkpoint(run.checkpoint("best"), state)
        if number % 5 == 0:
            save_checkpoint(run.checkpoint(number), state)
        save_checkpoint(run.checkpoint("last"), state, previous=run.checkpoint("previous"))
        write_records(run.folder / "epochs.jsonl", self.records)
        plot_training(run.folder / "training.png", self.records)


def score_options(options: argparse.Namespace) -> argparse.Namespace:
    """What test.py would evaluate the run with: its own mean and std, IoU at test.py's default."""
    own = {"normalize": "run", "mean": None, "std": None, "threshold_eval": 0.5}
    return argparse.Namespace(**{**vars(options), **own, "precision": "fp32"})


def main() -> None:
    set_up_arithmetic()
    run, options, plan = open_run()
    with locked(run.folder):
        changes = save_options(run, options)
        training = Training(run, options, plan)
        training.announce(plan.warnings + changes)
        try:
            while training.epoch < options.epoch:
                training.run_epoch()
            results, paths = score(load_network(run), score_options(options), run.folder)
        except KeyboardInterrupt:
            raise Interrupted(
                f"{training.epoch} of {options.epoch} epochs are kept; "
                f"go on with: python train.py --resume {shlex.quote(str(run.folder))}"
            ) from None
    print_results(results, [run.checkpoint("best"), run.folder / "training.png", *paths])


if __name__ == "__main__":
    run_command(main)
