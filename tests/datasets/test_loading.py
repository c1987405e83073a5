"""The processes that load clips: how they are born and how they end."""

import multiprocessing
import os
import signal

import pytest
import torch

from datasets.clips import ClipDataset, ClipSampler, load_batches
from datasets.layouts import find_layout
from datasets.sequences import open_split
from tests.conftest import write_frames


@pytest.fixture
def batches(tmp_path):
    """An epoch of more batches than two processes load ahead."""
    for kind in ("images", "masks"):
        write_frames(tmp_path / "s1" / kind, 30)
    sequences = open_split(find_layout("Folder"), tmp_path, "train")
    clips = ClipDataset(
        sequences, ClipSampler([30], 4, 1.0, seed=0), 0,
        seqlen=4, mean=0.0, std=1.0, patch_size=8,
    )  # fmt: skip
    return load_batches(clips, 1, workers=2)


class InterruptedProcess(multiprocessing.Process):
    def start(self):
        super().start()
        signal.raise_signal(signal.SIGINT)


def test_signals_wait_until_all_processes_are_born(batches, monkeypatch):
    """Raised within the fork, KeyboardInterrupt would be dropped, and the training go on."""
    born = []
    before = signal.signal(
        signal.SIGINT, lambda *_: born.append(len(multiprocessing.active_children()))
    )
    try:
        monkeypatch.setattr(torch.multiprocessing, "Process", InterruptedProcess)
        next(iter(batches))
    finally:
        signal.signal(signal.SIGINT, before)
    assert set(born) == {2}


class InterruptedEnd(multiprocessing.Process):
    def join(self, timeout=None):
        signal.raise_signal(signal.SIGINT)
        super().join(timeout)


def test_ctrl_c_while_processes_end_is_not_lost(batches, monkeypatch):
    monkeypatch.setattr(torch.multiprocessing, "Process", InterruptedEnd)
    loading = iter(batches)
    next(loading)
    with pytest.raises(KeyboardInterrupt):
        loading.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("number", "message"), [(9, "killed: did the memory run out"), (15, "ended with signal 15")]
)
def test_a_killed_process_is_an_error_where_it_is_waited_for(batches, number, message):
    loading = iter(batches)
    next(loading)
    worker = multiprocessing.active_children()[0]
    os.kill(worker.pid, number)
    worker.join()
    with pytest.raises(RuntimeError, match=message):
        list(loading)
