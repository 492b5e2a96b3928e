"""Scores by paths that see a map enlarged by learned factors."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
from flax import linen

from rfjax import _checks, nn
from rfjax.models import caffe
from rfjax.models.decoders import Decoder
from rfjax.models.paths import Paths
from rfjax.models.resizing import FittedBilinear
from rfjax.models.stages import LAST
from rfjax.places import Place, window

POOLED = "pool5"  # the map of VGG-16 that is inflated


class InflatedPaths(Decoder):
    """Scores of one map that is inflated by a learned factor, or of several such paths.

    y = sum_b interpolate(fc8_b(fc7_b(fc6_b(inflate(x, f_b)))), f_b),   x = norm(map)

    One path reads the map as it is; several share its normalization, start alike and differ by the
    weights on their gradients: in training the head returns `rfjax.models.paths.Paths`, which the
    loss of a segmentation fuses with the labels at hand. Where the head runs as in evaluation
    (`trainable="structure"`) there are no such weights.

    Parameters: `path_<b>` {`factor` []; `layer` {`fc6` {kernel [k, k, C, width], bias}, `fc7`
    {kernel [1, 1, width, width], bias}, `fc8` {kernel [1, 1, width, K], bias}}}; `norm` {scale,
    bias} of several paths.

    Attributes:
      features: number of classes K.
      paths: how many.
      sets: of each of several paths the numbers of its classes, as ((1, 2), (3,)), usually those of
        small objects and those of large ones. A path's gradient is weighted at their pixels; () is
        a path without.
      weight: the factor W on the gradient there, at least 0.
      width: channels of fc6 and fc7.
      kernel_size, dilation: of fc6. Taps beyond the map read zeros and give f no gradient, so the
        dilation must suit the size of the map.
      dropout: share of the outputs of fc6 and fc7 that training sets to 0.
      initial, bounds, gradient, per_image: of the factors, see `rfjax.nn.Inflated`.
      at: the map; "" for "pool5" where the network has it, and the last one elsewhere.
      dtype: what is computed in.
      axis_name: pmapped axis over which batch statistics are averaged in training, or None.
      norm: layer class of the normalization.

    Calling it with (maps, places, train) returns scores at `place(places)`.

    Raises:
      ValueError: an option is not what it must be.

    Example:
      >>> import jax.numpy as jnp
      >>> head = InflatedPaths(3, paths=2, sets=((0, 1), (2,)), width=8, dilation=2, at="pool5")
      >>> maps, places = {"pool5": jnp.ones([1, 6, 8, 4])}, {"pool5": Place(8)}
      >>> scores, variables = head.init_with_output(jax.random.key(0), maps, places)
      >>> scores.shape, sorted(variables["params"])
      ((1, 6, 8, 3), ['norm', 'path_0', 'path_1'])

    Reference: Wei et al., "Learning Adaptive Receptive Fields for Deep Image Parsing Network",
      CVPR 2017, figure 1.
    """

    RESIZE: ClassVar[Callable[..., linen.Module]] = FittedBilinear

    features: int
    paths: int = 1
    sets: Sequence[Sequence[int]] = ()
    weight: float = 2.0
    width: int = 1024
    kernel_size: int = 3
    dilation: int = 8
    dropout: float = 0.5
    initial: float = 1.0
    bounds: tuple[float, float] = (0.25, 4.0)
    gradient: str = "paper"
    per_image: bool = False
    at: str = ""
    dtype: Any = None
    axis_name: str | None = None
    norm: Callable[..., linen.Module] = nn.BatchNorm

    @property
    def READS(self) -> tuple[str, ...]:
        """The map's name."""
        return (self.at or LAST,)

    def reading(self, places: Mapping[str, Place]) -> "InflatedPaths":
        """The head that reads the last pooled map, where the network has it."""
        return self if self.at or POOLED not in places else self.clone(at=POOLED)

    def place(self, places: Mapping[str, Place]) -> Place:
        """Where the map lies, with the pixels that are added around it."""
        place = places[self.READS[-1]]
        return place.then(window(1, padding=caffe.least_padding(place, 1)))

    @linen.compact
    def __call__(
        self, maps: Mapping[str, jax.Array], places: Mapping[str, Place], train: bool = False
    ) -> jax.Array | Paths:
        paths, sets = _checks.integer("paths", self.paths), self._checked_sets()
        weight = _checks.number("weight", self.weight, least=0)
        x = maps[self.READS[-1]]
        if paths > 1:
            options = {"dtype": self.dtype, "axis_name": self.axis_name}
            x = self.norm(use_running_average=not train, name="norm", **options)(x)
        # So that scores reach over the image.
        x = caffe.bordered(x, caffe.least_padding(places[self.READS[-1]], 1))
        # All paths are drawn from one key.
        key = self.make_rng("params") if self.is_initializing() else None
        found = tuple(self._path(b, key)(x, train) for b in range(paths))
        if train and sets:
            return Paths(found, sets, weight)
        return sum(found[1:], found[0])

    def _checked_sets(self) -> tuple[tuple[int, ...], ...]:
        """The classes of each path, none of a single one."""
        sets = tuple(tuple(int(each) for each in classes) for classes in self.sets)
        wrong = [each for classes in sets for each in classes if not 0 <= each < self.features]
        if wrong:
            raise ValueError(f"sets: classes are 0 to {self.features - 1}; got {wrong}")
        if len(sets) != (self.paths if self.paths > 1 else 0):
            raise ValueError(
                f"sets wants the classes of each of several paths, none for a single one; got "
                f"{len(sets)} sets for {self.paths}"
            )
        return sets

    def _path(self, number: int, key: jax.Array | None) -> nn.Inflated:
        names = ("features", "width", "kernel_size", "dilation", "dropout", "dtype")
        layer = _Scores(key=key, parent=None, **{name: getattr(self, name) for name in names})
        names = ("initial", "bounds", "gradient", "per_image")
        options = {name: getattr(self, name) for name in names}
        return nn.Inflated(layer, name=f"path_{number}", **options)


class _Scores(linen.Module):
    """fc6, fc7 and fc8 of a path, with dropout behind the relus of the first two.

    Attributes: those of the head, and
      key: from which its kernels are drawn; None where they are there.
    """

    features: int
    width: int
    kernel_size: int
    dilation: int
    dropout: float
    dtype: Any
    key: jax.Array | None

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        width = _checks.integer("width", self.width)
        drop = partial(
            linen.Dropout(_checks.number("dropout", self.dropout, least=0, below=1)),
            deterministic=not train,
        )
        window = {"kernel_size": self.kernel_size, "dilation": self.dilation}
        x = drop(jax.nn.relu(self._conv("fc6", width, **window)(x)))
        x = drop(jax.nn.relu(self._conv("fc7", width, kernel_size=1)(x)))
        return self._conv("fc8", self.features, kernel_size=1)(x)

    def _conv(self, name: str, features: int, **options: Any) -> nn.Conv:
        own = {"use_bias": True, "dtype": self.dtype, "kernel_init": _from(self.key, name)}
        return nn.Conv(features, name=name, **own, **options)


def _from(key: jax.Array | None, name: str) -> Callable[..., jax.Array]:
    """He's initialization, from a key that does not depend on the path."""
    he_normal = linen.initializers.he_normal()
    if key is None:
        return he_normal
    own = jax.random.fold_in(key, int(name.removeprefix("fc")))
    return lambda _, *shape: he_normal(own, *shape)
