"""Pictures of frames with what was detected in them, for video and contact sheet."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from utils.files import write_bytes
from utils.logs import progress
from utils.predictions import Row, by_frame, read_detections
from utils.video import video_written_whole

SIDE = 960  # longer side of the overlay at the most, in pixels
LARGEST = 8  # times that a frame is enlarged: the encoder's time grows with the pixels
STRIP = 26  # height of the line of text above a picture
CORNER = 0.25  # the map's share of the picture's width and height
TRAIL = 30  # frames that a track is drawn for
LABELS = 40  # more detections than this in a frame are not lettered
COLUMNS, CELLS, CELL_SIDE = 4, 12, 480  # of the contact sheet; no overlay is smaller than a cell
UNSURE = (150, 150, 150)


def display_range(frame: np.ndarray) -> tuple[float, float]:
    """Grey levels to show as black and as white: percentiles 0.5 and 99.8, 1 apart at least (in a
    frame of floats, any distance apart that fp32 tells)."""
    low, high = np.percentile(frame, (0.5, 99.8))
    least = 1.0 if frame.dtype.kind in "ui" else 1e-6 * max(1, abs(low))
    return float(low), float(max(high, low + least))


def fitting_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(H, W) at a longer side of `side`, both even (which MPEG-4 needs)."""
    scale = side / max(size)
    height, width = (max(2, round(n * scale / 2) * 2) for n in size)
    return height, width


