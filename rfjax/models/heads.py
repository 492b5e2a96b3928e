"""Heads: a layer of `rfjax.nn` from a backbone's features to class scores, with a bias.

    score          1x1 convolution
    conv3          3x3 convolution
    composition    3x3 convolution composed with a learned Gaussian
    dog            center-surround: two compositions, one subtracted
    gauss_deform   3x3 convolution, its spread a covariance regressed at every pixel
    dynamic        composition whose taps move and spread by a Gaussian regressed at every pixel
    deform         3x3 convolution, its taps displaced freely at every pixel
    stn            1x1 convolution of the map seen through one learned affinity
    static_deform  3x3 convolution, its taps displaced freely, the same at every pixel
    ccl            context contrast: dense minus dilated convolutions, then scores
    aspp           pyramid of dilated convolutions: v2, a sum of scores; v3, then scores

Options of a head are those of its layer, see `rfjax.nn`. Heads that normalise are called with
(features, train).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen

from rfjax import _checks, nn

HEADS = {
    "score": (nn.Conv, {"kernel_size": 1}),
    "conv3": (nn.Conv, {"kernel_size": 3}),
    "composition": (nn.ComposedConv, {}),
    "dog": (nn.DoGConv, {}),
    "gauss_deform": (nn.GaussianDeformableConv, {}),
    "dynamic": (nn.DynamicComposedConv, {}),
    "deform": (nn.DeformableConv, {}),
    "stn": (nn.AffineConv, {}),
    "static_deform": (nn.StaticDeformableConv, {}),
    "ccl": (nn.CCL, {}),
    "aspp": (nn.ASPP, {}),
}

# Options that a head has set otherwise than its layer, unless told.
_DEFAULTS = {"stn": {"kernel_size": 1}}

# Set by the network that a head is part of.
_RESERVED = ("features", "stride", "use_bias", "dtype", "axis_name", "norm", "name", "parent")


def head_options(head: str) -> tuple[str, ...]:
    """The names of a head's options.

    Example:
      >>> head_options("deform")
      ('dilation', 'kernel_init', 'kernel_size')

    Raises:
      ValueError: there is no such head.
    """
    layer, fixed = _checks.choose("head", head, HEADS)
    fields = {field.name for field in dataclasses.fields(layer) if field.init}
    return tuple(sorted(fields.difference(_RESERVED, fixed)))


def create_head(
    head: str,
    *,
    num_classes: int,
    options: Mapping[str, Any] | None = None,
    dtype: Any = None,
    axis_name: str | None = None,
    norm: Callable[..., linen.Module] | None = None,
) -> linen.Module:
    """The layer that a head is.

    Args:
      head: its name, see the module's docstring.
      num_classes: number of outputs.
      options: of the layer.
      dtype: what is computed in.
      axis_name: pmapped axis over which a head that normalises averages its statistics in training.
      norm: layer class with which such a head normalises; None for the layer's own.

    Raises:
      ValueError: there is no such head, or it has no such option.

    Example:
      >>> create_head("composition", num_classes=19, options={"sigma": 1.0}).sigma
      1.0

    Reference: "Blurring the Line between Structure and Learning", section 5 (single instances in
      the output stage).
    """
    allowed = head_options(head)
    options = dict(options or {})
    check_options(f"head {head!r}", options, allowed)
    layer, fixed = HEADS[head]
    chosen = fixed | _DEFAULTS.get(head, {}) | options
    if any(field.name == "axis_name" for field in dataclasses.fields(layer)):
        chosen["axis_name"] = axis_name
        if norm is not None:
            chosen["norm"] = norm
    return layer(features=num_classes, use_bias=True, dtype=dtype, **chosen)


def check_options(owner: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    """Raises if something was given that is not allowed."""
    unknown = sorted(set(given).difference(allowed))
    if unknown:
        choices = ", ".join(allowed) if allowed else "no options"
        raise ValueError(f"{owner} takes {choices}; got {', '.join(unknown)}")
