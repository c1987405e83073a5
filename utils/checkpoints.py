"""Checkpoints: written whole, read without executing anything they hold."""

import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from utils.errors import InputError
from utils.files import write_bytes
from utils.runs import Run

try:
    from numpy._core.multiarray import scalar
except ImportError:  # NumPy 1
    from numpy.core.multiarray import scalar

# Released best_model.pth files hold one NumPy scalar, under the name that NumPy 1 used.
_ALLOWED = [np.dtype, np.dtypes.Float64DType, (scalar, "numpy.core.multiarray.scalar")]


def save_checkpoint(path: str | Path, state: dict) -> None:
    """Write a checkpoint; the file appears whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


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


def load_newest(run: Run, device="cpu") -> tuple[dict | None, Path | None, list[str]]:
    """The newest whole checkpoint of a run of ours that training can go on from.

    Tries last, previous, then the others from the latest epoch. Returns the state and its path
    (None where there is none), and what is wrong with the newer ones that were passed over.
    """
    newest = [run.checkpoint("last"), run.checkpoint("previous")]
    others = [p for p in run.checkpoints.glob("*_model.pth") if p not in newest]
    torn = []
    for path in newest + sorted(others, key=lambda p: p.stat().st_mtime, reverse=True):
        if not path.is_file():
            continue
        try:
            state = load_checkpoint(path, device)
            if "records" not in state or "optimizer_state_dict" not in state:
                raise InputError(f"{path}: holds weights only, nothing to go on from")
            return state, path, torn
        except InputError as error:
            torn.append(str(error))
    if torn:
        raise InputError(f"no whole checkpoint to go on from: {'; '.join(torn)}")
    return None, None, torn


def window_length(state: dict) -> int | None:
    """T, read off the shape of the temporal probe's maps; None if there is no probe."""
    for key, weight in state["model_state_dict"].items():
        if ".QK_heads." in key and weight.dim() == 2:
            return weight.shape[0]
    return None


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
