"""Train a network on a data set, then evaluate its best checkpoint on the test list.

  python train.py --model 'DeepPro' --seqlen 40 --dataset NUDT-MIRSDT --datapath DIR

writes a run folder under --savepath: options.yaml, checkpoints/, logs/, epochs.jsonl, training.png
and the results of the evaluation. Stopped in any way, it goes on with

  python train.py --resume RUN
"""

import argparse
import contextlib
import shlex
from functools import partial
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader

from datasets import (
    AUGMENTATIONS,
    CACHE_MODES,
    SOURCES,
    ClipDataset,
    Normalisation,
    Plan,
    layout_names,
    load_batches,
    make_plan,
)
from engine import Loaded, evaluate, load_network, load_pretrained, score, train_one_epoch
from losses import build_loss, loss_names
from metrics import BORDERS, Counts, ShootingRule
from models import Detector, build_network, in_tiles, network_names
from utils.board import Board, needs_tensorboard
from utils.checkpoints import (
    leave_aside,
    load_newest,
    mend_best,
    restore_training,
    save_checkpoint,
    training_state,
)
from utils.devices import choose_device, seed_everything, set_up_arithmetic
from utils.distributed import (
    agree,
    from_main,
    in_parallel,
    is_lost,
    is_main,
    joined,
    launcher,
    lost,
    processes,
    rank,
    take_buffers_from_main,
)
from utils.errors import Interrupted, run_command
from utils.files import locked, remove_unfinished, write_json
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
)
from utils.pictures import ExampleCollector
from utils.plots import plot_training
from utils.reports import at_threshold, epoch_line, print_results
from utils.runs import Run, create_run
from utils.schedules import (
    OPTIMIZERS,
    SCHEDULES,
    build_average,
    build_optimizer,
    learning_rate,
)
from utils.stopwatch import Stopwatch, summarise, summary_line
from utils.training_options import add_training, settle_options


def build_parser() -> Parser:
    parser = Parser(prog="train.py", description=__doc__)
    add_training(parser, network_names(), loss_names(), AUGMENTATIONS)
    add_data(parser, layout_names(), seqlen=40)
    add_clips(parser)
    add_cache(parser, CACHE_MODES)
    add_optimisation(parser, OPTIMIZERS, SCHEDULES)
    add_selection(parser)
    add_rule(parser, BORDERS)
    add_normalisation(parser, SOURCES)
    add_run(parser)
    add_device(parser)
    add_common(parser)
    return parser


def settle() -> tuple[argparse.Namespace, Run | None, Loaded | None, Normalisation | None]:
    """The resolved options, the run that is continued, the weights of --weights RUN where none of
    its own are kept yet, and the normalisation of these or those."""
    options, run = settle_options(build_parser())
    if options.tensorboard:
        needs_tensorboard()
    state = load_newest(run, bool(options.ema))[0] if run else None
    if state:
        return options, run, None, Normalisation(state["mean"], state["std"], "run")
    if not options.weights:
        return options, run, None, None
    weights, root = options.weights, options.savepath
    pretrained = load_pretrained(weights, root, options.model, options.seqlen)
    return options, run, pretrained, pretrained.normalisation


def open_run() -> tuple[Run, argparse.Namespace, Plan, Loaded | None]:
    """The run to train, fresh or continued, its resolved options, and what they ask for.

    Everything that can be wrong with the options or the data is found before a folder is made.
    """
    options, run, pretrained, normalisation = from_main(settle)
    choose_device(options.device, options.gpu)
    plan = make_plan(options, processes(), normalisation)
    agree(plan.facts())
    if run is None:
        name, model, T = plan.layout.name, options.model, options.seqlen
        run = from_main(
            lambda: create_run(options.savepath, options.log_dir, name, options.loss, model, T)
        )
    return run, options, plan, pretrained


