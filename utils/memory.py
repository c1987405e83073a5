"""The memory that this process holds, and the most that it held."""

import gc
import re
import resource
from pathlib import Path

import torch


def start_of_peak(device: torch.device) -> int:
    """The bytes that this process holds, from which on `peak_memory` looks for the most."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark begins anew
    return resident_memory()


def peak_memory(device: torch.device) -> int:
    """The most bytes held since `start_of_peak`, on a GPU those of torch's allocator."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def resident_memory() -> int:
    """The bytes that this process holds at the moment."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
