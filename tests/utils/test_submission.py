"""Submission files: their bytes, round trips, and everything that is refused."""

import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import InputError
from utils.submission import (
    Extent,
    SubmissionWriter,
    format_sequence,
    parse_sequence,
    read_submission,
    write_submission,
)

EXTENTS = {"000001": Extent(3, 20, 30), "sky": Extent(1, 20, 30)}
TARGETS = {
    "000001": [[(0, 2.5, 1.25), (12, 29, 19)], [], [(12, 28.006, 18)]],
    "sky": [np.empty((0, 3))],
}
TEXT = (
    "00001   2   0     1.25  2.50   12     19.00  29.00\n"
    "00002   0\n"
    "00003   1   12     18.00  28.01\n"
)


def test_the_layout_of_a_file_byte_by_byte():
    assert format_sequence(TARGETS["000001"]) == TEXT
    line = "00001   2   0     2.50  1.25   12     29.00  19.00\n"
    assert format_sequence(TARGETS["000001"], "x_y").startswith(line)


def test_a_zip_is_flat_whole_and_the_same_every_time(tmp_path):
    path = tmp_path / "new/out.zip"
    path.parent.mkdir()
    write_submission(path, TARGETS, EXTENTS)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["000001.txt", "sky.txt"]
        assert archive.read("000001.txt") == TEXT.encode()
        assert archive.read("sky.txt") == b"00001   0\n"
    first = path.read_bytes()
    write_submission(path, TARGETS, EXTENTS)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["out.zip"]


@given(
    frames=st.lists(
        st.lists(
            st.tuples(st.integers(1, 10**6), st.integers(0, 2900), st.integers(0, 1900)),
            max_size=4, unique_by=lambda target: target[0],
        ),
        min_size=1, max_size=5,
    ),
    order=st.sampled_from(["row_column", "x_y"]),
)  # fmt: skip
@settings(max_examples=50)
def test_what_was_written_is_read(frames, order):
    frames = [[(t, x / 100, y / 100) for t, x, y in targets] for targets in frames]
    text = format_sequence(frames, order)
    read = parse_sequence(text, "here", Extent(len(frames), 20, 30), order)
    for targets, expected in zip(read, frames, strict=True):
        assert np.allclose(targets, np.reshape(expected, (-1, 3)), atol=1e-9)


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_a_zip_and_a_folder_are_read_alike(tmp_path, kind):
    path = tmp_path / "out.zip"
    write_submission(path, TARGETS, EXTENTS)
    if kind == "folder":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "out")
        path = tmp_path / "out"
    read = read_submission(path, EXTENTS)
    assert list(read) == list(EXTENTS)
    assert read["000001"][0].tolist() == [[0, 2.5, 1.25], [12, 29, 19]]
    assert [len(targets) for targets in read["000001"]] == [2, 0, 1]


def lines(*replaced):
    """The text with line i replaced, or left out where it is None."""
    kept = dict(enumerate(TEXT.splitlines(keepends=True)))
    kept.update(replaced)
    return "".join(line for line in kept.values() if line is not None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines((1, None)), "line 2: '00003', expected frame 00002"),
        (lines((2, None)), "frame 00003 is missing"),
        ("", "frame 00001 is missing"),
        (TEXT + "00004   0\n", "4 lines, but the sequence has 3 frames"),
        (lines((1, "00001   0\n")), "line 2: '00001', expected frame 00002"),
        (lines((1, "2   0\n")), "line 2: '2', expected frame 00002"),
        (lines((1, "\n")), "line 2: an empty line, expected frame 00002"),
        (lines((1, "00002\n")), "expected the number of targets"),
        (lines((1, "00002   -1\n")), "expected the number of targets"),
        (lines((1, "00002   1\n")), "says 1 targets"),
        (lines((1, "00002   1   0     1.00  2.00   0     1.00  2.00\n")), "but 6 numbers follow"),
        (lines((1, "00002   1   0     nan  2.00\n")), "'nan': expected a finite number"),
        (lines((1, "00002   1   0     1.00  inf\n")), "'inf': expected a finite number"),
        (lines((1, "00002   1   0     1e999  2.00\n")), "line 2: row inf, column 2.00 is outside"),
        (lines((1, "00002   1   0     1_0  2.00\n")), "'1_0': expected a finite number"),
        (lines((1, "00002   1   0.5     1.00  2.00\n")), "track '0.5': expected a whole number"),
        (lines((1, "00002   1   0     -0.51  2.00\n")), "row -0.51, column 2.00 is outside"),
        (lines((1, "00002   1   0     19.51  2.00\n")), "outside the frame of 20 x 30 pixels"),
        (lines((1, "00002   2   7     1  2   7     3  4\n")), "track 7 is named twice"),
        (TEXT.replace("\n", "\r\n"), "lines end in CR LF"),
        (TEXT[:-1], "may be truncated"),
    ],
)
def test_a_bad_file_is_refused_by_line(text, message):
    with pytest.raises(InputError, match=r"^here") as refused:
        parse_sequence(text, "here", EXTENTS["000001"], "row_column")
    assert message in str(refused.value)


