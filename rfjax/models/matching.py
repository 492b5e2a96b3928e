"""Which network weights are of, by names and shapes."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rfjax.models import registry, torch_import

# Of a head; whatever it is, the backbone tells the network.
_HEADS = ("fc.", "seg.", "head.", "fc8.", "dla_up.")


class Match(NamedTuple):
    """How well weights fit a network: it wants `wanted` arrays, of which `found` are there, and
    `extra` others besides."""

    name: str
    found: int
    wanted: int
    extra: int

    @property
    def share(self) -> float:
        """1 where all fit and none is left over."""
        return self.found / max(self.wanted + self.extra, 1)


@functools.cache
def _expected(name: str) -> dict[str, tuple[int, ...]]:
    return {entry: shape for entry, (_, shape) in torch_import.expected(name).items()}


def nearest(state_dict: Mapping[str, Any]) -> Match:
    """The network that weights fit best.

    Args:
        state_dict: arrays by name, as `rfjax.models.import_torch` takes them.

    Example:
        >>> weights = {"conv1.weight": np.zeros((64, 3, 7, 7)), "fc.bias": np.zeros(1000)}
        >>> nearest(weights).found
        1
    """
    names = [n for n in registry.names() if isinstance(_built(n), registry.Importable)]
    return max((match(name, state_dict) for name in names), key=lambda one: one.share)


def _built(name: str) -> Any:
    return registry.architecture(name)


def match(name: str, state_dict: Mapping[str, Any]) -> Match:
    """How well weights fit one network."""
    wanted = _expected(name)
    try:
        given = torch_import.canonical(name, state_dict)
    except ValueError:  # the names are another network's
        return Match(name, 0, len(wanted), len(state_dict))
    shapes = {e: np.shape(a) for e, a in given.items() if not e.startswith(_HEADS)}
    found = sum(shapes.get(entry) == shape for entry, shape in wanted.items())
    return Match(name, found, len(wanted), len(shapes) - found)
