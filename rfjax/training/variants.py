"""Variants of a config, as in `--config=file.py:variant`: a model, a head, or both."""

from ml_collections import ConfigDict

from rfjax import _names
from rfjax._faults import ConfigError


def apply(config: ConfigDict, variant: str) -> ConfigDict:
    """`config` with the model and the head that `variant` names, locked.

    Args:
        config: its `model.name` and `model.head` are the defaults.
        variant: "", or names of a model and a head in any order, joined by "+".

    Raises:
        ConfigError: for a name that is neither, with a list of both; or two of one kind.

    Example:
        >>> from rfjax.training.config import base
        >>> config = apply(base(), "composition+resnet_tiny")
        >>> config.model.name, config.model.head
        ('resnet_tiny', 'composition')
    """
    kinds = {"name": tuple(_names.NETWORKS), "head": tuple(_names.HEADS)}
    found: dict[str, str] = {}
    for part in filter(None, variant.split("+")):
        kind = next((kind for kind, names in kinds.items() if part in names), None)
        if kind is None:
            raise ConfigError(
                f"variant {variant!r}: {part!r} is no model ({', '.join(kinds['name'])}) "
                f"and no head ({', '.join(kinds['head'])})"
            )
        if kind in found:
            raise ConfigError(
                f"variant {variant!r} names both {found[kind]!r} and {part!r}; give one"
            )
        found[kind] = part
    for kind, name in found.items():
        config.model[kind] = name
    return config.lock()
