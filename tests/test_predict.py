"""predict.py from end to end, on small clips and a run that was hardly trained."""

import os
import shutil
import signal

import cv2
import numpy as np
import pytest

import datasets.sources
from models import Detection, Tracker, find_detections
from tests.conftest import write_image
from tests.predicting import H, N, T, W, predict_command, read_json, read_table, write_clip
from utils.checkpoints import load_checkpoint, save_checkpoint
from utils.video import VideoWriter, open_video, read_pictures


def test_everything_that_is_written(run_predict, clip, maps, tmp_path):
    scores, threshold = maps
    folder = write_clip(tmp_path / "clip", clip)
    status, out, err = run_predict(folder, "--threshold", threshold, "--save_maps", "--fps", 5)
    assert (status, err) == (0, "")
    place = tmp_path / "out/clip"
    assert sorted(p.name for p in place.iterdir()) == [
        "contact_sheet.png", "detections.csv", "detections.json", "overlay.mp4", "summary.json",
        "visual",
    ]  # fmt: skip

    tracker, expected = Tracker(), []
    for i, probability in enumerate(scores, start=1):
        found = find_detections(probability, threshold)
        for d, track in zip(found, tracker.update(found), strict=True):
            expected.append((i, d, track))
    rows = read_table(place)
    assert len(rows) == len(expected) > 0
    for row, (frame, d, track) in zip(rows, expected, strict=True):
        assert (int(row["frame"]), int(row["track"])) == (frame, track)
        for name in ("width", "height", "area", "left", "top"):
            assert int(row[name]) == getattr(d, name)
        for name in ("x", "y", "peak", "mean"):
            assert float(row[name]) == pytest.approx(getattr(d, name), abs=6e-4)

    stored = read_json(place, "detections")
    assert [{k: float(v) for k, v in row.items()} for row in rows] == stored["detections"]
    sure = {t["track"] for t in stored["tracks"] if t["confirmed"]}
    assert sure == {t for _, _, t in expected if tracker.confirmed(t)}
    summary = read_json(place)
    assert (summary["detections"], summary["confirmed_tracks"]) == (len(rows), len(sure))
    assert summary["protocol"]["normalisation"]["source"] == "run"
    assert f"clip: {N} frames, {len(rows)} detections in {summary['tracks']} tracks" in out

    video = open_video(str(place / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 5
    pictures = list(read_pictures(video))
    assert [p.shape for p in pictures] == [(360 + 26, 480, 3)] * N
    assert cv2.imread(str(place / "contact_sheet.png")).shape[1] == 4 * 480
    for i in (0, N - 1):
        image = cv2.imread(str(place / f"visual/clip/{i + 1:05d}.png"), cv2.IMREAD_UNCHANGED)
        assert np.abs(image - np.floor(scores[i] * 255)).max() <= 1


def test_the_same_whatever_the_frames_come_in(run_predict, clip, maps, tmp_path):
    more = ("--threshold", maps[1], "--no-video")
    write_clip(tmp_path / "a", clip)
    np.save(tmp_path / "b.npy", clip)
    cv2.imwritemulti(str(tmp_path / "c.tif"), list(clip))
    status, out, err = run_predict(*(tmp_path / name for name in ("a", "b.npy", "c.tif")), *more)
    assert (status, err, out.count("20 frames")) == (0, "", 3)
    tables = [read_table(tmp_path / "out" / name) for name in "abc"]
    assert tables[0] == tables[1] == tables[2] != []


@pytest.mark.parametrize("count", [1, T - 1, T, T + 1])
def test_few_frames(run_predict, clip, tmp_path, count):
    np.save(tmp_path / "few.npy", clip[:count])
    status, _, err = run_predict(tmp_path / "few.npy", "--threshold", 0)
    assert (status, err) == (0, "")
    rows = read_table(tmp_path / "out/few")  # at 0 a frame is one detection
    assert [(row["frame"], row["area"]) for row in rows] == [
        (str(i + 1), str(H * W)) for i in range(count)
    ]


def test_16_bit_frames_are_normalised_by_themselves(run_predict, clip, tmp_path):
    np.save(tmp_path / "deep.npy", clip.astype(np.uint16) * 20 + 3000)
    np.save(tmp_path / "floats.npy", clip / 255)
    run = (tmp_path / "deep.npy", tmp_path / "floats.npy", "--no-video")
    assert run_predict(*run)[0] == 0
    used = [
        read_json(tmp_path / "out" / n)["protocol"]["normalisation"] for n in ("deep", "floats")
    ]
    median = np.median(clip[:T])
    deviation = 1.4826 * np.median(np.abs(clip[:T] - median))
    assert used[0]["mean"] == median * 20 + 3000
    assert used[0]["std"] == pytest.approx(deviation * 20, rel=1e-5)
    assert used[1]["std"] == pytest.approx(deviation / 255, rel=1e-4)
    status, _, err = run_predict(*run, "--normalize", "run", "--overwrite")
    assert status == 0
    assert "warning: deep: grey levels around 4" in err
    assert "try --normalize auto" in err
    assert read_json(tmp_path / "out/deep")["warnings"] != []


def test_a_flat_window_has_no_normalisation_of_its_own(run_predict, tmp_path):
    np.save(tmp_path / "flat.npy", np.full((9, H, W), 7, np.uint16))
    status, _, err = run_predict(tmp_path / "flat.npy")
    assert status == 2
    assert "one flat grey" in err
    assert run_predict(tmp_path / "flat.npy", "--mean", 7, "--std", 1, "--no-video")[0] == 0


def test_target_fa_takes_the_threshold_that_validation_says(
    run_predict, run_main, clip, trained, tmp_path
):
    np.save(tmp_path / "clip.npy", clip)
    stored = load_checkpoint(trained / "checkpoints/best_model.pth")["validation"]
    fa = sorted(set(stored["fa"]))[-2]
    lowest = min(
        t for t, rate in zip(stored["thresholds"], stored["fa"], strict=True) if rate <= fa
    )
    status, _, err = run_predict(tmp_path / "clip.npy", "--target_fa", fa or 1e-9, "--no-video")
    assert status == 0
    assert ("validation pixels cannot tell rates below" in err) == (not fa)
    protocol = read_json(tmp_path / "out/clip")["protocol"]
    assert protocol["threshold"] == lowest > 0
    assert "validation" in protocol["threshold_source"]

    copy = shutil.copytree(trained, tmp_path / "log/released")
    state = load_checkpoint(copy / "checkpoints/best_model.pth")
    del state["validation"]
    save_checkpoint(copy / "checkpoints/best_model.pth", state)
    status, _, err = run_predict(tmp_path / "clip.npy", "--target_fa", 1e-5, weights=copy)
    assert status == 2
    assert "released holds no validation results" in err
    state["validation"] = {"fa": [3]}
    save_checkpoint(copy / "checkpoints/best_model.pth", state)
    status, _, err = run_predict(tmp_path / "clip.npy", "--target_fa", 1e-5, weights=copy)
    assert (status, err.count("\n")) == (2, 1)


def test_a_bad_frame_keeps_its_place_and_reports_nothing(run_predict, clip, tmp_path):
    folder = write_clip(tmp_path / "clip", clip)
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:100])
    status, _, err = run_predict(folder, "--no-video")
    assert (status, err.count("\n")) == (2, 1)
    assert "5.png: not a readable image" in err
    assert "--skip_bad goes on" in err
    status, out, err = run_predict(folder, "--no-video", "--skip_bad", "--threshold", 0)
    assert (status, err) == (0, "")
    assert "20 frames (1 of them bad)" in out
    assert [int(row["frame"]) for row in read_table(tmp_path / "out/clip")] == [
        i for i in range(1, N + 1) if i != 6
    ]
    assert "5.png" in read_json(tmp_path / "out/clip")["input"]["bad_frames"][0]


