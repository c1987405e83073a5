from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets.clips import (
    CROPS,
    Clip,
    ClipDataset,
    ClipSampler,
    choose_crop,
    load_batches,
)
from datasets.images import resize_frame, resize_mask
from datasets.layouts import find_layout
from datasets.sequences import open_split, target_centres
from tests.conftest import write_frames, write_image
from utils.errors import InputError


def test_positions_and_draws_are_the_published_ones():
    """80 sequences of 100 frames at 0.1 gave 768 clips an epoch in the released training logs."""
    sampler = ClipSampler([100] * 80, seqlen=40, sample_rate=0.1, seed=0)
    assert sampler.draws == len(sampler.epoch(0)) == 768
    first = [clip for clip in sampler.clips if clip.sequence == 0]
    assert first[0] == Clip(0, 0, 4)
    assert first[36] == Clip(0, 0, 40)
    assert first[-1] == Clip(0, 59, 99)


def test_clips_are_drawn_in_proportion_to_their_length():
    sampler = ClipSampler([11], seqlen=10, sample_rate=2000, seed=0)  # lengths 1 to 10
    counts = Counter(clip.stop - clip.start for clip in sampler.epoch(0))
    shares = np.array([counts[n] for n in range(1, 11)]) / sampler.draws
    assert shares == pytest.approx(np.arange(1, 11) / 55, abs=0.01)


def test_epochs_differ_and_repeat_with_the_seed():
    sampler = ClipSampler([30, 50], seqlen=8, sample_rate=0.5, seed=4)
    assert sampler.epoch(1) == ClipSampler([30, 50], 8, 0.5, seed=4).epoch(1)
    assert sampler.epoch(1) != sampler.epoch(2)
    assert sampler.epoch(1) != ClipSampler([30, 50], 8, 0.5, seed=5).epoch(1)


@pytest.mark.parametrize("lengths", [[1], [4], []])
def test_too_few_frames_is_an_error(lengths):
    with pytest.raises(InputError, match="no clip"):
        ClipSampler(lengths, seqlen=40, sample_rate=0.1, seed=0)


