import numpy as np
import pytest

from datasets.layouts import Layout, find_layout
from datasets.normalisation import grey_statistics
from datasets.sequences import list_sequences, open_split, split_validation
from tests.conftest import write_frames, write_image
from utils.errors import InputError

# data set, split, list file, list lines, frame folder, mask folder of sequence "s1"
LAYOUTS = [
    ("NUDT-MIRSDT", "train", "train.txt", "s1/images", "s1/masks"),
    ("NUDT-MIRSDT", "test", "test.txt", "s1/images", "s1/masks"),
    ("RGBT-Tiny", "train", "train.txt", "train2017/s1/01", "segmentations/s1"),
    ("RGB-T", "test", "test.txt", "test2017/s1/01", "segmentations/s1"),
    ("IRSDT", "train", "img_idx/train_IRDST-simulation.txt", "images/s1", "masks/s1"),
    ("IRDST", "test", "img_idx/test_IRDST-simulation.txt", "images/s1", "masks/s1"),
    ("SatVideoIRSDT", "train", "train.txt", "train/s1/img", "train/s1/mask"),
    ("SatVideoIRSDT", "val", "val.txt", "val/s1/img", "val/s1/mask"),
    ("SatVideoIRSDT", "test", "test.txt", "test/s1/img", "test/s1/mask"),
    ("IRSatVideo-LEO", "train", "annotations/train_sequences.txt", "images/s1", "masks/s1"),
    ("IRSatVideo-LEO", "val", "annotations/val_sequences.txt", "images/s1", "masks/s1"),
]


def write_list(path, *names, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(name + end for name in names).encode())


@pytest.mark.parametrize(("name", "split", "listed", "frames", "masks"), LAYOUTS)
def test_every_published_layout_is_read(tmp_path, name, split, listed, frames, masks):
    write_list(tmp_path / listed, "s1/1", "s1/2")
    write_frames(tmp_path / frames, 3)
    write_frames(tmp_path / masks, 3, value=0)
    layout = find_layout(name)
    (sequence,) = open_split(layout, tmp_path, split)
    assert len(sequence) == 3
    size = layout.size or (6, 8)
    assert sequence.size == size
    assert sequence.frames(0, 3).shape == (3, *size)
    assert sequence.masks(0, 3).any(axis=(1, 2)).tolist() == [False, True, True]
    assert np.array_equal(sequence.centroids(0, 3), sequence.masks(0, 3))


def test_lists_with_crlf_duplicates_and_order(tmp_path):
    write_list(tmp_path / "test.txt", "b/Mix/1.mat", "b/Mix/2.mat", "", "a", "b/3", end="\r\n")
    assert list_sequences(find_layout("NUDT-MIRSDT"), tmp_path, "test") == ["b", "a"]


def test_unpadded_numbers_are_in_numeric_order_and_pair_with_padded_masks(tmp_path):
    write_list(tmp_path / "img_idx/test_IRDST-simulation.txt", "s1/1")
    write_frames(tmp_path / "images/s1", 12, value=50, digits=1)
    write_frames(tmp_path / "masks/s1", 12, value=0, digits=3)
    (sequence,) = open_split(find_layout("IRSDT"), tmp_path, "test")
    assert sequence.frames(0, 12)[:, 0, 0].tolist() == list(range(50, 62))
    assert [p.stem for p in sequence.mask_paths[8:10]] == ["009", "010"]


def test_centroid_masks_come_first_for_targets(tmp_path):
    write_list(tmp_path / "test.txt", "s1")
    write_frames(tmp_path / "s1/images", 2)
    write_frames(tmp_path / "s1/masks", 2, value=1)
    write_frames(tmp_path / "s1/masks_centroid", 2, value=0)
    (sequence,) = open_split(find_layout("NUDT-MIRSDT"), tmp_path, "test")
    assert sequence.masks(0, 2).all()
    assert sequence.centroids(0, 2).any(axis=(1, 2)).tolist() == [False, True]


@pytest.mark.parametrize("own_masks", [False, True])
def test_noise_set_takes_clean_masks_when_it_has_none(tmp_path, own_masks):
    name = "NUDT-MIRSDT-Noise8.0_FJY(g0.15-o1.3)"
    noisy, clean = tmp_path / "NUDT-MIRSDT-Noise" / name, tmp_path / "NUDT-MIRSDT"
    write_list(noisy / "test.txt", "s1")
    write_frames(noisy / "s1/images", 2)
    write_frames(clean / "s1/masks", 2, value=1)
    if own_masks:
        write_frames(noisy / "s1/masks", 2, value=0)
    (sequence,) = open_split(find_layout(name), noisy, "test")
    root = noisy if own_masks else clean
    assert sequence.mask_paths[0] == root / "s1/masks/00001.png"


def test_folder_without_lists_takes_what_is_there(tmp_path):
    for name in ("b2", "b10", "a"):
        write_frames(tmp_path / name / "images", 2)
    (tmp_path / "other").mkdir()
    layout = find_layout("Folder")
    assert list_sequences(layout, tmp_path, "test") == ["a", "b2", "b10"]
    write_frames(tmp_path / ".Sequence3/images", 2)  # of a run that was killed
    write_list(tmp_path / "train.txt", "b2")
    assert list_sequences(layout, tmp_path, "train") == ["b2"]
    assert list_sequences(layout, tmp_path, "test") == ["a", "b10"]
    assert not any(s.has_masks for s in open_split(layout, tmp_path, "test"))
    write_list(tmp_path / "train.txt", "a", "b2", "b10")
    with pytest.raises(InputError, match="no test sequences: other lists name them all"):
        list_sequences(layout, tmp_path, "test")