def test_only_confirmed_tracks(run_predict, clip, tmp_path, monkeypatch):
    """One that stays, and a flash in a frame or two."""
    np.save(tmp_path / "clip.npy", clip)
    steady, flash = Detection(5, 5, 1, 1, 1, 0.9, 0.9, 5, 5), Detection(30, 5, *[1] * 5, 30, 5)
    found = iter(2 * [[flash] * (i in (6, 7, 15)) + [steady] for i in range(N)])
    monkeypatch.setattr(predict_command, "find_detections", lambda *_: next(found))
    more = (tmp_path / "clip.npy", "--no-video")
    run_predict(*more)
    everything = read_json(tmp_path / "out/clip", "detections")
    rows = read_table(tmp_path / "out/clip")
    sure = {str(t["track"]) for t in everything["tracks"] if t["confirmed"]}
    assert (len(sure), len(everything["tracks"])) == (1, 3)
    run_predict(*more, "--confirmed_only", "--overwrite")
    assert read_table(tmp_path / "out/clip") == [row for row in rows if row["track"] in sure]
    kept = read_json(tmp_path / "out/clip", "detections")
    assert {str(t["track"]) for t in kept["tracks"]} == sure


def test_finished_inputs_are_skipped_unless_the_options_differ(run_predict, clip, tmp_path):
    inputs = [tmp_path / "a.npy", tmp_path / "b.npy"]
    np.save(inputs[0], clip)
    assert run_predict(inputs[0], "--no-video")[0] == 0
    before = (tmp_path / "out/a/summary.json").stat().st_mtime_ns
    np.save(inputs[1], clip)
    status, out, _ = run_predict(*inputs, "--no-video")
    assert status == 0
    assert "a: finished before" in out
    assert "b: 20 frames" in out
    assert (tmp_path / "out/a/summary.json").stat().st_mtime_ns == before
    status, _, err = run_predict(inputs[0], "--no-video", "--threshold", 0.25)
    assert status == 2
    assert "was made with threshold 0.5, now it is 0.25: --overwrite" in err
    run = (inputs[0], "--no-video", "--threshold", 0.25, "--overwrite")
    assert run_predict(*run)[0] == 0
    assert read_json(tmp_path / "out/a")["protocol"]["threshold"] == 0.25


