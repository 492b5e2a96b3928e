"""The convolutions of a run's backbone."""

from functools import partial

from ml_collections import ConfigDict

from rfjax import nn
from rfjax.training import config as configs


def convolutions(config: ConfigDict) -> nn.Selection | None:
    """What `rfjax.models.create` takes as `conv`: compositions where the config names them.

    Args:
        config: of a run; `model.composed.patterns` are those of `rfjax.nn.select`, and the rest of
            `model.composed` are the options of `rfjax.nn.ComposedConv`.

    Returns:
        A selection, or None without patterns: all convolutions are plain.

    Example:
        >>> from rfjax.training.config import base
        >>> config = base()
        >>> config.model.composed.patterns = ("backbone/*/conv2",)
        >>> config.model.composed.sigma = 1.0
        >>> convolutions(config).layer.keywords
        {'sigma': 1.0}
    """
    options = configs.options(config.model.composed)
    patterns = options.pop("patterns")
    if not patterns:
        return None
    return nn.select(patterns, partial(nn.ComposedConv, **options))
