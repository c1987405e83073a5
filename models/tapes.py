"""Tapes: what a prepared form does to a tile of pixels, recorded once and run for every tile.

`--compile` makes one function of a tape with torch.compile, which keeps what it has compiled in a
folder of its own (TORCHINDUCTOR_CACHE_DIR).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Lock

import torch

# Weight decay leaves weights of 1e-30 and less behind. Products with them are denormal numbers, on
# which a CPU takes ten times as long.
TINY = 1e-18

Result = torch.Tensor | list[torch.Tensor]


def without_tiny(weight: torch.Tensor) -> torch.Tensor:
    """Weights with those of no consequence put to zero."""
    return torch.where(weight.abs() < TINY, 0, weight)


def longer(x: torch.Tensor, before: int, behind: int) -> torch.Tensor:
    """A view of a padded array x, [T, C, P], and of so many frames before and behind it."""
    T, C, P = x.size()
    start = x.storage_offset() - before * C * P
    return x.as_strided((before + T + behind, C, P), (C * P, P, 1), start)


class Tape:
    """Operations on arrays of its own; fresh arrays for every tile would not be in the cache.

    What records it sets `source` (by `begin`), the array to fill before each run, and `result`, an
    array or a list of them.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device):
        self.like = torch.empty(0, dtype=dtype, device=device)
        self.steps, self.slots, self.weights = [], {}, []
        self.source = self.result = None

    def begin(self, place: torch.Tensor) -> None:
        """All that is recorded from here on begins with what a tile brings to `place`."""
        self.source = place

    def cast(self, weight: torch.Tensor) -> torch.Tensor:
        self.weights.append(without_tiny(weight).to(self.like))
        return self.weights[-1]

    def do(self, operation: Callable, *arguments, out: torch.Tensor) -> None:
        self.steps.append(partial(operation, *arguments, out=out))

    def rectify(self, x: torch.Tensor, floor: torch.Tensor) -> None:
        self.do(torch.maximum, x, self.cast(floor), out=x)

    def scratch(self, slot: str, *size: int) -> torch.Tensor:
        """An array that lives until the slot is next asked for."""
        count = math.prod(size)
        if slot not in self.slots or len(self.slots[slot]) < count:
            self.slots[slot] = self.like.new_empty(count)
        return self.slots[slot][:count].view(size)

    def padded(self, ends: int, T: int, C: int, P: int, floor: torch.Tensor) -> torch.Tensor:
        """An array [T, C, P] that has `ends` frames of `floor` [C, 1] before and behind it."""
        return self.cast(floor).expand(T + 2 * ends, C, P).clone()[ends : ends + T]

    def with_ends(self, x: torch.Tensor, ends: int) -> torch.Tensor:
        """The last array that was padded, x [T, C, P], and its ends: [T + 2 ends, C, P]."""
        return longer(x, ends, ends)

    def neighbours(self, x: torch.Tensor, count: int) -> torch.Tensor:
        """Every `count` consecutive frames as one matrix: [T + count - 1, C, P] to [T, count C, P].

        A view: x must be contiguous.
        """
        T, C, P = x.size()
        return x.as_strided((T - count + 1, count * C, P), (C * P, P, 1), x.storage_offset())

    def run(self) -> None:
        for step in self.steps:
            step()


class Traced(Tape):
    """Does at once what would be recorded, in arrays of their own: torch.compile can follow that.

    Args:
        tape: recorded before in the same way; its weights are taken.
        source: what a tile brings.
    """

    def __init__(self, tape: Tape, source: torch.Tensor):
        self.like, self.brought = tape.like, source
        self.weights = iter(tape.weights)

    def begin(self, place: torch.Tensor) -> None:
        place.copy_(self.brought)

    def cast(self, weight: torch.Tensor) -> torch.Tensor:
        return next(self.weights)

    def do(self, operation: Callable, *arguments, out: torch.Tensor) -> None:
        out.copy_(operation(*arguments))

    def scratch(self, slot: str, *size: int) -> torch.Tensor:
        return self.like.new_empty(size)

    def padded(self, ends: int, T: int, C: int, P: int, floor: torch.Tensor) -> torch.Tensor:
        self.end = self.cast(floor).expand(ends, C, P)
        return self.like.new_empty(T, C, P)

    def with_ends(self, x: torch.Tensor, ends: int) -> torch.Tensor:
        return torch.cat([self.end, x, self.end])

    def neighbours(self, x: torch.Tensor, count: int) -> torch.Tensor:
        T = len(x) - count + 1
        return torch.cat([x[i : i + T] for i in range(count)], dim=1)


class Compiled:
    """A function in place of a tape's operations."""

    def __init__(self, function: Callable[[torch.Tensor], Result], tape: Tape):
        self.function, self.source = function, torch.empty_like(tape.source)

    def run(self) -> None:
        self.result = self.function(self.source)


class Tapes:
    """A tape for every size of tile and every thread at work, for frames of one size.

    Args:
        record: record(tape, pixels) records on a tape what is done to so many pixels.
        compiled: whether torch.compile makes one function of it.
    """

    def __init__(
        self,
        record: Callable[[Tape, int], None],
        dtype: torch.dtype,
        device: torch.device,
        compiled: bool,
    ):
        self.record, self.kind, self.compiled = record, (dtype, device), compiled
        self.functions: dict[int, Callable] = {}
        self.compiling = Lock()
        self.clear()

    def clear(self) -> None:
        """Let go of the arrays: frames of another size come next."""
        self.idle: dict[int, list[Tape | Compiled]] = defaultdict(list)

    @contextmanager
    def borrow(self, pixels: int) -> Iterator[Tape | Compiled]:
        """A tape for tiles of so many pixels, made where none is idle."""
        try:
            tape = self.idle[pixels].pop()
        except IndexError:
            tape = Tape(*self.kind)
            self.record(tape, pixels)
            if self.compiled:
                tape = Compiled(self._function(tape, pixels), tape)
        yield tape
        self.idle[pixels].append(tape)

    def _function(self, tape: Tape, pixels: int) -> Callable:
        """What a tape of this size does, as one function; compiled when it is first called."""

        def function(source: torch.Tensor) -> Result:
            traced = Traced(tape, source)
            self.record(traced, pixels)
            return traced.result

        with self.compiling:
            if pixels not in self.functions:
                compiled = torch.compile(function, dynamic=False, fullgraph=True)
                compiled(torch.zeros_like(tape.source))
                self.functions[pixels] = compiled
        return self.functions[pixels]