def test_a_bad_input_does_not_keep_the_others_from_being_done(run_predict, clip, tmp_path):
    np.save(tmp_path / "a.npy", clip)
    broken = np.array(clip, np.float32)
    broken[3, 0, 0] = np.nan
    np.save(tmp_path / "broken.npy", broken)
    np.save(tmp_path / "c.npy", clip)
    status, out, err = run_predict(
        *(tmp_path / name for name in ("a.npy", "broken.npy", "c.npy")), "--no-video"
    )
    assert status == 2
    assert "frame 4 holds NaN" in err
    assert "1 of 3 inputs failed: broken" in err
    assert out.count("20 frames") == 2


def test_interrupted_half_way_the_table_is_there_and_a_rerun_begins_anew(
    run_predict, clip, tmp_path, monkeypatch
):
    np.save(tmp_path / "clip.npy", clip)
    answered = []

    def interrupted(scores):
        rows = read_table(tmp_path / "out/clip")  # each frame is on the disk by now
        answered.append(len(rows))
        if len(answered) == 11:
            os.kill(os.getpid(), signal.SIGINT)
        return np.zeros((H, W), np.uint8)

    monkeypatch.setattr(predict_command, "thumbnail", interrupted)
    run = (tmp_path / "clip.npy", "--threshold", 0)
    status, _, err = run_predict(*run)
    assert status == 130
    assert "11 frames of clip are in" in err
    assert answered == list(range(1, 12))
    assert [p.name for p in (tmp_path / "out/clip").iterdir()] == ["detections.csv"]
    monkeypatch.undo()
    status, out, _ = run_predict(*run, "--no-video")
    assert status == 0
    assert "20 frames" in out


