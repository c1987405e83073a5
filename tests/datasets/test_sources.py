"""Frames from folders, videos and stacks: the same ones whatever they come in, and what is wrong
with them in one line."""

import os
import re
from itertools import pairwise

import cv2
import numpy as np
import pytest

from datasets.sources import open_sources
from tests.conftest import write_frames, write_image
from utils.errors import InputError
from utils.video import VideoWriter

N, H, W = 5, 24, 32


@pytest.fixture
def frames():
    """[N, H, W] uint16, of all sizes of number."""
    return np.random.default_rng(0).integers(0, 2**16, (N, H, W), np.uint16)


def read(*inputs, skip_bad=False):
    (source,) = open_sources([str(text) for text in inputs])
    return [frame.levels for frame in source.frames(skip_bad)]


def check(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def save(path, frames):
    """The frames in the format of the suffix; the path."""
    if path.suffix == ".npy":
        np.save(path, frames)
    elif path.suffix == ".npz":
        np.savez_compressed(path, frames=frames, times=np.arange(len(frames)))
    elif path.suffix == ".tif":
        cv2.imwritemulti(str(path), list(frames))
    else:
        for i, frame in enumerate(frames):
            write_image(path / f"{i}.png", frame)
    return path


@pytest.mark.parametrize("kind", [".npy", ".npz", ".tif", ""])
def test_16_bit_stacks_are_read_exactly(tmp_path, frames, kind):
    path = save(tmp_path / f"clip{kind}", frames)
    (source,) = open_sources([str(path)])
    assert (source.name, source.length, source.live) == ("clip", N, False)
    for _ in range(2):  # they can be read again
        check([frame.levels for frame in source.frames()], frames)


def test_16_bit_video_keeps_its_16_bits(tmp_path, frames):
    path, grey = tmp_path / "clip.avi", [cv2.VIDEOWRITER_PROP_IS_COLOR, 0]
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"FFV1"), 25.0, (W, H),
        [*grey, cv2.VIDEOWRITER_PROP_DEPTH, cv2.CV_16U],
    )  # fmt: skip
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no FFV1")
    for frame in frames:
        writer.write(frame)
    writer.release()
    check(read(path), frames)


