"""What is stored of a sequence equals what is read of it."""

import io
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from datasets.caching import cache_sequences
from datasets.clips import ClipDataset, ClipSampler, load_batches
from datasets.entries import CachedSequence, map_file, read_entry, write_entry
from tests.datasets.cached import check_same, on_disk, opened
from tests.datasets.conftest import SIZES
from utils.errors import InputError


@pytest.mark.parametrize("mode", ["disk", "ram"])
@pytest.mark.parametrize("resize", [None, "nearest", "bicubic"])
def test_what_is_cached_equals_what_is_read(data, place, mode, resize):
    sequences = [s.resized(resize and (24, 24), resize) for s in opened(data)]
    cached, warnings = cache_sequences(sequences, mode, place)
    assert warnings == []
    for one, other in zip(cached, sequences, strict=True):
        assert isinstance(one, CachedSequence)
        check_same(one, other)
        with pytest.raises(ValueError, match="read-only"):
            one.frames(0, 1)[:] = 0
    assert place.exists() == (mode == "disk")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("mode", ["disk", "ram"])
def test_batches_are_those_without_a_cache(data, place, mode, workers):
    sequences = [s.resized((24, 24), "nearest") for s in opened(data)]
    sampler = ClipSampler([len(s) for s in sequences], 6, 1.0, seed=3)

    def batches(sequences, workers):
        options = {"seqlen": 6, "mean": 100.5, "std": 33.3, "patch_size": 16}
        clips = ClipDataset(sequences, sampler, 0, **options)
        return [b.normalised(torch.device("cpu")) for b in load_batches(clips, 4, workers)]

    cached = batches(cache_sequences(sequences, mode, place)[0], workers)
    plain = batches(sequences, 0)
    assert len(cached) == len(plain) > 2
    for one, other in zip(cached, plain, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_a_sequence_travels_without_its_content(data, place):
    sequences = opened(data)
    cached = on_disk(sequences, place)[0]
    size = cached.entry.stat().st_size
    packed = pickle.dumps(cached)
    assert len(packed) < size / 3
    check_same(pickle.loads(packed), sequences[0])
    cached.entry.unlink()
    check_same(cached, sequences[0])  # mapped still
    with pytest.raises(InputError, match=r"was cleared or changed .* run again"):
        pickle.loads(packed).frames(0, 1)
    in_memory = cache_sequences(sequences, "ram")[0][0]
    check_same(pickle.loads(pickle.dumps(in_memory)), sequences[0])


def test_cached_sequences_keep_no_file_open(data, place):
    on_disk(opened(data), place)
    before = len(os.listdir("/proc/self/fd"))
    cached = on_disk(opened(data), place)
    assert len(os.listdir("/proc/self/fd")) == before
    assert cached[0].frames(0, 1).any()


def test_resizing_a_cached_sequence_goes_back_to_the_images(data, place):
    original = opened(data)[0]
    cached = on_disk([original], place)[0]
    assert cached.resized((10, 11), "nearest") == original.resized((10, 11), "nearest")


def test_an_entry_without_masks(data, place):
    for kind in ("masks", "masks_centroid"):
        for name in SIZES:
            shutil.rmtree(data / name / kind, ignore_errors=True)
    sequences = opened(data)
    for one, other in zip(on_disk(sequences, place), sequences, strict=True):
        assert not one.has_masks
        np.testing.assert_array_equal(one.frames(0, len(one)), other.frames(0, len(other)))


def test_an_entry_of_another_key_is_refused(data):
    file = io.BytesIO()
    write_entry(file, opened(data)[0], "key", "data")
    content = np.frombuffer(file.getvalue(), np.uint8)
    assert read_entry(content, "key")["frames"].shape == (7, 20, 23)
    with pytest.raises(ValueError, match="of other data"):
        read_entry(content, "other")


def test_the_map_of_a_file_is_its_bytes(tmp_path):
    (tmp_path / "f").write_bytes(bytes(range(256)))
    assert map_file(tmp_path / "f").tolist() == list(range(256))
