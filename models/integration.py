"""The path integral behind an attribution: integrated gradients of any score of a clip."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from utils.devices import on_all_cores

GAP = 0.01  # a map that misses F(clip) - F(baseline) by more is not complete
BUDGET = 256 * 2**20  # bytes that the points processed at a time may keep for their gradients
MOST = 10  # times the steps asked for, that refining them may come to

Score = Callable[[torch.Tensor], torch.Tensor]  # clips [B, T, h, w] to F [B]


class Path(NamedTuple):
    """F [n] at the places [n], from 0 (the baseline) to 1 (the clip)."""

    places: np.ndarray
    scores: np.ndarray


class _Point(NamedTuple):
    """A point of the path: its place, F, the slope of F along the path, the gradient [T, h, w]."""

    place: float
    score: float
    slope: float
    gradient: torch.Tensor


def integrated_gradients(
    score: Score, clip: torch.Tensor, baseline: torch.Tensor, steps: int, refine: bool = True,
    advance: Callable = lambda n: None,
) -> tuple[np.ndarray, Path]:  # fmt: skip
    """Integrated gradients of a score along the straight path, by the trapezoid rule.

    F rises within a hundredth of the path where a network is sure of itself, and equal steps pass
    over that. What a step misses is known, for the gradients along it should add up to what F
    gains. With `refine` the steps that miss the most are halved, and halved again, until all of
    them together miss no more than GAP allows, or there are MOST times as many.

    Args:
        score: clips [B, T, h, w] to F [B].
        clip, baseline: [T, h, w].
        steps: equal steps to begin with, at least 1.
        refine: False leaves it at these.
        advance: called with the number of points done at a time.

    Returns the influence [T, h, w] (float64) and the path. Memory holds steps + 1 gradients, and
    points in batches of at most BUDGET bytes (or one).
    """
    sample = partial(_sample, score, clip, baseline, gradient_bytes(score, clip), advance)
    points = sample(np.linspace(0, 1, steps + 1))
    path = {p.place: p.score for p in points}
    allowed = GAP * abs(points[-1].score - points[0].score) if refine else float("inf")
    total = torch.zeros_like(clip)
    pending = list(pairwise(points))
    while pending:
        pending.sort(key=_missed)
        missed = np.cumsum([_missed(step) for step in pending])
        # The halves of the others need a part of what is allowed too.
        good = np.searchsorted(missed, allowed if missed[-1] <= allowed else allowed / 2, "right")
        good = max(int(good), len(pending) - (MOST * steps + 1 - len(path)))
        allowed -= missed[good - 1] if good else 0
        for a, b in pending[:good]:
            total += (a.gradient + b.gradient) * ((b.place - a.place) / 2)
        pending = pending[good:]
        middles = sample([(a.place + b.place) / 2 for a, b in pending])
        path.update((m.place, m.score) for m in middles)
        pending = [
            half for (a, b), m in zip(pending, middles, strict=True) for half in ((a, m), (m, b))
        ]
    influence = (total * (clip - baseline)).double().cpu().numpy()
    places = np.array(sorted(path))
    return influence, Path(places, np.array([path[place] for place in places]))


def _missed(step: tuple[_Point, _Point]) -> float:
    """By how much the trapezoid over a step misses what F gains on it."""
    a, b = step
    return abs(b.score - a.score - (a.slope + b.slope) * (b.place - a.place) / 2)


def _sample(
    score: Score, clip: torch.Tensor, baseline: torch.Tensor, each: int, advance: Callable, places
) -> list[_Point]:
    """The path at some places; `each` is the bytes that one of them needs."""
    threads = torch.get_num_threads() if clip.device.type == "cpu" else 1
    size = min(max(1, BUDGET // threads // max(1, each)), -(-len(places) // threads) or 1)

    def work(batch: np.ndarray) -> list[_Point]:
        at = torch.tensor(batch).to(clip)[:, None, None, None]
        clips = torch.lerp(baseline, clip, at).requires_grad_()  # [B, T, h, w]
        scores = score(clips)
        (gradients,) = torch.autograd.grad(scores.sum(), clips)
        slopes = (gradients * (clip - baseline)).sum(dim=(1, 2, 3), dtype=torch.float64)
        advance(len(batch))
        numbers = zip(batch, scores.tolist(), slopes.tolist(), gradients, strict=True)
        return [_Point(float(place), *rest) for place, *rest in numbers]

    batches = [places[i : i + size] for i in range(0, len(places), size)]
    return [p for part in on_all_cores(work, batches, clip.device) for p in part]


def gradient_bytes(score: Score, clip: torch.Tensor) -> int:
    """What one clip [T, h, w] keeps in memory between its score and the gradient of that."""
    kept = {}

    def note(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        score(clip[None].requires_grad_())
    return sum(kept.values())
