"""Video files written and read again."""

import cv2
import numpy as np
import pytest

from utils.errors import InputError
from utils.video import (
    VideoWriter,
    frame_count,
    frame_rate,
    open_video,
    read_pictures,
    video_written_whole,
)


def grey(level, size=(24, 32)):
    return np.full((*size, 3), level, np.uint8)


def test_round_trip(tmp_path):
    path = tmp_path / "a.mp4"
    with video_written_whole(path, 12.5) as video:
        for level in (40, 120, 200):
            video.write(grey(level))
    read = open_video(str(path))
    assert (frame_count(read), frame_rate(read)) == (3, 12.5)
    pictures = list(read_pictures(read))
    assert [p.shape for p in pictures] == [(24, 32, 3)] * 3
    for picture, level in zip(pictures, (40, 120, 200), strict=True):
        assert abs(picture.mean() - level) < 4


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
@pytest.mark.parametrize("size", [(23, 31), (24, 31), (23, 31, 3)])
def test_pictures_of_odd_size_are_widened(tmp_path, name, size):
    video = VideoWriter(tmp_path / name, 10, "MJPG" if name == "a.avi" else "mp4v")
    video.write(np.full(size, 77, np.uint8))
    video.close()
    (picture,) = read_pictures(open_video(str(tmp_path / name)))
    assert picture.shape == (24, 32, 3)
    assert abs(picture.mean() - 77) < 3


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")

    def write_torn():
        with video_written_whole(path, 10) as video:
            video.write(grey(9))
            raise InputError("stop")

    with pytest.raises(InputError, match="stop"):
        write_torn()
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_lost_pictures_are_noticed(tmp_path, monkeypatch):
    """The writer takes pictures of another size in silence and drops them."""

    def write_two_sizes():
        with video_written_whole(tmp_path / "a.mp4", 10) as video:
            video.write(grey(9))
            video.write(grey(9, (48, 32)))

    with pytest.raises(InputError, match=r"a\.mp4: the video came out short"):
        write_two_sizes()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_video_says_nothing_on_stderr(tmp_path, capfd):
    (tmp_path / "a.mp4").write_bytes(b"hello" * 100)
    assert open_video(str(tmp_path / "a.mp4")) is None
    assert open_video(str(tmp_path / "nothing.mp4")) is None
    assert capfd.readouterr() == ("", "")


def test_an_unknown_rate_or_length_is_none():
    class Video:
        def get(self, key):
            return {cv2.CAP_PROP_FPS: 0.0, cv2.CAP_PROP_FRAME_COUNT: -9e18}[key]

    assert (frame_rate(Video()), frame_count(Video())) == (None, None)