def test_a_wrong_order_is_suspected():
    text = format_sequence(TARGETS["000001"], "x_y")
    with pytest.raises(InputError, match="all lie inside with --coordinate_order x_y"):
        parse_sequence(text, "here", EXTENTS["000001"], "row_column")
    assert len(parse_sequence(text, "here", EXTENTS["000001"], "x_y")) == 3
    with pytest.raises(InputError) as refused:
        parse_sequence("00001   1   0     40  40\n", "here", Extent(1, 20, 30), "row_column")
    assert "order" not in str(refused.value)


@pytest.mark.parametrize("edge", ["-0.50  -0.50", "19.50  29.50"])
def test_pixels_reach_half_a_pixel_over_the_centre(edge):
    assert len(
        parse_sequence(f"00001   1   0     {edge}\n", "here", Extent(1, 20, 30), "row_column")
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["000001.txt"], "sky.txt is missing"),
        ([], "000001.txt is missing (and 1 more)"),
        (["000001.txt", "sky.txt", "sea.txt"], "'sea.txt' belongs to none of the 2 sequences"),
        (["0000001.txt", "sky.txt"], "did you mean 000001.txt?"),
        (["000001.txt", "sky.txt", "sky.txt"], "holds sky.txt twice"),
        (["out/000001.txt", "out/sky.txt"], "expected the files without folders"),
        (["out/", "000001.txt", "sky.txt"], "expected the files without folders"),
        (["../../000001.txt", "sky.txt"], "expected the files without folders"),
        (["..\\000001.txt", "sky.txt"], "expected the files without folders"),
        (["000001.png", "sky.txt"], "'000001.png' belongs to none"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_wrong_names_in_a_zip(tmp_path, files, message):
    path = tmp_path / "out.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in files:
            archive.writestr(name, format_sequence(TARGETS.get(name.split(".")[0], [])))
    with pytest.raises(InputError) as refused:
        read_submission(path, EXTENTS)
    assert message in str(refused.value)
    assert [p.name for p in tmp_path.iterdir()] == ["out.zip"]


def test_what_is_no_submission(tmp_path):
    path = tmp_path / "out.zip"
    with pytest.raises(InputError, match="no such file"):
        read_submission(path, EXTENTS)
    path.write_text("hello")
    with pytest.raises(InputError, match="not a zip file that can be read"):
        read_submission(path, EXTENTS)
    write_submission(path, TARGETS, EXTENTS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="not a zip file that can be read"):
        read_submission(path, EXTENTS)
    (tmp_path / "folder/sky.txt").mkdir(parents=True)
    (tmp_path / "folder/000001.txt").write_text(TEXT)
    with pytest.raises(InputError, match=r"sky\.txt: not a file"):
        read_submission(tmp_path / "folder", EXTENTS)


def test_bytes_that_are_no_text_and_damage_inside(tmp_path):
    path = tmp_path / "out.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("000001.txt", "00001   0\n".encode("utf-16"))
        archive.writestr("sky.txt", "00001   0\n")
    with pytest.raises(InputError, match=r"000001\.txt: not a text file"):
        read_submission(path, EXTENTS)
    write_submission(path, TARGETS, EXTENTS)
    content = bytearray(path.read_bytes())
    content[45] ^= 255  # in the packed bytes of the first file
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a zip file that can be read"):
        read_submission(path, EXTENTS)


def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "out.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("000001.txt", "0" * 5000)
        archive.writestr("sky.txt", "00001   0\n")
    monkeypatch.setattr("utils.submission.MOST_BYTES", 4999)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(InputError, match="5000 bytes; expected at most 4999"):
        read_submission(path, EXTENTS)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"sky": [[]]}, "000001.txt is missing"),
        ({**TARGETS, "sea": [[]]}, "sea.txt"),
        ({**TARGETS, "000001": TARGETS["000001"][:2]}, "frame 00003 is missing"),
        ({**TARGETS, "sky": [[(0, float("nan"), 1)]]}, "'nan': expected a finite number"),
        ({**TARGETS, "sky": [[(0, 31, 1)]]}, "outside the frame"),
    ],
)
def test_what_would_be_refused_is_not_written(tmp_path, targets, message):
    path = tmp_path / "out.zip"
    path.write_text("before")
    with pytest.raises(InputError) as refused:
        write_submission(path, targets, EXTENTS)
    assert message in str(refused.value)
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


class FakeSequence(SimpleNamespace):
    def __len__(self):
        return self.length


def test_the_writer_collects_by_sequence_and_frame(tmp_path):
    sequences = [
        FakeSequence(name="a", length=2, size=(20, 30)),
        FakeSequence(name="b", length=1, size=(20, 30)),
    ]
    numbered = lambda frames: [[(0, x, 1.0)] for x in frames]  # noqa: E731
    writer = SubmissionWriter(tmp_path / "out.zip", lambda p: float(p.sum()), numbered)
    for sequence, index, value in (
        (sequences[0], 0, 3),
        (sequences[0], 1, 4),
        (sequences[1], 0, 5),
    ):
        writer(sequence, index, np.full((1, 1), value))
    with zipfile.ZipFile(writer.write(sequences)) as archive:
        assert (
            archive.read("a.txt") == b"00001   1   0     1.00  3.00\n00002   1   0     1.00  4.00\n"
        )
        assert archive.read("b.txt") == b"00001   1   0     1.00  5.00\n"
    unseen = FakeSequence(name="c", length=1, size=(20, 30))
    with pytest.raises(InputError, match=r"c\.txt is missing"):
        writer.write([*sequences, unseen])
