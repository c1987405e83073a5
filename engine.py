"""The verbs that need several rooms: load a detector, train an epoch, evaluate, test a run."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from datasets import (
    ClipDataset,
    Layout,
    Normalisation,
    Sequence,
    choose_normalisation,
    find_layout,
    open_split,
    read_snr,
    snr_subsets,
)
from metrics import Counts, ShootingRule, report
from models import (
    CLASSICAL,
    PRECISIONS,
    Detector,
    build_network,
    compiler_works,
    window_length,
)
from utils.checkpoints import load_checkpoint, load_weights
from utils.devices import choose_device
from utils.distributed import gather, is_main, processes, rank
from utils.errors import InputError
from utils.files import writable_folder
from utils.logs import progress
from utils.pictures import ExampleCollector, ProbabilityWriter
from utils.plots import plot_frames
from utils.reports import versions, write_results
from utils.runs import Run, find_run
from utils.stopwatch import STEP, Stopwatch
from utils.submission import SubmissionWriter
from utils.tally import Tally

Observer = Callable[[Sequence, int, np.ndarray], None]


class Loaded(NamedTuple):
    """A network and where it comes from: its run, its checkpoint and epoch in words, its model's
    name, the normalisation it was trained with (None where a released run does not say), its
    data set, and the report of its validation (None for a released run)."""

    network: nn.Module
    model: str
    run: str | None
    checkpoint: str
    normalisation: Normalisation | None
    dataset: str | None
    validation: dict | None = None


def load_network(run: Run, checkpoint: str | int = "best", seqlen: int | None = None) -> Loaded:
    """The trained network of a run, ours or released.

    Args:
        checkpoint: `best`, `last`, or N for `epoch_N_model.pth`.
        seqlen: what the caller expects T to be.

    Raises InputError for weights of another model, a torn or foreign file, another T.
    """
    path = run.checkpoint(checkpoint)
    state = load_checkpoint(path)
    model = state.get("model") or run.model
    if model is None:
        raise InputError(f"{run.folder}: neither name, options nor logs/<model>.txt say the model")
    T = state.get("seqlen") or window_length(state["model_state_dict"]) or seqlen or 40
    if seqlen is not None and seqlen != T:
        raise InputError(f"--seqlen {seqlen}: {path} was trained on windows of {T} frames")
    network = build_network(model, seqlen=T)
    load_weights(network, state, model, path)
    dataset = state.get("dataset") or run.dataset
    name = f"{path.name} (epoch {state['epoch'] + 1})"
    normalisation, validation = _normalisation_of(state, dataset), state.get("validation")
    return Loaded(network, model, run.name, name, normalisation, dataset, validation)


def load_pretrained(name: str, root: str | Path, model: str, seqlen: int) -> Loaded:
    """The best weights of a run, ours or released, to begin another training with.

    Args:
        name: of the run under `root`, or a path to one.
        model, seqlen: of the training that begins. Raises InputError for a run of another model.
    """
    loaded = load_network(find_run(root, name), seqlen=seqlen)
    if loaded.model != model:
        raise InputError(f"--weights {name}: is a {loaded.model}; say --model {loaded.model}")
    return loaded


def load_classical(name: str, seqlen: int | None = None) -> Loaded:
    """A detector without weights; what it answers does not depend on the normalisation."""
    any_levels = Normalisation(0.0, 1.0, "none needed")
    return Loaded(CLASSICAL[name](seqlen or 40), name, None, "no weights", any_levels, None)


def _normalisation_of(state: dict, dataset: str | None) -> Normalisation | None:
    """What a checkpoint was trained with: stored (ours), or its data set's (released)."""
    if "mean" in state and "std" in state:
        return Normalisation(float(state["mean"]), float(state["std"]), "run")
    try:
        layout = find_layout(dataset or "")
    except InputError:  # a data set of the user's own
        return None
    if layout.mean is None:
        return None
    return Normalisation(float(layout.mean), float(layout.std), "run")


def load_detector(
    loaded: Loaded, normalisation: Normalisation, options: argparse.Namespace
) -> Detector:
    """The Detector of a network, as the options device, gpu, precision, compile, register say."""
    device = choose_device(options.device, options.gpu)
    return Detector(
        loaded.network, *normalisation[:2], device, options.precision, options.register,
        compiled=options.compile and compiler_works(device, PRECISIONS[options.precision]),
    )  # fmt: skip


