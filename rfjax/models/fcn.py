"""Fully convolutional heads: scores of maps of several strides, fused from the coarsest on.

    fcn_32s | fcn_16s | fcn_8s            the scores of all strides down to this one
    fcn_pool3 | fcn_pool4 | fcn_pool5     the scores of one map of a truncated network

A score is a 1x1 convolution of the last map of a stride, zero at first. The sum so far is enlarged
twice and added to the next finer scores, cropped to what both cover. All crops follow from where
the maps lie: the enlargement has an even kernel where that puts maps whole pixels apart, an odd one
where it does not.

Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019, chapter 2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import _checks, nn
from rfjax.fully_convolutional import transposed_bilinear
from rfjax.models.decoders import Decoder, within
from rfjax.models.raising import LearnedRaise
from rfjax.models.resizing import FittedBilinear, align, fitted
from rfjax.places import Place, common

# Equalize the norms of VGG-16's features of strides 16 and 8 with those of stride 32.
VGG_SCALES = (0.01, 0.0001)
LEARNED = ("class", "full")


class FCN(Decoder):
    """Scores of the last map of every stride from the coarsest down to `finest`.

    s_S = score_S(x_S),  s_f = crop(raise(s_2f)) + crop(score_f(c_f x_f))

    Parameters: `score_<stride>` with `kernel` [1, 1, C, K] and `bias` [K], zero at first;
    `raise_<stride>` with `kernel` [k, k, 1 or K, K], where it is learned.

    Attributes:
      features: number of classes K.
      finest: stride of the finest scores.
      streams: names of the maps, the coarsest last; () for those that the backbone has, see
        `reading`.
      at_once: the factors c of the finer maps, so that all scores can be learned together, from the
        coarser to the finer: (c_16, c_8); True for those of VGG-16; False for 1.
      learn_upsampling: False for fixed enlargement between the streams; class, each class by a
        kernel of its own; full, each from all classes. Bilinear at first. The last enlargement, to
        the image, is fixed.
      null_background: whether class 0 has no score layer and scores 0 everywhere.
      sigma: initial standard deviation, in pixels of the map, of a learned Gaussian with which each
        score layer is composed; None for none.
      dtype: what is computed in.

    Calling it with (maps, places) returns scores at `place(places)`.

    Raises:
      ValueError: there are not that many streams, or an option is unknown.

    Example:
      >>> head = FCN(3, finest=8, streams=("layer2", "layer3"))
      >>> places = {"layer2": Place(8), "layer3": Place(16)}
      >>> maps = {"layer2": jnp.ones([1, 6, 6, 4]), "layer3": jnp.ones([1, 3, 3, 4])}
      >>> scores, variables = head.init_with_output(jax.random.key(0), maps, places)
      >>> scores.shape, head.place(places), sorted(variables["params"])
      ((1, 6, 6, 3), Place(stride=(8.0, 8.0), offset=(0.0, 0.0)), ['score_16', 'score_8'])
    """

    RESIZE: ClassVar[Callable[..., linen.Module]] = FittedBilinear

    features: int
    finest: int = 32
    streams: tuple[str, ...] = ()
    at_once: bool | tuple[float, ...] = False
    learn_upsampling: bool | str = False
    null_background: bool = False
    sigma: float | None = None
    dtype: Any = None

    @property
    def READS(self) -> tuple[str, ...]:
        """The names of the maps, the coarsest last."""
        return self.streams or super().READS

    def reading(self, places: Mapping[str, Place]) -> "FCN":
        """The head whose streams are the last maps of all strides that it wants."""
        if self.streams:
            return self
        by_stride = {round(place.stride[0]): name for name, place in places.items()}
        coarsest = max(by_stride)
        strides = [stride for stride in _halvings(coarsest) if stride >= self.finest]
        missing = [stride for stride in strides if stride not in by_stride]
        if self.finest not in strides or missing:
            have = ", ".join(map(str, sorted(by_stride)))
            raise ValueError(
                f"head 'fcn_{self.finest}s' fuses scores down to stride {self.finest}; the maps of "
                f"this network have strides {have}"
            )
        return self.clone(streams=tuple(by_stride[stride] for stride in reversed(strides)))

    def place(self, places: Mapping[str, Place]) -> Place:
        """Where the scores lie."""
        *finer, coarsest = self.streams
        place = places[coarsest]
        for name in reversed(finer):
            place = common(fitted(2, place, places[name]).place(place), places[name])
        return place

    @linen.compact
    def __call__(self, maps: Mapping[str, jax.Array], places: Mapping[str, Place]) -> jax.Array:
        return self.fuse(self.scores(maps, places), places)

    def scores(self, maps: Mapping[str, jax.Array], places: Mapping[str, Place]) -> dict[str, Any]:
        """The scores of each map."""
        *finer, coarsest = self.streams
        factors = zip(reversed(finer), self._factors(len(finer)), strict=False)
        given = {name: x for name, x in maps.items() if name in self.streams}
        scaled = given | {name: given[name] * factor for name, factor in factors if name in given}
        ordered = (name for name in (coarsest, *reversed(finer)) if name in given)
        return {name: self._score(scaled[name], places[name]) for name in ordered}

    def fuse(self, parts: Mapping[str, Any], places: Mapping[str, Place]) -> jax.Array:
        """The sum of the scores, enlarged and cropped."""
        *finer, coarsest = self.streams
        total, place = parts[coarsest], places[coarsest]
        for name in reversed(finer):
            own = places[name]
            raising = fitted(2, place, own)
            coarse = self._raise(total, raising.odd, own)
            coarse, fine = align(coarse, raising.place(place), parts[name], own)
            total, place = coarse + fine, common(raising.place(place), own)
        # Class 0 scores nothing, and the others are measured against it.
        first = ((0, 0), (0, 0), (0, 0), (int(self.null_background), 0))
        return jnp.pad(total, first)

    def _factors(self, number: int) -> Sequence[float]:
        """c of the finer maps."""
        if isinstance(self.at_once, bool):
            return VGG_SCALES[:number] if self.at_once else (1.0,) * number
        factors = tuple(self.at_once)
        for factor in factors:
            _checks.number("at_once", factor, above=0)
        if len(factors) < number:
            raise ValueError(
                f"at_once has a factor for each of the {number} finer maps; got {self.at_once!r}"
            )
        return factors

    def _score(self, x: jax.Array, place: Place) -> jax.Array:
        """Scores of a map."""
        outputs = self.features - _checks.flag("null_background", self.null_background)
        options = {
            "kernel_size": 1,
            "use_bias": True,
            "kernel_init": linen.initializers.zeros,
            "dtype": self.dtype,
            "parent": None,
        }
        if self.sigma is not None:
            layer = nn.ComposedConv(outputs, sigma=self.sigma, **options)
        else:
            layer = nn.Conv(outputs, **options)
        return within(self.scope, layer, f"score_{round(place.stride[0])}")(x)

    def _raise(self, scores: jax.Array, odd: bool, place: Place) -> jax.Array:
        """Twice as many pixels."""
        learned = self.learn_upsampling
        if learned is False:
            return transposed_bilinear(scores, 2, odd=odd)
        if learned not in LEARNED:
            raise ValueError(f"learn_upsampling is one of False, class, full; got {learned!r}")
        full, name = learned == "full", f"raise_{round(place.stride[0])}"
        layer = LearnedRaise(odd=odd, full=full, dtype=self.dtype, parent=None)
        return within(self.scope, layer, name)(scores)


def _halvings(stride: int) -> list[int]:
    """stride, stride / 2, ... while they are whole."""
    strides = [stride]
    while strides[-1] % 2 == 0:
        strides.append(strides[-1] // 2)
    return strides


def equalizing_scales(maps: Mapping[str, jax.Array], streams: Sequence[str]) -> tuple[float, ...]:
    """Factors with which finer maps have features of the same mean norm as the coarsest.

    c_f = mean_p |x_S(p)| / mean_p |x_f(p)|

    Args:
      maps: by name [N, h, w, C], of a batch of images, as a network returns by `method="maps"`.
      streams: names of maps, the coarsest last, as `model.head.READS`.

    Returns:
      The option `at_once` of a head: a factor for each finer map, from the coarser to the finer.

    Example:
      >>> maps = {"pool4": jnp.full((1, 4, 4, 1), 100.0), "last": jnp.ones((1, 2, 2, 1))}
      >>> [round(factor, 4) for factor in equalizing_scales(maps, ("pool4", "last"))]
      [0.01]

    Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019,
      section 2.3.2 (all-at-once fine-tuning).
    """

    def norm(name: str) -> jax.Array:
        return jnp.mean(jnp.linalg.norm(maps[name].astype(jnp.float32), axis=-1))

    *finer, coarsest = streams
    return tuple(float(norm(coarsest) / norm(name)) for name in reversed(finer))
