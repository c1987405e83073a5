"""Learning rates as a function of where training stands, so that nothing has to be restored."""

import math

FLOOR = 1e-5  # the published schedule never goes below
RISE = 0.3  # share of all steps over which one_cycle goes up
SCHEDULES = ("step", "one_cycle")


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
