"""Guided networks: an image is segmented by what was marked in others, or in itself.

    late_global   z_k, the mean feature under the marks of class k; every class is scored by one
                  function of the query's features and z_k
    late_local    the features under the marks where they are, for marks in the query itself
    prototypes    the distance of the query's features from z_k
    early         a second encoder reads the support with its marks as channels; its mean feature
                  guides the query
    masked        as late_global, with z_k the mean feature of the support's image where it is not
                  marked as k set to zero
    foreground    no guidance: the query alone

`guided` makes one of any backbone and head of `rfjax.models`.

Reference: Rakelly, Shelhamer, Darrell, Efros & Levine, "Few-shot Segmentation Propagation with
Guided Networks", 2018; Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019,
sections 4.3.1 and 4.3.2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, _names, guidance, nn
from rfjax.models.decoders import Decoder, Head
from rfjax.models.resizing import FittedBilinear
from rfjax.models.segmentation import Segmenter
from rfjax.models.stages import LAST, Staged, Start, with_last
from rfjax.places import Place

FIRST, SECOND = "backbone", "support_backbone"  # where the encoders' variables lie
JOINT = ("early", "foreground")  # one score map for each class from one map of features
POOLED = ("late_global", "prototypes")  # what a guide is enough for
_MARKED = ("early", "masked")  # marks go into the encoder of the support

# Marks as the early and the masked form see them.
_DOT = 11  # pixels, the width of a mark
_LEVEL = 4.0  # 256 levels, in units of the deviation of a normalized image


class Fused(linen.Module):
    """relu(W [features, guide] + b), with half of the channels dropped in training.

    Parameters: `kernel` [2 C, features], or [C, features] without a guide; `bias` [features].

    Attributes:
      features: channels of the result.
      dropout: share of the channels that is dropped in training.

    Calling it with features [N, h, w, C] and a guide, see `rfjax.guidance.fuse`, returns
    [N, K, h, w, features]; without a guide [N, 1, h, w, features]. With train=True it draws from
    the stream "dropout".

    Example:
      >>> layer = Fused(8)
      >>> x, z = jnp.ones((2, 4, 5, 3)), jnp.ones((2, 6, 3))
      >>> y, variables = layer.init_with_output(jax.random.key(0), x, z)
      >>> y.shape, variables["params"]["kernel"].shape
      ((2, 6, 4, 5, 8), (6, 8))
    """

    features: int
    dropout: float = 0.0

    @linen.compact
    def __call__(
        self, features: jax.Array, guide: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        channels = features.shape[-1] * (1 if guide is None else 2)
        init = linen.initializers.he_normal()
        kernel = self.param("kernel", init, (channels, self.features))
        bias = self.param("bias", linen.initializers.zeros, (self.features,))
        if guide is None:
            fused = (features @ kernel.astype(features.dtype))[:, None]
            fused += jnp.broadcast_to(bias.astype(fused.dtype), fused.shape)
        else:
            fused = guidance.fuse(features, guide, kernel, bias)
        dropped = linen.Dropout(self.dropout, broadcast_dims=(2, 3), deterministic=not train)
        return dropped(jax.nn.relu(fused))


class Guided(linen.Module):
    """Class scores at every pixel of a query, by what is marked in a support.

    Parameters lie under "backbone", "fusion" and "head", of a second encoder under
    "support_backbone".

    Attributes:
      backbone: the encoder, named stages, see `rfjax.models.stages`.
      head: a decoder of one map: of `features` fused ones, it scores one class at a time, and of
        the joint forms all of them.
      features: channels of the fused map.
      stride: input pixels per pixel of the backbone's last map, static.
      fusion: see the module's docstring.
      shared: whether one encoder reads support and query.
      at: the map that features are taken from.
      dropout: share of the fused channels that is dropped in training.

    Calling it with the support [N, S, H, W, 3], its marks [N, S, H, W, K], and the query
    [N, H, W, 3] returns float32 logits [N, H, W, K]. A support of None is the query itself, with
    marks [N, 1, H, W, K]. K is free, but for early fusion and for the joint forms, that of their
    parameters. Where one encoder reads both and marks come in after it, support and query may be
    maps [N, S, h, w, C] and [N, h, w, C] to start from, a `rfjax.models.stages.Start` each.

    To add marks one after the other, `encode` images once, `guide` by their features, and
    `segment`: no image is encoded again.

    Raises:
      ValueError: shapes do not belong together, late_local has another support than the query, or
        images are wanted where there are maps.

    Reference: Rakelly et al., "Few-shot Segmentation Propagation with Guided Networks", 2018.
    """

    backbone: Staged
    head: Decoder
    features: int
    stride: int
    fusion: str = "late_global"
    shared: bool = True
    at: str = LAST
    dropout: float = 0.0

    def setup(self) -> None:
        if not self.shared:
            self.support_backbone = self.backbone.clone(parent=None, name=None)
        if self.fusion == "prototypes":
            self.log_scale = self.param("log_scale", linen.initializers.zeros, ())
        else:
            self.fused = Fused(self.features, self.dropout, name="fusion")

    @property
    def place(self) -> Place:
        """Where the cells of the features lie in the image."""
        return with_last(self.backbone.places)[self.at]

    def encode(
        self, images: ArrayLike | Start, train: bool = False, support: bool = False
    ) -> jax.Array:
        """The features [N, h, w, C] of images [N, H, W, 3].

        Args:
          images: normalised; or the maps of them to start from.
          train: as in calling it.
          support: whether by the encoder of the support, where it has one of its own.
        """
        encoder = self.support_backbone if support and not self.shared else self.backbone
        forward = nn.Forward(train)
        if isinstance(images, Start):
            maps, _ = encoder.run(None, forward, start=images.maps, until=self.at)
        else:
            maps, _ = encoder.run(jnp.asarray(images), forward, until=self.at)
        return maps[self.at]

    def maps(
        self, images: ArrayLike, train: bool = False, *, until: str | None = None
    ) -> dict[str, jax.Array]:
        """The encoder's maps by name, see `rfjax.models.segmentation.Segmenter.maps`.

        Raises:
          ValueError: support and query do not go through one encoder alike.
        """
        self._check_alike()
        maps, _ = self.backbone.run(jnp.asarray(images), nn.Forward(train), until=until)
        return maps

    def cells(self, marks: ArrayLike, size: Sequence[int]) -> jax.Array:
        """Marks [..., H, W, K] on the grid of a map of this size, see `guidance`."""
        place = self.place
        return guidance.downsample_mask(marks, size, stride=place.stride, offset=place.offset)

    def guide(self, features: jax.Array, marks: ArrayLike) -> guidance.Guide:
        """{"mean": [N, K, C], "count": [N, K]}, of the features [N, S, h, w, C] of shots.

        Args:
          features: of `encode`.
          marks: [N, S, H, W, K].
        """
        cells = self.cells(marks, features.shape[2:4])
        start = guidance.empty(cells.shape[-1], features.shape[-1], dtype=features.dtype)
        return jax.vmap(guidance.update, (None, 0, 0))(start, features, cells)

    def segment(
        self, features: jax.Array, guide: jax.Array, size: Sequence[int], train: bool = False
    ) -> jax.Array:
        """Logits [N, H, W, K] of queries of `size` (H, W).

        Args:
          features: of `encode`, [N, h, w, C].
          guide: the mean of `guide`, [N, K, C], or features of each place, [N, K, h, w, C].
          size: (H, W).
          train: as in calling it.
        """
        if self.fusion == "prototypes":
            return self._enlarged(self._similarity(features, guide), size)
        scores = self._scores(self.fused(features, guide, train), train)
        return self._enlarged(jnp.moveaxis(scores[..., 0], 1, -1), size)

    def __call__(
        self,
        support: ArrayLike | Start | None,
        marks: ArrayLike,
        query: ArrayLike | Start,
        train: bool = False,
    ) -> jax.Array:
        _check_shapes(support, marks, query)
        size = query.size if isinstance(query, Start) else jnp.shape(query)[1:3]
        if self.fusion == "foreground":
            return self._jointly(self.encode(query, train), None, size, train)
        if isinstance(query, Start) or isinstance(support, Start):
            self._check_alike()
        elif self.fusion in _MARKED:
            seen = jnp.asarray(query)[:, None] if support is None else support
            features, seen = self.encode(query, train), _dots(marks, seen)
            seen = _beside(*seen) if self.fusion == "early" else _covered(*seen)
            guide = _mean_over_shots(self._of_shots(seen, train), marks)
            if self.fusion == "early":
                return self._jointly(features, guide, size, train)
            return self.segment(features, guide, size, train)
        # Marks come in after it: the encoder does not depend on them.
        features, shots = self._encoded(support, query, train)
        if self.fusion == "late_local":
            return self.segment(features, self._local(shots, marks), size, train)
        return self.segment(features, self.guide(shots, marks)["mean"], size, train)

    def _check_alike(self) -> None:
        """Raises unless support and query go through one encoder alike, and so could their maps."""
        if not self.shared or self.fusion in _MARKED:
            raise ValueError(
                f"fusion={self.fusion!r} with shared={self.shared} wants images and not maps: "
                "its encoder does not read support and query alike"
            )

    def _encoded(
        self, support: ArrayLike | Start | None, query: ArrayLike | Start, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """The features of the queries [N, h, w, C] and of the shots [N, S, h, w, C]."""
        if support is None and self.shared:
            features = self.encode(query, train)
            return features, features[:, None]
        if support is None:
            return self.encode(query, train), self._of_shots(jnp.asarray(query)[:, None], train)
        if not self.shared:
            return self.encode(query, train), self._of_shots(support, train)
        join = lambda query, shots: jnp.concatenate([query[:, None], shots], 1)
        both = jax.tree.map(join, *(jax.tree.map(jnp.asarray, each) for each in (query, support)))
        both = self._of_shots(both, train)  # one batch, and one set of batch statistics
        return both[:, 0], both[:, 1:]

    def _of_shots(self, images: ArrayLike | Start, train: bool) -> jax.Array:
        """The features [N, ..., h, w, C] of images [N, ..., H, W, C], or of maps."""
        images = jax.tree.map(jnp.asarray, images)
        batch = jax.tree.leaves(images)[0].shape[:-3]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[-3:]), images)
        features = self.encode(flat, train, support=True)
        return features.reshape(*batch, *features.shape[1:])

    def _local(self, shots: jax.Array, marks: ArrayLike) -> jax.Array:
        """The features under the marks [N, K, h, w, C], weighted by the marks' largest weight."""
        if shots.shape[1] != 1:
            raise ValueError(
                f"late_local wants marks in the query itself, one shot; got {shots.shape[1]} shots"
            )
        cells = jnp.moveaxis(self.cells(marks, shots.shape[2:4])[:, 0], -1, 1)
        largest = jnp.max(cells, (2, 3), keepdims=True)
        weights = cells / jnp.where(largest > 0, largest, 1.0)
        return shots * weights[..., None].astype(shots.dtype)

    def _similarity(self, features: jax.Array, guide: jax.Array) -> jax.Array:
        """-exp(s) |features - z_k|^2 / C, [N, h, w, K]; s is learned."""
        apart = features[:, None] - guide[:, :, None, None]
        distance = jnp.mean(jnp.square(apart), -1)
        return -jnp.exp(self.log_scale) * jnp.moveaxis(distance, 1, -1)

    def _jointly(
        self, features: jax.Array, guide: jax.Array | None, size: Sequence[int], train: bool
    ) -> jax.Array:
        """Logits of all classes from one map, that of the query or of query and guide."""
        return self._enlarged(self._scores(self.fused(features, guide, train), train)[:, 0], size)

    def _scores(self, fused: jax.Array, train: bool) -> jax.Array:
        """The head's scores [N, K, h, w, outputs] of fused maps [N, K, h, w, D]."""
        maps = {LAST: fused.reshape(-1, *fused.shape[2:])}
        scores, _ = nn.call(self.head, maps, nn.Forward(train), places={LAST: self.place})
        return scores.reshape(*fused.shape[:2], *scores.shape[1:])

    def _enlarged(self, scores: jax.Array, size: Sequence[int]) -> jax.Array:
        """Scores [N, h, w, K] at the pixels of the image."""
        factor = FittedBilinear(round(self.place.stride[0]), parent=None)
        return factor.to_image(scores.astype(jnp.float32), self.place, size)


