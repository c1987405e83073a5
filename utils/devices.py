"""Where the arithmetic runs, and how it is seeded and fed with memory."""

import ctypes
import os
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from utils.distributed import processes
from utils.errors import InputError


def choose_device(device: str = "auto", gpu: str | None = None) -> torch.device:
    """The torch device for `--device {auto,cpu,cuda}` and `--gpu N`.

    `auto` takes the GPU where there is one; of several processes on a machine each takes its own.
    InputError if a GPU asked for by name is not there.
    """
    if gpu is not None and not (gpu.isascii() and gpu.isdigit()):
        raise InputError(f"--gpu {gpu}: expected the number of one GPU, such as 0")
    if gpu is not None and processes() > 1:
        raise InputError(f"--gpu {gpu}: every process takes a GPU of its own; leave it out")
    if device == "cpu" or (device == "auto" and gpu is None and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = int(gpu or (os.environ.get("LOCAL_RANK", 0) if processes() > 1 else 0))
    if index >= count > 0 and processes() > 1:
        raise InputError(
            f"process {index + 1} of this machine finds no GPU of its own, there are {count}: "
            f"use --device cpu, or torchrun --nproc_per_node {count}"
        )
    if index >= count:
        asked = f"--gpu {gpu}" if gpu is not None else "--device cuda"
        raise InputError(
            f"{asked}: this machine has {count} CUDA GPU(s); use --device cpu or another --gpu"
        )
    return torch.device("cuda", index)


def seed_everything(*numbers: int) -> None:
    """Seed Python, NumPy and torch from whole numbers, such as (seed, epoch)."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def set_up_arithmetic(keep_memory: bool = True) -> None:
    """What every command wants of torch: fp32 that is fp32, and no time lost on the CPU.

    Convolutions on CUDA drop to TF32 by default, and counts would change. Denormal numbers, which
    weight decay leaves behind, take a CPU ten times as long and are put to zero.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_flush_denormal(True)
    if keep_memory:
        keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks instead of handing them back to the kernel.

    Layers allocate hundreds of megabytes; by default every one is mapped, page-faulted in and
    unmapped anew, which costs more than the arithmetic. All threads share one heap: heaps of their
    own would be handed back whatever the thresholds are. So this comes before other threads start.
    Elsewhere than on glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # M_TRIM_THRESHOLD, ... in malloc.h
    mallopt(mmap_threshold, 2**31 - 1)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(arena_max, 1)


def on_all_cores(work: Callable, jobs: Iterable, device: torch.device) -> list:
    """[work(job) for job in jobs], as many at a time as torch has CPU threads.

    Every job has one thread, and its operations do not split up further: cores that met at the end
    of every operation would wait for one another most of the time, and by far the most where other
    processes run as well. Elsewhere than on the CPU one job runs at a time.

    Raises what a job raised; none is begun after that.
    """
    threads, jobs = torch.get_num_threads(), list(jobs)
    if device.type != "cpu" or threads == 1 or len(jobs) == 1:
        return [work(job) for job in jobs]
    results, numbered = [None] * len(jobs), iter(enumerate(jobs))

    def work_on() -> None:
        try:
            for i, job in numbered:  # shared: a job goes to whichever thread comes first
                results[i] = work(job)
        finally:
            list(numbered)  # after an error none is begun any more

    try:
        with ThreadPoolExecutor(threads, "job", torch.set_num_threads, (1,)) as pool:
            try:
                for future in [pool.submit(work_on) for _ in range(threads)]:
                    future.result()  # raises what a job raised
            finally:
                list(numbered)  # Ctrl-C reaches this thread alone
    finally:
        torch.set_num_threads(threads)  # the default of threads to come was changed as well
    return results
