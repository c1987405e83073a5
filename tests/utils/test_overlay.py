"""Pictures of frames and detections, by hand."""

import cv2
import numpy as np
import pytest

from utils.overlay import (
    CORNER,
    SIDE,
    STRIP,
    Overlay,
    choose_cells,
    display_range,
    letterbox,
    overlay_size,
    thumbnail,
    thumbnail_size,
    write_contact_sheet,
)
from utils.predictions import Row


def row(frame, peak=0.5, x=5.0, y=6.0, track=1):
    return Row(frame, x, y, 2, 3, 6, peak, peak / 2, track, int(x), int(y))


def test_a_cell_is_the_frame_with_the_highest_score_of_its_stretch():
    """24 frames in 12 stretches of two: (1, 2), (3, 4), ...; 2, 4, ... stand where nothing is."""
    middles = list(range(2, 25, 2))
    assert choose_cells([], 24) == middles
    rows = [row(3, 0.2), row(4, 0.1), row(21, 0.7), row(22, 0.9), row(23, 0.3)]
    assert choose_cells(rows, 24) == [2, 3, *middles[2:10], 22, 23]


@pytest.mark.parametrize("frames", [1, 2, 11, 12])
def test_few_frames_are_all_cells(frames):
    assert choose_cells([row(1), row(frames)], frames) == list(range(1, frames + 1))


def test_stretches_of_unequal_length():
    """13 frames: edges at floor(13 i / 12) = 0, 1, ..., 11, 13, so only the last holds two."""
    assert choose_cells([], 13) == [*range(1, 12), 13]
    assert choose_cells([row(12, 0.4), row(13, 0.3)], 13) == list(range(1, 13))


def test_the_size_of_a_thumbnail():
    assert SIDE * CORNER == 240
    assert thumbnail_size((24, 32)) == (24, 32)  # none grows
    assert thumbnail_size((480, 960)) == (120, 240)
    assert thumbnail_size((1, 9600)) == (1, 240)  # none vanishes


@pytest.mark.parametrize("size", [(24, 32), (241, 240), (500, 300), (1000, 7), (240, 719)])
def test_a_thumbnail_keeps_every_peak(size):
    rng = np.random.default_rng(0)
    places = [tuple(rng.integers(0, size)) for _ in range(40)] + [
        (0, 0),
        (size[0] - 1, size[1] - 1),
    ]
    for y, x in places:
        probability = np.full(size, 0.1, np.float32)
        probability[y, x] = 1
        small = thumbnail(probability)
        assert small.shape == thumbnail_size(size)
        assert small.dtype == np.uint8
        ((row, column),) = np.argwhere(small == 255)  # once, and where it belongs
        assert abs((row + 0.5) * size[0] / small.shape[0] - (y + 0.5)) <= size[0] / small.shape[0]
        assert abs((column + 0.5) * size[1] / small.shape[1] - (x + 0.5)) <= (
            size[1] / small.shape[1]
        )
        assert (small[small < 255] == 25).all()  # floor(25.5)


def test_a_frame_fits_into_the_middle_of_black():
    frame = np.array([[0, 10], [20, 30]], np.uint8)
    picture, scale, left, top = letterbox(frame, (0, 20), (4, 8))
    assert (scale, left, top) == (2, 2, 0)
    expected = np.zeros((4, 8), np.uint8)
    expected[:2, 4:6] = 128  # 127.5, to the even one
    expected[2:, 2:6] = 255
    for channel in range(3):
        np.testing.assert_array_equal(picture[:, :, channel], expected)


def test_a_box_lies_around_its_pixels():
    """A frame of 96 x 96 at eight times its size: columns 5 and 6, rows 6 to 8, 4 around them."""
    overlay = Overlay("clip", 9, confirmed=lambda track: False)
    black, corner = np.zeros((96, 96), np.uint8), np.zeros((96, 96), np.uint8)
    picture = overlay.draw(1, black, [row(1)], corner)[STRIP:]
    assert picture.shape == (768, 768, 3)
    expected = np.zeros((200, 200), bool)
    expected[44:77, 36:61] = True  # (6 x 8 - 4) to (9 x 8 + 4), (5 x 8 - 4) to (7 x 8 + 4)
    expected[45:76, 37:60] = False
    found = (picture[:200, :200] == 150).all(axis=2)
    np.testing.assert_array_equal(found[42:], expected[42:])  # its letters are above


def test_small_frames_are_enlarged_eight_times_and_to_a_cell_at_least():
    assert overlay_size((24, 32)) == (360, 480)
    assert overlay_size((64, 64)) == (512, 512)
    assert overlay_size((100, 120)) == (800, 960)
    assert overlay_size((256, 256)) == (960, 960)
    assert overlay_size((1000, 2000)) == (480, 960)


def test_a_path_ends_with_its_track():
    """Drawn for 30 frames after it was last seen."""
    overlay = Overlay("clip", 99, confirmed=lambda track: True)
    overlay.follow(1, [row(1)])
    overlay.follow(2, [row(2, x=9.0), row(2, track=2)])
    assert {t: len(trail) for t, trail in overlay.trails.items()} == {1: 2, 2: 1}
    overlay.follow(31, [])
    assert {t: len(trail) for t, trail in overlay.trails.items()} == {1: 1, 2: 1}
    overlay.follow(32, [])
    assert overlay.trails == {}


@pytest.mark.parametrize(("count", "size"), [(1, (240, 480)), (5, (480, 1920))])
def test_a_contact_sheet_has_rows_of_four(tmp_path, count, size):
    pictures = [np.full((20, 40, 3), 10 * (i + 1), np.uint8) for i in range(count)]
    write_contact_sheet(tmp_path / "sheet.png", pictures)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (*size, 3)
    for i in range(count):
        y, x = i // 4 * 240, i % 4 * 480
        assert (sheet[y : y + 240, x : x + 480] == 10 * (i + 1)).all()
    assert sheet.sum() == sum(10 * (i + 1) for i in range(count)) * 240 * 480 * 3


@pytest.mark.parametrize("level", [0, 100, -1e20, 1e30])
def test_a_frame_of_one_level_is_black(level):
    frame = np.full((6, 8), level, np.float32)
    picture, *_ = letterbox(frame, display_range(frame), (6, 8))
    assert not picture.any()