def _shape(images: ArrayLike | Start) -> tuple[int, ...]:
    """[..., H, W, 3], of maps that of their images."""
    if not isinstance(images, Start):
        return jnp.shape(images)
    return (*jax.tree.leaves(images)[0].shape[:-3], *images.size, 3)


def _check_shapes(
    support: ArrayLike | Start | None, marks: ArrayLike, query: ArrayLike | Start
) -> None:
    if support is not None and isinstance(support, Start) != isinstance(query, Start):
        raise ValueError("support and query must both be images, or both maps to start from")
    of_marks, images = jnp.shape(marks), _shape(query)
    shots = (*images[:1], 1, *images[1:]) if support is None else _shape(support)
    fits = (len(shots), len(of_marks), len(images)) == (5, 5, 4)
    if not fits or of_marks[:-1] != shots[:-1] or shots[0] != images[0]:
        raise ValueError(
            "want a support [N, S, H, W, 3] or None, for the query itself, marks [N, S, H, W, K] "
            f"and queries [N, H', W', 3]; got {shots}, {of_marks} and {images}"
        )


def _dots(marks: ArrayLike, images: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Marks widened to dots, and the images."""
    marks, images = jnp.asarray(marks), jnp.asarray(images)
    flat = marks.reshape(-1, *marks.shape[2:])
    wide = linen.max_pool(flat, (_DOT, _DOT), padding="SAME").reshape(marks.shape)
    return wide.astype(images.dtype), images


def _beside(marks: jax.Array, images: jax.Array) -> jax.Array:
    """Images with the marks as more channels, [N, S, H, W, 3 + K]."""
    return jnp.concatenate([images, _LEVEL * marks], -1)


def _covered(marks: jax.Array, images: jax.Array) -> jax.Array:
    """The image for each class, zero where it is not marked, [N, S, K, H, W, 3]."""
    return jnp.moveaxis(marks, -1, 2)[..., None] * images[:, :, None]


def _mean_over_shots(features: jax.Array, marks: ArrayLike) -> jax.Array:
    """The mean feature of all places of all shots that have marks [N, K, C].

    Of features [N, S, K, h, w, C] those of each class, of [N, S, h, w, C] those of any, K = 1.
    """
    present = jnp.any(jnp.asarray(marks) > 0, (2, 3))  # [N, S, K]
    if features.ndim == 5:
        features, present = features[:, :, None], jnp.any(present, -1, keepdims=True)
    means = jnp.mean(features, (3, 4))  # [N, S, K, C]
    weights = present.astype(means.dtype)
    weights = weights / jnp.maximum(jnp.sum(weights, 1, keepdims=True), 1.0)
    return jnp.sum(means * weights[..., None], 1)


def guided(
    build: Callable[..., Any],
    ways: int,
    *,
    fusion: str = "late_global",
    shared: bool = True,
    at: str = LAST,
    dropout: float = 0.5,
) -> Guided:
    """A guided network with the backbone and the head of another one.

    Args:
      build: the function of the number of outputs that builds a network of `rfjax.models.create`
        with a head of one map, such as score, composition or deform.
      ways: number of classes K.
      fusion: see the module's docstring.
      shared: whether one encoder reads support and query; early fusion has two always.
      at: the map that features are taken from.
      dropout: share of the fused channels that is dropped in training.

    Raises:
      ValueError: there is no such fusion or map, or the head reads several maps.
      TypeError: `build` builds another kind of network.

    Example:
      >>> from functools import partial
      >>> from rfjax import models
      >>> build = lambda outputs: models.create("resnet_tiny", num_classes=outputs)
      >>> network = guided(build, 2)
      >>> support, marks = jnp.ones((1, 3, 16, 16, 3)), jnp.ones((1, 3, 16, 16, 2))
      >>> scores, _ = network.init_with_output(
      ...     jax.random.key(0), support, marks, jnp.ones((1, 16, 16, 3)))
      >>> scores.shape
      (1, 16, 16, 2)
    """
    _checks.choose("fusion", fusion, _names.FUSIONS)
    _checks.flag("shared", shared)
    _checks.number("dropout", dropout, least=0, below=1)
    network = build(_checks.integer("ways", ways) if fusion in JOINT else 1)
    if not isinstance(network, Segmenter):
        raise TypeError("a guided network wants a backbone with a head, as models.create makes")
    if not isinstance(network.head, Head):
        raise ValueError("a guided network wants a head of one map, as score or composition")
    _checks.choose("map", at, with_last(network.backbone.places))
    layer = network.head.layer
    zeros: dict[str, Any] = (
        {"kernel_init": linen.initializers.zeros} if hasattr(layer, "kernel_init") else {}
    )
    return Guided(
        network.backbone,
        Head(layer.clone(**zeros)),
        _width(network, at) * (1 if fusion == "early" else 2),
        network.stride,
        fusion,
        shared and fusion != "early",
        at,
        dropout,
    )


def for_both_encoders(
    given: Mapping[str, Any], variables: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Trained variables of one encoder, for a network that may have a second one of the same kind.

    The second starts from what the first does. Where its first kernel has more channels, those of
    marks, they start from the mean over the colors.

    Args:
      given: collections of trained variables, with parts "backbone".
      variables: those of the network, which say what it wants.

    Reference: Xu et al., "Deep Interactive Object Selection", CVPR 2016, section 3.3.
    """
    found = {name: dict(tree) for name, tree in given.items()}
    for name, tree in found.items():
        if SECOND in variables.get(name, {}) and SECOND not in tree and FIRST in tree:
            widen = lambda array, wanted: _with_marks(np.asarray(array), np.shape(wanted))
            tree[SECOND] = jax.tree.map(widen, tree[FIRST], variables[name][SECOND])
    return found


def _with_marks(kernel: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
    """A kernel [h, w, 3, O] with more inputs, each the mean of the three."""
    more = wanted[2] - kernel.shape[2] if kernel.ndim == 4 and len(wanted) == 4 else 0
    if more <= 0:
        return kernel
    return np.concatenate([kernel, *[kernel.mean(2, keepdims=True)] * more], 2)


def _width(network: Segmenter, at: str) -> int:
    """The channels of a map."""
    side = 2 * network.stride
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    run = lambda key, x: network.init_with_output(key, x, method="maps", until=at)[0]
    return jax.eval_shape(run, jax.random.key(0), images)[at].shape[-1]
