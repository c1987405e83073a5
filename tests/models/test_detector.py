"""The Detector's stream against the whole sequence cut by `split_windows`."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import Detector, build_network, network_names, split_windows
from utils.errors import InputError

T, MEAN, STD = 10, 100.0, 20.0  # windows of 10 frames share one


class Fake(nn.Module):
    """Logits from the grey level, the frames before it in the window, and its place there."""

    def __init__(self, seqlen: int = T):
        super().__init__()
        self.seqlen = seqlen
        self.windows: list[np.ndarray] = []  # what it was shown

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.windows.append(x[0, 0].numpy().copy())
        T = x.shape[2]
        place = torch.sin(3 * torch.arange(T, dtype=torch.float32)).view(1, T, 1, 1)
        return x[:, 0] + 0.3 * x[:, 0].cumsum(1) + place


def some_frames(count: int, seed: int = 0, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 4)).astype(dtype)


def windowed_maps(frames: np.ndarray, seqlen: int) -> list[np.ndarray]:
    """The oracle: for every window of the whole sequence, its first frame's index and its maps."""
    answers = []
    for start, stop in split_windows(len(frames), seqlen):
        window = [frames[min(i, stop - 1)] for i in range(start, start + seqlen)]
        x = (torch.tensor(np.array(window, np.float32)) - MEAN) / STD
        logits = Fake(seqlen)(x[None, None])[0]
        answers.append((start, torch.sigmoid(logits).numpy()[: stop - start]))
    return answers


def slow_maps(frames: np.ndarray, seqlen: int) -> np.ndarray:
    fused = np.zeros(frames.shape, np.float32)
    for start, maps in windowed_maps(frames, seqlen):
        for i, one in enumerate(maps, start=start):
            fused[i] = np.maximum(fused[i], one)
    return fused


def check_stream(frames: np.ndarray, seqlen: int) -> None:
    maps = list(Detector(Fake(seqlen), MEAN, STD).stream(iter(frames)))
    assert len(maps) == len(frames)
    assert all(one.dtype == np.float32 for one in maps)
    np.testing.assert_allclose(maps, slow_maps(frames, seqlen), atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 8, 9, 10, 11, 12, 18, 19, 20, 21, 28, 29, 57])
def test_stream_is_the_fused_windows(count):
    check_stream(some_frames(count), T)


@given(count=st.integers(1, 90), seqlen=st.sampled_from([1, 2, 9, 10, 11, 20, 25]))
@settings(max_examples=60)
def test_stream_is_the_fused_windows_for_any_length(count, seqlen):
    check_stream(some_frames(count, seed=count), seqlen)


def test_overlaps_keep_either_windows_answer():
    """Else the oracle above could not tell the maximum from the first or the last answer."""
    frames = some_frames(15)
    (_, first), (start, second) = windowed_maps(frames, T)
    fused = Detector(Fake(), MEAN, STD)(frames)[start:T]
    first, second = first[start:], second[: T - start]
    assert (first > second + 0.01).any()
    assert (second > first + 0.01).any()
    np.testing.assert_allclose(fused, np.maximum(first, second), atol=1e-6)


def test_call_stacks_the_stream():
    detector, frames = Detector(Fake(), MEAN, STD), some_frames(23)
    maps = detector(frames)
    assert maps.shape == (23, 3, 4)
    np.testing.assert_array_equal(maps, list(detector.stream(frames)))


@pytest.mark.parametrize("count", [10, 11, 19, 40, 41])
def test_network_is_shown_the_published_windows_normalised(count):
    detector, frames = Detector(Fake(), MEAN, STD), some_frames(count)
    detector(frames)
    windows = detector.infer.network.windows
    for shown, (start, stop) in zip(windows, split_windows(count, T), strict=True):
        np.testing.assert_allclose(shown, (frames[start:stop] - MEAN) / STD, atol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_short_sequence_is_filled_up_with_its_last_frame(count):
    detector, frames = Detector(Fake(), MEAN, STD), some_frames(count)
    assert len(detector(frames)) == count
    (shown,) = detector.infer.network.windows
    filled = np.array([frames[min(i, count - 1)] for i in range(T)])
    np.testing.assert_allclose(shown, (filled - MEAN) / STD, atol=1e-5)


def test_probability_by_hand():
    class Identity(Fake):
        def forward(self, x):
            return x[:, 0]

    frames = np.array([100, 120, 60], np.uint8).reshape(3, 1, 1)
    maps = Detector(Identity(), MEAN, STD)(frames)
    assert maps.ravel() == pytest.approx([0.5, 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(2))])


