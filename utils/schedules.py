"""The optimiser, its learning rate as a function of where training stands (nothing of a schedule
has to be restored), and the running average of the weights."""

import math

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

FLOOR = 1e-5  # the published schedule never goes below
RISE = 0.3  # share of all steps over which one_cycle goes up
SCHEDULES = ("step", "one_cycle")
OPTIMIZERS = ("Adam", "SGD")


def build_optimizer(
    name: str, network: nn.Module, rate: float, decay: float
) -> torch.optim.Optimizer:
    """One of OPTIMIZERS as published: Adam, or SGD with momentum 0.9, and weight decay."""
    settings = {"lr": rate, "weight_decay": decay}
    if name == "SGD":
        return torch.optim.SGD(network.parameters(), momentum=0.9, **settings)
    return torch.optim.Adam(network.parameters(), betas=(0.9, 0.999), **settings)


def build_average(network: nn.Module, decay: float) -> AveragedModel:
    """The exponential running average of a network's weights and running statistics.

    After n steps the decay is (1 + n) / (10 + n) while that is less than `decay`, so that the
    weights of the first steps are soon forgotten (the habit of TensorFlow's average).
    """

    def update(averaged: list, current: list, count: torch.Tensor) -> None:
        n = float(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, count)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def learning_rate(
    schedule: str, peak: float, epoch: int, done: float, *, step_size: int, decay: float
) -> float:
    """The learning rate at an epoch (from 0) when a share `done` (0 to 1) of all steps is behind.

    `step`: peak x decay every step_size epochs, not below 1e-5 (published). `one_cycle`: up from
    peak / 25 over the first 30 % of the steps, then down to nearly 0, both as half a cosine
    (Smith and Topin 2018).
    """
    if schedule == "step":
        return max(peak * decay ** (epoch // step_size), FLOOR)
    if done < RISE:
        start, stop, part = peak / 25, peak, done / RISE
    else:
        start, stop, part = peak, peak / 25e4, (done - RISE) / (1 - RISE)
    return stop + (start - stop) * (1 + math.cos(math.pi * part)) / 2
