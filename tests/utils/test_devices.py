import random
import threading
import time

import numpy as np
import pytest
import torch

from utils.devices import (
    choose_device,
    keep_freed_memory,
    on_all_cores,
    seed_everything,
)
from utils.errors import InputError


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error():
    assert choose_device("auto").type == "cpu"
    assert choose_device("cpu", "0").type == "cpu"
    with pytest.raises(InputError, match="--device cuda: this machine has 0"):
        choose_device("cuda")
    with pytest.raises(InputError, match="--gpu 0: this machine has 0"):
        choose_device("auto", "0")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_that_is_there_is_taken():
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda", "0").index == 0
    with pytest.raises(InputError):
        choose_device("cuda", "99")


def test_gpu_is_a_number():
    with pytest.raises(InputError, match="expected the number of one GPU"):
        choose_device("auto", "0,1")


def test_seeding_repeats_and_separates():
    def draws(*numbers):
        seed_everything(*numbers)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draws(1, 2) == draws(1, 2)
    assert set(draws(1, 2)).isdisjoint(draws(2, 1))


def test_keeping_freed_memory_changes_no_result():
    before = torch.ones(3).sum()
    keep_freed_memory()
    assert torch.ones(3).sum() == before


@pytest.mark.usefixtures("three_threads")
def test_results_of_jobs_come_in_their_order():
    cpu = torch.device("cpu")
    assert on_all_cores(lambda i: (i, torch.get_num_threads()), range(50), cpu) == [
        (i, 1) for i in range(50)
    ]
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_no_job_begins_after_one_has_failed():
    begun, failed = [], threading.Event()

    def work(job):
        begun.append(job)
        if threading.current_thread().name == "job_1":  # not the one that is waited for first
            failed.set()
            raise ValueError("torn")
        failed.wait()
        time.sleep(0.02)

    with pytest.raises(ValueError, match="torn"):
        on_all_cores(work, range(300), torch.device("cpu"))
    assert len(begun) < 150
    assert torch.get_num_threads() == 3
