"""Networks by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import _checks, _names, nn
from rfjax._registry import Registry
from rfjax.models import (
    alexnet,
    dla,
    drn,
    flownet,
    fusion,
    googlenet,
    heads,
    mobilenet,
    resnet,
    vgg,
    xception,
)
from rfjax.models.segmentation import Segmenter
from rfjax.models.stages import Staged, with_last
from rfjax.nn.selection import Recording
from rfjax.places import Place


class Buildable(Protocol):
    """What a backbone is built of."""

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the last map."""
        ...

    @property
    def features(self) -> int:
        """Channels of the last map."""
        ...

    def build(self, **options: Any) -> Staged:
        """The backbone; options are the attributes of `rfjax.models.stages.Staged`."""
        ...


@runtime_checkable
class Importable(Buildable, Protocol):
    """What a backbone is built of for which there are weights of PyTorch."""

    @property
    def children(self) -> Mapping[str, str]:
        """What the children of `base` in a reference's segmentation network are called here."""
        ...

    @property
    def unread(self) -> tuple[str, ...]:
        """Parts of a reference that nothing reads."""
        ...


@runtime_checkable
class Renaming(Importable, Protocol):
    """What a backbone is built of whose weights have several kinds of names in PyTorch."""

    def canonical(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The arrays under the names of the layers here."""
        ...


@runtime_checkable
class Sliding(Renaming, Protocol):
    """What a classifier of Caffe's is built of, of whose weights the last layers may be others."""

    @property
    def sliding(self) -> tuple[str, ...]:
        """The layers that slide over the last pooled map, the first of which decides the width."""
        ...


@runtime_checkable
class Network(Protocol):
    """What a network is built of that is no backbone with a head."""

    def network(self, **options: Any) -> linen.Module:
        """The network.

        Args:
          **options: num_classes, head, head_options, conv, dtype, axis_name, remat and norm, all of
            them, as `create` was given them; conv and norm are never None.

        Returns:
          A module of whatever the task gives it, and train.
        """
        ...


@runtime_checkable
class ImportableNetwork(Network, Protocol):
    """What a whole network is built of for which there are weights of PyTorch."""

    def inputs(self) -> tuple[jax.Array, ...]:
        """What the network is called with, of any size, to make variables of."""
        ...

    def canonical(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The arrays under the names of the layers here, with outputs before inputs."""
        ...


Built = Buildable | Network

_OWN: dict[str, Callable[..., Built]] = {
    **{f"resnet_{depth}": partial(resnet.resnet, depth) for depth in resnet.BLOCKS_AND_DEPTHS},
    "resnet_tiny": resnet.resnet_tiny,
    "dla_34": dla.dla_34,
    "dla_tiny": dla.dla_tiny,
    **{f"drn_a_{depth}": partial(drn.drn_a, depth) for depth in (18, 34, 50)},
    "drn_tiny": drn.drn_tiny,
    **{f"drn_c_{depth}": partial(drn.drn_c, depth) for depth in drn.C_FAMILY},
    **{f"drn_d_{depth}": partial(drn.drn_d, depth) for depth in drn.D_FAMILY},
    "vgg_16": vgg.vgg_16,
    "vgg_tiny": vgg.vgg_tiny,
    "alexnet": alexnet.alexnet,
    "googlenet": googlenet.googlenet,
    "mobilenet_v2": mobilenet.mobilenet_v2,
    "xception_65": xception.xception_65,
    "flownet_s": flownet.flownet_s,
    "flownet_thin": flownet.flownet_thin,
    "flownet_c": flownet.flownet_c,
}
ARCHITECTURES: Registry[Callable[..., Built]] = Registry("network", _OWN, _names.NETWORKS)


def register(name: str, build: Callable[..., Built]) -> None:
    """Makes a network known by name, to `create` and to configs.

    Args:
      name: that is not taken.
      build: a function of keyword-only options, all with defaults, that returns what the network is
        built of: a `Buildable`, to which `create` adds a head, or a `Network`, which is whole. A
        config may set the options that it has keys for.

    Raises:
      TypeError: the name is no text, or `build` is no function.
      ValueError: the name is taken.

    Example, which is run once before a program trains or loads the network:

        def resnet_wide(*, depth: int = 2):
          return resnet.resnet_tiny(width=32, depth=depth)

        models.register("resnet_wide", resnet_wide)
        models.create("resnet_wide", num_classes=2, backbone_options={"depth": 4})
    """
    if not callable(build):
        raise TypeError(f"a network is registered with a function that builds it; got {build!r}")
    ARCHITECTURES.register(name, build, _options(build))


def _options(build: Callable[..., Built]) -> tuple[str, ...]:
    """The keyword-only arguments of a function."""
    parameters = inspect.signature(build).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def names() -> tuple[str, ...]:
    """The names of all networks.

    Example:
      >>> names()[:3]
      ('resnet_18', 'resnet_34', 'resnet_50')
    """
    return tuple(ARCHITECTURES)


def architecture(name: str, options: Mapping[str, Any] | None = None) -> Built:
    """What the network of this name is built of; an error lists the choices."""
    _checks.choose("model", name, ARCHITECTURES)
    build, options = ARCHITECTURES[name], dict(options or {})
    heads.check_options(f"backbone {name!r}", options, _options(build))
    return build(**options)


def create(
    name: str,
    *,
    num_classes: int | Mapping[str, int],
    head: str = "score",
    head_options: Mapping[str, Any] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    conv: Callable[..., linen.Module] | nn.Selection | None = None,
    dtype: Any = jnp.float32,
    axis_name: str | None = None,
    remat: bool = False,
    norm: Callable[..., linen.Module] | None = None,
    late_fusion: Sequence[int] | None = None,
) -> linen.Module:
    """The network of this name.

    Args:
      name: one of `names()`.
      num_classes: number of classes K; or several by name, as {"semantic": 33, "geometric": 3}, for
        as many heads over one backbone.
      head: score | conv3 | composition | dog | gauss_deform | dynamic | deform | stn |
        static_deform | pad | adadr | inflated_conv | inflated | ccl | aspp | deeplab_v3_plus |
        lsdfn | lsdfn_concat | classify | fcn_32s | fcn_16s | fcn_8s | fcn_pool3 | fcn_pool4 |
        fcn_pool5, see `rfjax.models.heads`, or one that was registered.
      head_options: of the head's layer, as {"sigma": 1.0, "family": "diagonal"}.
      backbone_options: width, depth, output_stride of "resnet_tiny"; width, depth of "drn_tiny";
        transition of "drn_a_*"; down_ratio of "dla_34"; width, depth, down_ratio of "dla_tiny";
        border, light, output_stride of "vgg_16" and "vgg_tiny"; border, light of "alexnet";
        output_stride of "resnet_*", "mobilenet_v2" and "xception_65"; context, samples,
        sample_stride of "flownet_*".
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
      late_fusion: the channels that each of several networks reads, as (3, 1) of colors and depth,
        the mean of whose scores is enlarged; their parameters lie under "backbone/stream_0",
        "head/stream_0" and so on. None for one network, which reads all channels that there are.

    Returns:
      A `rfjax.models.segmentation.Segmenter`, or the module of a network that was registered as a
      whole: a Linen module of (images [N, H, W, C], train=False) that returns float32 logits
      [N, H, W, K], those of "classify" [N, K], several by name; with method="features", the map
      that the head reads, with method="maps", the maps of all stages by name. Its parameters lie
      under "backbone" and "head", those of several heads under "head/<name>".

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
    _checks.flag("remat", remat)
    _checks.float_dtype("dtype", dtype)
    shared = {"dtype": dtype, "axis_name": axis_name, "norm": norm or nn.BatchNorm}
    conv = nn.Conv if conv is None else conv
    split = fusion.check_split(late_fusion)
    if isinstance(built, Network):
        if split:
            raise ValueError(f"late_fusion is of backbones with heads; {name!r} is whole")
        own = {"num_classes": num_classes, "head": head, "head_options": head_options}
        return built.network(**own, conv=conv, remat=remat, **shared)
    decoder = heads.create_decoder(head, num_classes, options=head_options, **shared)
    decoder = fusion.MeanOfStreams(decoder, len(split)) if split else decoder

    def segmenter(conv: Callable[..., linen.Module] | nn.Selection) -> Segmenter:
        backbone = built.build(conv=conv, remat=remat, **shared)
        backbone = fusion.Streams(backbone=backbone, split=split) if split else backbone
        return Segmenter(backbone, decoder, stride=built.stride)

    places = segmenter(conv).backbone.places
    decoder = decoder.reading(with_last(places))
    _check_reads(head, decoder.READS, places)
    if isinstance(conv, nn.Selection):
        _check_selection(conv, segmenter)
    return segmenter(conv)


def _check_reads(head: str, reads: tuple[str, ...], places: Mapping[str, Place]) -> None:
    """Raises unless the backbone has the maps that a head reads."""
    names = tuple(with_last(places))
    unknown = [read for read in reads if read not in names]
    if unknown:
        raise ValueError(
            f"head {head!r} reads {', '.join(unknown)}; the backbone's stages are "
            f"{', '.join(names)}"
        )


def _check_selection(conv: nn.Selection, segmenter: Callable[..., Segmenter]) -> None:
    """Raises if a pattern matches no convolution of the network's backbone."""
    recording = Recording(conv.patterns, conv.layer, conv.otherwise)
    model = segmenter(recording)
    images = jnp.zeros((1, 2 * model.stride, 2 * model.stride, model.channels))
    jax.eval_shape(model.init, jax.random.key(0), images)
    recording.check()
