"""Runs: the folder of one training, ours or a released one.

    options.yaml          resolved options (ours)
    checkpoints/          best_model.pth, last_model.pth, previous_model.pth, epoch_N_model.pth
    logs/<model>.txt      the log; its stem names the model
    epochs.jsonl          one line an epoch
    training.png          loss and IoU by epoch
    summary.json          where the time went
    tensorboard/          with --tensorboard

Released runs hold checkpoints, logs and evaluation logs only; their name says the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from utils.errors import InputError, nearest
from utils.files import write_text
from utils.options import read_yaml

# Options of one command line: a run that goes on may have another place, or another GPU.
PASSING = ("resume", "log_dir", "savepath", "config", "debug", "gpu")

_NAME = re.compile(
    r"(?P<dataset>.+)__(?P<time>\d{4}-\d\d-\d\d_\d\d-\d\d(?:-\d+)?)__"
    r"(?P<loss>[^_]+)_(?P<model>.+?)_DataL(?P<seqlen>\d+)(?:_.*)?"
)


@dataclass(frozen=True)
class Run:
    """A run folder; what it says of itself comes from its options, else from its name."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def checkpoint(self, kind: str | int = "best") -> Path:
        """Path of `best`, `last` or `previous`, or of epoch N (counted from 1)."""
        stem = f"epoch_{kind}" if isinstance(kind, int) else kind
        return self.checkpoints / f"{stem}_model.pth"

    def options(self) -> dict:
        """The resolved options it was trained with; empty for a released run."""
        path = self.folder / "options.yaml"
        saved = read_yaml(path) if path.is_file() else {}
        return {key: value for key, value in saved.items() if key not in PASSING}

    def save_options(self, options: dict) -> list[str]:
        """Write the resolved options; a line for each that differs from those so far."""
        kept = {
            key: str(value) if isinstance(value, Path) else value
            for key, value in options.items()
            if key not in PASSING
        }
        before = self.options()
        write_text(self.folder / "options.yaml", yaml.safe_dump(kept, sort_keys=False))
        return [
            f"--{key} is now {kept[key]}, it was {before[key]}"
            for key in kept
            if key in before and kept[key] != before[key]
        ]

    @property
    def model(self) -> str | None:
        """The model's name: from the options, the run's name, or the stem of its log."""
        logs = sorted((self.folder / "logs").glob("*.txt"))
        if not isinstance(self.options().get("model", ""), str):
            raise InputError(f"{self.folder / 'options.yaml'}: `model` is no name")
        return (
            self.options().get("model") or self._part("model") or (logs[0].stem if logs else None)
        )

    @property
    def dataset(self) -> str | None:
        """The name of the data set it was trained on, as in its folder's name."""
        return self._part("dataset")

    def _part(self, part: str) -> str | None:
        match = _NAME.fullmatch(self.name)
        return match[part] if match else None


def find_run(logpath: str | Path, name: str) -> Run:
    """The run at LOGPATH/NAME or LOGPATH/sem_seg/NAME, or at NAME if that is a path to one.

    Raises InputError, with the nearest run, if there is none.
    """
    name = str(name).rstrip("/")
    root = Path(logpath)
    for folder in (root / name, root / "sem_seg" / name, Path(name)):
        if (folder / "checkpoints").is_dir():
            return Run(folder.absolute())
    there = [
        p.parent.name for p in [*root.glob("*/checkpoints"), *root.glob("sem_seg/*/checkpoints")]
    ]
    guess = nearest(name, there)
    hint = f"did you mean {guess!r}?" if guess else "train one, or name the folder that holds runs"
    raise InputError(f"no run {name!r} with checkpoints under {root} or {root / 'sem_seg'}; {hint}")


def create_run(
    root: str | Path, name: str | None, dataset: str, loss: str, model: str, T: int
) -> Run:
    """A fresh run folder under `root`, made with its checkpoints and logs folders.

    Without a name: `<dataset>__<YYYY-MM-DD_HH-MM>__<loss>_<model>_DataL<T>`, numbered after the
    minute where that is taken.
    """
    if name and str(name) not in {Path(name).name} - {"", ".."}:
        raise InputError(f"--log_dir {name}: expected a plain name, of a folder below {root}")
    minute = datetime.now().strftime("%Y-%m-%d_%H-%M")
    for attempt in range(1, 1000):
        time = minute if attempt == 1 else f"{minute}-{attempt}"
        folder = Path(root) / (name or f"{dataset}__{time}__{loss}_{model}_DataL{T}")
        # A training killed before its options were written leaves empty folders.
        if name and (folder.is_file() or any((folder / "checkpoints").glob("*.pth"))):
            raise InputError(f"{folder}: is not a run that can be continued; choose another name")
        try:
            folder.mkdir(parents=True, exist_ok=bool(name))
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(
                f"{folder}: cannot be made ({error.strerror}); see --savepath"
            ) from None
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
        return Run(folder.absolute())
    raise InputError(f"{root}: a thousand runs in one minute")
