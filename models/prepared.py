"""The prepared form of the networks: the same maps, several times sooner, in bounded memory.

Nearly all the arithmetic is local to a pixel's own time series, but the plain modules run layer by
layer over whole windows and stream hundreds of megabytes between layers. The prepared form runs
all layers on a tile of pixels that stays near the cores, in arrays that are used again for every
tile, then goes on to the next. This file holds what the forms share:

- BatchNorm and the probe's 1/sqrt(T) are folded into the weights, in float64.
- The probe is one product a channel, [T, T] @ [T, P], with the scale of its BatchNorm in the map.
- The kernel of a temporal difference convolution sums to zero (taps k0, -k0 - k2, k2), so it has
  two taps, not three, on differences of frames: out[t] = k2 (x[t+2] - x[t]) - k0 (x[t] - x[t-2]).

On a CPU every core works on tiles of its own, in a thread of its own, and the operations inside do
not split up further: cores that met at the end of every operation would wait for one another most
of the time, and by far the most where other processes run as well.
"""

import copy
import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

from models.layers import TemporalProbe
from models.products import on_products
from models.tapes import Tape
from utils.devices import on_all_cores

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_PREPARED: dict[type[nn.Module], Callable] = {}


def prepares(network: type[nn.Module]):
    """Decorator: file what makes a prepared form under the class of network that it stands for."""

    def file_it(form):
        _PREPARED[network] = form
        return form

    return file_it


def prepare(
    network: nn.Module,
    tile: int | None = None,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The inference form of a trained network: normalised frames [T, H, W] to logits [T, H, W].

    It holds its own copy of the weights, on the network's device, and always runs as in eval mode.
    A network that has no prepared form of its own runs as it is.

    Args:
        network: one of the registry.
        tile: side of the square tiles in pixels, of the frame or, for branches at half and quarter
            size, of half size; by default what suits the device.
        dtype: of weights, features, frames and logits; the folding is done in float64 before.
        compiled: whether a compiler is made use of (see `models.compiled`).
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    form = _PREPARED.get(type(network), Plain)
    return form(network, tile, dtype, compiled)


class Plain:
    """The plain module behind the interface of the prepared ones."""

    def __init__(self, network: nn.Module, tile: int | None, dtype: torch.dtype, compiled: bool):
        self.network = network.to(dtype)
        device = next(network.parameters(), torch.empty(0)).device
        if compiled and not on_products(dtype, device, compiled):
            self.network.compile()

    @torch.inference_mode()
    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        return self.network(frames[None, None])[0]  # [T, H, W]


def folded(conv: nn.Conv3d, norm: nn.BatchNorm3d | None = None) -> tuple[torch.Tensor, ...]:
    """Kernel [O, I, kT, kH, kW] and bias [O] (float64) of a convolution and the norm behind it."""
    conv = copy.deepcopy(conv).double()
    kernel = conv.kernel() if hasattr(conv, "kernel") else conv.weight
    if norm is None:
        return kernel, conv.bias
    scale, shift = scale_and_shift(norm)
    return kernel * scale.view(-1, 1, 1, 1, 1), conv.bias * scale + shift


def scale_and_shift(norm: nn.BatchNorm3d) -> tuple[torch.Tensor, torch.Tensor]:
    """What a BatchNorm does in eval mode, scale [C] and shift [C] in float64."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def pointwise_matrix(conv: nn.Conv3d, norm: nn.BatchNorm3d | None = None):
    """A 1 x 1 x 1 convolution with its norm as matrix [O, I] and bias [O, 1], float64."""
    kernel, bias = folded(conv, norm)
    return kernel.flatten(1), bias[:, None]


class Head:
    """The probe and the pointwise convolutions behind it, on a tile."""

    def __init__(self, probe: TemporalProbe, *layers: tuple[nn.Conv3d, nn.BatchNorm3d]):
        scale, shift = scale_and_shift(probe.norm1)
        each = len(scale) // len(probe.QK_heads)  # channels a head
        weight = torch.stack([h.weight for h in probe.QK_heads]).repeat_interleave(each, dim=0)
        bias = torch.stack([h.bias for h in probe.QK_heads]).repeat_interleave(each, dim=0)
        self.maps = scale[:, None, None] * weight.double() / math.sqrt(probe.seqlen)  # [C, T, T]
        self.bias = (scale[:, None] * bias.double() + shift[:, None])[..., None]  # [C, T, 1]
        self.layers = [pointwise_matrix(*layer) for layer in (probe.conv[:2], *layers)]

    def record(self, tape: Tape, x: torch.Tensor) -> torch.Tensor:
        """The array [O, T, P] that will hold the result for x [T, C, P]. Unless x is a piece of a
        longer array it is spoilt, and with it what lies between its frames."""
        T, C, P = x.size()
        y = tape.scratch("a", C, T, P)
        if x.is_contiguous():
            spare = x.view(-1)
        elif x.stride(1) == P:
            spare = x.as_strided((C * T * P,), (1,))
        else:
            spare = tape.scratch("b", C * T * P)
        tape.multiply(y, (self.maps, x.transpose(0, 1)), bias=self.bias, rectify=True)
        for matrix, bias in self.layers:
            x, y = y, spare[: len(matrix) * T * P].view(-1, T, P)
            spare = x.view(-1)
            tape.mix(y, matrix, x, bias, rectify=True)
        return y


def tiles(length: int, side: int) -> list[tuple[int, int]]:
    """[start, stop) of tiles of nearly equal size, `side` at most."""
    count = -(-length // side)
    return [(i * length // count, (i + 1) * length // count) for i in range(count)]


def for_each(work: Callable, jobs: Iterable, device: torch.device) -> None:
    """Call work(job) for every job, as many at a time as torch has CPU threads."""
    on_all_cores(torch.inference_mode()(work), jobs, device)  # this state is a thread's own
