import errno
import json

import numpy as np
import pytest

from datasets import annotations, boxes
from datasets.images import read_mask
from datasets.layouts import find_layout
from datasets.sequences import open_split
from tests.conftest import write_frames
from tests.datasets.test_sequences import write_list

HEADER = "sequence,frame,x,y,width,height\n"


def coco(folder, images=None, annotations=()):
    """A COCO file of two frames of 6 x 8, but for what is given."""
    names = ("DJI_0022_2/01/00000.jpg", "DJI_0022_2/01/00001.jpg")
    whole = [
        {"id": i, "file_name": name, "width": 8, "height": 6} for i, name in enumerate(names, 7)
    ]
    document = {"images": whole if images is None else images, "annotations": list(annotations)}
    path = folder / "boxes.json"
    path.write_text(json.dumps(document))
    return path


def voc(path, *corners, name="00003.png", size="<size><width>8</width><height>6</height></size>"):
    items = "".join(
        "<object><name>t</name><bndbox>"
        + "".join(f"<{k}>{v}</{k}>" for k, v in zip(annotations.CORNERS, c, strict=True))
        + "</bndbox></object>"
        for c in corners
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><filename>{name}</filename>{size}{items}</annotation>")
    return path


def pixels(path) -> list[list[int]]:
    """The (row, column) of a mask's pixels, and its size last."""
    mask = read_mask(path)
    return [*np.argwhere(mask).tolist(), list(mask.shape)]


def names(folder) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("box", "wanted"),  # x, y, width, height -> left, right, top, bottom in a frame of 6 x 8
    [
        ((2, 1, 3, 2), (2, 5, 1, 3)),
        ((0, 0, 8, 6), (0, 8, 0, 6)),
        ((-3, -3, 5, 4), (0, 2, 0, 1)),  # cut off
        ((6, 5, 10, 10), (6, 8, 5, 6)),
        ((1.4, 1.6, 2.0, 2.0), (1, 3, 2, 4)),  # centres 1.5, 2.5 and 2.5, 3.5
        ((3.6, 2.1, 0.3, 0.2), (3, 4, 2, 3)),  # smaller than a pixel
        ((-5, -5, 5.1, 5.2), (0, 1, 0, 1)),
        ((7.9, 5.9, 4, 4), (7, 8, 5, 6)),
        (("2", "1", "1e0", "1"), (2, 3, 1, 2)),  # as in a CSV file
    ],
)
def test_the_pixels_of_a_box(box, wanted):
    assert boxes.box_pixels("entry", box, (6, 8)) == wanted


def test_coco_as_rgbt_tiny_has_it(tmp_path, run_main):
    annotations = [
        {"image_id": 8, "bbox": [2, 1, 3, 2]},
        {"image_id": 8, "bbox": [7, 5, 1, 1]},
    ]
    root = tmp_path / "data"
    run = (coco(tmp_path, annotations=annotations), root, "--masks", "segmentations/{sequence}")
    status, out, err = run_main(boxes.main, *run)
    assert (status, err) == (0, "")
    assert "2 boxes in 2 frames of 1 sequences" in out
    assert names(root) == [
        f"{kind}/DJI_0022_2/0000{i}.png" for kind in ("masks_centroid", "segmentations")
        for i in (0, 1)
    ]  # fmt: skip
    assert pixels(root / "segmentations/DJI_0022_2/00000.png") == [[6, 8]]
    drawn = [[1, 2], [1, 3], [1, 4], [2, 2], [2, 3], [2, 4], [5, 7], [6, 8]]
    assert pixels(root / "segmentations/DJI_0022_2/00001.png") == drawn
    assert pixels(root / "masks_centroid/DJI_0022_2/00001.png") == [[2, 3], [5, 7], [6, 8]]
    write_list(root / "test.txt", "DJI_0022_2/01/00000")
    write_frames(root / "test2017/DJI_0022_2/01", 2, first=0)
    (sequence,) = open_split(find_layout("RGBT-Tiny"), root, "test", masks_due=True)
    assert sequence.masks(0, 2).sum(axis=(1, 2)).tolist() == [0, 7]


