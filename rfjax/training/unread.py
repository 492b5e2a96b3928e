"""Keys of a config that nothing reads, because of what other keys say; without JAX."""

from collections.abc import Callable, Mapping
from typing import Any

# Keys that nothing reads unless another key holds what is said here, in a test and in words.
_POSITIVE_DECAY = ("optimizer.weight_decay", lambda v: v > 0, "above 0")
_CACHE = ("data.cache.map", bool, "the name of a map")
_FILTERS = ("model.backbone_options.context", lambda v: v == "lsdfn", "lsdfn")
_MOVED = lambda section: (f"{section}.resample", lambda v: v is not False, "True")
CONDITIONS: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    "optimizer.poly_power": ("optimizer.schedule", lambda v: v == "poly", "poly"),
    "optimizer.rate_in_momentum": ("optimizer.rule", lambda v: v == "momentum", "momentum"),
    "optimizer.accumulation": ("optimizer.accumulate", lambda v: v > 1, "at least 2"),
    "optimizer.covariance_decay": _POSITIVE_DECAY,
    "optimizer.decays": _POSITIVE_DECAY,
    "task.cell": ("task.sampling", lambda v: v is not None and v < 1, "below 1"),
    "data.cache.dir": _CACHE,
    "data.cache.dtype": _CACHE,
    "model.anew": ("model.weights", bool, "a file or a run"),
    "model.backbone_options.samples": _FILTERS,
    "model.backbone_options.sample_stride": _FILTERS,
    **{
        f"{section}.{key}": _MOVED(section)
        for section in ("model.head_options", "model.composed")
        for key in ("mode", "rate")
    },
}


def unread(flat: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The keys of a flat config that nothing reads: (the key that decides on it, its right value).

    Example:
        >>> unread({"optimizer.schedule": "cosine", "optimizer.poly_power": 2.0})
        {'optimizer.poly_power': ('optimizer.schedule', 'poly')}
    """
    return {
        key: (other, words)
        for key, (other, holds, words) in CONDITIONS.items()
        if other in flat and not holds(flat[other])
    }
