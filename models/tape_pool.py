"""Tapes to lend, of the kind that suits the device."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from threading import Lock

import torch

from models.compiled import Compiled, ProductTape, Result, Traced
from models.products import on_products, products
from models.tapes import Tape


@contextmanager
def lent(idle: list, make: Callable) -> Iterator:
    """One of the idle, or one that is made; idle again afterwards. Threads may share the list."""
    try:
        one = idle.pop()
    except IndexError:
        one = make()
    yield one
    idle.append(one)


class Tapes:
    """A tape for every size of tile and every thread at work, for frames of one size.

    Args:
        record: record(tape, h, w) records on a tape what is done to a tile of that size.
        compiled: whether a compiler is made use of (see `models.compiled`).
    """

    def __init__(
        self,
        record: Callable[[Tape, int, int], None],
        dtype: torch.dtype,
        device: torch.device,
        compiled: bool,
    ):
        self.record, self.kind, self.compiled = record, (dtype, device), compiled
        self.products = on_products(dtype, device, compiled)
        if self.products:
            products()  # before several threads would compile it
        self.functions: dict[tuple[int, int], Callable] = {}
        self.compiling = Lock()
        self.clear()

    def clear(self) -> None:
        """Let go of the arrays: frames of another size come next."""
        self.idle: dict[tuple[int, int], list[Tape | Compiled]] = defaultdict(list)

    def borrow(self, h: int, w: int) -> AbstractContextManager[Tape | Compiled]:
        """A tape for tiles of that size, made where none is idle."""
        return lent(self.idle[h, w], partial(self._make, h, w))

    def _make(self, h: int, w: int) -> Tape | Compiled:
        tape = (ProductTape if self.products else Tape)(*self.kind)
        self.record(tape, h, w)
        if self.compiled and not self.products:
            return Compiled(self._function(tape, h, w), tape)
        return tape

    def _function(self, tape: Tape, h: int, w: int) -> Callable:
        """What a tape of this size does, as one function; compiled when it is first called."""

        def function(source: torch.Tensor) -> Result:
            traced = Traced(tape, source)
            self.record(traced, h, w)
            return traced.result

        with self.compiling:
            if (h, w) not in self.functions:
                compiled = torch.compile(function, dynamic=False, fullgraph=True)
                compiled(torch.zeros_like(tape.source))
                self.functions[h, w] = compiled
        return self.functions[h, w]
