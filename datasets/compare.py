"""Compare the statistics of data sets: grey levels, spatial spectrum, temporal profiles.

    python -m datasets.compare --out compare.png DIR [DIR ...]

A DIR holds `<sequence>/images/`, as simulated sets and folders of real clips do. One curve a DIR
(with --each, one a sequence): the histogram of grey levels, the spatial power spectrum (mean over
directions), and the autocorrelation of a pixel's temporal profile, averaged over its sequences.
These are all that lie in DIR, whatever its lists say; masks are not needed. Levels of 16 bit are
divided by 256, so that simulated sets of both depths compare.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.layouts import Layout
from datasets.sequences import Sequence, open_split
from utils.errors import InputError, run_command
from utils.logs import progress
from utils.options import Parser, folder, number_above, picture
from utils.plots import new_figure, save_figure

LEVELS = np.arange(-4, 4.01, 0.1)  # of grey levels, in standard deviations from the mean
FREQUENCIES = np.linspace(0, 0.5, 33)  # cycles a pixel
# Frames alone, all there are: one split, of which there is no list.
FRAMES = Layout("DIR", masks="", lists={"all": ""}, lists_required=False)


class Statistics(NamedTuple):
    """histogram [80] over LEVELS, spectrum [32] over FREQUENCIES (density, grey levels squared),
    autocorrelation [lags] from lag 0, and the median standard deviation of a pixel in time."""

    histogram: np.ndarray
    spectrum: np.ndarray
    autocorrelation: np.ndarray
    temporal_std: float


def spatial_spectrum(frame: np.ndarray) -> np.ndarray:
    """Power spectrum of a frame [H, W], Hann-windowed, averaged over rings of FREQUENCIES: [32]."""
    H, W = frame.shape
    window = np.outer(np.hanning(H), np.hanning(W))
    power = np.abs(np.fft.fft2((frame - frame.mean()) * window)) ** 2 / np.square(window).sum()
    radius = np.hypot(np.fft.fftfreq(H)[:, None], np.fft.fftfreq(W)[None])
    total, _ = np.histogram(radius, FREQUENCIES, weights=power)
    count, _ = np.histogram(radius, FREQUENCIES)
    return total / np.maximum(count, 1)


def temporal_autocorrelation(frames: np.ndarray, lags: int) -> np.ndarray:
    """Autocorrelation of the pixels' temporal profiles [T, H, W] at lags 0 to `lags` - 1.

    Covariances are averaged over pixels and then divided by that at lag 0, so that pixels that
    never change do not count. NaN where nothing changes at all.
    """
    profiles = frames - frames.mean(axis=0)
    T = len(frames)
    covariance = [np.mean(profiles[: T - lag] * profiles[lag:]) for lag in range(min(lags, T))]
    with np.errstate(invalid="ignore"):
        return np.array(covariance) / covariance[0]


def open_folder(root: Path) -> list[Sequence]:
    """Every sequence under `root`, without masks; InputError if there are none."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; DIR is a folder of sequences")
    return open_split(FRAMES, root, "all")


def measure(sequence: Sequence, frames: int, lags: int) -> Statistics:
    """The statistics of the first frames of a sequence."""
    levels = sequence.frames(0, frames).astype(np.float64)
    levels /= 256 if sequence.stored[1] == np.uint16 else 1  # in levels of 8 bit
    still = levels[0]
    scaled = (levels - levels.mean()) / max(levels.std(), 1e-9)
    return Statistics(
        np.histogram(scaled, LEVELS, density=True)[0],
        spatial_spectrum(still),
        temporal_autocorrelation(levels, lags),
        float(np.median(levels.std(axis=0))),
    )


def draw(path: Path, measured: dict[str, list[Statistics]]) -> None:
    """The three curves of every data set side by side."""
    figure = new_figure(13, 4)
    left, middle, right = figure.subplots(1, 3)
    for name, found in measured.items():
        noise = np.median([s.temporal_std for s in found])
        left.plot(LEVELS[:-1] + 0.05, np.mean([s.histogram for s in found], axis=0), label=name)
        centres = (FREQUENCIES[1:] + FREQUENCIES[:-1]) / 2
        # Geometric means: sequences differ by orders of magnitude.
        spectrum = np.exp(np.mean([np.log(s.spectrum + 1e-9) for s in found], axis=0))
        middle.loglog(centres, spectrum, label=name)
        shortest = min(len(s.autocorrelation) for s in found)
        profile = np.nanmean([s.autocorrelation[:shortest] for s in found], axis=0)
        right.plot(profile, label=f"{name} (std {noise:.2f})")
    left.set(xlabel="grey level, standard deviations from the mean", ylabel="density")
    middle.set(xlabel="spatial frequency, cycles a pixel", ylabel="power, grey levels squared")
    right.set(xlabel="lag, frames", ylabel="autocorrelation of temporal profiles")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    right.legend(title="median temporal std", fontsize=8)
    save_figure(figure, path)


def name_curves(folders: Iterable[Path]) -> dict[Path, str]:
    """A name for each folder: its own, or its whole path where two are named alike."""
    resolved = {path: path.resolve() for path in folders}
    names = [path.name for path in resolved.values()]
    return {
        path: whole.name if names.count(whole.name) == 1 else str(path)
        for path, whole in resolved.items()
    }


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.compare", description=__doc__)
    parser.add_argument("data", type=folder, nargs="+", metavar="DIR", help="data sets to compare")
    parser.add_argument("--out", type=picture, required=True, help="picture to write, a .png")
    parser.add_argument("--each", action="store_true", help="draw a curve for every sequence")
    parser.add_argument(
        "--frames", type=number_above(1, int), default=60, help="frames of each sequence to read"
    )
    parser.add_argument("--lags", type=number_above(1, int), default=30, help="lags, in frames")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    names = name_curves(options.data)
    opened = {name: open_folder(path) for path, name in names.items()}
    measured: dict[str, list[Statistics]] = {}
    with progress(sum(map(len, opened.values())), "sequence", "measure") as bar:
        for name, sequences in opened.items():
            for sequence in sequences:
                curve = f"{name}/{sequence.name}" if options.each else name
                found = measure(sequence, options.frames, options.lags)
                measured.setdefault(curve, []).append(found)
                bar.update()
    draw(options.out, measured)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    run_command(main)
