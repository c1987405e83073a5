import cv2
import numpy as np
import pytest

from datasets.images import read_frame, read_mask, resize_frame, resize_mask
from tests.conftest import write_image
from utils.errors import InputError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_lossless_kinds_read_back_exactly(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", GREY)
    frame = read_frame(tmp_path / f"a{suffix}")
    assert frame.dtype == np.uint8
    assert np.array_equal(frame, GREY)


def test_jpeg_reads_back_closely(tmp_path):
    write_image(tmp_path / "a.jpg", GREY)
    assert np.abs(read_frame(tmp_path / "a.jpg").astype(int) - GREY).max() <= 4


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_keeps_its_depth(tmp_path, suffix):
    deep = GREY.astype(np.uint16) * 1000
    write_image(tmp_path / f"a{suffix}", deep)
    frame = read_frame(tmp_path / f"a{suffix}")
    assert frame.dtype == np.uint16
    assert np.array_equal(frame, deep)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_gives_the_red_channel(tmp_path, channels):
    colour = np.zeros((6, 8, channels), np.uint8)
    colour[..., 0], colour[..., 1], colour[..., 2] = 1, 2, GREY  # B, G, R as OpenCV writes
    write_image(tmp_path / "a.png", colour)
    assert np.array_equal(read_frame(tmp_path / "a.png"), GREY)


def test_mask_is_anything_above_zero(tmp_path):
    write_image(tmp_path / "ids.png", GREY // 20)
    assert np.array_equal(read_mask(tmp_path / "ids.png"), GREY >= 20)
    green = np.zeros((6, 8, 4), np.uint8)
    green[2, 3, 1] = 1  # an instance colour without red
    green[..., 3] = 255  # opaque everywhere is no foreground
    write_image(tmp_path / "green.png", green)
    assert np.argwhere(read_mask(tmp_path / "green.png")).tolist() == [[2, 3]]


@pytest.mark.parametrize("kept", [0, 5, 30, -12])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg"])
def test_truncated_image_is_refused_by_name(tmp_path, suffix, kept, capfd):
    content = cv2.imencode(suffix, np.tile(GREY, (5, 5)))[1].tobytes()
    (tmp_path / f"torn{suffix}").write_bytes(content[:kept])
    with pytest.raises(InputError, match=f"torn{suffix}: not a readable image"):
        read_frame(tmp_path / f"torn{suffix}")
    if suffix == ".png":
        assert capfd.readouterr().err == ""


def test_a_jpeg_mask_is_cut_half_way(tmp_path):
    mask = np.zeros((32, 32), np.uint8)
    mask[10:14, 20:23] = 255
    write_image(tmp_path / "m.jpg", mask)
    assert np.array_equal(read_mask(tmp_path / "m.jpg"), mask > 0)


def test_a_damaged_png_is_refused_without_noise(tmp_path, capfd):
    content = bytearray(cv2.imencode(".png", np.tile(GREY, (9, 9)))[1].tobytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match="not a readable image"):
        read_frame(tmp_path / "a.png")
    assert capfd.readouterr().err == ""


def test_shrinking_can_keep_every_target():
    mask = np.zeros((9, 9), bool)
    mask[::3, ::3] = True
    assert resize_mask(mask, (3, 3), "any").all()
    assert resize_mask(np.zeros((9, 9), bool), (3, 3), "any").sum() == 0


def test_text_missing_and_float_files_are_refused(tmp_path):
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        read_frame(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"b\.png: no such file"):
        read_frame(tmp_path / "b.png")
    write_image(tmp_path / "c.tiff", GREY.astype(np.float32))
    with pytest.raises(InputError, match="float32 pixels"):
        read_mask(tmp_path / "c.tiff")


def test_resizing_keeps_a_flat_frame_and_finds_the_target():
    assert np.all(resize_frame(np.full((10, 12), 7, np.uint8), (16, 16)) == 7)
    mask = np.zeros((8, 8), bool)
    mask[4, 4] = True
    nearest, bicubic = (resize_mask(mask, (16, 16), m) for m in ("nearest", "bicubic"))
    assert nearest.sum() == 4
    assert nearest[8:10, 8:10].all()
    assert bicubic.sum() > 4  # the published way dilates
    assert bicubic[nearest].all()