def test_voc_counts_from_one_and_includes_both_corners(tmp_path, run_main):
    voc(tmp_path / "xml/s1/a.xml", (1, 1, 8, 6), (3, 2, 3, 2))
    voc(tmp_path / "xml/s1/b.xml", name="00004.png")
    voc(tmp_path / "xml/s2/b.xml", (0, 0, 2, 1), name="00004.png")  # counted from 0: cut off
    assert run_main(boxes.main, tmp_path / "xml", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out/masks") == ["s1/00003.png", "s1/00004.png", "s2/00004.png"]
    assert read_mask(tmp_path / "out/masks/s1/00003.png").all()
    assert pixels(tmp_path / "out/masks_centroid/s1/00003.png") == [[1, 2], [3, 4], [6, 8]]
    assert pixels(tmp_path / "out/masks/s1/00004.png") == [[6, 8]]
    assert pixels(tmp_path / "out/masks/s2/00004.png") == [[0, 0], [0, 1], [6, 8]]
    one = voc(tmp_path / "clip.xml", (2, 2, 2, 2), name="c.png")
    assert run_main(boxes.main, one, tmp_path / "one")[0] == 0
    assert pixels(tmp_path / "one/masks/clip/c.png") == [[1, 1], [6, 8]]


def test_csv_with_empty_frames(tmp_path, run_main):
    path = tmp_path / "truth.csv"
    path.write_text("\ufeff" + HEADER + "a,2,1,1,2,2\na,2,4,0,1,1\nb,010,0,0,1,1\nb,003,,,,\n")
    run = ("--size", "6x8", "--frames", 10, "--masks", "{sequence}/masks")
    run += ("--centroids", "{sequence}/masks_centroid")
    assert run_main(boxes.main, path, tmp_path / "out", *run)[0] == 0
    written = names(tmp_path / "out")
    assert len(written) == 2 * 2 * 10
    assert "b/masks/001.png" in written
    assert "a/masks/1.png" in written
    centroids = {name: pixels(tmp_path / "out" / name) for name in written if "centroid" in name}
    assert centroids.pop("a/masks_centroid/2.png") == [[0, 4], [2, 2], [6, 8]]
    assert centroids.pop("b/masks_centroid/010.png") == [[0, 0], [6, 8]]
    assert set(map(str, centroids.values())) == {"[[6, 8]]"}


def test_csv_may_say_sizes_and_have_no_sequence(tmp_path):
    path = tmp_path / "clip.csv"
    path.write_text("frame,x,y,width,height,frame_width,frame_height\n0.png,1,1,2,2,9,7\n")
    frames = boxes.collect(path, size=(6, 8), count=2)
    assert frames == {"clip": {"0": boxes.Frame((7, 9), [(1, 3, 1, 3)]), "1": boxes.Frame((7, 9))}}
    path.write_text("frame,x,y,width,height\ns1/images/t.01.png,1,1,2,2\n")
    assert list(boxes.collect(path, size=(6, 8))) == ["s1"]
    assert list(boxes.collect(path, size=(6, 8), part=2)["images"]) == ["t.01"]


def test_what_is_there_is_left_alone(tmp_path, run_main):
    run = (coco(tmp_path), tmp_path / "out")
    (tmp_path / "out/masks_centroid/DJI_0022_2").mkdir(parents=True)
    (tmp_path / "out/masks_centroid/DJI_0022_2/mine.png").touch()
    status, _, err = run_main(boxes.main, *run)
    assert status == 2
    assert "masks_centroid/DJI_0022_2: is there already" in err
    assert names(tmp_path / "out") == ["masks_centroid/DJI_0022_2/mine.png"]


def two_sequences(tmp_path, box="1,1,2,2"):
    path = tmp_path / "boxes.csv"
    path.write_text(HEADER + f"s0,1,{box}\ns1,1,4,0,1,1\n")
    return path, tmp_path / "out", "--size", "6x8"


WHOLE = [f"{kind}/{s}/1.png" for kind in ("masks", "masks_centroid") for s in ("s0", "s1")]


@pytest.mark.parametrize("failing", range(4))
def test_a_run_that_fails_leaves_no_masks_and_can_be_run_again(
    tmp_path, run_main, monkeypatch, failing
):
    """Interrupted or out of space at any of the four masks; annotations mended meanwhile."""
    error = KeyboardInterrupt if failing % 2 else OSError(errno.ENOSPC, "No space left on device")
    write, written = boxes.write_image, []

    def fails(path, image):
        written.append(path)
        if len(written) > failing:
            raise error
        write(path, image)

    with monkeypatch.context() as patch:
        patch.setattr(boxes, "write_image", fails)
        status, _, err = run_main(boxes.main, *two_sequences(tmp_path, "0,0,1,1"))
        assert status == (130 if failing % 2 else 1)
        assert err.count("\n") == 1
    assert names(tmp_path / "out") == []
    assert run_main(boxes.main, *two_sequences(tmp_path))[0] == 0
    assert names(tmp_path / "out") == WHOLE


def test_a_run_that_was_killed_can_be_run_again(tmp_path, run_main):
    """Killed while it wrote, or between the folders' appearances at the end."""
    run, out = two_sequences(tmp_path), tmp_path / "out"
    (out / "masks/.s0-unfinished").mkdir(parents=True)
    (out / "masks/.s0-unfinished/9.png").write_bytes(b"torn")
    assert run_main(boxes.main, *run)[::2] == (0, "")
    assert names(out) == WHOLE
    before = pixels(out / "masks/s0/1.png")
    (out / "masks_centroid/s1").rename(out / "masks_centroid/.s1-unfinished")
    assert run_main(boxes.main, *run)[::2] == (0, "")
    assert names(out) == WHOLE
    assert pixels(out / "masks/s0/1.png") == before
    status, _, err = run_main(boxes.main, *two_sequences(tmp_path, "0,0,1,1"))  # other masks now
    assert status == 2
    assert "masks/s0: is there already" in err
    assert pixels(out / "masks/s0/1.png") == before


def test_sequences_without_frames_are_named(tmp_path, run_main):
    write_frames(tmp_path / "out/train/s1/images", 1)
    for _ in range(2):  # the masks of the first run are no frames
        status, _, err = run_main(boxes.main, *two_sequences(tmp_path))
        assert status == 0
        assert err == f"warning: {tmp_path}/out: holds no folder of the sequence s0\n"


def test_without_a_folder_in_the_name_voc_takes_that_of_the_file_then_the_one_it_says(tmp_path):
    voc(tmp_path / "xml/s1/deep/a.xml")
    top = voc(tmp_path / "xml/b.xml", name="00004.png")
    assert sorted(boxes.collect(tmp_path / "xml")) == ["s1", "xml"]
    top.write_text(top.read_text().replace("<filename>", "<folder>s2</folder><filename>"))
    assert sorted(boxes.collect(tmp_path / "xml")) == ["s1", "s2"]


def refused(run_main, tmp_path, source, *options) -> str:
    """The one line that a command with this input ends with."""
    status, _, err = run_main(boxes.main, source, tmp_path / "out", *options)
    assert status == 2, err
    assert err.count("\n") == 1
    assert str(source) in err
    assert not (tmp_path / "out").exists()
    return err


IMAGE = {"id": 7, "file_name": "s/0.png", "width": 8, "height": 6}


@pytest.mark.parametrize(
    ("images", "annotation", "said"),
    [
        (None, {"image_id": 7, "bbox": [8, 1, 2, 2]}, "annotations[0]: the box of 2 x 2 pixels at"),
        (None, {"image_id": 7, "bbox": [1, -2, 2, 2]}, "outside the frame of 6 x 8"),
        (None, {"image_id": 7, "bbox": [1, 1, 0, 2]}, "annotations[0]: the box of 0 x 2"),
        (None, {"image_id": 7, "bbox": [1, 1, 2]}, "annotations[0]: bbox: expected [x, y"),
        (None, {"image_id": 7, "bbox": [1, 1, 2, None]}, "annotations[0]: height: expected a"),
        (None, {"image_id": 7, "bbox": [1, float("nan"), 2, 2]}, "annotations[0]: y: expected a"),
        (None, {"image_id": 7}, "annotations[0]: bbox: expected"),
        (None, {"image_id": 70, "bbox": [1, 1, 2, 2]}, "no image with the id 70"),
        (None, {"bbox": [1, 1, 2, 2]}, "annotations[0]: image_id: missing"),
        (None, 7, "annotations[0]: expected fields"),
        ([], None, "names no frames"),
        ([IMAGE | {"file_name": None}], None, "images[0]: file_name: missing"),
        ([IMAGE | {"id": [1]}], None, "images[0]: id: missing or of a wrong kind"),
        ([IMAGE | {"width": None}], None, "images[0]: the size of the frame is missing"),
        ([IMAGE | {"width": 0}], None, "images[0]: size of the frame"),
        ([IMAGE | {"height": 2.5}], None, "images[0]: size of the frame"),
        ([IMAGE | {"width": "wide"}], None, "images[0]: size of the frame: expected a number"),
        ([IMAGE | {"file_name": "../0.png"}], None, "is no file name of a frame"),
        ([IMAGE | {"file_name": "s/"}], None, "is no file name of a frame"),
        ([IMAGE | {"file_name": "s/.."}], None, "is no file name of a frame"),
        ([IMAGE | {"file_name": "s/\0.png"}], None, "is no file name of a frame"),
        ([IMAGE | {"file_name": ""}], None, "is no file name of a frame"),
        ([IMAGE, IMAGE | {"file_name": "s/1.png"}], None, "'s/1.png' has the id 7, as 's/0.png'"),
        ([IMAGE, IMAGE | {"id": 8, "file_name": "s/1/0.png"}], None, "a second frame s/0;"),
    ],
)
def test_wrong_coco_is_one_line(tmp_path, run_main, images, annotation, said):
    source = coco(tmp_path, images, () if annotation is None else (annotation,))
    assert said in refused(run_main, tmp_path, source)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[" * 100000, "cannot be read as JSON"),
        (b"[]", "not COCO: it has no list 'images'"),
        (b'{"images": []}', "not COCO: it has no list 'annotations'"),
    ],
)
def test_what_is_no_coco_is_one_line(tmp_path, run_main, content, said):
    (tmp_path / "boxes.json").write_bytes(content)
    assert said in refused(run_main, tmp_path, tmp_path / "boxes.json")


