import shutil

import cv2
import numpy as np
import pytest

from datasets import preview
from datasets.sequences import Sequence
from tests.conftest import write_frames, write_image
from tests.datasets.test_sequences import write_list
from utils.overlay import STRIP

GREEN = (0x59, 0xC7, 0x35)  # B, G, R


@pytest.fixture
def folder(tmp_path):
    """s1: 8 bits, masks with one target; s2: 16 bits, another size and length, a mask too."""
    rng = np.random.default_rng(0)
    for i in range(7):
        mask = np.zeros((24, 32), np.uint8)
        mask[10:12, 5 + i : 8 + i] = 255
        write_image(tmp_path / f"s1/images/{i}.png", rng.integers(0, 255, (24, 32), np.uint8))
        write_image(tmp_path / f"s1/masks/{i}.png", mask)
    for i in range(3):
        frame = 9000 + rng.integers(0, 400, (31, 17), np.uint16)
        write_image(tmp_path / f"s2/images/{i}.png", frame)
        write_image(tmp_path / f"s2/masks/{i}.png", np.zeros((31, 17), np.uint8))
    write_list(tmp_path / "test.txt", "s1", "s2")
    return tmp_path


def read_video(path) -> list[np.ndarray]:
    video, pictures = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        pictures.append(read[1])
    return pictures


def test_sheet_and_video_show_every_sequence(folder, run_main):
    status, out, err = run_main(
        preview.main, "--dataset", "Folder", "--datapath", folder, "--out", folder / "out"
    )
    assert (status, err) == (0, "")
    assert "2 of 2 sequences" in out
    assert sorted(p.name for p in (folder / "out").iterdir()) == [
        "contact_sheet.png",
        "preview.mp4",
    ]
    sheet = cv2.imread(str(folder / "out/contact_sheet.png"))
    drawn = np.all(sheet == GREEN, axis=2)
    columns = np.flatnonzero(drawn.any(axis=0))
    assert sheet.shape[1] == round(2.1 * 6 * 110)
    assert columns[0] < sheet.shape[1] / 6 < sheet.shape[1] * 5 / 6 < columns[-1]
    pictures = read_video(folder / "out/preview.mp4")
    assert [p.shape for p in pictures] == [(480 + STRIP, 640, 3)] * 10
    for i, picture in enumerate(pictures[:7]):  # the target's box; 20 video pixels a pixel
        edge = picture[STRIP + 10 * 20 : STRIP + 12 * 20, (5 + i) * 20 - 4]
        blue, green, red = edge.astype(int).mean(axis=0)
        assert green > blue + 25
        assert green > red + 25
    for picture in pictures[7:]:
        assert (picture[STRIP:, :180] < 40).all()  # letterbox
        inside = picture[STRIP:, 200:440]
        assert inside.min() < 40  # 16 bits over the whole range of the display
        assert inside.max() > 200
    for picture in pictures:
        assert picture[:STRIP].max() > 150  # text


def test_no_masks_one_frame_and_a_share_of_the_sequences(tmp_path, run_main):
    for n in range(1, 6):
        write_frames(tmp_path / f"s{n}/images", 1, value=50 * n)
    run = ("--datapath", tmp_path, "--out", tmp_path / "out", "--sequences", 3)
    status, out, _ = run_main(preview.main, "--dataset", "Folder", *run)
    assert status == 0
    assert "3 of 5 sequences" in out
    assert len(read_video(tmp_path / "out/preview.mp4")) == 3
    sheet = cv2.imread(str(tmp_path / "out/contact_sheet.png"))
    assert not np.all(sheet == GREEN, axis=2).any()


def test_some_clips_may_lack_masks(folder, run_main):
    shutil.rmtree(folder / "s2/masks")
    run = ("--datapath", folder, "--out", folder / "out")
    assert run_main(preview.main, "--dataset", "Folder", *run)[::2] == (0, "")
    assert len(read_video(folder / "out/preview.mp4")) == 10
    sheet = cv2.imread(str(folder / "out/contact_sheet.png"))
    assert np.all(sheet == GREEN, axis=2).any()


