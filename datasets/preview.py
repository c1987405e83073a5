"""Look at a data set: a contact sheet and a video of some sequences, truth drawn as boxes.

    python -m datasets.preview --dataset NUDT-MIRSDT --datapath DIR --out DIR

writes contact_sheet.png (a row a sequence) and preview.mp4 (the same sequences, one after the
other) to --out. Sequences without masks are shown as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from datasets.layouts import find_layout, layout_names
from datasets.sequences import Sequence, open_split
from utils.errors import InputError, run_command
from utils.files import writable_folder, written_whole
from utils.logs import progress
from utils.options import Parser, folder, number_above
from utils.plots import TRUTH

COLUMNS = 6  # frames of a sequence on the contact sheet
MARGIN = 4  # between a target and its box, in pixels of the picture it is drawn in
VIDEO_SIDE = 640  # longer side of the video's picture
STRIP = 26  # height of the line of text above the picture
RATE = 10  # frames a second


def display_range(frame: np.ndarray) -> tuple[float, float]:
    """The grey levels to show as black and as white: percentiles 0.5 and 99.8, 1 apart at least."""
    low, high = np.percentile(frame, (0.5, 99.8))
    return float(low), float(max(high, low + 1))


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
    figure = Figure(figsize=(2.1 * COLUMNS, sum(heights) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(sequences), COLUMNS, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.set_axis_off()
    with progress(len(sequences), "sequence", "contact sheet") as bar:
        for row, sequence in zip(grid, sequences, strict=True):
            low, high = display_range(sequence.frames(0, 1)[0])
            for axes, index in zip(row, _spread(len(sequence), COLUMNS), strict=False):
                frame, boxes = read_with_boxes(sequence, index)
                axes.imshow(frame, cmap="gray", vmin=low, vmax=high)
                for x, y, width, height in boxes:
                    corner = (x - 0.5 - MARGIN, y - 0.5 - MARGIN)
                    size = (width + 2 * MARGIN, height + 2 * MARGIN)
                    axes.add_patch(Rectangle(corner, *size, fill=False, ec=TRUTH, lw=1.2))
                axes.set_title(f"{sequence.name}, frame {index + 1}", fontsize=7)
            bar.update()
    figure.suptitle(title, fontsize=10)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _spread(length: int, most: int) -> list[int]:
    """Up to `most` distinct places from 0 to length - 1, evenly spread, both ends included."""
    return np.unique(np.linspace(0, length - 1, most).round().astype(int)).tolist()


def picture_size(sequences: list[Sequence]) -> tuple[int, int]:
    """(H, W) of the video's picture: the largest frame, at a longer side of VIDEO_SIDE, both even
    (which MPEG-4 needs)."""
    height, width = max((s.size for s in sequences), key=lambda size: size[0] * size[1])
    scale = VIDEO_SIDE / max(height, width)
    return max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2)


def letterbox(
    frame: np.ndarray, boxes: np.ndarray, levels: tuple[float, float], size: tuple[int, int]
) -> np.ndarray:
    """A frame with its boxes, as large as fits and centred on black: [*size, 3] uint8 BGR."""
    low, high = levels
    grey = np.clip((frame.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
    scale = min(size[0] / frame.shape[0], size[1] / frame.shape[1])
    height, width = (max(1, round(n * scale)) for n in frame.shape)
    # Pixels stay visible where the frame grows, and small targets where it shrinks.
    method = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    scaled = cv2.resize(np.rint(grey).astype(np.uint8), (width, height), interpolation=method)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    picture = np.zeros((*size, 3), np.uint8)
    picture[top : top + height, left : left + width] = scaled[:, :, None]
    colour = tuple(int(TRUTH[i : i + 2], 16) for i in (5, 3, 1))  # B, G, R
    for x, y, w, h in boxes:
        corner = (round(left + x * scale) - MARGIN, round(top + y * scale) - MARGIN)
        opposite = (round(left + (x + w) * scale) + MARGIN, round(top + (y + h) * scale) + MARGIN)
        cv2.rectangle(picture, corner, opposite, colour, 2)  # 1 drowns in compression
    return picture


def _captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture below a strip with one line of text, which shrinks until it fits."""
    strip = np.zeros((STRIP, *picture.shape[1:]), np.uint8)
    font, width = cv2.FONT_HERSHEY_SIMPLEX, picture.shape[1] - 12
    needed = cv2.getTextSize(text, font, 0.5, 1)[0][0]
    size = 0.5 * min(1, width / max(1, needed))
    cv2.putText(strip, text, (6, STRIP - 8), font, size, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([strip, picture])


def video_pictures(sequences: list[Sequence]) -> Iterator[np.ndarray]:
    """All frames of all sequences as pictures of one size, uint8 BGR."""
    size = picture_size(sequences)
    for sequence in sequences:
        levels = display_range(sequence.frames(0, 1)[0])
        for index in range(len(sequence)):
            picture = letterbox(*read_with_boxes(sequence, index), levels, size)
            yield _captioned(picture, f"{sequence.name}  {index + 1} / {len(sequence)}")


def write_video(path: Path, sequences: list[Sequence]) -> None:
    """An MP4 of the sequences, one after the other; InputError if OpenCV cannot write it."""
    height, width = picture_size(sequences)
    total = sum(map(len, sequences))
    with written_whole(path) as temporary, progress(total, "frame", "video") as bar:
        code = cv2.VideoWriter_fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(temporary), code, RATE, (width, height + STRIP))
        try:
            if not writer.isOpened():
                raise InputError(f"{path}: this OpenCV cannot write MP4 video (mp4v); install "
                                 "opencv-python-headless from PyPI")  # fmt: skip
            for picture in video_pictures(sequences):
                writer.write(picture)
                bar.update()
        finally:
            writer.release()
        if _length(temporary) != total:  # the writer itself says nothing
            raise InputError(f"{path}: the video came out short; is there space on the disk?")


def _length(path: Path) -> int:
    video = cv2.VideoCapture(str(path))
    length = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return length


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