BOMB = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<annotation>", "cannot be read as XML"),
        ("<html></html>", "the root is <html>"),
        (BOMB, "declares a document type"),
        (BOMB.encode("utf-16"), "declares a document type"),
        ('<?xml version="1.0" encoding="none"?><annotation/>', "cannot be read as XML"),
        ("<annotation/>", "the size of the frame is missing"),
    ],
)
def test_what_is_no_voc_is_one_line(tmp_path, run_main, content, said):
    path = tmp_path / "boxes.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert said in refused(run_main, tmp_path, path)


def test_wrong_voc_boxes_are_one_line(tmp_path, run_main):
    path = tmp_path / "boxes.xml"
    voc(path, (1, 1, 2, 2), (4, 4, 3, 4))
    assert "object 2: the box of 0 x 1 pixels" in refused(run_main, tmp_path, path)
    voc(path, (1, "", 2, 2))
    assert "object 1: ymin: expected a number" in refused(run_main, tmp_path, path)
    (tmp_path / "none").mkdir()
    assert "holds no .xml files" in refused(run_main, tmp_path, tmp_path / "none")


@pytest.mark.parametrize(
    ("content", "options", "said"),
    [
        ("frame,x,y,width\n1,1,1,1\n", (), "the header has no column 'height'"),
        ("", (), "the header has no column 'frame'"),
        (HEADER, (), "names no frames"),
        (HEADER + "a,1,1,1,2,2\n", (), "line 2: the size of the frame is missing; give --size"),
        (HEADER + "a,1,1,1,2,2\na,1,1,x,2,2\n", ("--size", "6x8"), "line 3: y: expected a number"),
        (HEADER + "a,1\n", ("--size", "6x8"), "line 2: expected 6 cells, as in the header"),
        (HEADER + "a,1,1,1,2,2,9\n", ("--size", "6x8"), "line 2: expected 6 cells"),
        (HEADER + "a,1,9,1,2,2\n", ("--size", "6x8"), "line 2: the box of 2 x 2 pixels at (9, 1)"),
        (HEADER + ",1,1,1,2,2\n", ("--size", "6x8"), "line 2: sequence and frame must be plain"),
        (HEADER + "../a,1,1,1,2,2\n", ("--size", "6x8"), "line 2: sequence and frame must be"),
        (HEADER + "..,1,1,1,2,2\n", ("--size", "6x8"), "line 2: '../1' is no file name"),
        (HEADER + "a,,1,1,2,2\n", ("--size", "6x8"), "line 2: sequence and frame must be plain"),
        (HEADER + "a,9,1,1,2,2\n", ("--size", "6x8", "--frames", 8), "a: has a frame 9, but"),
        (HEADER + "a,b,1,1,2,2\n", ("--size", "6x8", "--frames", 8), "a: frame 'b' is no number"),
        (HEADER + "a,1,1,1,2,2\na,1,,,,\n", ("--size", "6x8"), "line 3: a second frame a/1"),
    ],
)
def test_wrong_csv_is_one_line(tmp_path, run_main, content, options, said):
    (tmp_path / "boxes.csv").write_text(content)
    assert said in refused(run_main, tmp_path, tmp_path / "boxes.csv", *options)


def test_wrong_options_are_one_line(tmp_path, run_main):
    assert "no such file or folder" in refused(run_main, tmp_path, tmp_path / "x.json")
    (tmp_path / "x.txt").touch()
    assert "expected .json, .xml, .csv" in refused(run_main, tmp_path, tmp_path / "x.txt")
    for option in (
        ("--size", "6"), ("--size", "0x8"), ("--frames", 0), ("--masks", "masks"),
        ("--masks", "{sequence}/{x}"), ("--size", "32769x1"),
        ("--masks", "masks_centroid/{sequence}/x"), ("--masks", "masks_centroid/{sequence}"),
    ):  # fmt: skip
        status, _, err = run_main(boxes.main, coco(tmp_path), tmp_path / "out", *option)
        assert (status, err.count("\n")) == (2, 1)
