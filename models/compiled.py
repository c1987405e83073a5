"""What `--compile` makes of a tape: on a CPU in fp32 steps of products.cpp, else a function by
torch.compile, which keeps what it has compiled in a folder of its own (TORCHINDUCTOR_CACHE_DIR)."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from functools import cached_property, partial

import torch

from models.products import (
    Step,
    StepStruct,
    TemporalTaps,
    Weights,
    constant,
    convolution,
    on_products,
    pooling,
    product,
    products,
)
from models.tapes import Bias, Factors, Tape

Result = torch.Tensor | list[torch.Tensor]


def compiler_works(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the compiler works that is needed here; if not, a line on stderr says why."""
    try:
        if on_products(dtype, device, compiled=True):
            products()
        else:
            torch.compile(torch.cos, dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # of a dozen types, by what is missing
        reason = str(error).strip().splitlines()[0]
        print(f"warning: --compile: goes on without, no compiler works: {reason}", file=sys.stderr)
        return False
    return True


class ProductTape(Tape):
    """A tape whose steps are those of products.cpp, all in one call: fp32, on a CPU."""

    def __init__(self, dtype: torch.dtype, device: torch.device):
        super().__init__(dtype, device)
        self.recorded: list[Step] = []
        self.packed: dict[tuple, tuple[torch.Tensor, Weights]] = {}  # by kind and matrix or kernel
        self.places: dict[tuple, torch.Tensor] = {}
        self.place = 0

    def pieces(self, pixels: int) -> Iterator[slice]:
        first, most = self.place, constant("piece")
        for start in range(0, pixels, most):
            self.place = first
            yield slice(start, min(start + most, pixels))

    def padded(self, ends: int, T: int, C: int, P: int) -> torch.Tensor:
        """The same array at the same place in every piece of the same size.

        Frames that were a multiple of 4 KB apart would drive each other out of the first cache, so
        there is a row more between them; not of one channel, where `neighbours` makes a matrix of
        several frames.
        """
        self.place += 1
        key = self.place, ends, T, C, P
        if key not in self.places:
            self.places[key] = super().padded(ends, T, C + (C > 1), P)[:, :C]
        return self.places[key]

    def multiply(
        self, out: torch.Tensor, *factors: Factors, bias: Bias = None, rectify: bool = False
    ) -> None:
        pairs = ((self._packed(matrix, Weights), x) for matrix, x in factors)
        self.recorded.append(product(out, *pairs, bias=bias, rectify=rectify))

    def convolve(
        self, out: torch.Tensor, kernel: torch.Tensor, x: torch.Tensor, bias: torch.Tensor
    ) -> None:
        assert kernel.shape[2] == 3
        self.recorded.append(convolution(out, self._packed(kernel, TemporalTaps), x, bias))

    def convolve_changes(
        self, out: torch.Tensor, taps: torch.Tensor, x: torch.Tensor, bias: torch.Tensor
    ) -> None:
        assert taps.shape[2] == 2
        self.recorded.append(convolution(out, self._packed(taps, TemporalTaps), x, bias))

    def _packed(self, matrix: torch.Tensor, kind: type[Weights]) -> Weights:
        """The same in every piece."""
        key = kind, id(matrix)
        if key not in self.packed:
            self.packed[key] = matrix, kind(matrix)
        return self.packed[key][1]

    def pool(self, out: torch.Tensor, x: torch.Tensor, columns: int) -> None:
        self.recorded.append(pooling(out, x, columns))

    def in_batches(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(0, 1)  # it may be a piece of a longer array

    def run(self) -> None:
        self._all_steps(len(self.recorded))

    @cached_property
    def _all_steps(self) -> Callable[[int], None]:
        assert not self.steps, "a step of torch's, which would be left out"
        pointers = [ctypes.pointer(step.struct) for step in self.recorded]
        return partial(products().run, (ctypes.POINTER(StepStruct) * len(pointers))(*pointers))


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

    def padded(self, ends: int, T: int, C: int, P: int) -> torch.Tensor:
        self.end = self.like.new_zeros(ends, C, P)
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