def evaluate(
    detector: Detector,
    sequences: list[Sequence],
    rule: ShootingRule,
    observers: Iterable[Observer] = (),
    label: str = "detect",
) -> dict[str, Counts]:
    """Detect in every sequence and count; a sequence without masks is detected, not counted.

    Observers are called with (sequence, frame index from 0, probability [H, W]) for every frame.
    Of several processes each takes every n-th sequence, with its own observers.
    Returns the counts by sequence name, of all processes.
    """
    counts: dict[str, Counts] = {}
    mine = sequences[rank() :: processes()]
    with progress(sum(map(len, mine)), "frame", label) as bar:
        for sequence in mine:
            total = Counts(rule.thresholds)
            for i, probability in enumerate(detect(detector, sequence)):
                if sequence.has_masks:
                    mask, centroids = sequence.masks(i, i + 1)[0], sequence.centroids(i, i + 1)[0]
                    total = total + rule.count(probability, centroids, mask)
                for observe in observers:
                    observe(sequence, i, probability)
                bar.update()
            if sequence.has_masks:
                counts[sequence.name] = total
    of_all = {name: count for part in gather(counts) for name, count in part.items()}
    return {s.name: of_all[s.name] for s in sequences if s.name in of_all}


def detect(detector: Detector, sequence: Sequence) -> Iterator[np.ndarray]:
    """The maps of a sequence; errors name it."""
    try:
        yield from detector.stream(sequence.iter_frames())
    except InputError as error:
        raise InputError(f"{sequence.name}: {error}") from error


def describe_protocol(
    detector: Detector,
    normalisation: Normalisation,
    rule: ShootingRule,
    split: str,
    checkpoint: str,
) -> dict:
    """Everything that a number depends on; stored and printed with every result."""
    return {
        "checkpoint": checkpoint,
        "split": split,
        **rule.describe(),
        **detector.describe(),
        "normalisation": normalisation._asdict(),
        "versions": versions(),
    }


def score(
    loaded: Loaded, options: argparse.Namespace, folder: Path, suffix: str = "",
    split: str | None = None, visual: bool = False, submission: SubmissionWriter | None = None,
) -> tuple[dict, list[Path]]:  # fmt: skip
    """Evaluate a network on a split and write everything; the results and the paths written.

    Of several processes the main one writes; the PNGs of a sequence are written by the one that
    detects in it.

    Args:
        options: datapath, dataset, device, gpu, precision, register, threshold_eval and the
            options of `utils.options.add_rule` and `add_normalisation`.
        folder: where to write; the names of the files end in `suffix`.
        visual: write probability PNGs too (they always are where there is nothing else to do: no
            masks to score, no submission).
        submission: what to write for the challenge.
    """
    layout, split, sequences = open_evaluation(options, split)
    rule = ShootingRule(options.window_radius, options.border, iou_threshold=options.threshold_eval)
    if is_main():
        folder = writable_folder(folder, "name another folder with --output DIR")
    snr = read_snr(options.datapath)
    detector, normalisation = build_detector(loaded, options, layout, sequences)
    examples = ExampleCollector(sequences)
    observers = [examples, *([submission] if submission else [])]
    maps = folder / f"visual{suffix}"
    visual = visual or not (sequences[0].has_masks or submission)
    if visual:
        observers.append(ProbabilityWriter(maps, layout.first_number))
    counts = evaluate(detector, sequences, rule, observers)
    protocol = describe_protocol(detector, normalisation, rule, split, loaded.checkpoint)
    subsets = layout.subsets or snr_subsets(snr, counts)
    about = {"run": loaded.run, "model": loaded.model, "dataset": layout.name}
    results = {**about, "protocol": protocol, **report(counts, rule.thresholds, subsets, snr)}
    shown = [example for part in gather(examples.examples) for example in part]
    if not is_main():
        return results, []
    paths = write_results(folder, suffix, str(options), results)
    picture = folder / f"frames{suffix}.png"
    plot_frames(picture, shown, f"{loaded.model} on {layout.name}")
    paths += [picture, *([maps] if visual else [])]
    return results, paths + ([submission.write(sequences)] if submission else [])


