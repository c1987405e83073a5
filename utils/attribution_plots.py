"""Pictures of attributions: one a target, and the mean influence by distance in frames.

An attribution is a `models.attribution.Attribution`; here it is known by its fields.
"""

from pathlib import Path

import numpy as np

from utils.plots import FOUND, TRUTH, new_figure, save_figure

SHOWN = 0.1  # the scatter leaves out what has less of the maximum (paper)
STRIP = 8  # frames in the strip


def shown_influence(influence: np.ndarray) -> np.ndarray:
    """sqrt |influence| as a share of its maximum (paper), with the sign of the influence."""
    root = np.sqrt(np.abs(influence, dtype=np.float64))
    return np.sign(influence) * root / (root.max() or 1)


def influence_by_frame(influence: np.ndarray) -> np.ndarray:
    """The share of every frame in the absolute influence [n, h, w]: [n], summing to 1."""
    by_frame = np.abs(influence).sum(axis=(1, 2), dtype=np.float64)
    return by_frame / (by_frame.sum() or 1)


def plot_attribution(path: Path, attribution, title: str) -> None:
    """Scatter, share by distance, temporal profiles, deletion; below them a strip of frames."""
    figure = new_figure(15, 6.4)
    above, below = figure.subfigures(2, 1, height_ratios=(1.8, 1))
    axes = above.add_subplot(1, 4, 1, projection="3d")
    _draw_scatter(axes, attribution)
    _draw_distance(above.add_subplot(1, 4, 2), attribution)
    _draw_profiles(above.add_subplot(1, 4, 3), attribution)
    _draw_deletion(above.add_subplot(1, 4, 4), attribution)
    _draw_strip(below.subplots(1, STRIP), attribution)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _draw_scatter(axes, a) -> None:
    shown = shown_influence(a.influence)
    t, y, x = np.nonzero(np.abs(shown) > SHOWN)
    share = np.abs(shown[t, y, x])
    points = axes.scatter(
        a.start + t + 1, x + a.crop.left, y + a.crop.top, c=share, s=4 + 40 * share**2,
        cmap="viridis_r", vmin=SHOWN, vmax=1, depthshade=False,
    )  # fmt: skip
    axes.set(xlim=(a.start + 1, a.start + len(a.influence)), xlabel="frame", ylabel="x")
    axes.set_zlabel("y", labelpad=-5)
    axes.set(ylim=(a.crop.left, a.crop.right), zlim=(a.crop.bottom, a.crop.top))
    axes.tick_params(labelsize=7)
    for axis in "xyz":
        axes.locator_params(axis, nbins=4, integer=True)
    axes.set_box_aspect((1.6, 1, 1), zoom=0.85)
    axes.set_title(f"influence (root, share of maximum > {SHOWN})", fontsize=9)
    axes.figure.colorbar(points, ax=axes, shrink=0.6, location="bottom", pad=0.02)


def _draw_distance(axes, a) -> None:
    offsets = np.arange(len(a.influence)) - a.index
    axes.bar(offsets, 100 * influence_by_frame(a.influence), color="#3366cc")
    axes.set(xlabel="distance to the target's frame", ylabel="share of influence, %")
    axes.grid(alpha=0.3)
    axes.set_title("by distance in frames", fontsize=9)


def _draw_profiles(axes, a) -> None:
    """Grey levels over time of the most influential pixel of the target and its neighbours."""
    total = np.where(a.mask, np.abs(a.influence).sum(axis=0), -1)
    y, x = np.unravel_index(total.argmax(), total.shape)
    frames = a.start + 1 + np.arange(len(a.clip))
    rows, columns = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
    around = a.clip[:, rows, columns].reshape(len(a.clip), -1)
    axes.plot(frames, around, color="0.7", lw=0.7)
    axes.plot(frames, a.clip[:, y, x], color=FOUND, lw=1.4)
    axes.axvline(a.start + a.index + 1, color=TRUTH, lw=1)
    influence = axes.twinx()
    influence.bar(frames, a.influence[:, y, x], color="#3366cc", alpha=0.4)
    influence.set_ylabel("influence of the pixel (bars)", fontsize=8)
    influence.tick_params(labelsize=7)
    axes.set(xlabel="frame", ylabel="grey level")
    axes.set_title(f"pixel ({x + a.crop.left}, {y + a.crop.top}) red, neighbours grey", fontsize=9)


def _draw_deletion(axes, a) -> None:
    d = a.deletion
    shares = np.arange(len(d.shares))
    axes.plot(shares, d.ordered, ".-", color=FOUND, label="most influential first")
    axes.plot(shares, d.random, ".-", color="0.5", label="random")
    axes.set_xticks(shares, [f"{100 * s:g}" for s in d.shares], fontsize=7)
    axes.set(xlabel="voxels replaced by the baseline, %", ylabel="F")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.set_title("deletion", fontsize=9)


def _draw_strip(grid, a) -> None:
    """The target's frame and those of most influence, in order, with the map laid over."""
    share = influence_by_frame(a.influence)
    order = [a.index, *(i for i in np.argsort(-share, kind="stable") if i != a.index)]
    low, high = np.percentile(a.clip, (0.5, 99.8))
    shown = shown_influence(a.influence)
    for axes in grid:
        axes.set_axis_off()
    for axes, i in zip(grid, sorted(order[:STRIP]), strict=False):
        axes.imshow(a.clip[i], cmap="gray", vmin=low, vmax=max(high, low + 1))
        alpha = np.abs(shown[i]) * 0.8
        axes.imshow(shown[i], cmap="bwr", vmin=-1, vmax=1, alpha=alpha)
        if i == a.index:
            axes.contour(a.mask, levels=[0.5], colors=TRUTH, linewidths=1)
        name = "target's frame" if i == a.index else f"{i - a.index:+d}"
        axes.set_title(f"{name}: {100 * share[i]:.1f} %", fontsize=8)


def plot_influence(path: Path, summary: dict[str, dict], title: str) -> None:
    """Mean share of influence by distance in frames, with one standard deviation around it, by
    subset where there are some."""
    subsets = {name: group for name, group in summary.items() if name != "all"}
    figure = new_figure(7.2, 4.2)
    axes = figure.add_subplot()
    for name, group in (subsets or summary).items():
        mean, std = 100 * np.array(group["mean"]), 100 * np.array(group["std"])
        label = f"{name.replace('_', ' ')} ({group['detected']} of {group['explained']} targets)"
        (drawn,) = axes.plot(group["offsets"], mean, ".-", label=label)
        axes.fill_between(
            group["offsets"], np.maximum(mean - std, 0), mean + std, alpha=0.15,
            color=drawn.get_color(), lw=0,
        )  # fmt: skip
    axes.set(xlabel="distance to the target's frame, in frames", ylabel="share of influence, %")
    axes.set_title(title, fontsize=10)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)
