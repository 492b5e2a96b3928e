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
    pad            3x3 convolution, its dilation chosen of a few at every pixel
    adadr          3x3 convolution, its dilation a real number regressed at every pixel
    inflated_conv  3x3 convolution of the map enlarged by a learned factor, and brought back
    ccl            context contrast: dense minus dilated convolutions, then scores
    aspp           pyramid of dilated convolutions: v2, a sum of scores; v3, then scores
    deeplab_v3_plus  the pyramid v3, enlarged and merged with the map of stride 4, then scores
    inflated       scores of a map enlarged by a learned factor, of one path or several
    lsdfn          filters of every pixel, over samples at four distances, a sum of scores
    lsdfn_concat   1x1 scores of the map and of filters of every pixel beside it
    classify       mean over the map, then a dense layer: scores of the whole image, [N, K]
    fcn_32s        1x1 scores of the map of stride 32, enlarged, zero at first
    fcn_16s, fcn_8s               the same, fused with those of finer strides, down to this one
    fcn_pool3, fcn_pool4, fcn_pool5   1x1 scores of a map of this name, enlarged: truncated networks

Options of a head are those of its layer, see `rfjax.nn`. Heads that normalise are called with
(features, train). More heads are made known by `register_head`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flax import linen

from rfjax import _checks, _names, nn
from rfjax._registry import Registry
from rfjax.models.concatenation import FilteredConcatenation
from rfjax.models.decoders import Classify, Decoder, Head, Heads
from rfjax.models.deeplab import DeepLabV3Plus
from rfjax.models.fcn import FCN
from rfjax.models.inflated import InflatedPaths
from rfjax.models.inflated_conv import InflatedConv

# What a head is: a class of layers or of decoders, and those of its options that are fixed.
Entry = tuple[type[linen.Module], dict[str, Any]]

# What a head without finer maps has no use for.
_ALONE = {"at_once": False, "learn_upsampling": False}

_LAYERS: dict[str, Entry] = {
    "score": (nn.Conv, {"kernel_size": 1}),
    "conv3": (nn.Conv, {"kernel_size": 3}),
    "composition": (nn.ComposedConv, {}),
    "dog": (nn.DoGConv, {}),
    "gauss_deform": (nn.GaussianDeformableConv, {}),
    "dynamic": (nn.DynamicComposedConv, {}),
    "deform": (nn.DeformableConv, {}),
    "stn": (nn.AffineConv, {}),
    "static_deform": (nn.StaticDeformableConv, {}),
    "pad": (nn.AdaptiveDilationConv, {"dilation": 1}),
    "adadr": (nn.ContinuousDilationConv, {}),
    "inflated_conv": (InflatedConv, {}),
    "ccl": (nn.CCL, {}),
    "aspp": (nn.ASPP, {}),
    "deeplab_v3_plus": (DeepLabV3Plus, {}),
    "inflated": (InflatedPaths, {}),
    "lsdfn": (nn.LSDFN, {}),
    "lsdfn_concat": (FilteredConcatenation, {}),
    "classify": (Classify, {}),
    "fcn_32s": (FCN, {"finest": 32, "streams": (), **_ALONE}),
    "fcn_16s": (FCN, {"finest": 16, "streams": ()}),
    "fcn_8s": (FCN, {"finest": 8, "streams": ()}),
    **{
        f"fcn_{name}": (FCN, {"finest": stride, "streams": (name,), **_ALONE})
        for name, stride in (("pool3", 8), ("pool4", 16), ("pool5", 32))
    },
}
HEADS: Registry[Entry] = Registry("head", _LAYERS, _names.HEADS)

# Options that a head has set otherwise than its layer, unless told.
_DEFAULTS = {"stn": {"kernel_size": 1}}

# Set by the network that a head is part of; and groups, since every class reads all channels.
_RESERVED = (
    "features", "stride", "use_bias", "dtype", "groups", "axis_name", "norm", "name", "parent",
)  # fmt: skip


