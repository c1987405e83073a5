"""What a training is made of: the sequences to train on, those that choose the best epoch, the
clips an epoch draws, the normalisation."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from datasets.caching import cache_sequences
from datasets.clips import ClipSampler
from datasets.layouts import Layout, find_layout
from datasets.normalisation import Normalisation, choose_normalisation
from datasets.sequences import Sequence, open_split, split_validation
from utils.errors import InputError


@dataclass(frozen=True)
class Plan:
    """What to train on, where the best epoch is chosen (both with frames from the cache), and what
    it is tested on."""

    layout: Layout
    training: list[Sequence]
    validation: list[Sequence]
    test: list[Sequence]
    sampler: ClipSampler
    steps: int
    normalisation: Normalisation
    warnings: list[str]

    def facts(self) -> dict[str, object]:
        """What processes that train together must have in common."""
        parts = {"training": self.training, "validation": self.validation, "test": self.test}
        return {
            **{f"{part} sequences": [s.name for s in parts[part]] for part in parts},
            **{f"numbers of {part} frames": [len(s) for s in parts[part]] for part in parts},
            "clips in an epoch": self.sampler.draws,
            "steps": self.steps,
            "mean": self.normalisation.mean,
            "std": self.normalisation.std,
        }


def make_plan(
    options: argparse.Namespace, processes: int = 1, of_run: Normalisation | None = None
) -> Plan:
    """Open the data and settle what depends on it. InputError for what cannot be trained.

    Args:
        options: of train.py; an open `sample_rate` is set to the data set's.
        processes: how many of them share a step, of batch_size clips each.
        of_run: the normalisation of the run whose weights it begins with.
    """
    layout = find_layout(options.dataset)
    training, validation, test, warnings = _open(layout, options)
    if options.sample_rate is None:
        options.sample_rate = layout.sample_rate
    lengths = [len(s) for s in training]
    sampler = ClipSampler(lengths, options.seqlen, options.sample_rate, options.seed)
    batch = options.batch_size * processes
    steps = sampler.draws // batch
    if not steps:
        raise InputError(
            f"an epoch of {sampler.draws} clips does not fill one batch of {batch}: "
            "raise --sample_rate or lower --batch_size"
        )
    normalisation = choose_normalisation(
        layout, training, mean=options.mean, std=options.std, prefer=options.normalize,
        of_run=of_run if options.normalize == "run" else None,
    )  # fmt: skip
    resized = [s.resized(layout.train_size, options.mask_resize) for s in training]
    cached, uncached = cache_sequences(resized + validation, options.cache, options.cache_dir)
    training, validation = cached[: len(training)], cached[len(training) :]
    warnings += uncached
    return Plan(layout, training, validation, test, sampler, steps, normalisation, warnings)


def _open(
    layout: Layout, options: argparse.Namespace
) -> tuple[list[Sequence], list[Sequence], list[Sequence], list[str]]:
    """Training, validation and test sequences from their images, and warnings."""
    if not options.val_fraction < 1:
        raise InputError(f"--val_fraction {options.val_fraction}: expected a share below 1")
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
    return training, validation, test, warnings
