"""Several processes that train one network together, as torchrun starts them.

Every process runs the same command. Process 0, the main one, reads the options and is the only one
that writes; the others get what it decides by `from_main`. In a single process nothing is sent.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from utils.errors import InputError

T = TypeVar("T")

# How long a process waits for the others: one may have far longer sequences to validate. One that
# has died is noticed at once.
PATIENCE = timedelta(minutes=30)


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if _together() else 0


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _together() else 1


def on_this_machine() -> int:
    """How many of them share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", processes())) if _together() else 1


def is_main() -> bool:
    return rank() == 0


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def launcher() -> str:
    """What starts a command as this one was started."""
    if processes() == 1:
        return "python"
    return f"torchrun --nproc_per_node {on_this_machine()}"


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started with this one; alone, do nothing.

    Whatever goes wrong in one of them ends them all, and the first to fail is the one to say why.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        yield
        return
    try:
        store, number, count = next(iter(rendezvous("env://", timeout=PATIENCE)))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(
            backend, store=store, rank=number, world_size=count, timeout=PATIENCE
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the processes cannot meet ({error}): start them with torchrun") from None
    try:
        yield
    except BaseException as error:
        if not _first_to_fail(store):
            sys.exit(1)  # it has said why
        if is_lost(error):
            raise lost() from error
        raise
    distributed.destroy_process_group()


def _first_to_fail(store: distributed.Store) -> bool:
    """Whether no other process has failed before; leaves word that this one did.

    Under torchrun the store outlives the processes. Else the main one keeps it, and stays a moment
    for those that fail with it to look.
    """
    store.set_timeout(timedelta(seconds=5))
    try:
        first = store.add("failures", 1) == 1
        latest = time.monotonic() + 2
        keeps_it = is_main() and "TORCHELASTIC_RUN_ID" not in os.environ
        while keeps_it and store.add("failures", 0) < processes() and time.monotonic() < latest:
            time.sleep(0.05)
        return first
    except RuntimeError:  # the process that keeps the store is gone
        return True


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached any more."""
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(
        word in str(error) for word in ("gloo", "NCCL", "Connection closed by peer")
    )


def lost(hint: str = "start them all again") -> InputError:
    """The one line for `is_lost`."""
    return InputError(
        f"another of the {processes()} processes has ended or cannot be reached: {hint}"
    )


def from_main(make: Callable[[], T]) -> T:
    """What make() gives in the main process, in all of them; the others do not call it."""
    box = [make() if is_main() else None]
    if processes() > 1:
        distributed.broadcast_object_list(box, device=torch.device("cpu"))
    return box[0]


def gather(value: T) -> list[T]:
    """The value of every process, in their order, in all of them."""
    values = [value] * processes()
    if processes() > 1:
        distributed.all_gather_object(values, value)
    return values


def agree(facts: dict[str, object]) -> None:
    """InputError if a process has other facts than the main one; waits for all of them.

    Numbers may differ in their last digits, as processors do.
    """
    first, *others = gather(facts)
    for number, other in enumerate(others, start=2):
        for name, value in other.items():
            if not _alike(value, first[name]):
                raise InputError(
                    f"process {number} has other {name} than process 1 ({value!s:.200}, not "
                    f"{first[name]!s:.200}): every machine needs the same data set at --datapath"
                )


def _alike(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6)
    return one == other


def in_parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """The network whose gradients are the mean over all processes; alone, the network itself.

    It starts from the weights of the main process. On CUDA batch statistics are those of the
    joint batch (SyncBatchNorm, put into `network`); on the CPU those of each process' part.
    """
    if processes() == 1:
        return network
    if device.type == "cpu":
        return DistributedDataParallel(network)
    torch.cuda.set_device(device)
    nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(network, device_ids=[device.index])


def take_buffers_from_main(*networks: nn.Module) -> None:
    """Give every process the running statistics of the main one."""
    if processes() > 1:
        for network in networks:
            for buffer in network.buffers():
                distributed.broadcast(buffer, 0)
