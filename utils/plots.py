"""Pictures, drawn with matplotlib into PNG files that appear whole.

matplotlib is imported where a figure begins: it takes a second, which `--help` need not wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from utils.errors import InputError
from utils.files import written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# It warns once a text about every font of its list that is gone, which changes nothing.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

FOUND, TRUTH = "#ff5c33", "#35c759"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: pictures are PNG files; choose a name that ends in .png")
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")  # savefig would draw and lay out once more before it begins
    with written_whole(path) as temporary:
        figure.savefig(temporary)


def plot_roc(path: Path, reports: dict[str, dict], title: str) -> None:
    """Pd over Fa at the thresholds of each named report, Fa on a logarithmic axis."""
    figure = new_figure(6.4, 4.6)
    axes = figure.add_subplot()
    for name, report in reports.items():
        points = [
            (fa, pd, threshold)
            for fa, pd, threshold in zip(
                report["fa"], report["pd"], report["thresholds"], strict=True
            )
            if fa is not None and pd is not None
        ]
        if not points:
            continue
        floor = 0.5 / report["pixels"]  # Fa = 0 is drawn at half a pixel
        fa = [max(p[0], floor) for p in points]
        auc = "" if report["auc"] is None else f", AUC {report['auc']:.4f}"
        (line,) = axes.plot(fa, [p[1] for p in points], ".-", label=f"{name}{auc}")
        for x, (_, pd, threshold) in zip(fa, points, strict=True):
            if threshold == 0.5:
                axes.plot(x, pd, "o", ms=9, mfc="none", color=line.get_color())
    axes.set(xscale="log", ylim=(-0.03, 1.03), title=title)
    axes.set(
        xlabel="false-alarm rate Fa (circle: threshold 0.5)", ylabel="probability of detection Pd"
    )
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(loc="lower right")
    save_figure(figure, path)


def plot_snr_curve(path: Path, curves: Sequence, title: str) -> None:
    """Pd over SNR; a curve holds `name`, `threshold`, `fa` and the lists `snr` and `pd`."""
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    for curve in curves:
        point = f"Fa {curve.fa:.0e} at {curve.threshold:g}"
        axes.plot(curve.snr, curve.pd, ".-", label=f"{curve.name} ({point})")
    axes.set(xlabel="SNR of the sequence", ylabel="probability of detection Pd", title=title)
    axes.set(ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def plot_memory(path: Path, record: list[tuple[int, float]], title: str) -> None:
    """Resident memory in MB over the frames answered."""
    figure = new_figure(6.4, 3.2)
    axes = figure.add_subplot()
    axes.plot(*zip(*record, strict=True))
    axes.set(xlabel="frames", ylabel="resident memory, MB", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    save_figure(figure, path)


def plot_training(path: Path, records: list[dict]) -> None:
    """Loss and validation IoU by epoch; a record is one line of `epochs.jsonl`."""
    figure = new_figure(6.4, 4.2)
    axes = figure.add_subplot()
    epochs = [r["epoch"] for r in records]
    axes.plot(epochs, [r["loss"] for r in records], ".-", color="#3366cc", label="training loss")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    other = axes.twinx()
    iou = [np.nan if r["iou"] is None else r["iou"] for r in records]
    other.plot(epochs, iou, ".-", color=FOUND, label="validation IoU")
    other.set(ylabel="IoU", ylim=(-0.03, 1.03))
    figure.legend(loc="outside upper center", ncols=2)
    save_figure(figure, path)


def plot_frames(path: Path, examples: Sequence[dict], title: str) -> None:
    """`draw_frames`, as a PNG file."""
    save_figure(draw_frames(examples, title), path)


def draw_frames(examples: Sequence[dict], title: str) -> Figure:
    """Frames with detections and truth above their probability maps.

    An example holds `title`, `frame` [H, W], `probability` [H, W] and `truth` [H, W] bool, None
    where there are no masks. What is found is the components of probability >= 0.5.
    """
    count = max(1, len(examples))
    figure = new_figure(2.7 * count, 6.0)
    grid = figure.subplots(2, count, squeeze=False)
    for (above, below), example in zip(grid.T, examples, strict=False):
        low, high = np.percentile(example["frame"], (0.5, 99.8))
        above.imshow(example["frame"], cmap="gray", vmin=low, vmax=max(high, low + 1))
        below.imshow(example["probability"], cmap="inferno", vmin=0, vmax=1)
        if example["truth"] is not None:
            _boxes(above, example["truth"], TRUTH, margin=4)
        _boxes(above, example["probability"] >= 0.5, FOUND, margin=2)
        above.set_title(example["title"], fontsize=8)
    for axes in grid.flat:
        axes.set_axis_off()
    truth = "" if any(e["truth"] is None for e in examples) else "truth (green), "
    figure.suptitle(f"{title}: {truth}detections (red); below: probability", fontsize=9)
    return figure


def draw_box(axes: Axes, box: Sequence[int], colour: str, margin: float) -> None:
    """A box (x, y, width, height), in pixels of the image on these axes, `margin` wide of it."""
    from matplotlib.patches import Rectangle

    x, y, width, height = box
    corner = (x - 0.5 - margin, y - 0.5 - margin)
    size = (width + 2 * margin, height + 2 * margin)
    axes.add_patch(Rectangle(corner, *size, fill=False, ec=colour, lw=1.2))


def _boxes(axes: Axes, binary: np.ndarray, colour: str, margin: float) -> None:
    """A box around every 8-connected component, `margin` pixels wide of it."""
    _, _, components, _ = cv2.connectedComponentsWithStats(binary.astype(np.uint8))
    for *box, _ in components[1:]:
        draw_box(axes, box, colour, margin)