def faulty(tmp_path, fault):
    """A data set of two sequences with one fault; what the error must say."""
    for name in ("s1", "s2"):
        write_frames(tmp_path / name / "images", 3)
        write_frames(tmp_path / name / "masks", 3, value=0)
    write_list(tmp_path / "test.txt", "s1", "s2")
    if fault == "missing root":
        return tmp_path / "nowhere", "nowhere: no such folder"
    if fault == "missing list":
        (tmp_path / "test.txt").unlink()
        return tmp_path, r"test\.txt: no such list"
    if fault == "empty list":
        (tmp_path / "test.txt").write_text("\n\n")
        return tmp_path, r"test\.txt: the list is empty"
    if fault == "absent sequence":
        write_list(tmp_path / "test.txt", "s1", "s3")
        return tmp_path, "s3.*names s3"
    if fault == "empty sequence":
        for path in (tmp_path / "s2/images").iterdir():
            path.unlink()
        return tmp_path, "s2.images: holds no frames"
    if fault == "frame without mask":
        (tmp_path / "s2/masks/00002.png").unlink()
        return tmp_path, r"images.00002\.png: a frame without its mask"
    if fault == "mask without frame":
        (tmp_path / "s2/images/00002.png").unlink()
        return tmp_path, r"masks.00002\.png: a mask without its frame"
    for path in (tmp_path / "s2/masks").iterdir():
        path.unlink()
    (tmp_path / "s2/masks").rmdir()
    return tmp_path, "no masks for s2"


@pytest.mark.parametrize(
    "fault",
    [
        *("missing root", "missing list", "empty list", "absent sequence", "empty sequence"),
        *("frame without mask", "mask without frame", "one sequence without masks"),
    ],
)
def test_faults_are_named(tmp_path, fault):
    root, message = faulty(tmp_path, fault)
    with pytest.raises(InputError, match=message):
        open_split(find_layout("NUDT-MIRSDT"), root, "test")


def test_masks_due_for_training(tmp_path):
    write_frames(tmp_path / "s1/images", 2)
    with pytest.raises(InputError, match="where masks are due"):
        open_split(find_layout("Folder"), tmp_path, "train", masks_due=True)


def test_size_that_changes_is_named(tmp_path):
    write_frames(tmp_path / "s1/images", 2)
    write_image(tmp_path / "s1/images/00003.png", np.zeros((7, 8), np.uint8))
    (sequence,) = open_split(find_layout("Folder"), tmp_path, "test")
    with pytest.raises(InputError, match=r"00003\.png: 7 x 8 pixels, .* began with 6 x 8"):
        list(sequence.iter_frames())


def test_mixed_depths_are_refused(tmp_path):
    write_frames(tmp_path / "s1/images", 1)
    write_image(tmp_path / "s1/images/00002.png", np.zeros((6, 8), np.uint16))
    (sequence,) = open_split(find_layout("Folder"), tmp_path, "test")
    with pytest.raises(InputError, match=r"00002\.png: uint16, .* began with uint8"):
        sequence.frames(0, 2)


def test_unknown_split_lists_those_there_are(tmp_path):
    with pytest.raises(InputError, match="no split 'val'; its splits are train, test"):
        list_sequences(find_layout("NUDT-MIRSDT"), tmp_path, "val")


def test_grey_statistics_by_hand(tmp_path):
    write_frames(tmp_path / "s1/images", 3, value=10)  # 10, 11, 12
    sequences = open_split(find_layout("Folder"), tmp_path, "test")
    mean, std = grey_statistics(sequences)
    assert (mean, std) == pytest.approx((11, (2 / 3) ** 0.5))
    assert grey_statistics(sequences, most=2)[0] == pytest.approx(11)  # frames 1 and 3


def test_validation_split_is_a_seeded_partition(tmp_path):
    for i in range(10):
        write_frames(tmp_path / f"s{i}/images", 1)
    sequences = open_split(find_layout("Folder"), tmp_path, "train")
    training, validation = split_validation(sequences, 0.2, seed=3)
    assert len(validation) == 2
    assert {s.name for s in training} | {s.name for s in validation} == {s.name for s in sequences}
    assert split_validation(sequences, 0.2, seed=3) == (training, validation)
    assert len(split_validation(sequences, 0.001, seed=0)[1]) == 1
    with pytest.raises(InputError, match="one training sequence"):
        split_validation(sequences[:1], 0.1, seed=0)


def test_layout_size_resizes_frames_and_masks(tmp_path):
    write_frames(tmp_path / "s1/images", 1)
    write_frames(tmp_path / "s1/masks", 1, value=1)
    layout = Layout("mine", lists_required=False, size=(12, 16))
    (sequence,) = open_split(layout, tmp_path, "test")
    assert sequence.frames(0, 1).shape == sequence.masks(0, 1).shape == (1, 12, 16)
