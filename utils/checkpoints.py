"""Checkpoints: written whole, read without executing anything they hold."""

import io
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from utils.errors import InputError
from utils.files import written_whole
from utils.runs import Run

try:
    from numpy._core.multiarray import scalar
except ImportError:  # NumPy 1
    from numpy.core.multiarray import scalar

# Released best_model.pth files hold one NumPy scalar, under the name that NumPy 1 used.
_ALLOWED = [np.dtype, np.dtypes.Float64DType, (scalar, "numpy.core.multiarray.scalar")]


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
        raise InputError(f"{path}: no such checkpoint")
    try:
        with torch.serialization.safe_globals(_ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the protocol of foreign pickles
            state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error) or "global" in str(error):
            raise InputError(
                f"{path}: refused: it holds more than weights and could execute code"
            ) from error
        raise InputError(f"{path}: not a checkpoint ({_reason(error)})") from error
    except Exception as error:  # torch raises a dozen types for files that are torn or foreign
        raise InputError(
            f"{path}: not a checkpoint, or a truncated one ({_reason(error)})"
        ) from error
    weights = state.get("model_state_dict") if isinstance(state, dict) else None
    if not isinstance(weights, dict) or not all(torch.is_tensor(w) for w in weights.values()):
        raise InputError(
            f"{path}: holds no `model_state_dict` of tensors; not a checkpoint of ours"
        )
    if not isinstance(state.setdefault("epoch", 0), int):
        raise InputError(f"{path}: `epoch` is {state['epoch']!r}; expected a whole number")
    return state


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
    if not all(torch.isfinite(w).all() for w in weights.values()):
        raise InputError(f"{path}: the weights hold NaN or infinity")
    network.load_state_dict(weights)


def load_newest(run: Run, device="cpu") -> tuple[dict | None, Path | None, dict[Path, str]]:
    """The newest whole checkpoint of a run of ours that training can go on from.

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
            state = load_checkpoint(path, device)
            if "records" not in state or "optimizer_state_dict" not in state:
                raise InputError(f"{path}: holds weights only, nothing to go on from")
            return state, path, torn
        except InputError as error:
            torn[path] = str(error)
    if torn:
        raise InputError(f"no whole checkpoint to go on from: {'; '.join(torn.values())}")
    return None, None, torn


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
