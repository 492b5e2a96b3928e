"""From the maps of a backbone to scores.

    Head(layer)             a layer that reads one map; all heads of `rfjax.models.heads`
    Heads({name: head})     several over one backbone
    NullBackground(head)    all classes but the background, whose score is 0
    Classify(K)             one score for each class and image

A decoder is a `Decoder`: a module that says which maps it reads, and where what it returns lies. It
is called with the maps, and with `places`, where they lie, `train` and `carry` if it asks for them,
see `rfjax.nn.forward`.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import _checks, nn
from rfjax.models.resizing import HalfPixelBilinear
from rfjax.models.stages import LAST
from rfjax.places import Place

Places = Place | None | Mapping[str, Any]


class Decoder(linen.Module):
    """What turns maps into scores; a new one inherits it.

    Attributes:
      READS: the names of the maps that it reads, the coarsest last; an attribute or a property.
      RESIZE: what enlarges its scores to the image: a class of `rfjax.models.resizing`, or a
        `staticmethod` of the factor that returns a module with `to_image`.

    Calling it with maps by name [N, h, w, C] returns scores, or scores by name.

    Example:
      >>> class Sum(Decoder):
      ...   READS = ("layer1", "layer2")
      ...   features: int
      ...   def place(self, places):
      ...     return places["layer2"]
      ...   @linen.compact
      ...   def __call__(self, maps):
      ...     fine = maps["layer1"][:, ::2, ::2]
      ...     return linen.Dense(self.features)(jnp.concatenate([fine, maps["layer2"]], -1))
      >>> maps = {"layer1": jnp.ones([1, 8, 8, 4]), "layer2": jnp.ones([1, 4, 4, 8])}
      >>> Sum(3).init_with_output(jax.random.key(0), maps)[0].shape
      (1, 4, 4, 3)
    """

    READS: ClassVar[tuple[str, ...]] = (LAST,)
    RESIZE: ClassVar[Callable[..., linen.Module]] = HalfPixelBilinear

    def reading(self, places: Mapping[str, Place]) -> "Decoder":
        """The decoder for a backbone whose maps lie at `places`, by name and in order.

        One that chooses its maps by where they lie returns itself with other fields.
        """
        del places
        return self

    def place(self, places: Mapping[str, Place]) -> Places:
        """Where the scores lie, from where the maps do: by name where the scores are.

        None says that scores are no map of the image, and are not enlarged to it.
        """
        raise TypeError(f"the decoder {type(self).__name__} does not define place")

    def scores(self, maps: Mapping[str, jax.Array], places: Mapping[str, Place]) -> dict[str, Any]:
        """What it makes of some of its maps, each alone, by their names; those that it reads
        together with others are left out."""
        del maps, places
        return {}

    def fuse(self, parts: Mapping[str, Any], places: Mapping[str, Place]) -> Any:
        """What it returns, of what `scores` made of its maps, and of the maps that it left out."""
        fused, _ = nn.call(self, parts, nn.Forward(), places=places)
        return fused


def within(scope: Any, layer: linen.Module, name: str | None = None) -> Any:
    """A layer whose variables lie in a scope itself, or in its part `name`.

    `flax.linen.share_scope` does the first, but does not survive `flax.linen.scan`.
    """
    return layer.clone(parent=scope.push(name, reuse=True) if name else scope, name=None)


class Head(Decoder):
    """A layer that makes scores of one map; its parameters are the head's own.

    Attributes:
      layer: a module of (map), which may ask for more, see `rfjax.nn.forward`.
      at: the name of the map.

    Calling it with (maps, train, carry) returns (scores, carry).

    Example:
      >>> head = Head(nn.Conv(5, kernel_size=1), at="layer1")
      >>> variables = head.init(jax.random.key(0), {"layer1": jnp.ones([1, 4, 4, 8])})
      >>> list(variables["params"])
      ['kernel']
    """

    layer: linen.Module
    at: str = LAST

    @property
    def READS(self) -> tuple[str, ...]:
        """The map's name."""
        return (self.at,)

    def place(self, places: Mapping[str, Place]) -> Place:
        """Where the map lies."""
        return places[self.at]

    def scores(self, maps: Mapping[str, jax.Array], places: Mapping[str, Place]) -> dict[str, Any]:
        """All that it computes."""
        del places
        return {self.at: self(maps)[0]} if self.at in maps else {}

    def fuse(self, parts: Mapping[str, Any], places: Mapping[str, Place]) -> Any:
        """The scores as they are."""
        del places
        return parts[self.at]

    @linen.compact
    def __call__(
        self, maps: Mapping[str, jax.Array], train: bool = False, carry: Any = ()
    ) -> tuple[jax.Array, Any]:
        layer = within(self.scope, self.layer)
        scores, forward = nn.call(layer, maps[self.at], nn.Forward(train, carry))
        return scores, forward.carry