def test_no_frames_no_maps():
    assert list(Detector(Fake(), MEAN, STD).stream(iter(()))) == []


@pytest.mark.parametrize("count", [1, 9, 10, 11, 60])
def test_map_comes_at_most_a_window_after_its_frame(count):
    pulled = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal pulled
        for frame in some_frames(count):
            pulled += 1
            yield frame

    stream = Detector(Fake(), MEAN, STD).stream(counted())
    assert pulled == 0
    for i, _ in enumerate(stream):
        assert i < pulled <= i + 1 + T
    assert pulled == count


def test_endless_stream_is_followed_in_bounded_memory():
    frames, maps = [], []  # weak references

    def alive(references) -> int:
        return sum(reference() is not None for reference in references)

    def camera() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        while True:
            frame = rng.integers(0, 256, (3, 4)).astype(np.uint8)
            frames.append(weakref.ref(frame))
            yield frame

    for i, one in enumerate(Detector(Fake(), MEAN, STD).stream(camera())):
        maps.append(weakref.ref(one))
        assert alive(frames) <= T + 2
        assert alive(maps) <= 2
        if i == 100:
            break


@pytest.mark.parametrize("count", [3, 10, 15])
def test_size_change_on_the_way_names_the_frame(count):
    frames = [*some_frames(count), np.zeros((4, 3), np.uint8), *some_frames(30)]
    with pytest.raises(InputError, match=f"frame {count + 1} is 4 x 3, the frames before are 3 x"):
        list(Detector(Fake(), MEAN, STD).stream(frames))


@pytest.mark.parametrize("count", [4, 25])
def test_nan_in_the_logits_is_refused(count):
    class Broken(Fake):
        def forward(self, x):
            logits = super().forward(x)
            logits[0, 2, 1, 1] = torch.nan
            return logits

    with pytest.raises(InputError, match="not finite"):
        Detector(Broken(), MEAN, STD)(some_frames(count))


def test_nan_in_a_frame_is_refused():
    frames = some_frames(12, dtype=np.float32)
    frames[11, 0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        Detector(Fake(), MEAN, STD)(frames)


def test_huge_logits_are_probabilities():
    class Sure(Fake):
        def forward(self, x):
            return torch.where(x[:, 0] > 0, torch.inf, -torch.inf)

    frames = np.array([[[0, 255]]], np.uint8)
    assert Detector(Sure(), MEAN, STD)(frames).tolist() == [[[0.0, 1.0]]]


@pytest.mark.parametrize("count", [3, 14])
def test_sixteen_bit_frames(count):
    frames = some_frames(count).astype(np.uint16)
    expected = Detector(Fake(), MEAN, STD)(frames)
    sixteen_bit = Detector(Fake(), 256 * MEAN, 256 * STD)(256 * frames)
    assert (256 * frames).max() > 2**15
    np.testing.assert_allclose(sixteen_bit, expected, atol=1e-6)


@pytest.mark.parametrize("std", [0, -1.0, float("nan")])
def test_standard_deviation_must_be_positive(std):
    with pytest.raises(InputError, match="standard deviation"):
        Detector(Fake(), MEAN, std)


def test_a_network_in_training_is_left_in_training():
    torch.manual_seed(0)
    network = build_network("DeepPro", seqlen=T).train()
    detector, frames = Detector(network, MEAN, STD), some_frames(13).repeat(4, 1).repeat(4, 2)
    maps = detector(frames)
    assert network.training
    np.testing.assert_array_equal(detector(frames), maps)  # no running statistics moved
    assert maps.shape == (13, 12, 16)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "i8", "f4", "?"])
def test_any_kind_of_grey_level(dtype):
    levels = np.random.default_rng(0).integers(0, 2, (T, 6, 7))
    detector = Detector(build_network("DeepPro", seqlen=T), 0.5, 0.5)
    expected = detector(levels.astype(np.float32))
    np.testing.assert_array_equal(detector(levels.astype(dtype)), expected)


@pytest.mark.parametrize("name", network_names())
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_less_precision_changes_probabilities_a_little(name, precision):
    torch.manual_seed(0)
    frames = np.random.default_rng(0).integers(0, 255, (T, 12, 20), np.uint8)
    full = Detector(build_network(name, seqlen=T), 128, 50)(frames)
    torch.manual_seed(0)
    less = Detector(build_network(name, seqlen=T), 128, 50, precision=precision)(frames)
    assert less.dtype == np.float32
    assert 0 < np.abs(full - less).max() < 0.02
