"""The networks by name: `@register_network` adds one, `build_network` makes one."""

from collections.abc import Callable

from torch import nn

from utils.errors import unknown_name

_NETWORKS: dict[str, Callable[..., nn.Module]] = {}


def register_network(name: str):
    """Class decorator: file a network under the name that `--model` takes."""

    def file_it(network):
        _NETWORKS[name] = network
        return network

    return file_it


def network_names() -> list[str]:
    """The names that `--model` takes, in the order of registration."""
    return list(_NETWORKS)


def build_network(name: str, seqlen: int = 40) -> nn.Module:
    """A network with fresh weights, [B, 1, T, H, W] in and logits [B, T, H, W] out.

    Raises InputError with the nearest name if `name` is not registered.
    """
    if name not in _NETWORKS:
        raise unknown_name("model", name, _NETWORKS)
    return _NETWORKS[name](seqlen=seqlen)
