"""Where the time of a training goes."""

import time
from collections import defaultdict

import torch

# The parts of a step, named as in `epochs.jsonl` (with `_seconds`) and in `summary.json`.
STEP = ("data", "forward", "backward", "optimiser")


class Stopwatch:
    """Seconds by the name of what they were spent on.

    Work that a GPU still has to do is waited for, so that it counts where it belongs.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.began = self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Everything since the last lap was `name`."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now

    def total(self) -> float:
        return self.last - self.began


def summarise(records: list[dict], test_seconds: float, clips: int) -> dict:
    """What `summary.json` holds: the seconds of a whole training by what they were spent on.

    Args:
        records: the lines of `epochs.jsonl`, with `<part>_seconds` and `seconds`.
        test_seconds: of the final test.
        clips: trained on in an epoch, by all processes.
    """
    parts = (*STEP, "validation")
    seconds = {part: sum(r.get(f"{part}_seconds", 0.0) for r in records) for part in parts}
    seconds["test"] = test_seconds
    steps = sum(r["seconds"] for r in records)
    everything = steps + seconds["validation"] + test_seconds
    seconds["other"] = max(0.0, everything - sum(seconds.values()))
    seconds["all"] = everything
    return {
        "epochs": len(records),
        "clips_per_second": round(clips * len(records) / steps, 2) if steps else None,
        "seconds": {part: round(value, 3) for part, value in seconds.items()},
    }


def summary_line(summary: dict) -> str:
    """A summary in one line."""
    seconds = summary["seconds"]
    parts = [
        f"{part} {value:.1f} s ({value / max(seconds['all'], 1e-9):.0%})"
        for part, value in seconds.items()
        if part != "all"
    ]
    return f"{summary['epochs']} epochs and the test took {seconds['all']:.1f} s: " + ", ".join(
        parts
    )