class Training:
    """One run under way: network, optimiser and what is saved of them every epoch."""

    def __init__(
        self, run: Run, options: argparse.Namespace, plan: Plan, pretrained: Loaded | None
    ):
        self.run, self.options, self.plan = run, options, plan
        self.device = choose_device(options.device, options.gpu)
        self.log = Log(run.folder / "logs" / f"{options.model}.txt")
        seed_everything(options.seed)
        self.network = build_network(options.model, options.seqlen).to(self.device)
        if pretrained:
            self.network.load_state_dict(pretrained.network.state_dict())
        self.average = build_average(self.network, options.ema) if options.ema else None
        self.loss = build_loss(options.loss)
        self.optimizer = build_optimizer(
            options.optimizer, self.network, options.learning_rate, options.decay_rate
        )
        self.mean, self.std = plan.normalisation[:2]
        self.records: list[dict] = []
        self.best = -1.0
        self.epoch = 0  # the next to train, from 0
        self._continue()
        self.parallel = in_parallel(in_tiles(self.network), self.device)
        self.board = None
        if options.tensorboard and is_main():
            self.board = Board(run.folder / "tensorboard", self.epoch)

    @property
    def used(self) -> nn.Module:
        """What is validated, and used later: the average of the weights, where one is kept."""
        return self.average.module if self.average else self.network

    def _continue(self) -> None:
        """Take up the newest whole checkpoint, if the run has any."""
        state, path, torn = from_main(lambda: load_newest(self.run, self.average is not None))
        for damaged, reason in torn.items():
            self.log.say(from_main(lambda d=damaged, r=reason: leave_aside(d, r)))
        if state is None:
            return
        restore_training(
            state, path, self.options.model, self.network, self.optimizer, self.average
        )
        self.epoch, self.best = state["epoch"] + 1, state["best_iou"]
        self.records = state["records"]
        self.mean, self.std = float(state["mean"]), float(state["std"])
        self.log.say(f"continuing {self.run.name} after epoch {self.epoch} ({path.name})")
        there, told = from_main(lambda: mend_best(self.run, state))
        for line in told:
            self.log.say(line)
        if not there:
            self.best = -1.0  # so that the next epoch is the best

    def announce(self, warnings: list[str]) -> None:
        """Say what is trained where, and what the user should know before."""
        options, plan = self.options, self.plan
        clips = f"{processes()} x {options.batch_size}" if processes() > 1 else options.batch_size
        self.log.say(f"run {self.run.folder}")
        self.log.say(
            f"{options.model} (T = {options.seqlen}), {options.loss}, on {self.device}: "
            f"{len(plan.training)} training and {len(plan.validation)} validation sequences of "
            f"{plan.layout.name}, {plan.steps} steps of {clips} clips an epoch, "
            f"mean {self.mean:.4f}, std {self.std:.4f}"
        )
        if options.weights and not self.records:
            self.log.say(f"begins with the best weights of {options.weights}")
        for warning in warnings:
            self.log.say(f"warning: {warning}")

    def run_epoch(self) -> None:
        """Train one epoch, see whether it is the best, save everything."""
        options = self.options
        seed_everything(options.seed, self.epoch + 1, rank())
        label = f"epoch {self.epoch + 1}/{options.epoch}"
        record = {"epoch": self.epoch + 1} | train_one_epoch(
            self.parallel, self.loss, self.optimizer, self.batches(),
            rate=partial(self.rate, self.epoch), device=self.device,
            iou_threshold=options.threshold_eval, label=label,
            clip_grad=options.clip_grad, average=self.average,
        )  # fmt: skip
        clock = Stopwatch(self.device)
        counts, examples = self.validate(f"{label} validation")
        clock.lap("validation")
        report = counts.report()
        record |= {"iou": report["iou"], **{k: at_threshold(report)[k] for k in ("pd", "fa")}}
        record["validation_seconds"] = round(clock.total(), 3)
        self.records.append(record)
        self.save(record["iou"] or 0.0, report)
        if self.board:
            self.board.show(record, examples, f"{options.model}, {label}")
        self.log.say(epoch_line(record, options.epoch))
        self.epoch += 1

    def batches(self) -> DataLoader:
        """The clips of the epoch, in batches."""
        options, plan = self.options, self.plan
        clips = ClipDataset(
            plan.training, plan.sampler, self.epoch, seqlen=options.seqlen,
            mean=self.mean, std=self.std, patch_size=options.patch_size,
            augmentation=options.augment,
        )  # fmt: skip
        on_gpu = self.device.type == "cuda"
        workers = options.workers if options.workers is not None else 4 * on_gpu
        return load_batches(clips, options.batch_size, workers, on_gpu, rank(), processes())

    def rate(self, epoch: int, step: int) -> float:
        options, steps = self.options, self.plan.steps
        done = (epoch * steps + step) / (options.epoch * steps)
        return learning_rate(
            options.schedule, options.learning_rate, epoch, done,
            step_size=options.step_size, decay=options.lr_decay,
        )  # fmt: skip

    def validate(self, label: str) -> tuple[Counts, list[dict]]:
        """The counts over the validation sequences, and frames of some of them for a picture."""
        options = self.options
        rule = ShootingRule(
            options.window_radius, options.border, iou_threshold=options.threshold_eval
        )
        take_buffers_from_main(self.network, self.used)
        detector = Detector(self.used, self.mean, self.std, self.device)
        pictures = ExampleCollector(self.plan.validation)
        counts = evaluate(detector, self.plan.validation, rule, [pictures], label)
        return sum(counts.values(), start=Counts(rule.thresholds)), pictures.examples

    def save(self, iou: float, validation: dict) -> None:
        """Write the epoch's checkpoints, log line and plot; each appears whole or not at all."""
        options, run, number = self.options, self.run, self.epoch + 1
        best = iou >= self.best
        self.best = max(iou, self.best)
        if not is_main():
            return
        state = {
            "epoch": self.epoch,
            "class_avg_iou": iou,
            **training_state(self.network, self.optimizer, self.average),
            "model": options.model,
            "seqlen": options.seqlen,
            "dataset": self.plan.layout.name,
            "mean": self.mean,
            "std": self.std,
            "best_iou": self.best,
            "records": self.records,
            "validation": validation,  # predict.py --target_fa reads it
        }
        if best:
            save_checkpoint(run.checkpoint("best"), state)
        if number % 5 == 0:
            save_checkpoint(run.checkpoint(number), state)
        save_checkpoint(run.checkpoint("last"), state, previous=run.checkpoint("previous"))
        write_records(run.folder / "epochs.jsonl", self.records)
        plot_training(run.folder / "training.png", self.records)

    def test(self) -> tuple[dict, list[Path]]:
        """Evaluate the best epoch as test.py would, and say where the time went; returns the
        results and all paths written.

        With the run's own mean and std, and the IoU at test.py's default.
        """
        options = {**vars(self.options), "normalize": "run", "mean": None, "std": None}
        options |= {"threshold_eval": 0.5, "precision": "fp32", "register": "none"}
        options |= {"compile": False}
        clock = Stopwatch(self.device)
        kind = from_main(lambda: "best" if self.run.checkpoint("best").is_file() else "last")
        if kind == "last":
            self.log.say("the best epoch is lost and none is left to train: the last one is tested")
        tested = from_main(lambda: load_network(self.run, kind))
        results, paths = score(tested, argparse.Namespace(**options), self.run.folder)
        clock.lap("test")
        clips = self.plan.steps * self.options.batch_size * processes()
        summary = summarise(self.records, clock.total(), clips)
        self.log.say(summary_line(summary))
        if is_main():
            write_json(self.run.folder / "summary.json", summary)
        more = [self.run.checkpoint(kind), self.run.folder / "training.png"]
        return results, [*more, *paths, self.run.folder / "summary.json"]


def main() -> None:
    set_up_arithmetic()
    with joined():
        run, options, plan, pretrained = open_run()
        with locked(run.folder) if is_main() else contextlib.nullcontext():
            train(run, options, plan, pretrained)


def train(run: Run, options: argparse.Namespace, plan: Plan, pretrained: Loaded | None) -> None:
    """All epochs that are still to train, and the test."""
    changes = run.save_options(vars(options)) if is_main() else []
    if is_main():
        remove_unfinished(run.folder)
        remove_unfinished(run.checkpoints)
    training = Training(run, options, plan, pretrained)
    training.announce(plan.warnings + changes)
    again = f"{launcher()} train.py --resume {shlex.quote(str(run.folder))}"
    try:
        while training.epoch < options.epoch:
            training.run_epoch()
        results, paths = training.test()
    except (KeyboardInterrupt, RuntimeError) as error:
        kept = f"{training.epoch} of {options.epoch} epochs are kept; go on with: {again}"
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(kept) from None
        if is_lost(error):
            raise lost(kept) from error
        raise
    if is_main():
        print_results(results, paths)


if __name__ == "__main__":
    run_command(main)
