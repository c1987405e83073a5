"""How long a training step of DeepPro takes on this machine, forward and backward:

    python -m models.step_benchmark --batch_size 4 --patch_size 64

The rows are the published arithmetic (difference kernels built tap by tap, the probe's heads one
after the other), the plain module, and the form that train.py uses on a CPU. All have the same
weights and clips, take turns, and keep freed memory (`utils.devices`).
"""

import argparse
import copy
import math
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

from models import build_network, in_tiles
from models.layers import TemporalDifferenceConv3d, TemporalProbe
from utils.devices import set_up_arithmetic
from utils.errors import run_command
from utils.logs import progress


class PublishedConvolution(nn.Module):
    """A temporal difference convolution as published."""

    def __init__(self, conv: TemporalDifferenceConv3d):
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        w = self.conv.weight  # [O, I, kT, 1, 1]
        kernel, last = torch.zeros_like(w), w.shape[2] - 1
        for t in range(last + 1):
            before, after = w[:, :, max(t - 1, 0)], w[:, :, min(t + 1, last)]
            kernel[:, :, t] = 2 * w[:, :, t] - before - after
        conv = self.conv
        return F.conv3d(x, kernel, conv.bias, conv.stride, conv.padding, conv.dilation)


class PublishedProbe(nn.Module):
    """The temporal probe as published."""

    def __init__(self, probe: TemporalProbe):
        super().__init__()
        self.probe = probe

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        probe = self.probe
        profiles = x.permute(0, 1, 3, 4, 2) / math.sqrt(probe.seqlen)  # [B, C, H, W, T]
        y, each = torch.zeros_like(profiles), x.shape[1] // len(probe.QK_heads)
        for i, head in enumerate(probe.QK_heads):
            channels = slice(i * each, (i + 1) * each)
            y[:, channels] = head(profiles[:, channels])
        return probe.conv(F.relu(probe.norm1(y.permute(0, 1, 4, 2, 3))))


def published(network: nn.Module) -> nn.Module:
    """A copy of a DeepPro with the published arithmetic; its parameters come in the same order."""
    forms = {TemporalDifferenceConv3d: PublishedConvolution, TemporalProbe: PublishedProbe}
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) in forms:
                setattr(module, name, forms[type(child)](child))
    return network


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch_size", type=int, default=4, help="clips in a step (%(default)s)")
    parser.add_argument("--patch_size", type=int, default=64, help="side of a clip (%(default)s)")
    parser.add_argument("--seqlen", type=int, default=40, help="T, its frames (%(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="steps of each (%(default)s)")
    options = parser.parse_args(argv)
    for name, least in (("batch_size", 1), ("patch_size", 4), ("seqlen", 1), ("repeats", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name} {getattr(options, name)}: at least {least}")
    return options


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    set_up_arithmetic()
    torch.manual_seed(0)
    network = build_network("DeepPro", seqlen=options.seqlen).train()
    forms = {
        "published": published(network),
        "plain": copy.deepcopy(network),
        "tiles": in_tiles(network),
    }
    frames = torch.randn(
        options.batch_size, 1, options.seqlen, options.patch_size, options.patch_size
    )
    seconds = {name: [] for name in forms}
    with progress(len(forms) * (options.repeats + 1), "step", "timing") as bar:
        for i in range(options.repeats + 1):
            for name, form in forms.items():
                form.zero_grad()
                start = time.perf_counter()
                form(frames).sigmoid().mean().backward()
                if i:  # the first fetches memory
                    seconds[name].append(time.perf_counter() - start)
                bar.update()
    if forms["tiles"].tile_for(frames) is None:
        print(f"no tiles fit {list(frames.shape)}: the plain module did the last row")
    median = {name: statistics.median(each) for name, each in seconds.items()}
    print(f"{'path':10}{'ms a step':>10}{'least':>8}{'x published':>13}")
    for name, each in seconds.items():
        ratio = median["published"] / median[name]
        print(f"{name:10}{median[name] * 1e3:10.0f}{min(each) * 1e3:8.0f}{ratio:13.2f}")


if __name__ == "__main__":
    run_command(main)
