"""Look at a data set: a contact sheet and a video of some sequences, truth drawn as boxes.

    python -m datasets.preview --dataset NUDT-MIRSDT --datapath DIR --out DIR

writes contact_sheet.png (a row a sequence) and preview.mp4 (the same sequences, one after the
other) to --out. Sequences without masks are shown as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from datasets.layouts import find_layout, layout_names
from datasets.sequences import Sequence, open_split
from utils.errors import run_command
from utils.files import writable_folder
from utils.logs import progress
from utils.options import Parser, folder, number_above
from utils.overlay import captioned, display_range, fitting_size, letterbox
from utils.plots import TRUTH, draw_box, new_figure, save_figure
from utils.video import video_written_whole

COLUMNS = 6  # frames of a sequence on the contact sheet
MARGIN = 4  # between a target and its box, in pixels of the picture it is drawn in
VIDEO_SIDE = 640  # longer side of the video's picture
RATE = 10  # frames a second


def target_boxes(mask: np.ndarray) -> np.ndarray:
    """(x, y, width, height) of every 8-connected component of a mask [H, W]: [n, 4] int."""
    return cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2][1:, :4]


def read_with_boxes(sequence: Sequence, index: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame [H, W] and its target boxes [n, 4]; none where there are no masks."""
    frame = sequence.frames(index, index + 1)[0]
    if not sequence.has_masks:
        return frame, np.empty((0, 4), int)
    return frame, target_boxes(sequence.masks(index, index + 1)[0])


def write_contact_sheet(path: Path, sequences: list[Sequence], title: str) -> None:
    """A PNG with a row for every sequence: evenly spread frames with truth in green."""
    heights = [2.1 * s.size[0] / s.size[1] + 0.25 for s in sequences]  # inches
    figure = new_figure(2.1 * COLUMNS, sum(heights) + 0.4)
    grid = figure.subplots(len(sequences), COLUMNS, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    with progress(len(sequences), "sequence", "contact sheet") as bar:
        for row, sequence in zip(grid, sequences, strict=True):
            low, high = display_range(sequence.frames(0, 1)[0])
            for axes, index in zip(row, _spread(len(sequence), COLUMNS), strict=False):
                frame, boxes = read_with_boxes(sequence, index)
                axes.imshow(frame, cmap="gray", vmin=low, vmax=high)
                for box in boxes:
                    draw_box(axes, box, TRUTH, MARGIN)
                axes.set_title(f"{sequence.name}, frame {index + 1}", fontsize=7)
            bar.update()
    figure.suptitle(title, fontsize=10)
    save_figure(figure, path)


def _spread(length: int, most: int) -> list[int]:
    """Up to `most` distinct places from 0 to length - 1, evenly spread, both ends included."""
    return np.unique(np.linspace(0, length - 1, most).round().astype(int)).tolist()


def picture_size(sequences: list[Sequence]) -> tuple[int, int]:
    """(H, W) of the video's picture: that of the largest frame, at a longer side of VIDEO_SIDE."""
    return fitting_size(max((s.size for s in sequences), key=math.prod), VIDEO_SIDE)


def draw_boxes(
    frame: np.ndarray, boxes: np.ndarray, levels: tuple[float, float], size: tuple[int, int]
) -> np.ndarray:
    """A frame with its boxes, as large as fits and centred on black: [*size, 3] uint8 BGR."""
    picture, scale, left, top = letterbox(frame, levels, size)
    colour = tuple(int(TRUTH[i : i + 2], 16) for i in (5, 3, 1))  # B, G, R
    for x, y, w, h in boxes:
        corner = (round(left + x * scale) - MARGIN, round(top + y * scale) - MARGIN)
        opposite = (round(left + (x + w) * scale) + MARGIN, round(top + (y + h) * scale) + MARGIN)
        cv2.rectangle(picture, corner, opposite, colour, 2)  # 1 drowns in compression
    return picture


def video_pictures(sequences: list[Sequence]) -> Iterator[np.ndarray]:
    """All frames of all sequences as pictures of one size, uint8 BGR."""
    size = picture_size(sequences)
    for sequence in sequences:
        levels = display_range(sequence.frames(0, 1)[0])
        for index in range(len(sequence)):
            picture = draw_boxes(*read_with_boxes(sequence, index), levels, size)
            yield captioned(picture, f"{sequence.name}  {index + 1} / {len(sequence)}")


def write_video(path: Path, sequences: list[Sequence]) -> None:
    """An MP4 of the sequences, one after the other; InputError if OpenCV cannot write it."""
    with (
        video_written_whole(path, RATE) as writer,
        progress(sum(map(len, sequences)), "frame", "video") as bar,
    ):
        for picture in video_pictures(sequences):
            writer.write(picture)
            bar.update()


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets.preview", description=__doc__)
    parser.add_argument(
        "--dataset", required=True, metavar="NAME",
        help=f"{', '.join(layout_names())}, or a layout of your own as FILE.yaml",
    )  # fmt: skip
    parser.add_argument("--datapath", type=folder, required=True, help="folder of the data set")
    parser.add_argument("--out", type=folder, required=True, help="folder to write to")
    parser.add_argument("--split", help="which; default: the one that test.py scores")
    parser.add_argument(
        "--sequences", type=number_above(0, int, most=64), default=8, metavar="N",
        help="how many to show, evenly spread over the list",
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    layout = find_layout(options.dataset)
    split = options.split or layout.evaluation_split
    opened = open_split(layout, options.datapath, split, masks_mixed=True)
    chosen = [opened[i] for i in _spread(len(opened), options.sequences)]
    out = writable_folder(options.out, "choose another --out")
    title = f"{layout.name}, {split}: {len(chosen)} of {len(opened)} sequences"
    truth = "truth in green" if any(s.has_masks for s in chosen) else "no masks"
    write_contact_sheet(out / "contact_sheet.png", chosen, f"{title}, {truth}")
    write_video(out / "preview.mp4", chosen)
    print(f"wrote {out}/contact_sheet.png and preview.mp4: {title}")


if __name__ == "__main__":
    run_command(main)
