"""What the steps of an epoch add up to."""

import numpy as np
import torch

from utils.distributed import gather


class Tally:
    """Losses of the steps, and pixels for the IoU at one threshold."""

    def __init__(self):
        self.losses: list[float] = []
        self.both = self.either = 0

    def add(self, loss: float, positive: torch.Tensor, truth: torch.Tensor) -> None:
        """Count a step: its loss, what was found and what is there, bool of one shape."""
        self.losses.append(loss)
        self.both += int((positive & truth).sum())
        self.either += int((positive | truth).sum())

    def report(self) -> dict:
        """Mean loss and pixel IoU (None where there are no pixels to count) of all processes."""
        losses, both, either = zip(*gather((self.losses, self.both, self.either)), strict=True)
        iou = sum(both) / sum(either) if sum(either) else None
        return {"loss": float(np.mean(losses)), "train_iou": iou}
