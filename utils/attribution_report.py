"""What an attribution says in numbers: arrays for programs, a line for people.

An attribution is a `models.attribution.Attribution`; here it is known by its fields.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.attribution_plots import influence_by_frame, plot_attribution, plot_influence
from utils.files import write_json, written_whole

# Means are over the targets whose F, a sum over their pixels, is no smaller. It is not the rule of
# a detection, one pixel of 0.5: of a large target many smaller ones are enough.
EXPLAINED = 0.5


def write_attribution(
    folder: Path, attribution, name: str, has_masks: bool, target, protocol: dict
) -> tuple[dict, list[Path]]:
    """Write `<sequence>_frame<N>_target<N>.npz`, `.json` and `.png`; the record and the paths.

    Args:
        name, has_masks: of the sequence; without masks the target is a detection.
        target: its `index` and `number`.
        protocol: everything that the maps depend on, `model` among it; stored with the record.
    """
    source = "mask" if has_masks else "detection"
    record = describe(attribution, name, target.number, source)
    stem = f"{name}_frame{record['frame']:05d}_target{target.number}"
    paths = [folder / f"{stem}{kind}" for kind in (".npz", ".json", ".png")]
    write_arrays(paths[0], attribution)
    write_json(paths[1], {"protocol": protocol, **record})
    plot_attribution(paths[2], attribution, f"{protocol['model']}: {describe_line(record)}")
    return record, paths


def write_summary(
    folder: Path,
    records: list[dict],
    subsets: Mapping[str, tuple[str, ...]],
    title: str,
    protocol: dict,
) -> list[Path]:
    """Write `attribution.json`, and `influence.png` where a target was detected; the paths."""
    summary = summarise(records, subsets)
    paths = [folder / "attribution.json"]
    write_json(paths[0], {"protocol": protocol, "targets": records, "by_distance": summary})
    if summary:
        paths.append(folder / "influence.png")
        plot_influence(paths[1], summary, title)
    return paths


def describe(attribution, sequence: str, number: int, source: str) -> dict:
    """One attribution as a record for JSON; frames and targets counted from 1.

    `offsets` and `shares` run over the frames of the window: distance to the target's frame
    (negative before it) and share of the absolute influence.
    """
    a = attribution
    offsets = np.arange(len(a.influence)) - a.index
    gap = a.gap
    return {
        "sequence": sequence,
        "frame": a.start + a.index + 1,
        "target": number,
        "source": source,
        "pixels": int(a.mask.sum()),
        "window": [a.start + 1, a.start + len(a.influence)],
        "crop": {"top": a.crop.top, "bottom": a.crop.bottom, "left": a.crop.left,
                 "right": a.crop.right, "size": list(a.crop.size)},
        "baseline": a.baseline_name,
        "steps": a.steps,
        "seconds": round(a.seconds, 3),
        "f_clip": float(a.path.scores[-1]),
        "f_baseline": float(a.path.scores[0]),
        "sum": float(a.influence.sum(dtype=np.float64)),
        "gap": gap if np.isfinite(gap) else None,
        "complete": a.complete,
        "offsets": offsets.tolist(),
        "shares": influence_by_frame(a.influence).tolist(),
        "deletion": {key: value.tolist() for key, value in a.deletion._asdict().items()},
        "deleted_to_halve": halved_at(a.deletion.shares, a.deletion.ordered),
        "deleted_to_halve_at_random": halved_at(a.deletion.shares, a.deletion.random),
    }  # fmt: skip


def halved_at(shares: np.ndarray, scores: np.ndarray) -> float | None:
    """The first share of deleted voxels at which F is at most half of what it was; None: never."""
    low = np.flatnonzero(scores <= scores[0] / 2)
    return float(shares[low[0]]) if len(low) else None


def write_arrays(path: Path, attribution) -> None:
    """An attribution as a compressed NPZ; the names are those of the README."""
    a = attribution
    with written_whole(path) as temporary:
        np.savez_compressed(
            temporary,
            influence=a.influence, clip=a.clip, baseline=a.baseline, mask=a.mask,
            first_frame=a.start + 1, frame=a.start + a.index + 1,
            top=a.crop.top, left=a.crop.left, size=np.array(a.crop.size),
            f_clip=a.path.scores[-1], f_baseline=a.path.scores[0],
            path_places=a.path.places, path_scores=a.path.scores,
            deleted_shares=a.deletion.shares, deleted_ordered=a.deletion.ordered,
            deleted_random=a.deletion.random,
        )  # fmt: skip


def mean_by_distance(records: list[dict]) -> dict:
    """Mean and spread over targets of the share by distance in frames.

    Returns lists `offsets`, `mean`, `std` and `targets`; at an offset only the targets count whose
    window reaches so far.
    """
    found: dict[int, list[float]] = {}
    for record in records:
        for offset, share in zip(record["offsets"], record["shares"], strict=True):
            found.setdefault(offset, []).append(share)
    offsets = sorted(found)
    return {
        "offsets": offsets,
        "mean": [float(np.mean(found[o])) for o in offsets],
        "std": [float(np.std(found[o])) for o in offsets],
        "targets": [len(found[o]) for o in offsets],
    }


def summarise(records: list[dict], subsets: Mapping[str, tuple[str, ...]]) -> dict[str, dict]:
    """The mean influence by distance of the detected targets (F >= 0.5): all, and by subset of
    sequences where one holds any. Each adds `detected` and `explained`, how many targets."""
    groups = {"all": records}
    for subset, sequences in subsets.items():
        groups[subset] = [r for r in records if r["sequence"] in sequences]
    summary = {}
    for name, group in groups.items():
        detected = [r for r in group if r["f_clip"] >= EXPLAINED]
        if detected:
            counts = {"detected": len(detected), "explained": len(group)}
            summary[name] = {**counts, **mean_by_distance(detected)}
    return summary


def describe_line(record: dict) -> str:
    """One attribution in a line."""
    r = record
    gap = "undefined" if r["gap"] is None else f"{100 * r['gap']:.2f} %"
    halved, random = (
        "never" if r[key] is None else f"with {100 * r[key]:g} %"
        for key in ("deleted_to_halve", "deleted_to_halve_at_random")
    )
    return (
        f"{r['sequence']}, frame {r['frame']}, target {r['target']} ({r['source']}, {r['pixels']} "
        f"px): F {r['f_clip']:.4g}, of the baseline {r['f_baseline']:.3g}, influence sums to "
        f"{r['sum']:.4g}, off by {gap} ({r['steps']} steps, {r['seconds']:.1f} s); F halves "
        f"{halved} of the voxels deleted, {random} at random"
    )


def print_attributions(records: list[dict], paths: list[Path]) -> None:
    """What was written, and a warning where maps are not complete."""
    incomplete = sum(not record["complete"] for record in records)
    if incomplete:
        print(
            f"warning: {incomplete} of {len(records)} maps miss F(clip) - F(baseline) by more than "
            "1 %: take more --steps"
        )
    if records[0]["source"] == "detection":
        print("no masks: the targets are detections, components of probability >= 0.5")
    npz = sum(path.suffix == ".npz" for path in paths)
    summary = ", ".join(path.name for path in paths[3 * npz :])
    print(f"wrote to {paths[0].parent}: {npz} x NPZ, JSON and PNG, {summary}")
