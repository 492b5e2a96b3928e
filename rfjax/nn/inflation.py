"""A layer between an inflation of its map and the way back."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, inflation
from rfjax._names import FACTOR_GRADIENTS
from rfjax.nn._structure import Structured
from rfjax.nn.forward import Forward, call

# Canvases by their largest factor; the smallest that holds the map is computed.
_CANVASES = (1.0, 1.5, 2.0, 3.0, 4.0)


class Inflated(Structured, linen.Module):
    """A layer that reads its map enlarged by a learned factor; its outputs are brought back.

    y = interpolate(layer(inflate(x, f)), f)

    With f > 1 the layer sees less of the map, with f < 1 more. At f = 1 it is the layer itself.
    With `per_image` every image has a factor of its own, f + r mean_p x(p), of a regressor r that
    is zero at first.

    Parameters: `factor` [], f; those of the layer under "layer"; `factor_regressor` {kernel [C, 1]}
    with `per_image`.

    Attributes:
      layer: a module of a map that returns a map of the same size, such as a convolution of
        stride 1. Spatial filters after its first one see what lies beyond the inflated map.
      initial: the first f, within the bounds.
      bounds: of f, which is cut to them, (least, most).
      gradient: of f. "true" is the derivative. "paper" divides what comes from the inflation and
        from the interpolation by the number of pixels of the map that each of them makes.
        "released" divides the first by examples and pixels of x, the second by examples and pixels
        of y, and the gradients of the maps by the square of the enlargement as well.
      per_image: whether each image has a factor of its own; x has one batch axis then.

    Calling it with (x [..., H, W, C], train) returns [..., H, W, features].

    Raises:
      ValueError: an option is unknown, the bounds do not hold `initial`, or the layer changes the
        size of its map.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> from rfjax import nn
      >>> layer = Inflated(nn.Conv(8, dilation=2), initial=1.5)
      >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, sorted(variables["params"])
      ((1, 9, 12, 8), ['factor', 'layer'])

    Reference: Wei et al., "Learning Adaptive Receptive Fields for Deep Image Parsing Network",
      CVPR 2017.
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {"factor": "other", "factor_regressor": "regressor"}

    layer: linen.Module
    initial: float = 1.0
    bounds: tuple[float, float] = (0.25, 4.0)
    gradient: str = "paper"
    per_image: bool = False

    @linen.compact
    def __call__(self, x: ArrayLike, train: bool = False) -> jax.Array:
        x = _checks.float_array("x", x, min_ndim=3, layout="[..., H, W, C]")
        least, most = self._checked_bounds()
        _checks.choose("gradient", self.gradient, FACTOR_GRADIENTS)
        factor = self.param("factor", lambda key: jnp.asarray(self.initial, jnp.float32))
        if _checks.flag("per_image", self.per_image):
            factor = self._of_images(x, factor)
        # The value is cut, the gradient is not: f can come back from a bound.
        factor = factor + jax.lax.stop_gradient(jnp.clip(factor, least, most) - factor)
        canvases = [canvas for canvas in _CANVASES if canvas < most] + [max(most, 1.0)]
        largest = jnp.max(jax.lax.stop_gradient(factor))
        index = jnp.searchsorted(jnp.asarray(canvases), largest)
        branches = [_branch(canvas, train) for canvas in canvases]
        if self.is_initializing():
            return branches[0](self, x, factor)
        return linen.switch(index, branches, self, x, factor)

    def _of_images(self, x: jax.Array, factor: jax.Array) -> jax.Array:
        """The factors [N] of images."""
        if x.ndim != 4:
            raise ValueError(f"a factor of each image wants x [N, H, W, C]; got {x.shape}")
        mean = jnp.mean(x, (1, 2), dtype=_checks.accumulation_dtype(x))
        options = {"use_bias": False, "kernel_init": linen.initializers.zeros}
        regressor = linen.Dense(1, name="factor_regressor", dtype=jnp.float32, **options)
        return factor + regressor(mean.astype(jnp.float32))[:, 0]

    def _checked_bounds(self) -> tuple[float, float]:
        if len(self.bounds) != 2:
            raise ValueError(f"bounds must be two numbers, (least, most); got {self.bounds!r}")
        least = _checks.number("bounds", self.bounds[0], above=0)
        most = _checks.number("bounds", self.bounds[1], least=least)
        _checks.number("initial", self.initial, least=least, most=most)
        return least, most


def _branch(canvas: float, train: bool) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """The layer on a canvas of that largest factor."""

    def run(module: Inflated, x: jax.Array, factor: jax.Array) -> jax.Array:
        examples = x.size // max(x.shape[-3] * x.shape[-2] * x.shape[-1], 1)
        there = partial(_inflated, module.gradient, examples, canvas)
        back = partial(_interpolated, module.gradient, examples, x.shape[-3:-1])
        if factor.ndim:  # of each image
            there, back = jax.vmap(there), jax.vmap(back)
        inflated, size = there(x, factor)
        y, _ = call(module.layer, inflated, Forward(train))
        if y.shape[:-1] != inflated.shape[:-1]:
            raise ValueError(
                f"the layer must keep the size of its map {inflated.shape}; it made {y.shape}"
            )
        return back(y, factor, size)

    return run


def _inflated(
    kind: str, examples: int, canvas: float, x: jax.Array, factor: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The map on its canvas and its size, with the gradients of a kind."""
    size = inflation.inflate(x, factor, max_factor=canvas)[1]
    (map_scale, factor_scale), _ = _gradients(kind, examples, x.shape[-3:-1], factor, size)
    return inflation.inflate(
        inflation.scale_gradient(x, map_scale.astype(x.dtype)),
        inflation.scale_gradient(factor, factor_scale),
        max_factor=canvas,
    )


def _interpolated(
    kind: str,
    examples: int,
    target: tuple[int, ...],
    y: jax.Array,
    factor: jax.Array,
    size: jax.Array,
) -> jax.Array:
    """The canvas brought back to the size of the map, with the gradients of a kind."""
    _, (map_scale, factor_scale) = _gradients(kind, examples, target, factor, size)
    return inflation.interpolate(
        inflation.scale_gradient(y, map_scale.astype(y.dtype)),
        inflation.scale_gradient(factor, factor_scale),
        size,
        (target[0], target[1]),
    )


Scales = tuple[jax.Array, jax.Array]


def _gradients(
    kind: str, examples: int, shape: tuple[int, ...], factor: jax.Array, size: jax.Array
) -> tuple[Scales, Scales]:
    """What the gradients of map and factor are multiplied by: on the way there, and back."""
    one, pixels = jnp.ones((), factor.dtype), shape[0] * shape[1]
    if kind == "true":
        return (one, one), (one, one)
    inflated = jnp.prod(size).astype(factor.dtype)
    if kind == "paper":  # the mean over the layer's own target pixels, summed over the batch
        return (one, 1 / inflated), (one, one / pixels)
    share = one / max(examples * pixels, 1)
    return (1 / factor**2, share), (factor**2, share)
