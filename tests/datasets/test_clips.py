from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datasets.clips import Clip, ClipDataset, ClipSampler, choose_crop, collate
from datasets.layouts import find_layout
from datasets.sequences import open_split
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
    rows, columns = choose_crop(mask, patch, np.random.default_rng(seed))
    for part, size in ((rows, H), (columns, W)):
        assert 0 <= part.start < part.stop <= size
        assert part.stop - part.start == min(patch, size)


def test_three_quarters_of_the_crops_are_near_the_target():
    mask = np.zeros((400, 400), bool)
    mask[50, 300] = True
    near = 0
    for seed in range(800):
        rows, columns = choose_crop(mask, 48, np.random.default_rng(seed))
        near += abs(rows.start + 24 - 50) <= 8 and abs(columns.start + 24 - 300) <= 8
    assert near / 800 == pytest.approx(0.75, abs=0.05)


def make_dataset(folder, sampler, **options):
    sequences = open_split(find_layout("Folder"), folder, "train")
    settings = {"seqlen": 6, "mean": 100.0, "std": 2.0, "patch_size": 4, **options}
    return ClipDataset(sequences, sampler, 0, **settings)


def test_short_clips_are_filled_by_the_parity_of_the_draw(tmp_path):
    write_frames(tmp_path / "s1/images", 10, value=102)
    write_frames(tmp_path / "s1/masks", 10, value=1)
    sampler = ClipSampler([10], seqlen=6, sample_rate=10, seed=0)
    clips = make_dataset(tmp_path, sampler)
    parities = set()
    for draw, clip in enumerate(clips.clips[:60]):
        frames, masks, returned = clips[draw]
        count = clip.stop - clip.start
        assert frames.shape == (1, 6, 4, 4)
        assert returned == draw
        expected = [(102 + i - 100) / 2 for i in range(clip.start, clip.stop)]
        filling = [0.0] * (6 - count)
        profile = filling + expected if draw % 2 else expected + filling
        assert frames[0, :, 0, 0].tolist() == profile
        assert masks.amax(dim=(1, 2)).tolist() == [float(value != 0) for value in profile]
        parities.add((draw % 2, count < 6))
    assert len(parities) == 4  # full and short clips, even and odd draws were all seen


def test_training_size_and_frames_smaller_than_the_patch(tmp_path):
    write_frames(tmp_path / "s1/images", 8)
    write_frames(tmp_path / "s1/masks", 8, value=0)
    sampler = ClipSampler([8], seqlen=6, sample_rate=1, seed=0)
    whole = make_dataset(tmp_path, sampler, patch_size=32)
    assert whole[0][0].shape == (1, 6, 6, 8)
    resized = make_dataset(tmp_path, sampler, patch_size=10, train_size=(12, 16))
    assert resized[0][0].shape == (1, 6, 10, 10)


def test_batches_of_different_sizes_are_filled_with_zeros():
    small = (torch.ones(1, 3, 2, 5), torch.ones(3, 2, 5), 0)
    large = (torch.ones(1, 3, 4, 4), torch.ones(3, 4, 4), 1)
    frames, masks, draws = collate([small, large])
    assert frames.shape == (2, 1, 3, 4, 5)
    assert masks.shape == (2, 3, 4, 5)
    assert masks[0].sum() == 3 * 2 * 5
    assert frames[1].sum() == 3 * 4 * 4
    assert draws == [0, 1]


def test_a_clip_is_described_by_sequence_and_frames(tmp_path):
    write_frames(tmp_path / "s7/images", 9)
    write_frames(tmp_path / "s7/masks", 9)
    sampler = ClipSampler([9], seqlen=6, sample_rate=1, seed=0)
    clips = make_dataset(tmp_path, sampler)
    clip = clips.clips[2]
    assert clips.describe(2) == f"s7 frames {clip.start + 1} to {clip.stop}"


def test_an_item_does_not_depend_on_the_order_of_reading(tmp_path):
    write_frames(tmp_path / "s1/images", 9)
    rng = np.random.default_rng(0)
    for i in range(9):
        frame = rng.integers(0, 255, (30, 30)).astype(np.uint8)
        write_image(tmp_path / f"s1/images/{i + 1:05d}.png", frame)
        write_image(tmp_path / f"s1/masks/{i + 1:05d}.png", np.zeros_like(frame))
    sampler = ClipSampler([9], seqlen=6, sample_rate=1, seed=0)
    one, other = make_dataset(tmp_path, sampler), make_dataset(tmp_path, sampler)
    forwards = [one[i][0] for i in range(4)]
    backwards = [other[i][0] for i in reversed(range(4))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forwards, backwards, strict=True))
