"""Evaluate a run on a data set: Pd, Fa, AUC and IoU, counted as the published evaluator does.

  python test.py --seqlen 40 --datapath DIR --dataset NUDT-MIRSDT --logpath ./log/ --log_dir RUN

finds the run at LOGPATH/RUN or LOGPATH/sem_seg/RUN (ours or a released one) and writes, to its
folder or to --output: eval.txt, metrics.json, sequences.csv, roc.png, frames.png.

  python test.py ... --submission out.zip         the targets, as the SatVideoIRSTD challenge wants
  python test.py --score out.zip --dataset SatVideoIRSDT --datapath DIR --match_radius 3
  python test.py ... --sweep                      the best threshold and least area for it
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path

from datasets import SOURCES, choose_sequences, layout_names, read_snr, read_targets, snr_subsets
from engine import (
    Loaded,
    build_detector,
    detect,
    load_classical,
    load_network,
    open_evaluation,
    score,
)
from metrics import BORDERS, Association, associate
from models import (
    BASELINES,
    CENTROIDS,
    CLASSICAL,
    IDS,
    PRECISIONS,
    REGISTRATIONS,
    Explainer,
    TargetFinder,
    find_targets,
)
from utils.attribution_options import add_attribution, check_attribution
from utils.attribution_report import (
    describe_line,
    print_attributions,
    write_attribution,
    write_summary,
)
from utils.challenge import (
    add_challenge,
    describe_scoring,
    notes_on,
    order_line,
    print_score,
    print_sweep,
    rank_settings,
    write_score,
    write_sweep,
)
from utils.devices import set_up_arithmetic
from utils.errors import InputError, run_command
from utils.files import writable_folder
from utils.inference_options import add_inference
from utils.logs import progress
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
from utils.reports import print_results, versions
from utils.runs import find_run
from utils.submission import SubmissionWriter, extents_of, read_submission


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
    add_attribution(parser, BASELINES)
    add_challenge(parser, CENTROIDS, IDS)
    add_device(parser)
    add_inference(parser, list(PRECISIONS), REGISTRATIONS)
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


def build_finder(options: argparse.Namespace) -> TargetFinder:
    """What the options take for a target."""
    return TargetFinder(
        options.submission_threshold, options.min_area, options.centroid, options.submission_ids,
        options.confirmed_only,
    )  # fmt: skip


def score_submission(options: argparse.Namespace) -> tuple[dict, list[Path]]:
    """Score a submission, anyone's, against the masks of a split; the results, the paths written.

    Raises InputError for a submission that does not cover the split, and where there are no masks.
    """
    if options.log_dir or options.classical:
        raise InputError("--score needs no run: leave out --log_dir and --classical")
    layout, split, sequences = open_evaluation(options, options.split, masks_for="--score")
    path = options.score.absolute()
    folder = writable_folder(options.output or path.parent, "name another folder with --output DIR")
    submitted = read_submission(options.score, extents_of(sequences), options.coordinate_order)
    true = {}
    with progress(sum(map(len, sequences)), "frame", "score") as bar:
        for sequence in sequences:
            true[sequence.name] = read_targets(sequence)
            bar.update(len(sequence))

    def count(columns: list[int]) -> dict[str, Association]:
        return {
            name: associate(
                [targets[:, columns] for targets in submitted[name]], *truth, options.match_radius
            )
            for name, truth in true.items()
        }

    counts, swapped = count([0, 1, 2]), count([0, 2, 1])
    overall = sum(counts.values(), start=Association())
    results = {
        "submission": str(options.score),
        "dataset": layout.name,
        "protocol": describe_scoring(options, split, coordinate_order=options.coordinate_order),
        "notes": notes_on(
            {name: c.report() for name, c in counts.items()},
            sum(c.matched for c in swapped.values()), options.coordinate_order,
        ),
        "overall": overall.report(),
        "sequences": {name: c.report() for name, c in counts.items()},
    }  # fmt: skip
    return results, write_score(folder / path.name.removesuffix(".zip"), results)


def sweep(
    loaded: Loaded, options: argparse.Namespace, folder: Path, suffix: str
) -> tuple[dict, list[Path]]:
    """Score every threshold with every least area; the results and the paths written.

    The network runs once. Of a sequence only the components at each threshold are kept, until it
    is scored.
    """
    layout, split, sequences = open_evaluation(options, options.split, masks_for="--sweep")
    folder = writable_folder(folder, "name another folder with --output DIR")
    detector, normalisation = build_detector(loaded, options, layout, sequences)
    finder = build_finder(options)
    counts = dict.fromkeys(product(options.sweep_thresholds, options.sweep_areas), Association())
    with progress(sum(map(len, sequences)), "frame", "sweep") as bar:
        for sequence in sequences:
            components = {level: [] for level in options.sweep_thresholds}  # [n, 3] by frame
            for probability in detect(detector, sequence):
                for level, found in components.items():
                    found.append(replace(finder, level=level).find(probability))
                bar.update()
            truth = read_targets(sequence)
            for level, area in counts:
                submitted = replace(finder, min_area=area).number(components[level])
                counts[level, area] += associate(submitted, *truth, options.match_radius)
    settings = [
        {"submission_threshold": level, "min_area": area, **c.report()}
        for (level, area), c in counts.items()
    ]
    results = {
        "run": loaded.run,
        "model": loaded.model,
        "dataset": layout.name,
        "protocol": describe_scoring(
            options, split, checkpoint=loaded.checkpoint, centroid=finder.centroid,
            submission_ids=finder.ids, confirmed_only=finder.confirmed_only,
            **detector.describe(), normalisation=normalisation._asdict(), versions=versions(),
        ),
        **rank_settings(settings),
    }  # fmt: skip
    return results, write_sweep(folder, suffix, results)


def test(
    loaded: Loaded, options: argparse.Namespace, folder: Path, suffix: str
) -> tuple[dict, list[Path]]:
    """Evaluate, and write a submission where one is wanted; the results and the paths written."""
    submission = None
    if options.submission:
        finder = build_finder(options)
        order = options.coordinate_order
        submission = SubmissionWriter(options.submission, finder.find, finder.number, order)
    return score(loaded, options, folder, suffix, options.split, options.visual, submission)


def attribute(
    loaded: Loaded, options: argparse.Namespace, folder: Path
) -> tuple[list[dict], list[Path]]:
    """Explain targets of a split (`utils.attribution_options`); records and paths written.

    Says a line for each. Sequences without masks take what is detected in their place.
    """
    layout, split, sequences = open_evaluation(options, options.split)
    sequences = choose_sequences(sequences, options.sequences)
    folder = writable_folder(folder / "attribution", "name another folder with --output DIR")
    detector, levels = build_detector(loaded, options, layout, sequences)
    path = options.steps, options.refine, options.baseline, options.whole_frame
    explainer = Explainer(loaded.network, *levels[:2], detector.device, *path)
    protocol = {
        "run": loaded.run, "model": loaded.model, "dataset": layout.name,
        "checkpoint": loaded.checkpoint, "split": split, "normalisation": levels._asdict(),
        "detector": detector.describe(), "attribution": explainer.describe(),
        "versions": versions(),
    }  # fmt: skip
    places = find_targets(sequences, detector, options.frames, options.targets)
    if not places:
        raise InputError(f"{options.datapath}: nothing to explain: no frame holds a target")
    records, paths = [], []
    with progress(len(places), "target", "explain") as bar:
        for sequence, target in places:
            found = explainer.explain(sequence.frames, len(sequence), target.index, target.mask)
            record, written = write_attribution(
                folder, found, sequence.name, sequence.has_masks, target, protocol
            )
            bar.write(describe_line(record))
            bar.update()
            records, paths = [*records, record], [*paths, *written]
    subsets = layout.subsets or snr_subsets(read_snr(options.datapath), [s.name for s in sequences])
    title = f"{loaded.model} on {layout.name}: mean influence"
    return records, paths + write_summary(folder, records, subsets, title, protocol)


def main() -> None:
    options = parse_options(build_parser(), "test")
    if options.attribution and options.classical:
        raise InputError("--attribution explains networks: give --log_dir RUN, not --classical")
    check_attribution(options)
    chosen = [key for key in ("sequences", "frames", "targets") if getattr(options, key)]
    if chosen and not options.attribution:
        raise InputError(
            f"--{chosen[0]} chooses what to explain: give --attribution, or leave it out"
        )
    jobs = ("submission", "score", "sweep")
    if options.attribution and (others := [f"--{job}" for job in jobs if getattr(options, job)]):
        raise InputError(f"--attribution stands alone: leave it or {others[0]} out")
    if options.score:
        print_score(*score_submission(options))
        return
    set_up_arithmetic()
    loaded, folder = load(options)
    if options.attribution:
        print_attributions(*attribute(loaded, options, folder))
        return
    suffix = f"_epoch-{options.epoch}" if options.epoch else ""
    if options.sweep:
        print_sweep(*sweep(loaded, options, folder, suffix))
        return
    print_results(*test(loaded, options, folder, suffix))
    if options.submission:
        print(f"submission: {build_finder(options)}; {order_line(options.coordinate_order)}")


if __name__ == "__main__":
    run_command(main)
