import numpy as np
import pytest

from datasets import check
from tests.conftest import write_frames, write_image
from tests.datasets.test_sequences import write_list


@pytest.fixture
def folder(tmp_path):
    for name in ("s1", "s2"):
        write_frames(tmp_path / name / "images", 20, value=90)
        write_frames(tmp_path / name / "masks", 20, value=0)
    return tmp_path


def test_a_whole_data_set_is_counted(folder, run_main):
    write_list(folder / "train.txt", "s1")
    write_list(folder / "test.txt", "s2")
    status, out, err = run_main(check.main, "--dataset", "Folder", "--datapath", folder)
    assert (status, err) == (0, "")
    row = out.splitlines()[4].split()  # one flat target in 19 of 20 frames, grey levels 90 to 109
    assert row == ["train", "1", "20", "6", "x", "8", "19", "99.5000", "5.7663"]
    assert "no faults" in out


def test_the_splits_there_are_are_checked(folder, run_main):
    """As of a set simulated with --train 0, or --test 0."""
    for split, other in (("test", "train"), ("train", "test")):
        write_list(folder / f"{split}.txt", "s1", "s2")
        status, out, err = run_main(check.main, "--dataset", "Synthetic", "--datapath", folder)
        assert (status, err) == (0, "")
        assert f"nothing to read of the splits: {other}\n" in out
        assert out.splitlines()[4].split()[:3] == [split, "2", "40"]
        (folder / f"{split}.txt").unlink()
    status, _, err = run_main(check.main, "--dataset", "Synthetic", "--datapath", folder)
    assert status == 2
    assert "train.txt: no such list" in err
    write_list(folder / "test.txt", "s1")
    write_list(folder / "train.txt", "")
    status, out, _ = run_main(check.main, "--dataset", "Synthetic", "--datapath", folder)
    assert status == 2
    assert "train.txt: the list is empty" in out


def test_every_fault_is_named_by_path(folder, run_main):
    (folder / "s1/images/00004.png").unlink()
    (folder / "s1/images/00007.png").write_bytes(b"no image")
    write_image(folder / "s2/images/00003.png", np.zeros((9, 9), np.uint8))
    write_image(folder / "s2/masks/00005.png", np.zeros((9, 9), np.uint8))
    (folder / "s2/masks/00006.png").unlink()
    write_image(folder / "s2/images/00008.png", np.zeros((6, 8), np.uint16))
    write_frames(folder / "s1/images", 1, first=12, digits=3)
    write_list(folder / "test.txt", "s1", "s2", "s3")
    write_list(folder / "train.txt", "s1")
    status, out, _ = run_main(check.main, "--dataset", "NUDT-MIRSDT", "--datapath", folder)
    assert status == 2
    for fault in (
        "s1/masks/00004.png: a mask without its frame",
        "s1/images/00005.png: follows 00003.png",
        "s1/images/00007.png: not a readable image",
        "s2/images/00003.png: 9 x 9, the sequence began 6 x 8",
        "s2/masks/00005.png: mask 9 x 9",
        "s2/images/00006.png: a frame without its mask",
        "s2/images/00008.png: uint16, the sequence began with uint8",
        "00012.png; one frame a number",
        "s3/images: no such folder, but the test list names s3",
        "test.txt: s1 is in the train list too",
    ):
        assert fault in out, fault


def test_wrong_names_and_folders_are_one_line(tmp_path, run_main):
    status, _, err = run_main(check.main, "--dataset", "Foldr", "--datapath", tmp_path)
    assert status == 2
    assert "did you mean 'Folder'" in err
    status, _, err = run_main(check.main, "--dataset", "Folder", "--datapath", tmp_path / "x")
    assert status == 2
    assert err.count("\n") == 1
    status, _, err = run_main(check.main, "--dataset", "Folder", "--datapath", tmp_path)
    assert status == 2
    assert "no sequences" in err