class Heads(Decoder):
    """Several heads over one backbone, each of which starts from the same forward pass.

    The parameters of each lie under its name.

    Attributes:
      heads: decoders by name.

    Calling it with (maps, train, carry, places) returns the scores by name, and the carry as it
    came.

    Example:
      >>> heads = Heads({"far": Head(nn.Conv(2)), "near": Head(nn.Conv(3), at="layer1")})
      >>> heads.READS
      ('layer1', 'last')
      >>> maps = {"layer1": jnp.ones([1, 8, 8, 4]), "last": jnp.ones([1, 4, 4, 8])}
      >>> (scores, _), variables = heads.init_with_output(jax.random.key(0), maps)
      >>> sorted(variables["params"]), scores["near"].shape
      (['far', 'near'], (1, 8, 8, 3))
    """

    heads: Mapping[str, Decoder]

    @property
    def READS(self) -> tuple[str, ...]:
        """All maps that a head reads, the last one last."""
        read = dict.fromkeys(name for head in self.heads.values() for name in head.READS)
        return (*(name for name in read if name != LAST), *((LAST,) if LAST in read else ()))

    def reading(self, places: Mapping[str, Place]) -> "Heads":
        """The heads for a backbone."""
        return self.clone(heads={name: h.reading(places) for name, h in self.heads.items()})

    def place(self, places: Mapping[str, Place]) -> dict[str, Places]:
        """Where the scores of each head lie."""
        return {name: head.place(places) for name, head in self.heads.items()}

    @linen.compact
    def __call__(
        self,
        maps: Mapping[str, jax.Array],
        train: bool = False,
        carry: Any = (),
        places: Mapping[str, Place] | None = None,
    ) -> tuple[dict[str, Any], Any]:
        forward, scores = nn.Forward(train, carry), {}
        for name, head in self.heads.items():
            own = within(self.scope, head, name)
            scores[name], _ = nn.call(own, maps, forward, places=places)
        return scores, carry


class NullBackground(Decoder):
    """Scores of all classes but the first, the background, whose score is 0.

    Parameters are those of the head, which has one output less. The highest of the scores is the
    background's where all others are below 0.

    Attributes:
      head: a decoder of one array of scores.

    Example:
      >>> head = NullBackground(Head(nn.Conv(2, kernel_size=1)))
      >>> maps = {"last": jnp.ones([1, 4, 4, 8])}
      >>> (scores, _), variables = head.init_with_output(jax.random.key(0), maps)
      >>> scores.shape, list(variables["params"]), float(jnp.abs(scores[..., 0]).max())
      ((1, 4, 4, 3), ['kernel'], 0.0)

    Reference: Shelhamer, Long & Darrell, "Fully Convolutional Networks for Semantic Segmentation",
      PAMI 2017, section 6.
    """

    head: Decoder

    @property
    def READS(self) -> tuple[str, ...]:
        """The maps that the head reads."""
        return self.head.READS

    @property
    def RESIZE(self) -> Callable[..., linen.Module]:
        """What enlarges the scores of the head."""
        return self.head.RESIZE

    def place(self, places: Mapping[str, Place]) -> Places:
        """Where the scores of the head lie."""
        return self.head.place(places)

    @linen.compact
    def __call__(
        self,
        maps: Mapping[str, jax.Array],
        train: bool = False,
        carry: Any = (),
        places: Mapping[str, Place] | None = None,
    ) -> tuple[jax.Array, Any]:
        own = within(self.scope, self.head)
        scores, forward = nn.call(own, maps, nn.Forward(train, carry), places=places)
        before = lambda each: jnp.pad(each, [(0, 0)] * (each.ndim - 1) + [(1, 0)])
        return jax.tree.map(before, scores), forward.carry


def without_background(network: Any) -> Any:
    """A network of the other classes, as one of all classes that gives the background the score 0.

    Its parameters keep their paths.

    Args:
      network: a `rfjax.models.segmentation.Segmenter` with one array of scores.

    Raises:
      TypeError: it has no head that is a decoder.
      ValueError: its head has none of the background already.
    """
    head = getattr(network, "head", None)
    if not isinstance(head, Decoder) or isinstance(head, Heads):
        raise TypeError("a null background wants a network with one head, as models.create makes")
    if getattr(head, "null_background", False):
        raise ValueError("the head scores the background 0 already, for which sigmoid is the loss")
    return network.clone(head=NullBackground(head))


class Classify(Decoder):
    """One score for each class and image: the mean of the map, then a dense layer.

    y_k = b_k + sum_c W_ck mean_p x_c(p)

    Parameters: `kernel` [C, features], `bias` [features].

    Attributes:
      features: number of classes.
      dtype: what the dense layer computes in; None for the type that map and parameters promote to.
        The mean is taken in float32 at least.

    Calling it with maps returns [N, features] from the last one [N, h, w, C].

    Example:
      >>> maps = {"last": jnp.ones([2, 4, 4, 8])}
      >>> scores, variables = Classify(5).init_with_output(jax.random.key(0), maps)
      >>> scores.shape, variables["params"]["kernel"].shape
      ((2, 5), (8, 5))

    Reference: He et al., "Deep Residual Learning", CVPR 2016, section 3.3.
    """

    features: int
    dtype: Any = None

    def place(self, places: Mapping[str, Place]) -> None:
        """The scores are no map."""
        return None

    @linen.compact
    def __call__(self, maps: Mapping[str, jax.Array]) -> jax.Array:
        x = maps[LAST]
        dense = within(self.scope, linen.Dense(self.features, dtype=self.dtype, parent=None))
        mean = jnp.mean(x, (1, 2), dtype=_checks.accumulation_dtype(x))
        return dense(mean.astype(x.dtype))