def test_of_colour_the_red_channel(tmp_path, frames):
    colour = np.stack([frames, frames // 2, frames // 3], axis=3)  # R, G, B
    check(read(save(tmp_path / "a.npy", colour)), frames)
    check(read(save(tmp_path / "b.npz", colour)), frames)
    check(read(save(tmp_path / "c.tif", colour[..., ::-1])), frames)  # OpenCV has B, G, R
    check(read(save(tmp_path / "d", colour[..., ::-1])), frames)
    video, smooth = VideoWriter(tmp_path / "e.avi", 10, "MJPG"), np.full((H, W, 3), (20, 80, 200))
    video.write(smooth.astype(np.uint8))
    video.close()
    (frame,) = read(tmp_path / "e.avi")
    assert abs(frame.mean() - 200) < 3


def test_other_numbers_are_grey_levels_as_they_are(tmp_path):
    for dtype in (np.float64, np.float16, np.int32, bool):
        levels = (np.arange(2 * 4 * 4).reshape(2, 4, 4) % 7).astype(dtype)
        check(read(save(tmp_path / "a.npy", levels)), levels.astype(np.float32))
        check(read(save(tmp_path / "a.npz", levels)), levels.astype(np.float32))


def test_order_of_the_axes_in_memory_does_not_matter(tmp_path, frames):
    for name in ("a.npy", "a.npz"):
        check(read(save(tmp_path / name, np.asfortranarray(frames))), frames)


def test_one_frame_alone(tmp_path, frames):
    for name in ("a.npy", "a.npz"):
        check(read(save(tmp_path / name, frames[0])), frames[:1])
        check(read(save(tmp_path / name, np.asfortranarray(frames[0]))), frames[:1])
    write_image(tmp_path / "still/x.png", frames[0])
    check(read(tmp_path / "still/x.png"), frames[:1])


def test_a_glob_and_a_list_of_images_are_one_sequence_in_natural_order(tmp_path):
    write_frames(tmp_path / "clip", 11, digits=1)
    images = [tmp_path / f"clip/{i}.png" for i in (1, 2, 10)]
    for inputs in ([tmp_path / "clip/*.png"], [tmp_path / "clip"]):
        assert [f[0, 0] for f in read(*inputs)] == list(range(100, 111))
    for order in ((0, 1, 2), (0, 2, 1), (2, 0, 1)):  # 1 10 2 is how a shell lists them
        assert [f[0, 0] for f in read(*(images[i] for i in order))] == [100, 101, 109]


def test_names(tmp_path, frames):
    write_frames(tmp_path / "scene/images", 2)
    save(tmp_path / "b.npy", frames)
    save(tmp_path / "c.npy", frames)
    sources = open_sources([str(tmp_path / "*.npy"), str(tmp_path / "scene/images")])
    assert [s.name for s in sources] == ["b", "c", "scene"]
    (stream,) = open_sources(["rtsp://user:secret@host:554/live?x=1"])
    assert (stream.name, stream.live, stream.length) == ("host_554_live_x_1", True, None)
    assert open_sources(["3"])[0].name == "camera3"
    for text in ("scene/images/..", "scene/images/../images"):
        write_image(tmp_path / "scene/x.png", frames[0])
        assert open_sources([str(tmp_path / text)])[0].name == "scene"


@pytest.mark.parametrize("kind", ["", ".npy"])
def test_a_fingerprint_tells_changed_files(tmp_path, frames, kind):
    def fingerprint(*inputs):
        return open_sources([str(text) for text in inputs])[0].fingerprint()

    path = save(tmp_path / f"clip{kind}", frames)
    first = fingerprint(path)
    assert fingerprint(path) == first
    changed = path if kind else path / "1.png"
    times = changed.stat()
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    second = fingerprint(path)
    changed.write_bytes(changed.read_bytes() + b" ")
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    assert len({first, second, fingerprint(path)}) == 3
    if not kind:
        assert fingerprint(path / "[0-3].png") != fingerprint(path) == fingerprint(path / "*")


def damage(folder, frames, fault):
    """A clip with something wrong; what stands for its third frame if bad ones are skipped."""
    path = save(folder / "clip", frames)
    third = path / "2.png"
    if fault == "truncated":
        third.write_bytes(third.read_bytes()[:200])
    elif fault == "size":
        write_image(third, frames[2, :-1])
    elif fault == "depth":
        write_image(third, (frames[2] // 256).astype(np.uint8))
    else:
        floats = frames.astype(np.float64 if fault == "large" else np.float32)
        floats[2, 3, 4] = {"NaN": np.nan, "infinity": np.inf, "large": 1e300}[fault]
        path = save(folder / "clip.npy", floats)
    return path


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", r"2\.png: not a readable image"),
        ("size", "frame 3 is 23 x 32 pixels, those before are 24 x 32"),
        ("depth", "frame 3 is uint8, those before are uint16"),
        ("NaN", "frame 3 holds NaN or infinity"),
        ("infinity", "frame 3 holds NaN or infinity"),
        ("large", "frame 3 holds numbers too large for fp32"),
    ],
)
def test_a_bad_frame_is_named_or_the_one_before_stands_in(tmp_path, frames, fault, message):
    path = damage(tmp_path, frames, fault)
    with pytest.raises(InputError, match=message + ".*--skip_bad goes on"):
        read(path)
    (source,) = open_sources([str(path)])
    found = list(source.frames(skip_bad=True))
    assert [frame.fault is None for frame in found] == [True, True, False, True, True]
    for frame, i in zip(found, (0, 1, 1, 3, 4), strict=True):
        np.testing.assert_array_equal(frame.levels, frames[i])


def test_at_the_beginning_the_next_good_frame_stands_in(tmp_path, frames):
    path = save(tmp_path / "clip", frames)
    for name in ("0.png", "1.png"):
        (path / name).write_bytes(b"")
    check(read(path, skip_bad=True), frames[[2, 2, 2, 3, 4]])
    for i in range(N):
        (path / f"{i}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"clip: not one frame can be read \(.*0\.png"):
        read(path, skip_bad=True)


@pytest.mark.parametrize("big", [False, True])
def test_a_truncated_tiff_does_not_pass_for_a_short_one(tmp_path, frames, big):
    """OpenCV says nothing of pages whose directory is cut off."""
    path = tmp_path / "clip.tif"
    if big:
        path.write_bytes(big_tiff(frames))
    else:
        save(path, frames)
    check(read(path), frames)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"clip\.tif: (ends after page 4|page 5 of 5 cannot)"):
        read(path)
    check(read(path, skip_bad=True), frames[:4])


def test_a_source_cut_short_says_so_and_no_frame_stands_for_the_rest(tmp_path, frames):
    path = tmp_path / "clip.tif"
    path.write_bytes(big_tiff(frames)[:-40])
    (source,) = open_sources([str(path)])
    told = []
    found = list(source.frames(skip_bad=True, tell=told.append))
    assert [frame.fault for frame in found] == [None] * 4
    assert told == [f"{path}: ends after page 4 (truncated)"]


def big_tiff(frames) -> bytes:
    """A BigTIFF of [N, H, W] uint16, written by hand: the pixels first, then the directories."""
    pixels = frames.tobytes()
    content = bytearray(b"II" + np.array([43, 8, 0], "<u2").tobytes())
    content += np.uint64(16 + len(pixels)).tobytes() + pixels
    for i in range(len(frames)):
        place = 16 + i * frames[0].nbytes
        tags = [(256, W), (257, H), (258, 16), (259, 1), (262, 1), (273, place), (277, 1),
                (278, H), (279, frames[0].nbytes)]  # fmt: skip
        content += np.uint64(len(tags)).tobytes()
        for tag, value in tags:  # all LONG8
            content += np.array([tag, 16], "<u2").tobytes() + np.array([1, value], "<u8").tobytes()
        last = i == len(frames) - 1
        content += np.uint64(0 if last else len(content) + 8).tobytes()
    return bytes(content)


def test_a_truncated_video_is_named(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "clip.avi"
    video = VideoWriter(path, 10, "MJPG")
    for _ in range(20):
        video.write(rng.integers(0, 255, (H, W), np.uint8))
    video.close()
    assert len(read(path)) == 20
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"ends after frame \d+ of 20 \(truncated") as error:
        read(path)
    whole = int(re.search(r"after frame (\d+)", str(error.value))[1])
    assert 5 < whole == len(read(path, skip_bad=True)) < 15


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_truncated_stack_is_one_line(tmp_path, frames, name):
    path = save(tmp_path / name, frames)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"{name}: cannot be read as a stack"):
        read(path)


def test_a_npz_damaged_in_the_middle_gives_what_lies_before(tmp_path, frames):
    path = save(tmp_path / "a.npz", frames)
    damage_middle(path)
    with pytest.raises(InputError, match=r"a\.npz: cannot be read on"):
        read(path)
    kept = read(path, skip_bad=True)
    assert 1 < len(kept) < N
    for one, other in pairwise(kept):
        assert (one != other).any()  # none stands for another


def test_one_frame_damaged_in_the_middle_is_one_line(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2**16, (60, 60), np.uint16)
    path = save(tmp_path / "a.npz", noise)
    damage_middle(path)
    with pytest.raises(InputError, match=r"a\.npz: cannot be read on"):
        read(path)
    with pytest.raises(InputError, match=r"a\.npz: not one frame can be read \(.*read on"):
        read(path, skip_bad=True)


def test_a_zip_archive_is_no_npy(tmp_path, frames):
    save(tmp_path / "a.npz", frames).rename(tmp_path / "a.npy")
    with pytest.raises(InputError, match=r"a\.npy: cannot be read .*zip archive: call it \.npz"):
        read(tmp_path / "a.npy")


def damage_middle(path):
    content = bytearray(path.read_bytes())
    content[6000:6010] = bytes(10)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4, 2)), "an array of 2 x 3 x 4 x 2; expected"),
        (np.zeros((0, 3, 4)), "an array of 0 x 3 x 4; expected"),
        (np.zeros((0, 4)), "an array of 0 x 4; expected"),
        (np.zeros((3, 0)), "an array of 3 x 0; expected"),
        (np.zeros(3), "an array of 3; expected"),
        (np.array(3.0), "an array of one; expected"),
        (np.zeros((2, 3, 4), complex), "holds complex128; expected numbers"),
        (np.full((2, 3, 4), "x"), "expected numbers"),
        (np.full((2, 3, 4), None), "cannot be read as a stack of frames"),
    ],
)
def test_arrays_that_are_no_frames(tmp_path, array, message):
    for name in ("a.npy", "a.npz"):
        with pytest.raises(InputError, match=message):
            read(save(tmp_path / name, array) if array.ndim else keep(tmp_path / name, array))


def keep(path, array):
    (np.save if path.suffix == ".npy" else np.savez)(path, array)
    return path


def test_inputs_that_are_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    write_frames(tmp_path / "scene/left", 2)
    (tmp_path / "junk.mp4").write_bytes(b"hello" * 100)
    (tmp_path / "junk.tif").write_bytes(b"")
    np.savez(tmp_path / "two.npz", a=np.zeros((1, 2, 2)), b=np.zeros((1, 2, 2)))
    for name, message in {
        "empty": "empty: holds no images",
        "scene": "scene: holds no images .*did you mean .*scene/left",
        "nowhere": "nowhere: no such file or folder; expected a folder of images",
        "*.jpg": "nothing there matches",
        "junk.mp4": "junk.mp4: cannot be decoded as a video",
        "junk.tif": "junk.tif: not a readable image",
        "two.npz": "one called frames; it holds a, b",
    }.items():
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)
    with pytest.raises(InputError, match="99: no such camera"):
        read("99")


def test_two_inputs_of_one_name_are_refused(tmp_path):
    for side in "ab":
        write_frames(tmp_path / side / "clip", 2)
    with pytest.raises(InputError, match="would both write to a folder 'clip'"):
        read(tmp_path / "a/clip", tmp_path / "b/clip")
