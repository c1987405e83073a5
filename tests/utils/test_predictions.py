"""The files of detections, by hand."""

import json

import pytest

from utils.errors import InputError
from utils.predictions import (
    Row,
    by_frame,
    clear_results,
    detection_writer,
    is_finished,
    keep_tracks,
    read_detections,
    submitted,
    write_json_detections,
)

ROWS = [
    Row(2, 5.5, 6.25, 2, 3, 6, 0.75, 0.5, 1, 5, 6),
    Row(2, 30.0, 6.0, 1, 1, 1, 0.25, 0.25, 2, 30, 6),
    Row(5, 7.5, 6.0, 2, 2, 3, 0.5, 0.5, 1, 7, 6),
]


@pytest.fixture
def table(tmp_path):
    with detection_writer(tmp_path / "detections.csv") as write:
        write(ROWS[:2])
        write([])
        write(ROWS[2:])
    return tmp_path / "detections.csv"


def test_the_table(table):
    assert table.read_text().splitlines() == [
        "frame,x,y,width,height,area,peak,mean,track,left,top",
        "2,5.500,6.250,2,3,6,0.750000,0.500000,1,5,6",
        "2,30.000,6.000,1,1,1,0.250000,0.250000,2,30,6",
        "5,7.500,6.000,2,2,3,0.500000,0.500000,1,7,6",
    ]
    assert list(read_detections(table)) == ROWS


def test_rows_by_frame_with_empty_ones():
    assert list(by_frame(ROWS, 6)) == [[], ROWS[:2], [], [], ROWS[2:], []]
    assert list(by_frame(ROWS, 2)) == [[], ROWS[:2]]
    assert list(by_frame([], 3)) == [[], [], []]
    assert list(by_frame([], 0)) == []


def test_only_wanted_tracks_are_kept(table):
    keep_tracks(table, lambda track: track == 1)
    assert list(read_detections(table)) == [ROWS[0], ROWS[2]]


def test_detections_and_tracks_as_json(tmp_path):
    path = tmp_path / "detections.json"
    counts = write_json_detections(path, ROWS, {"frames": 6}, lambda track: track == 1)
    assert counts == {"detections": 3, "tracks": 2, "confirmed_tracks": 1}
    content = json.loads(path.read_text())
    assert content["frames"] == 6
    assert content["detections"] == [row._asdict() for row in ROWS]
    assert content["tracks"] == [
        {"track": 1, "first_frame": 2, "last_frame": 5, "observations": 2, "peak": 0.75,
         "from": [5.5, 6.25], "to": [7.5, 6.0], "confirmed": True},
        {"track": 2, "first_frame": 2, "last_frame": 2, "observations": 1, "peak": 0.25,
         "from": [30.0, 6.0], "to": [30.0, 6.0], "confirmed": False},
    ]  # fmt: skip
    assert write_json_detections(path, [], {"frames": 6}, lambda track: True)["tracks"] == 0
    assert json.loads(path.read_text())["tracks"] == []


@pytest.mark.parametrize(("ids", "tracks"), [("zero", (0, 0)), ("track", (1, 0))])
def test_what_an_input_adds_to_a_submission(table, tmp_path, ids, tracks):
    write_json_detections(tmp_path / "detections.json", ROWS, {"x": 1}, lambda track: track == 1)
    about = {"input": {"frames": 5, "size": [24, 32]}}
    (tmp_path / "summary.json").write_text(json.dumps(about))
    sure, other = tracks
    frames, extent = submitted(tmp_path, ids)
    assert extent == (5, 24, 32)
    assert frames == [[], [(sure, 5.5, 6.25), (other, 30.0, 6.0)], [], [], [(sure, 7.5, 6.0)]]


def test_finished_with_the_same_options(tmp_path):
    recorded = {"input": "/clip", "length": 5, "files": "ab", "attribution": (3, 1.0, 2.5)}
    assert not is_finished(tmp_path, recorded, live=False)
    summary = {"options": recorded | {"of_older_versions": 1}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    assert is_finished(tmp_path, recorded, live=False)
    for other, message in (
        ({"attribution": None}, r"with attribution \[3, 1.0, 2.5\], now it is None"),
        ({"length": 6}, "with length 5, now it is 6"),
        ({"files": "cd"}, "before files of /clip changed"),
    ):
        with pytest.raises(InputError, match=message):
            is_finished(tmp_path, recorded | other, live=False)
    with pytest.raises(InputError, match="earlier recording"):
        is_finished(tmp_path, recorded, live=True)


def test_results_are_cleared_and_nothing_else(tmp_path):
    known = ["summary.json", "detections.csv", "detections.json", "overlay.mp4"]
    known += ["contact_sheet.png", "a[1]_frame00012_target3.npz", "a[1]_frame00012_target3.png"]
    known += ["visual/a[1]/00001.png", ".detections-ab12cd34.json"]
    others = ["notes.txt", "a1_frame00012_target3.png", "a[1]_frame00012_target3.txt"]
    others += ["visual/b/00001.png"]
    for name in known + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    clear_results(tmp_path, "a[1]")
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(others)
    clear_results(tmp_path, "a[1]")
