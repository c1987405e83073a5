"""The losses by name: `@register_loss` adds one, `build_loss` makes one."""

from torch import nn

from utils.errors import unknown_name

_LOSSES: dict[str, type[nn.Module]] = {}


def register_loss(name: str):
    """Class decorator: file a loss under the name that `--loss` takes."""

    def file_it(loss):
        _LOSSES[name] = loss
        return loss

    return file_it


def loss_names() -> list[str]:
    """The names that `--loss` takes."""
    return list(_LOSSES)


def build_loss(name: str) -> nn.Module:
    """A loss: logits and masks [B, T, H, W] to a scalar. InputError if `name` is unknown."""
    if name not in _LOSSES:
        raise unknown_name("loss", name, _LOSSES)
    return _LOSSES[name]()