class Camera:
    """Stands for cv2.VideoCapture: endless frames; Ctrl-C comes while the 13th is read."""

    def __init__(self, clip):
        self.clip, self.count = clip, 0

    def read(self):
        self.count += 1
        if self.count == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return True, cv2.cvtColor(self.clip[self.count % N, 1:, 1:], cv2.COLOR_GRAY2BGR)

    def release(self):
        pass


def test_ctrl_c_ends_a_camera_properly(run_predict, clip, tmp_path, monkeypatch):
    camera = Camera(clip)
    opened = datasets.sources.open_video
    monkeypatch.setattr(
        datasets.sources, "open_video", lambda at: camera if at == 0 else opened(at)
    )
    before = signal.getsignal(signal.SIGINT)
    status, out, err = run_predict("0", "--threshold", 0)
    assert (status, err) == (0, "")
    assert "camera0: 13 frames, 13 detections" in out
    place = tmp_path / "out/camera0"
    assert len(list(read_pictures(open_video(str(place / "overlay.mp4"))))) == 13
    assert read_json(place)["input"]["frames"] == 13
    assert not (place / ".work").exists()
    assert signal.getsignal(signal.SIGINT) is before
    status, _, err = run_predict("0")
    assert status == 2
    assert "holds an earlier recording" in err


def test_a_stream_ends_by_itself_or_after_so_many_frames(run_predict, clip, tmp_path):
    video = VideoWriter(tmp_path / "x.avi", 10, "MJPG")
    for frame in clip:
        video.write(frame)
    video.close()
    address = f"file://{tmp_path / 'x.avi'}"
    assert "20 frames" in run_predict(address, "--no-video")[1]
    assert "9 frames" in run_predict(address, "--no-video", "--frames", 9, "--overwrite")[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--weights", "nothing"], "no run 'nothing'"),
        (["--threshold", 2], "expected a probability"),
        (["--threshold", 0.5, "--target_fa", 0.1], "give one of them"),
        (["--target_fa", 0], "expected a number above 0"),
        (["--mean", 3], "go together"),
        (["--min_area", 0], "whole number above 0"),
        (["--misses", -1], "of at least 0"),
        (["--normalize", "dataset"], "invalid choice"),
        (["--epoch", 3], "epoch_3_model.pth: no such checkpoint"),
        (["--output", "/proc/nowhere"], "cannot write to /proc/nowhere"),
        (["--device", "cuda", "--gpu", "99"], "GPU"),
        (["--confirmed"], "did you mean --confirmed_only"),
    ],
)
def test_wrong_options_are_one_line_with_status_2(run_main, trained, clip, tmp_path, more, message):
    np.save(tmp_path / "clip.npy", clip)
    status, _, err = run_main(
        predict_command.main, tmp_path / "clip.npy", "--weights", trained,
        "--output", tmp_path / "out", *more,
    )  # fmt: skip
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_nothing_is_written_into_the_input(run_main, trained, clip, tmp_path):
    folder = write_clip(tmp_path / "clip", clip)
    status, _, err = run_main(
        predict_command.main, folder, "--weights", trained, "--output", folder / "out"
    )
    assert status == 2
    assert "lies inside the input" in err
    assert len(list(folder.iterdir())) == N


def test_frames_too_small_and_sizes_that_change(run_predict, clip, tmp_path):
    np.save(tmp_path / "small.npy", clip[:, :3, :3])
    status, _, err = run_predict(tmp_path / "small.npy")
    assert (status, err.count("\n")) == (2, 1)
    folder = write_clip(tmp_path / "clip", clip)
    write_image(folder / "9.png", clip[9, :20])
    status, _, err = run_predict(folder)
    assert status == 2
    assert "frame 10 is 20 x 32 pixels, those before are 24 x 32" in err