def test_letterbox_places_grey_levels_and_boxes():
    frame = np.uint16([[100, 300], [200, 200]])
    boxes = np.array([[1, 0, 1, 1]])
    picture = preview.draw_boxes(frame, boxes[:0], (100, 300), (40, 60))
    assert picture.shape == (40, 60, 3)
    assert not picture[:, :10].any()
    assert not picture[:, 50:].any()
    assert picture[0, 10].tolist() == [0, 0, 0]
    assert picture[19, 49].tolist() == [255, 255, 255]
    assert picture[20, 10].tolist() == [128, 128, 128]
    drawn = preview.draw_boxes(frame, boxes, (100, 300), (40, 60))
    changed = np.argwhere((drawn != picture).any(axis=2))
    assert changed.min(axis=0).tolist() == [0, 25]  # target from 30 to 50, margin 4, line 3
    assert changed.max(axis=0).tolist() == [25, 55]
    assert drawn[24, 40].tolist() == list(GREEN)


def test_numbers_worked_out_by_hand():
    assert preview._spread(11, 6) == [0, 2, 4, 6, 8, 10]
    assert preview._spread(3, 6) == [0, 1, 2]
    assert preview._spread(1, 6) == [0]
    mask = np.zeros((9, 9), bool)
    mask[1:3, 2:5] = mask[3, 5] = mask[8, 8] = True  # (3, 5) touches the first at a corner
    assert preview.target_boxes(mask).tolist() == [[2, 1, 4, 3], [8, 8, 1, 1]]
    assert preview.display_range(np.full((4, 4), 7)) == (7, 8)  # flat
    assert preview.display_range(np.arange(1001)) == (5, 998)
    assert preview.picture_size([Sequence("a", (), resize_to=(100, 333))]) == (192, 640)


def test_an_encoder_that_does_not_open_is_one_line(folder, run_main, monkeypatch):
    (folder / "out").mkdir()
    (folder / "out/preview.mp4").write_bytes(b"an earlier one")

    class Closed:
        def __init__(self, *arguments):
            pass

        def isOpened(self):
            return False

        def release(self):
            pass

    monkeypatch.setattr(preview.cv2, "VideoWriter", Closed)
    run = ("--datapath", folder, "--out", folder / "out")
    status, _, err = run_main(preview.main, "--dataset", "Folder", *run)
    assert status == 2
    assert err.count("\n") == 1
    assert "preview.mp4: this OpenCV cannot write MP4" in err
    assert (folder / "out/preview.mp4").read_bytes() == b"an earlier one"
    assert len(list((folder / "out").iterdir())) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dataset", "Foldr"), "did you mean 'Folder'"),
        (("--dataset", "Folder", "--split", "val"), "no split 'val'"),
        (("--dataset", "NUDT-MIRSDT", "--split", "train"), "train.txt: no such list"),
        (("--dataset", "Folder", "--sequences", 0), "above 0"),
        (("--dataset", "Folder", "--datapath", "/nowhere"), "/nowhere: no such folder"),
    ],
)
def test_wrong_input_is_one_line(folder, run_main, options, said):
    run = ("--datapath", folder, "--out", folder / "out", *options)
    status, _, err = run_main(preview.main, *run)
    assert status == 2
    assert err.count("\n") == 1
    assert said in err
    assert not (folder / "out").exists()


def test_a_damaged_frame_leaves_no_torn_video(folder, run_main):
    (folder / "s1/images/3.png").write_bytes(b"no image")  # the one not on the sheet
    run = ("--datapath", folder, "--out", folder / "out")
    status, _, err = run_main(preview.main, "--dataset", "Folder", *run)
    assert status == 2
    assert "s1/images/3.png: not a readable image" in err
    assert not (folder / "out/preview.mp4").exists()
    assert not list((folder / "out").glob(".*"))
