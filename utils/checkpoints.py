"""Checkpoints: written whole, read without executing anything they hold."""

import io
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from utils.errors import InputError
from utils.files import written_whole
from utils.runs import Run

try:
    from numpy._core.multiarray import scalar
except ImportError:  # NumPy 1
    from numpy.core.multiarray import scalar

LONGEST_WINDOW = 10_000  # frames; a hostile file could ask for terabytes

# Released best_model.pth files hold one NumPy scalar, under the name that NumPy 1 used; saved
# again, it has that of NumPy 2.
_NAMES = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_ALLOWED = [np.dtype, np.dtypes.Float64DType, *((scalar, name) for name in _NAMES)]


def save_checkpoint(path: str | Path, state: dict, previous: str | Path | None = None) -> None:
    """Write a checkpoint; the file appears whole or not at all.

    What stood at `path` takes the name `previous`, if one is given, once the new one is written.
    """
    path, buffer = Path(path), io.BytesIO()
    torch.save(state, buffer)
    with written_whole(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
        if previous and path.is_file():
            path.replace(previous)


def load_checkpoint(path: str | Path, device="cpu") -> dict:
    """Read a checkpoint of ours or a released one, weights and plain values only.

    Holds at least `model_state_dict` (name to tensor) and `epoch` (counted from 0). Raises
    InputError for a missing, truncated or foreign file, and for one that would execute code.
    """
    path = Path(path)
    if not path.is_file():
        others = ", ".join(sorted(p.name for p in path.parent.glob("*.pth"))) or "none"
        raise InputError(f"{path}: no such checkpoint; beside it there are: {others}")
    _check_content(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the protocol of foreign pickles
            state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: refused: not a checkpoint of weights alone; to load more could execute code"
        ) from error
    except Exception as error:  # torch raises a dozen types for files that are torn or foreign
        raise InputError(f"{path}: not a checkpoint, or a truncated one") from error
    _check_fields(path, state)
    return state


def _check_content(path: Path) -> None:
    """InputError if a part of a whole file is not what was written; torch does not look."""
    if not zipfile.is_zipfile(path):  # torn or foreign: torch.load says so
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception:  # zipfile raises a handful of types
        damaged = "its index"
    if damaged:
        raise InputError(f"{path}: damaged: {damaged} is not what was written")


_NUMBER = (float, int)  # runs on a layout of whole numbers have been written with those
_FIELDS = {  # what a checkpoint may say besides its weights
    "epoch": int,
    "model": str,
    "dataset": str,
    "seqlen": int,
    "mean": _NUMBER,
    "std": _NUMBER,
    "best_iou": _NUMBER,
    "records": list,
    "optimizer_state_dict": dict,
}
_AVERAGED = {"raw_state_dict": dict, "averaged": int}  # beside the average of the weights
_MORE = {"validation": dict}  # the counts of the epoch's; training can go on without


def _check_fields(path: Path, state) -> None:
    weights = state.get("model_state_dict") if isinstance(state, dict) else None
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and torch.is_tensor(w) and w.layout == torch.strided
        for key, w in weights.items()
    ):
        raise InputError(
            f"{path}: holds no `model_state_dict` of tensors; not a checkpoint of ours"
        )
    state.setdefault("epoch", 0)
    for key, kind in (_FIELDS | _AVERAGED | _MORE).items():
        if key in state and not isinstance(state[key], kind):
            wanted = "a number" if kind is _NUMBER else kind.__name__
            raise InputError(f"{path}: `{key}` is {state[key]!r:.40}; expected {wanted}")
    if not 0 < state.get("seqlen", 1) <= LONGEST_WINDOW:
        raise InputError(f"{path}: `seqlen` is {state['seqlen']}; expected 1 to {LONGEST_WINDOW}")


