"""Networks by name."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import _checks, nn
from rfjax.models import dla, drn, heads, resnet
from rfjax.models.backbone import Architecture
from rfjax.models.segmentation import Segmenter
from rfjax.nn.selection import Recording

# Data from which a backbone is built. All have `stride`, `features`, `build` and, for the import of
# weights, `children` and `unread`.
Built = Architecture | dla.Aggregation

ARCHITECTURES: dict[str, Callable[..., Built]] = {
    **{f"resnet_{depth}": partial(resnet.resnet, depth) for depth in resnet.BLOCKS_AND_DEPTHS},
    "resnet_tiny": resnet.resnet_tiny,
    "dla_34": dla.dla_34,
    "dla_tiny": dla.dla_tiny,
    **{f"drn_a_{depth}": partial(drn.drn_a, depth) for depth in (18, 34, 50)},
    "drn_tiny": drn.drn_tiny,
    **{f"drn_c_{depth}": partial(drn.drn_c, depth) for depth in drn.C_FAMILY},
    **{f"drn_d_{depth}": partial(drn.drn_d, depth) for depth in drn.D_FAMILY},
}


def names() -> tuple[str, ...]:
    """The names of all networks.

    Example:
      >>> names()[:3]
      ('resnet_18', 'resnet_34', 'resnet_50')
    """
    return tuple(ARCHITECTURES)


def architecture(name: str, options: Mapping[str, Any] | None = None) -> Built:
    """What the network of this name is built of; an error lists the choices."""
    build = _checks.choose("model", name, ARCHITECTURES)
    options = dict(options or {})
    parameters = inspect.signature(build).parameters.values()
    allowed = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    heads.check_options(f"backbone {name!r}", options, allowed)
    return build(**options)


def create(
    name: str,
    *,
    num_classes: int,
    head: str = "score",
    head_options: Mapping[str, Any] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    conv: Callable[..., linen.Module] | nn.Selection | None = None,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
    remat: bool = False,
    norm: Callable[..., linen.Module] | None = None,
) -> Segmenter:
    """The segmentation network of this name.

    Args:
      name: one of `names()`.
      num_classes: number of classes K.
      head: score | conv3 | composition | dog | gauss_deform | dynamic | deform | stn |
        static_deform | ccl | aspp, see `rfjax.models.heads`.
      head_options: of the head's layer, as {"sigma": 1.0, "family": "diagonal"}.
      backbone_options: width, depth, output_stride of "resnet_tiny"; width, depth of "drn_tiny";
        transition of "drn_a_*"; down_ratio of "dla_34"; width, depth, down_ratio of "dla_tiny".
      conv: layer class, or a partial of one, for the backbone's 3x3 convolutions (not its stem),
        such as `functools.partial(rfjax.nn.ComposedConv, sigma=0.3)`; None for plain ones. Or, made
        by `rfjax.nn.select`, a selection of any of its convolutions by their paths.
      dtype: what is computed in, bfloat16 for instance. Parameters, batch statistics and logits
        are float32 always.
      axis_name: pmapped axis over which batch statistics are averaged in training, or None.
      remat: whether the activations inside blocks are computed again for the gradient, which
        costs time and saves memory.
      norm: layer class of every normalisation, with the constructor of `flax.linen.BatchNorm`; None
        for `rfjax.nn.BatchNorm`, whose running variance is PyTorch's, as the references of these
        networks were trained. `functools.partial(rfjax.nn.BatchNorm, unbiased=False)` is Flax's.
        The tree of variables is the same.

    Returns:
      A Linen module of (images [N, H, W, 3], train=False) that returns float32 logits
      [N, H, W, K]; with method="features", the map that the head reads. Its parameters lie under
      "backbone" and "head".

    Raises:
      ValueError: there is no such network, head or option, or there is no convolution at the path
        that a pattern of a selection names.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> model = create("resnet_tiny", num_classes=11, head="composition")
      >>> images = jnp.zeros([1, 30, 41, 3])
      >>> variables = model.init(jax.random.key(0), images)
      >>> model.apply(variables, images).shape
      (1, 30, 41, 11)
    """
    built = architecture(name, backbone_options)
    num_classes = _checks.integer("num_classes", num_classes)
    _checks.flag("remat", remat)
    _checks.float_dtype("dtype", dtype)
    conv = nn.Conv if conv is None else conv
    norm = nn.BatchNorm if norm is None else norm
    layer = heads.create_head(
        head,
        num_classes=num_classes,
        options=head_options,
        dtype=dtype,
        axis_name=axis_name,
        norm=norm,
    )

    def segmenter(conv: Callable[..., linen.Module] | nn.Selection) -> Segmenter:
        backbone = built.build(conv=conv, dtype=dtype, axis_name=axis_name, remat=remat, norm=norm)
        return Segmenter(backbone, layer, stride=built.stride)

    if isinstance(conv, nn.Selection):
        _check_selection(conv, segmenter)
    return segmenter(conv)


def _check_selection(conv: nn.Selection, segmenter: Callable[..., Segmenter]) -> None:
    """Raises if a pattern matches no convolution of the network's backbone."""
    recording = Recording(conv.patterns, conv.layer, conv.otherwise)
    model = segmenter(recording)
    images = jnp.zeros((1, 2 * model.stride, 2 * model.stride, 3))
    jax.eval_shape(model.init, jax.random.key(0), images)
    recording.check()
