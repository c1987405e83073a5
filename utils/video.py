"""Video files, cameras and streams, read and written with OpenCV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# FFmpeg's own lines would stand beside our errors; this is read when the first video is opened.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from utils.errors import InputError
from utils.files import written_whole

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_GRAY16 = int.from_bytes(b"Y1\x00\x10", "little")  # FFmpeg's code for 16-bit grey


def open_video(place: str | int) -> cv2.VideoCapture | None:
    """A video file, a stream's address or a camera's number, opened; None if OpenCV cannot."""
    video = cv2.VideoCapture(place)
    if not video.isOpened():
        return None
    if int(video.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) == _GRAY16:
        video.set(cv2.CAP_PROP_CONVERT_RGB, 0)  # else OpenCV would hand out 8 bits
    return video


def frame_count(video: cv2.VideoCapture) -> int | None:
    """The frames that the file announces, which may be an estimate; None where it does not."""
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    return count if count > 0 else None


def frame_rate(video: cv2.VideoCapture) -> float | None:
    """Frames a second; None where it is unknown or absurd."""
    rate = float(video.get(cv2.CAP_PROP_FPS))
    return rate if 0.1 <= rate <= 1000 else None


def read_pictures(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The pictures that are left, [H, W] or [H, W, 3] (blue, green, red); closes the video."""
    try:
        while (read := video.read())[0]:
            yield read[1]
    finally:
        video.release()


class VideoWriter:
    """Pictures of one size into a video file.

    Args:
        path: .mp4 or .avi.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float, code: str = "mp4v"):
        self.path, self.rate, self.code = path, rate, code
        self.name = path  # for messages
        self.count = 0
        self._writer = None

    def write(self, picture: np.ndarray) -> None:
        """Add a picture [H, W] or [H, W, 3] (blue, green, red), uint8.

        Codecs want even sizes: of an odd one the last row or column is doubled.
        """
        if any(n % 2 for n in picture.shape[:2]):
            odd = [(0, n % 2) for n in picture.shape[:2]]
            picture = np.pad(picture, [*odd, (0, 0)][: picture.ndim], mode="edge")
        if self._writer is None:
            size = picture.shape[1], picture.shape[0]
            code = cv2.VideoWriter_fourcc(*self.code)
            self._writer = cv2.VideoWriter(str(self.path), code, self.rate, size)
            if not self._writer.isOpened():
                raise InputError(
                    f"{self.name}: this OpenCV cannot write {self.path.suffix[1:].upper()} video "
                    f"({self.code}); install opencv-python-headless from PyPI"
                )
        if picture.ndim == 2:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
        self._writer.write(picture)
        self.count += 1

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


@contextmanager
def video_written_whole(path: Path, rate: float) -> Iterator[VideoWriter]:
    """A VideoWriter of an MP4 file that appears whole or not at all.

    Raises InputError if OpenCV cannot write it, or if it comes out short (on a full disk).
    """
    with written_whole(path) as temporary:
        writer = VideoWriter(temporary, rate)
        writer.name = path
        try:
            yield writer
        finally:
            writer.close()
        written = open_video(str(temporary)) if writer.count else None
        length = written and frame_count(written)
        if length != writer.count:  # the writer itself says nothing
            raise InputError(f"{path}: the video came out short; is there space on the disk?")
        written.release()
