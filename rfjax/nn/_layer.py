"""What every layer with a kernel shares: its constructor, its parameters, its checks."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, covariance
from rfjax._engine.blur import Blur, blur_of
from rfjax.nn._structure import Structured

Initializer = Callable[..., jax.Array]

# N(0, 2 / (kh kw features)): the initialisation of the DRN and ResNet references.
reference_init: Initializer = linen.initializers.variance_scaling(2.0, "fan_out", "normal")


def initial_covariance(sigma: ArrayLike, family: str, *, name: str = "sigma") -> np.ndarray:
    """The log-Cholesky parameters of an axis-aligned Gaussian, [F]; `name` is for errors."""
    size = _checks.choose("family", family, covariance.FAMILIES)
    sigmas = np.asarray(_checks.positive_pair(name, sigma), np.float32)
    if size == 1 and sigmas[0] != sigmas[1]:
        raise ValueError(f"a spherical covariance has one {name}; got {sigma!r}")
    log_y, log_x = np.log(sigmas)
    return np.asarray({1: [log_y], 2: [log_y, log_x], 3: [log_y, 0.0, log_x]}[size], np.float32)


# Flax's words for fields of layers.
FLAX = {"strides": "stride", "kernel_dilation": "dilation", "feature_group_count": "groups"}


class Spelled(linen.Module):
    """What lets a layer's constructor be called in other words: Flax's, and by a `Blur`.

        strides                 stride
        kernel_dilation         dilation
        feature_group_count     groups
        padding="SAME"          nothing: it is what layers do at stride 1, and with 1x1 kernels
        blur=rfjax.Blur(...)    truncate, padding, method and support, of layers that have them

    They are turned into the layer's own fields when it is made; giving one thing twice is an error.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)  # where Flax makes the class a dataclass
        made: Any = cls
        fields = [field.name for field in dataclasses.fields(made) if not field.kw_only]
        construct = cls.__init__

        @functools.wraps(construct)
        def in_any_words(self, *args: Any, **given: Any) -> None:
            same = "stride" in fields and _pop_same(given)
            _translate(fields, {*fields[: len(args)], *given}, given)
            construct(self, *args, **given)
            if same:
                _check_same(self)

        cls.__init__ = in_any_words


def _translate(fields: list[str], own: set[str], given: dict[str, Any]) -> None:
    """Puts `given` in the words of `fields`, of which those in `own` were given already."""
    for word in FLAX.keys() & given.keys():
        if (name := FLAX[word]) in fields:
            _check_once(word, {name} & own)
            given[name] = given.pop(word)
    if "truncate" in fields and (blur := given.pop("blur", None)) is not None:
        options = dataclasses.asdict(blur_of(blur, {}))
        _check_once("blur", options.keys() & own)
        given.update(options)


def _check_once(word: str, names: set[str]) -> None:
    """Raises where what `word` says was said under the layer's own names, too."""
    if names:
        raise ValueError(f"{word} says what {', '.join(sorted(names))} says: give one of them")


def _pop_same(given: dict[str, Any]) -> bool:
    """Whether the padding given is Flax's "SAME", which is taken out then."""
    same = isinstance(given.get("padding"), str) and given["padding"] == "SAME"
    if same:
        del given["padding"]
    return same


def _check_same(layer: Any) -> None:
    """Raises where a layer does not do what Flax calls padding "SAME"."""
    stride = _checks.pair("stride", layer.stride)
    if stride != (1, 1) and _checks.pair("kernel_size", layer.kernel_size) != (1, 1):
        raise ValueError(
            f"padding 'SAME' at stride {layer.stride!r} depends on the size of the map; layers "
            "center output (i, j) on input (stride i, stride j): leave padding out"
        )


class Blurring(Spelled):
    """The options of a blur as fields, see `rfjax.Blur`."""

    truncate: float = Blur.truncate
    padding: str = Blur.padding
    method: str = Blur.method
    support: str = Blur.support

    def blur_options(self) -> Blur:
        """The fields as a `Blur`, checked."""
        return Blur(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Blur)})


class KernelLayer(Spelled, Structured):
    """The shared constructor of the layers, and the parameters that follow from it.

    Attributes:
      features: number of output channels.
      kernel_size: odd size of the kernel, or (height, width).
      stride: step between output pixels, in input pixels, one number or (y, x).
      dilation: spacing of the free-form taps, in input pixels, one number or (y, x).
      use_bias: whether a number is added to each output channel at the end.
      dtype: what the layer computes in; None for the type that input and parameters promote to.
        Parameters are float32 always.
      kernel_init: initialiser of the free-form kernel.
      groups: number of equal parts of the channels, each of which makes the same part of the
        features; the kernel is [kh, kw, C / groups, features].
    """

    features: int
    kernel_size: int | Sequence[int] = 3
    stride: int | Sequence[int] = 1
    dilation: int | Sequence[int] = 1
    use_bias: bool = False
    dtype: Any = None
    kernel_init: Initializer = reference_init
    groups: int = 1

    def prepare(self, x: ArrayLike) -> tuple[jax.Array, jax.Array]:
        """The map and the kernel, in the type of the computation."""
        x = _checks.float_array("x", x, min_ndim=3, layout="[..., H, W, C]")
        kernel = self.free_form("kernel", x.shape[-1])
        dtype = _checks.common_dtype(x, kernel) if self.dtype is None else self.dtype
        return x.astype(dtype), kernel.astype(dtype)

    def free_form(
        self, name: str, channels: int, kernel_init: Initializer | None = None
    ) -> jax.Array:
        """A kernel parameter [kh, kw, C / groups, features]."""
        size = self.checked_size()
        if channels % self.groups or self.features % self.groups:
            raise ValueError(
                f"groups must divide the {channels} channels of x and the {self.features} "
                f"features; got {self.groups!r}"
            )
        shape = (*size, channels // self.groups, self.features)
        return self.param(name, kernel_init or self.kernel_init, shape, jnp.float32)

    def checked_size(self) -> tuple[int, int]:
        """(kh, kw), after the constructor's numbers were found valid."""
        for name in ("features", "groups"):
            _checks.integer(name, getattr(self, name))
        for name in ("stride", "dilation"):
            _checks.pair(name, getattr(self, name))
        _checks.flag("use_bias", self.use_bias)
        _checks.float_dtype("dtype", self.dtype)
        return _checks.pair("kernel_size", self.kernel_size, odd=True)

    def add_bias(self, y: jax.Array) -> jax.Array:
        """`y` plus the bias, if the layer has one."""
        if not self.use_bias:
            return y
        bias = self.param("bias", linen.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))

    def covariance_parameter(self, name: str, initial: np.ndarray) -> jax.Array:
        """A static covariance [F], which starts from `initial`."""
        return self.param(name, lambda key: jnp.asarray(initial))


def geometric_mean_sigma(params: jax.Array) -> jax.Array:
    """det(Sigma)^(1/4), the radius of the circle with the ellipse's area, of params [..., F]."""
    return jnp.exp(0.5 * (params[..., 0] + params[..., -1]))


def root_mean_square_radius(positions: jax.Array) -> jax.Array:
    """How far points [..., K, 2] lie from their mean."""
    centred = positions - jnp.mean(positions, -2, keepdims=True)
    # Away from 0 the square root has a gradient.
    return jnp.sqrt(jnp.mean(jnp.sum(centred**2, -1), -1) + 1e-12)
