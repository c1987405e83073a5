"""The prepared form of the networks: the same maps, several times sooner, in bounded memory.

Nearly all the arithmetic is local to a pixel's own time series, but the plain modules run layer by
layer over whole windows and stream hundreds of megabytes between layers. The prepared form runs
all layers on a tile of pixels that fits the cache, then goes on to the next tile. This file holds
what the forms share:

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
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from models.layers import TemporalProbe

_PREPARED: dict[type[nn.Module], Callable] = {}


def prepares(network: type[nn.Module]):
    """Class decorator: file a prepared form under the class of network that it stands for."""

    def file_it(form):
        _PREPARED[network] = form
        return form

    return file_it


def prepare(network: nn.Module, tile: int | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
    """The inference form of a trained network: normalised frames [T, H, W] to logits [T, H, W].

    It holds its own copy of the weights, on the network's device, and always runs as in eval mode.
    A network that has no prepared form of its own runs as it is.

    Args:
        network: one of the registry.
        tile: side of the square tiles in pixels; by default what suits the device.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    form = _PREPARED.get(type(network), Plain)
    return form(network, tile)


class Plain:
    """The plain module behind the interface of the prepared ones."""

    def __init__(self, network: nn.Module, tile: int | None = None):
        self.network = network

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
    """The probe and the pointwise convolutions behind it, on a tile: [T, C, P] to [O, T P]."""

    def __init__(self, probe: TemporalProbe, *layers: tuple[nn.Conv3d, nn.BatchNorm3d]):
        scale, shift = scale_and_shift(probe.norm1)
        each = len(scale) // len(probe.QK_heads)  # channels a head
        weight = torch.stack([h.weight for h in probe.QK_heads]).repeat_interleave(each, dim=0)
        bias = torch.stack([h.bias for h in probe.QK_heads]).repeat_interleave(each, dim=0)
        maps = scale[:, None, None] * weight.double() / math.sqrt(probe.seqlen)
        self.maps = maps.float()  # [C, T, T]
        self.bias = (scale[:, None] * bias.double() + shift[:, None]).float()[..., None]
        layers = (probe.conv[:2], *layers)
        self.layers = [[m.float() for m in pointwise_matrix(*layer)] for layer in layers]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.baddbmm(self.bias, self.maps, x.transpose(0, 1)).clamp_min_(0)  # [C, T, P]
        x = x.flatten(1)
        for matrix, bias in self.layers:
            x = torch.addmm(bias, matrix, x).clamp_min_(0)
        return x  # [O, T P]


def tiles(length: int, side: int) -> list[tuple[int, int]]:
    """[start, stop) of tiles of nearly equal size, `side` at most."""
    count = -(-length // side)
    return [(i * length // count, (i + 1) * length // count) for i in range(count)]


def for_each(work: Callable, jobs: Iterable, device: torch.device) -> None:
    """Call work(job) for every job, as many at a time as torch has CPU threads."""

    @torch.inference_mode()  # this state is a thread's own
    def one(job):
        work(job)

    threads, jobs = torch.get_num_threads(), list(jobs)
    if device.type != "cpu" or threads == 1 or len(jobs) == 1:
        for job in jobs:
            one(job)
        return
    try:
        with ThreadPoolExecutor(threads, "tile", torch.set_num_threads, (1,)) as pool:
            for _ in pool.map(one, jobs):  # raises what a job raised
                pass
    finally:
        torch.set_num_threads(threads)  # the default of threads to come was changed as well