def open_evaluation(
    options: argparse.Namespace, split: str | None, masks_for: str | None = None
) -> tuple[Layout, str, list[Sequence]]:
    """The layout that `options` name, the split (by default its evaluation split), its sequences.

    Raises InputError if there are no masks, but they are needed for what `masks_for` names.
    """
    layout = find_layout(options.dataset)
    split = split or layout.evaluation_split
    sequences = open_split(layout, options.datapath, split)
    if masks_for and not sequences[0].has_masks:
        raise InputError(
            f"{options.datapath}: no masks of the {split} split: {masks_for} needs them"
        )
    return layout, split, sequences


def build_detector(
    loaded: Loaded, options: argparse.Namespace, layout: Layout, sequences: list[Sequence]
) -> tuple[Detector, Normalisation]:
    """The Detector of a loaded network for a data set, and where its mean and std are from."""
    # A run on the data set it was trained on keeps the mean and std it was trained with.
    own = loaded.normalisation is not None and loaded.dataset == layout.name
    normalisation = choose_normalisation(
        layout, sequences, mean=options.mean, std=options.std, of_run=loaded.normalisation,
        prefer="run" if own and options.normalize == "dataset" else options.normalize,
    )  # fmt: skip
    return load_detector(loaded, normalisation, options), normalisation


def train_one_epoch(
    network: nn.Module, loss_function: nn.Module, optimizer: torch.optim.Optimizer, batches, *,
    rate: Callable[[int], float], device: torch.device, iou_threshold: float, label: str,
    clip_grad: float | None = None, average: AveragedModel | None = None,
) -> dict:  # fmt: skip
    """One pass over the batches.

    Args:
        batches: a loader of `datasets.clips.Batch` over a `ClipDataset`.
        rate: the learning rate of step i of this epoch.
        clip_grad: the largest norm that the gradient of a step may have.
        average: a running average of the weights to update after every step.

    Returns mean loss, pixel IoU (both over all processes), last learning rate, and the seconds
    spent on each part and in all. Raises InputError, naming the clips, if the loss is not finite.
    """
    network.train()
    tally, clock = Tally(), Stopwatch(device)
    with progress(len(batches), "step", label) as bar:
        for step, batch in enumerate(batches):
            clock.lap("data")
            frames, masks = batch.normalised(device)
            logits = network(frames)  # [B, T, h, w]
            loss = loss_function(logits, masks)
            value = loss.item()
            if not math.isfinite(value):
                place = f"step {step + 1} of {label}"
                raise _not_finite(value, place, batches.dataset, batch.draws)
            clock.lap("forward")
            _descend(network, loss, optimizer, rate(step), clip_grad, average, clock)
            tally.add(value, logits.detach().sigmoid() > iou_threshold, masks > 0)
            bar.set_postfix(loss=f"{np.mean(tally.losses[-50:]):.4f}", refresh=False)
            bar.update()
            clock.lap("count")
    return {
        **tally.report(),
        "learning_rate": rate(len(batches) - 1),
        **{f"{part}_seconds": round(clock.seconds[part], 3) for part in STEP},
        "seconds": round(clock.total(), 3),
    }


def _descend(
    network: nn.Module, loss: torch.Tensor, optimizer: torch.optim.Optimizer, rate: float,
    clip_grad: float | None, average: AveragedModel | None, clock: Stopwatch,
) -> None:  # fmt: skip
    """One step down the gradient of the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    clock.lap("backward")
    if clip_grad:
        nn.utils.clip_grad_norm_(network.parameters(), clip_grad)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    if average:
        average.update_parameters(network)
    clock.lap("optimiser")


def _not_finite(value: float, place: str, clips: ClipDataset, draws: list[int]) -> InputError:
    """The error for a loss that is no number, naming the clips of its batch."""
    named = "; ".join(clips.describe(draw) for draw in draws)
    return InputError(
        f"the loss is {value} at {place}, on {named}: the last checkpoint is kept; check these "
        "clips, or lower --learning_rate"
    )
