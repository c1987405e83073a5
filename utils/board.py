"""TensorBoard, for who has it: a run's numbers and a picture by epoch."""

from pathlib import Path

from utils.errors import InputError
from utils.plots import draw_frames


class Board:
    """Writes the event files of a run to a folder, going on after the epochs that are kept."""

    def __init__(self, folder: Path, epochs: int):
        self.writer = _writer()(folder, purge_step=epochs + 1)

    def show(self, record: dict, examples: list[dict], title: str) -> None:
        """The numbers of an epoch (a record of `epochs.jsonl`) and frames with their maps."""
        epoch = record["epoch"]
        for name, value in record.items():
            if value is not None:
                self.writer.add_scalar(name, value, epoch)
        if examples:
            self.writer.add_figure("frames", draw_frames(examples, title), epoch)
        self.writer.flush()


def needs_tensorboard() -> None:
    """InputError where TensorBoard is not installed."""
    _writer()


def _writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "--tensorboard: the package tensorboard is not installed: `pip install tensorboard`, "
            "or leave the option out"
        ) from None
    return SummaryWriter