def overlay_size(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) of the overlay of frames of a size, without its line of text."""
    return fitting_size(size, min(SIDE, max(CELL_SIDE, LARGEST * max(size))))


def letterbox(
    frame: np.ndarray, levels: tuple[float, float], size: tuple[int, int]
) -> tuple[np.ndarray, float, int, int]:
    """A frame as large as fits, centred on black: [*size, 3] uint8; its scale, left and top."""
    low, high = levels
    grey = np.clip((frame.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
    scale = min(size[0] / frame.shape[0], size[1] / frame.shape[1])
    height, width = (max(1, round(n * scale)) for n in frame.shape)
    # Pixels stay visible where the frame grows, and small targets where it shrinks.
    method = cv2.INTER_NEAREST if scale >= 1 else cv2.INTER_AREA
    scaled = cv2.resize(np.rint(grey).astype(np.uint8), (width, height), interpolation=method)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    picture = np.zeros((*size, 3), np.uint8)
    inside = picture[top : top + height, left : left + width]
    inside[:] = cv2.cvtColor(scaled, cv2.COLOR_GRAY2BGR)  # ten times as fast as by broadcasting
    return picture, scale, left, top


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture below a strip with one line of text, which shrinks until it fits."""
    strip = np.zeros((STRIP, *picture.shape[1:]), np.uint8)
    font, width = cv2.FONT_HERSHEY_SIMPLEX, picture.shape[1] - 12
    needed = cv2.getTextSize(text, font, 0.5, 1)[0][0]
    size = 0.5 * min(1, width / max(1, needed))
    cv2.putText(strip, text, (6, STRIP - 8), font, size, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([strip, picture])


def thumbnail_size(size: tuple[int, int], side: int = int(SIDE * CORNER)) -> tuple[int, int]:
    """(H, W) at a longer side of at most `side`; no side grows or vanishes."""
    height, width = (min(n, max(1, n * side // max(size))) for n in size)
    return height, width


def thumbnail(probability: np.ndarray) -> np.ndarray:
    """A map [H, W] in small, uint8; every peak is kept."""
    rows, columns = (
        np.linspace(0, n, few, endpoint=False).astype(int)
        for n, few in zip(probability.shape, thumbnail_size(probability.shape), strict=True)
    )
    peaks = np.maximum.reduceat(np.maximum.reduceat(probability, rows, axis=0), columns, axis=1)
    return (peaks * 255).astype(np.uint8)


class Overlay:
    """Draws frame after frame, with boxes, scores, the paths of tracks, and the map in a corner.

    Args:
        name: of the sequence, for the line of text; `frames`: how many there are.
        confirmed: whether a track is; the others are drawn thin and grey.
    """

    def __init__(self, name: str, frames: int, confirmed: Callable[[int], bool]):
        self.name, self.frames, self.confirmed = name, frames, confirmed
        self.levels: tuple[float, float] | None = None
        self.trails: dict[int, deque] = {}

    def draw(
        self, number: int, frame: np.ndarray, rows: list[Row], corner: np.ndarray
    ) -> np.ndarray:
        """The picture [h, w, 3] (blue, green, red) of a frame [H, W] and its map's thumbnail.

        `follow` comes first, for every frame."""
        low, high = display_range(frame[::2, ::2])
        if self.levels:  # follow the camera's gain slowly: no flicker
            low, high = (0.9 * a + 0.1 * b for a, b in zip(self.levels, (low, high), strict=True))
        self.levels = low, high
        size = overlay_size(frame.shape)
        picture, scale, left, top = letterbox(frame, self.levels, size)

        def place(x: float, y: float) -> tuple[int, int]:  # of a point between pixel corners
            return round(left + (x + 0.5) * scale), round(top + (y + 0.5) * scale)

        for track, trail in self.trails.items():
            points = np.array([place(x, y) for _, x, y in trail])
            cv2.polylines(picture, [points], False, self._colour(track), 1, cv2.LINE_AA)
        for row in rows:
            self._box(picture, row, place, lettered=len(rows) <= LABELS)
        self._inset(picture, corner)
        found = f"{len(rows)} detection{'' if len(rows) == 1 else 's'}"
        return captioned(picture, f"{self.name}   frame {number} of {self.frames}   {found}")

    def follow(self, number: int, rows: list[Row]) -> None:
        """Lengthen the paths of the tracks by what is seen in frame `number`."""
        for row in rows:
            self.trails.setdefault(row.track, deque()).append((number, row.x, row.y))
        for track in list(self.trails):
            trail = self.trails[track]
            while trail and trail[0][0] <= number - TRAIL:
                trail.popleft()
            if not trail:
                del self.trails[track]

    def _colour(self, track: int) -> tuple[int, int, int]:
        if not self.confirmed(track):
            return UNSURE
        hue = track * 47 % 180  # neighbouring numbers lie far apart on the colour circle
        return tuple(cv2.cvtColor(np.uint8([[[hue, 200, 255]]]), cv2.COLOR_HSV2BGR)[0, 0].tolist())

    def _box(self, picture: np.ndarray, row: Row, place: Callable, lettered: bool) -> None:
        corner = place(row.left - 0.5, row.top - 0.5)
        opposite = place(row.left + row.width - 0.5, row.top + row.height - 0.5)
        start = corner[0] - 4, corner[1] - 4
        colour, sure = self._colour(row.track), self.confirmed(row.track)
        cv2.rectangle(picture, start, (opposite[0] + 4, opposite[1] + 4), colour, 1 + sure)
        if lettered:
            text, font = f"#{row.track} {row.peak:.2f}", cv2.FONT_HERSHEY_SIMPLEX
            above = start[0], max(10, start[1] - 4)
            cv2.putText(picture, text, above, font, 0.4, colour, 1, cv2.LINE_AA)

    @staticmethod
    def _inset(picture: np.ndarray, corner: np.ndarray) -> None:
        """The map, coloured and framed, into the lower right corner."""
        height, width = (max(1, int(n * CORNER)) for n in picture.shape[:2])
        coloured = cv2.applyColorMap(corner, cv2.COLORMAP_INFERNO)
        picture[-height:, -width:] = cv2.resize(
            coloured, (width, height), interpolation=cv2.INTER_NEAREST
        )
        bottom, right = picture.shape[0] - 1, picture.shape[1] - 1
        cv2.rectangle(
            picture, (right - width + 1, bottom - height + 1), (right, bottom), (255, 255, 255), 1
        )


def draw_predictions(
    folder: Path,
    name: str,
    frames: Iterable[np.ndarray],
    count: int,
    table: Path,
    maps: BinaryIO,
    confirmed: Callable[[int], bool],
    rate: float | None,
) -> None:
    """Write contact_sheet.png and, unless `rate` is None, overlay.mp4 to `folder`.

    Args:
        frames: [H, W], `count` of them are drawn.
        table: detections.csv.
        maps: the thumbnails of the probability maps, one after the other.
        rate: frames a second.
    """
    cells = set(choose_cells(read_detections(table), count))
    overlay, chosen = Overlay(name, count, confirmed), []
    with (
        video_written_whole(folder / "overlay.mp4", rate) if rate else nullcontext() as writer,
        progress(count, "frame", f"{name}, pictures") as bar,
    ):
        found = by_frame(read_detections(table), count)
        for number, (rows, frame) in enumerate(zip(found, frames, strict=False), start=1):
            size = thumbnail_size(frame.shape)
            corner = np.frombuffer(maps.read(math.prod(size)), np.uint8).reshape(size)
            overlay.follow(number, rows)
            if writer or number in cells:
                picture = overlay.draw(number, frame, rows, corner)
            if number in cells:
                chosen.append(picture)
            if writer:
                writer.write(picture)
            bar.update()
    write_contact_sheet(folder / "contact_sheet.png", chosen)


def choose_cells(rows: Iterable[Row], frames: int) -> list[int]:
    """The frames of a contact sheet: of each of up to 12 stretches of equal length the one with
    the highest score, or the middle one where nothing was detected."""
    edges = np.linspace(0, frames, min(CELLS, frames) + 1).astype(int)
    best = {i: (0.0, (a + b) // 2 + 1) for i, (a, b) in enumerate(pairwise(edges))}
    for row in rows:
        i = int(np.searchsorted(edges, row.frame - 1, side="right")) - 1
        if row.peak > best[i][0]:
            best[i] = row.peak, row.frame
    return [int(frame) for _, frame in best.values()]


def write_contact_sheet(path: Path, pictures: list[np.ndarray]) -> None:
    """A PNG of pictures of one size, in rows of 4."""
    height, width = fitting_size(pictures[0].shape[:2], CELL_SIDE)
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = cv2.resize(
            picture, (width, height), interpolation=cv2.INTER_AREA
        )
    write_bytes(path, cv2.imencode(".png", sheet)[1].tobytes())