@given(
    H=st.integers(1, 40), W=st.integers(1, 40), patch=st.integers(1, 32),
    target=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_crops_lie_inside_and_have_their_size(H, W, patch, target, seed):
    mask = np.zeros((H, W), bool)
    mask[H // 2, W // 3] = target
    rng = np.random.default_rng(seed)
    rows, columns = choose_crop(target_centres(mask), mask.shape, patch, rng)
    for part, size in ((rows, H), (columns, W)):
        assert 0 <= part.start < part.stop <= size
        assert part.stop - part.start == min(patch, size)


def test_three_quarters_of_the_crops_are_near_the_target():
    mask = np.zeros((400, 400), bool)
    mask[50, 300] = True
    near = 0
    for seed in range(800):
        rng = np.random.default_rng(seed)
        rows, columns = choose_crop(target_centres(mask), mask.shape, 48, rng)
        near += abs(rows.start + 24 - 50) <= 8 and abs(columns.start + 24 - 300) <= 8
    assert near / 800 == pytest.approx(0.75, abs=0.05)


def make_dataset(folder, sampler, resize=None, **options):
    sequences = open_split(find_layout("Folder"), folder, "train")
    settings = {"seqlen": 6, "mean": 100.0, "std": 2.0, "patch_size": 4, **options}
    sequences = [s.resized(*resize) for s in sequences] if resize else sequences
    return ClipDataset(sequences, sampler, 0, **settings)


def read(clips, *draws):
    """Frames [B, 1, T, h, w] and masks [B, T, h, w] of some draws as a network gets them."""
    return clips.collate([clips[draw] for draw in draws]).normalised(torch.device("cpu"))


def write_noise(folder, name, count, size, dtype=np.uint8, seed=0):
    """Frames of noise over the whole range and masks with a few targets, some frames with none."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        frame = rng.integers(0, np.iinfo(dtype).max, size, endpoint=True).astype(dtype)
        mask = 255 * (rng.random(size) < 0.01 * (i % 3)).astype(np.uint8)
        write_image(folder / f"{name}/images/{i + 1:05d}.png", frame)
        write_image(folder / f"{name}/masks/{i + 1:05d}.png", mask)


def oracle(sequences, clip, draw, resize, T, mean, std, patch):
    """A clip as the published recipe says it, in the slow obvious way: [T, h, w] twice."""
    sequence = sequences[clip.sequence]
    frames = list(sequence.frames(clip.start, clip.stop))
    masks = list(sequence.masks(clip.start, clip.stop))
    if resize:
        frames = [resize_frame(f, resize[0]) for f in frames]
        masks = [resize_mask(m, *resize) for m in masks]
    middle = masks[len(masks) // 2]
    rng = np.random.default_rng([CROPS, 0, 0, draw])
    rows, columns = choose_crop(target_centres(middle), middle.shape, patch, rng)
    frames = [(f[rows, columns].astype(np.float32) - mean) / std for f in frames]
    masks = [m[rows, columns].astype(np.float32) for m in masks]
    while len(frames) < T:
        at = 0 if draw % 2 else len(frames)
        frames.insert(at, np.zeros_like(frames[0]))
        masks.insert(at, np.zeros_like(masks[0]))
    return np.stack(frames), np.stack(masks)


@pytest.mark.parametrize("resize", [None, ((26, 31), "nearest"), ((26, 31), "bicubic")])
def test_batches_equal_the_slow_way_bit_for_bit(tmp_path, resize):
    """Sizes above and below the patch, 8 and 16 bit in one batch, short and full clips."""
    write_noise(tmp_path, "s1", 9, (20, 23))
    write_noise(tmp_path, "s2", 12, (33, 40), np.uint16, seed=1)
    mean, std, patch = 105.4025, 26.6452, 24
    sampler = ClipSampler([9, 12], seqlen=6, sample_rate=2, seed=0)
    clips = make_dataset(tmp_path, sampler, resize, mean=mean, std=std, patch_size=patch)
    originals = open_split(find_layout("Folder"), tmp_path, "train")
    mixed = 0
    for batch in load_batches(clips, 4, workers=0):
        frames, masks = batch.normalised(torch.device("cpu"))
        assert batch.frames.dtype in (torch.uint8, torch.uint16)
        assert frames.dtype == masks.dtype == torch.float32
        expected_frames, expected_masks = torch.zeros_like(frames), torch.zeros_like(masks)
        drawn = [clips.clips[draw] for draw in batch.draws]
        for b, (clip, draw) in enumerate(zip(drawn, batch.draws, strict=True)):
            x, y = oracle(originals, clip, draw, resize, 6, mean, std, patch)
            _, h, w = y.shape
            expected_frames[b, 0, :, :h, :w] = torch.from_numpy(x)
            expected_masks[b, :, :h, :w] = torch.from_numpy(y)
        assert torch.equal(frames, expected_frames)
        assert torch.equal(masks, expected_masks)
        mixed += len({clip.sequence for clip in drawn}) == 2
    assert mixed > 1


def test_short_clips_are_filled_by_the_parity_of_the_draw(tmp_path):
    write_frames(tmp_path / "s1/images", 10, value=102)
    write_frames(tmp_path / "s1/masks", 10, value=1)
    sampler = ClipSampler([10], seqlen=6, sample_rate=10, seed=0)
    clips = make_dataset(tmp_path, sampler)
    parities = set()
    for draw, clip in enumerate(clips.clips[:60]):
        frames, masks = read(clips, draw)
        count = clip.stop - clip.start
        assert frames.shape == (1, 1, 6, 4, 4)
        expected = [(102 + i - 100) / 2 for i in range(clip.start, clip.stop)]
        filling = [0.0] * (6 - count)
        profile = filling + expected if draw % 2 else expected + filling
        assert frames[0, 0, :, 0, 0].tolist() == profile
        assert masks[0].amax(dim=(1, 2)).tolist() == [float(value != 0) for value in profile]
        parities.add((draw % 2, count < 6))
    assert len(parities) == 4  # full and short clips, even and odd draws were all seen


def test_training_size_and_frames_smaller_than_the_patch(tmp_path):
    write_frames(tmp_path / "s1/images", 8)
    write_frames(tmp_path / "s1/masks", 8, value=0)
    sampler = ClipSampler([8], seqlen=6, sample_rate=1, seed=0)
    whole = make_dataset(tmp_path, sampler, patch_size=32)
    assert read(whole, 0)[0].shape == (1, 1, 6, 6, 8)
    resized = make_dataset(tmp_path, sampler, ((12, 16), "nearest"), patch_size=10)
    assert read(resized, 0)[0].shape == (1, 1, 6, 10, 10)


def test_batches_of_different_sizes_are_filled_with_zeros(tmp_path):
    """Crops of 4 x 3 and 2 x 5 of frames at 102 to 109, (level - 100) / 2."""
    for name, size in (("s1", (4, 3)), ("s2", (2, 5))):
        write_frames(tmp_path / name / "images", 8, size, value=102)
        write_frames(tmp_path / name / "masks", 8, size, value=1)
    sampler = ClipSampler([8, 8], seqlen=4, sample_rate=2, seed=0)
    clips = make_dataset(tmp_path, sampler, seqlen=4)
    full = [i for i, clip in enumerate(clips.clips) if clip.stop - clip.start == 4]
    one = next(i for i in full if clips.clips[i].sequence == 0)
    other = next(i for i in full if clips.clips[i].sequence == 1)
    frames, masks = read(clips, one, other)
    assert frames.shape == (2, 1, 4, 4, 4)
    assert masks.shape == (2, 4, 4, 4)
    assert torch.equal(frames[:, 0] > 0, masks > 0)
    assert masks.sum(dim=(1, 2, 3)).tolist() == [4 * 4 * 3, 4 * 2 * 4]
    assert masks[0, :, :, 3].sum() == masks[1, :, 2:].sum() == 0


def test_a_clip_is_described_by_sequence_and_frames(tmp_path):
    write_frames(tmp_path / "s7/images", 9)
    write_frames(tmp_path / "s7/masks", 9)
    sampler = ClipSampler([9], seqlen=6, sample_rate=1, seed=0)
    clips = make_dataset(tmp_path, sampler)
    clip = clips.clips[2]
    assert clips.describe(2) == f"s7 frames {clip.start + 1} to {clip.stop}"


def test_an_item_does_not_depend_on_the_order_of_reading(tmp_path):
    write_noise(tmp_path, "s1", 9, (30, 30))
    sampler = ClipSampler([9], seqlen=6, sample_rate=1, seed=0)
    one, other = make_dataset(tmp_path, sampler), make_dataset(tmp_path, sampler)
    forwards = [read(one, i)[0] for i in range(4)]
    backwards = [read(other, i)[0] for i in reversed(range(4))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