def register_head(
    name: str,
    layer: type[linen.Module],
    *,
    fixed: Mapping[str, Any] | None = None,
    options: Iterable[str] = (),
) -> None:
    """Makes a head known by name, to `create` and to configs.

    Args:
      name: that is not taken.
      layer: class of layers with the constructor of `rfjax.nn`, which read the last map; or a class
        of decoders, see `rfjax.models.decoders.Decoder`. Of features (the number of classes),
        use_bias (True), dtype, axis_name and norm it is given those that it has fields for.
      fixed: options of the layer that the head has set.
      options: names of the other options that a config may set.

    Raises:
      TypeError: the name is no text, or `layer` is no class of Linen modules.
      ValueError: the name is taken, or the layer has no such option.

    Example, which is run once before a program trains or loads the network:

        models.register_head("conv5", nn.Conv, fixed={"kernel_size": 5}, options=("dilation",))
        models.create("resnet_18", num_classes=2, head="conv5", head_options={"dilation": 2})
    """
    if not (isinstance(layer, type) and issubclass(layer, linen.Module)):
        raise TypeError(f"a head is a class of Linen modules; got {layer!r}")
    fixed, options = dict(fixed or {}), tuple(options)
    check_options(f"head {name!r}", [*fixed, *options], tuple(sorted(_fields(layer))))
    entry = (layer, fixed)
    HEADS.register(name, HEADS[name] if HEADS.get(name) == entry else entry, options)


def _fields(layer: type[linen.Module]) -> set[str]:
    """The names of what a layer is constructed with."""
    return {field.name for field in dataclasses.fields(layer) if field.init}


def head_options(head: str) -> tuple[str, ...]:
    """The names of a head's options.

    Example:
      >>> head_options("deform")
      ('dilation', 'kernel_init', 'kernel_size', 'modulated', 'offset_groups')

    Raises:
      ValueError: there is no such head.
    """
    _checks.choose("head", head, HEADS)
    layer, fixed = HEADS[head]
    return tuple(sorted(_fields(layer).difference(_RESERVED, fixed)))


def create_head(
    head: str,
    *,
    num_classes: int,
    options: Mapping[str, Any] | None = None,
    dtype: Any = None,
    axis_name: str | None = None,
    norm: Callable[..., linen.Module] | None = None,
) -> linen.Module:
    """The layer that a head is, or its decoder.

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
    given = {"features": num_classes, "use_bias": True, "dtype": dtype, "axis_name": axis_name}
    if norm is not None:
        given["norm"] = norm
    fields = _fields(layer)
    given = {name: value for name, value in given.items() if name in fields}
    return layer(**given, **(fixed | _DEFAULTS.get(head, {}) | options))


def create_decoder(head: str, num_classes: int | Mapping[str, int], **options: Any) -> Decoder:
    """What a network has as its head.

    Args:
      head: its name.
      num_classes: number of outputs; or several by name, for as many heads.
      **options: the others of `create_head`.

    Raises:
      TypeError, ValueError: as in `create_head`, or a name of a head cannot be one.

    Example:
      >>> several = create_decoder("score", {"semantic": 33, "geometric": 3})
      >>> several.heads["geometric"].layer.features
      3
    """
    if not isinstance(num_classes, Mapping):
        number = _checks.integer("num_classes", num_classes)
        layer = create_head(head, num_classes=number, **options)
        return layer if isinstance(layer, Decoder) else Head(layer)
    for name in num_classes:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"num_classes: the name of a head is an identifier; got {name!r}")
    if not num_classes:
        raise ValueError("num_classes must be a number or several by name; got none")
    return Heads({name: create_decoder(head, n, **options) for name, n in num_classes.items()})


def check_options(owner: str, given: Iterable[str], allowed: tuple[str, ...]) -> None:
    """Raises if something was given that is not allowed."""
    unknown = sorted(set(given).difference(allowed))
    if unknown:
        choices = ", ".join(allowed) if allowed else "no options"
        raise ValueError(f"{owner} takes {choices}; got {', '.join(unknown)}")