def load_weights(network: nn.Module, state: dict, name: str, path: str | Path) -> None:
    """Put a checkpoint's weights into a network, strictly.

    Raises InputError, saying what differs, if they are those of another model or another T, or
    hold NaN.
    """
    weights, wanted = state["model_state_dict"], network.state_dict()
    missing, surplus = wanted.keys() - weights.keys(), weights.keys() - wanted.keys()
    reshaped = [k for k in wanted.keys() & weights.keys() if wanted[k].shape != weights[k].shape]
    if missing or surplus or reshaped:
        example = sorted(missing or surplus or reshaped)[0]
        raise InputError(
            f"{path}: not the weights of {name}: {len(missing)} tensors missing, "
            f"{len(surplus)} unknown, {len(reshaped)} of another shape (such as {example})"
        )
    if not all(torch.isfinite(w).all() and not w.is_complex() for w in weights.values()):
        raise InputError(f"{path}: the weights hold NaN, infinity or complex numbers")
    network.load_state_dict(weights)


def training_state(
    network: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None
) -> dict:
    """What a checkpoint holds of a network in training.

    `model_state_dict` is what is used later: the average of the weights where one is kept, with
    the raw ones beside it.
    """
    if average is None:
        weights = {"model_state_dict": network.state_dict()}
    else:
        weights = {
            "model_state_dict": average.module.state_dict(),
            "raw_state_dict": network.state_dict(),
            "averaged": int(average.n_averaged),
        }
    return {**weights, "optimizer_state_dict": optimizer.state_dict()}


def restore_training(
    state: dict, path: Path, name: str, network: nn.Module, optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
) -> None:  # fmt: skip
    """Take up what `training_state` gave; `name` is the model's. Raises as `load_weights` does."""
    if average is None:
        load_weights(network, state, name, path)
    else:
        load_weights(average.module, state, name, path)
        load_weights(network, {"model_state_dict": state["raw_state_dict"]}, name, path)
        average.n_averaged.fill_(state["averaged"])
    optimizer.load_state_dict(state["optimizer_state_dict"])


def load_newest(
    run: Run, averaged: bool = False
) -> tuple[dict | None, Path | None, dict[Path, str]]:
    """The newest whole checkpoint of a run of ours that training can go on from.

    With `averaged` it has to hold the raw weights beside their average.

    Tries last, previous, epoch N from the latest, best. Returns the state and its path (None where
    there is none), and the newer ones that were passed over with what is wrong with them.
    """
    numbered = (re.fullmatch(r"epoch_(\d+)_model", p.stem) for p in run.checkpoints.glob("*.pth"))
    epochs = sorted((int(match[1]) for match in numbered if match), reverse=True)
    torn: dict[Path, str] = {}
    for path in map(run.checkpoint, ("last", "previous", *epochs, "best")):
        if not path.is_file():
            continue
        try:
            state = load_checkpoint(path)
            needed = _FIELDS | _AVERAGED if averaged else _FIELDS
            missing = [key for key in needed if key not in state]
            if missing:
                raise InputError(f"{path}: cannot go on from it: it lacks {', '.join(missing)}")
            return state, path, torn
        except InputError as error:
            torn[path] = str(error)
    if torn:
        raise InputError(f"no whole checkpoint to go on from: {'; '.join(torn.values())}")
    return None, None, torn


def leave_aside(path: Path, reason: str) -> str:
    """Rename a checkpoint that cannot be used; a line about it."""
    path.rename(path.with_suffix(".torn"))
    return f"torn, left aside as {path.stem}.torn: {reason}"


def mend_best(run: Run, newest: dict) -> tuple[bool, list[str]]:
    """See that the best checkpoint is whole; if it is not, the newest state takes its place where
    that is the best one. Returns whether there is a best one now, and lines to tell."""
    path, told = run.checkpoint("best"), []
    try:
        load_checkpoint(path)
        return True, []
    except InputError as error:
        told = [leave_aside(path, str(error)) if path.is_file() else str(error)]
    if newest.get("class_avg_iou") != newest["best_iou"]:
        return False, told
    save_checkpoint(path, newest)
    return True, [*told, f"epoch {newest['epoch'] + 1} is the best one and takes its place"]
