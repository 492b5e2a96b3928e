"""Layers that see context through dilation: context contrast and pyramids of rates.

Both go from features to scores and stand at the end of a network. Their branches are dilated
convolutions, which `blur` smooths in proportion to their dilation. Where they normalise, they are
called with (x, train): with train=True by the statistics of the batch, which go over the devices of
`axis_name`, and "batch_stats" must be mutable then; else by the running statistics.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, dilation
from rfjax._engine import conv
from rfjax.nn import _layer
from rfjax.nn.convolution import Conv
from rfjax.nn.forward import Forward, call
from rfjax.nn.normalization import BatchNorm


class BlurredDilatedConv(_layer.KernelLayer):
    """A dilated convolution of the map blurred in proportion to the dilation.

    y = f_d (g_sigma * x),   sigma = blur * dilation

    Parameters: `kernel` [kh, kw, C, features]; `bias` [features] with `use_bias`. The blur is not
    learned.

    Attributes: those of every layer, see `rfjax.nn`, and
      blur: standard deviation in units of the dilation, static; None or 0 for plain dilation.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features].

    Raises:
      ValueError: `blur` is negative, or a number is not a positive integer.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = BlurredDilatedConv(8, dilation=4).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, sorted(variables["params"])
      ((1, 9, 12, 8), ['kernel'])

    Reference: "Blurring the Line between Structure and Learning", section 5.1 (blurred dilation).
    """

    blur: float | None = 0.5

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x, kernel = self.prepare(x)
        y = dilation.blurred_dilated_conv(
            x, kernel, dilation=self.dilation, blur=self.blur, stride=self.stride
        )
        return self.add_bias(y)


class _Context(_layer.KernelLayer):
    """What the layers of this module add to the shared constructor."""

    blur: float | None = None
    axis_name: str | None = None
    norm: Callable[..., linen.Module] = partial(BatchNorm, unbiased=False)

    def branch(self, features: int, rate: int, name: str, **options) -> linen.Module:
        """A branch with the layer's kernel at a dilation; blurred if `blur` says so."""
        return BlurredDilatedConv(
            features,
            kernel_size=self.kernel_size,
            dilation=tuple(rate * each for each in conv.check_dilation(self.dilation)),
            groups=self.groups,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            blur=self.blur,
            name=name,
            **options,
        )

    def pointwise(self, features: int, name: str, **options) -> Conv:
        """A 1x1 convolution."""
        options = {"kernel_init": self.kernel_init, "dtype": self.dtype} | options
        return Conv(features, kernel_size=1, name=name, **options)

    def normalized(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """The map after batch normalisation."""
        norm = self.norm(
            use_running_average=not train, axis_name=self.axis_name, dtype=self.dtype, name=name
        )
        y, _ = call(norm, x, Forward(train))
        return y

    def pyramid(
        self,
        x: jax.Array,
        width: int,
        rates: tuple[int, ...],
        dropout: float | None,
        train: bool,
    ) -> jax.Array:
        """Branches of several rates and the mean over all pixels, merged to `width` channels."""
        dropout = _checks.number("dropout", 0.1 if dropout is None else dropout, least=0, below=1)

        def activate(name: str, y: jax.Array) -> jax.Array:
            return jax.nn.relu(self.normalized(y, f"{name}_norm", train))

        parts = [activate("point", self.pointwise(width, "point", stride=self.stride)(x))]
        for index, rate in enumerate(rates):
            name = f"rate_{index}"
            parts.append(activate(name, self.branch(width, rate, name, stride=self.stride)(x)))
        mean = jnp.mean(x, (-3, -2), keepdims=True)
        mean = activate("pool", self.pointwise(width, "pool")(mean))
        # By a sum: on a mesh with explicit axes it is sharded as the others.
        parts.append(jnp.zeros_like(parts[0]) + mean)
        y = activate("project", self.pointwise(width, "project")(jnp.concatenate(parts, -1)))
        return linen.Dropout(dropout, deterministic=not train)(y)

    def checked(self, x: ArrayLike) -> jax.Array:
        """The map, after the constructor's numbers were found valid."""
        self.checked_size()
        return _checks.float_array("x", x, min_ndim=3, layout="[..., H, W, C]")


class CCL(_Context):
    """Context contrasted local features: what a pixel has that its surroundings have not.

    h_i = relu(local_i(bn h_{i-1}) - context_i(bn h_{i-1})),   h_0 = x
    y = sum_i G_i score_i(h_i),   G = L softmax_i(gate_i(h_i)) of the L layers

    Local is a dense convolution, context a dilated one with weights of its own; score and gate are
    1x1. Every pixel weighs the layers by its gates; at first all weigh 1.

    Parameters: `norm_<i>` {scale, bias}; `local_<i>` and `context_<i>` {kernel [kh, kw, C, width]};
    `score_<i>` {kernel [1, 1, width, features]}; with several layers and gates `gate_<i>` {kernel
    [1, 1, width, 1], bias [1]}, zero at first; `bias` [features] with `use_bias`.

    Attributes: those of every layer, see `rfjax.nn`, where `stride` is the first contrast's and
      `dilation` multiplies that of all taps; and
      dilations: of the context, one for each contrasted layer. Static.
      width: channels of the contrasts.
      blur: standard deviation of a Gaussian before the context, in units of its dilation; None for
        plain dilation. The local branch is never blurred.
      fusion: gated | sum, of the scores of several layers.
      normalize: whether batch normalisation comes before each contrast.
      axis_name: pmapped axis over which batch statistics are averaged in training, or None.
      norm: layer class of the normalisation, with the constructor of `flax.linen.BatchNorm`, whose
        running variance it has unless told; networks of `rfjax.models` tell it.

    Calling it with x [..., H, W, C] and perhaps train=True returns [..., (H - 1) // stride + 1,
    (W - 1) // stride + 1, features].

    Raises:
      ValueError: an option is unknown, or a number is not what it must be.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = CCL(5, dilations=(2, 4), width=8, blur=0.5).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, sorted(variables["params"])[::2]
      ((1, 9, 12, 5), ['context_0', 'gate_0', 'local_0', 'norm_0', 'score_0'])

    Reference: Ding et al., "Context Contrasted Feature and Gated Multi-scale Aggregation for Scene
      Segmentation", CVPR 2018, sections 3.1 and 3.2.
    """

    dilations: Sequence[int] = (6,)
    width: int = 512
    fusion: str = "gated"
    normalize: bool = True

    FUSIONS: ClassVar[tuple[str, ...]] = ("gated", "sum")

    @linen.compact
    def __call__(self, x: ArrayLike, train: bool = False) -> jax.Array:
        x = self.checked(x)
        _checks.choose("fusion", self.fusion, self.FUSIONS)
        scores, gates = [], []
        rates = _checks.integers("dilations", self.dilations)
        for index, rate in enumerate(rates):
            x = self._contrast(x, index, rate, train)
            scores.append(self.pointwise(self.features, f"score_{index}")(x))
            if self.fusion == "gated" and len(rates) > 1:
                zeros = linen.initializers.zeros
                gate = self.pointwise(1, f"gate_{index}", use_bias=True, kernel_init=zeros)
                gates.append(gate(x))
        return self.add_bias(_fuse(scores, gates))

    def _contrast(self, x: jax.Array, index: int, rate: int, train: bool) -> jax.Array:
        """Local minus context."""
        stride = self.stride if index == 0 else 1
        if _checks.flag("normalize", self.normalize):
            x = self.normalized(x, f"norm_{index}", train)
        width = _checks.integer("width", self.width)
        local = Conv(
            width,
            kernel_size=self.kernel_size,
            stride=stride,
            dilation=self.dilation,
            groups=self.groups,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name=f"local_{index}",
        )
        context = self.branch(width, rate, f"context_{index}", stride=stride)
        return jax.nn.relu(local(x) - context(x))


def _fuse(scores: list[jax.Array], gates: list[jax.Array]) -> jax.Array:
    """The sum of the layers' scores, weighted by the gates [..., 1] if there are any."""
    if not gates:
        return reduce(add, scores)
    gates = [gate.astype(_checks.accumulation_dtype(gate)) for gate in gates]
    weights = len(gates) * jax.nn.softmax(jnp.concatenate(gates, -1), -1)
    weighted = (
        weights[..., index : index + 1].astype(score.dtype) * score
        for index, score in enumerate(scores)
    )
    return reduce(add, weighted)


class Pyramid(_Context):
    """The pyramid of DeepLab v3 without its scores: `ASPP` ends with one.

    y = dropout(r(conv1x1([r(conv1x1(x)), r(conv_r(x)) ..., r(conv1x1(mean x))])))
    with r = relu bn, and the mean over all pixels repeated at each

    Parameters: `point`, `rate_<i>`, `pool`, `project` {kernel [.., features]}, and as many
    `<name>_norm` {scale, bias}.

    Attributes: those of `ASPP` but `variant` and `width`; `features` are those of all branches and
      of the result, and `rates` None is (6, 12, 18), for features of stride 16.

    Calling it with x [..., H, W, C] and perhaps train=True returns [..., (H - 1) // stride + 1,
    (W - 1) // stride + 1, features].

    Raises:
      ValueError: a number is not what it must be.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = Pyramid(8, rates=(2, 4)).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, [name for name in sorted(variables["params"]) if "norm" not in name]
      ((1, 9, 12, 8), ['point', 'pool', 'project', 'rate_0', 'rate_1'])

    Reference: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
      section 3.3.
    """

    rates: Sequence[int] | None = None
    dropout: float | None = None

    @linen.compact
    def __call__(self, x: ArrayLike, train: bool = False) -> jax.Array:
        x = self.checked(x)
        rates = _checks.integers("rates", (6, 12, 18) if self.rates is None else self.rates)
        return self.add_bias(self.pyramid(x, self.features, rates, self.dropout, train))


class ASPP(_Context):
    """Atrous spatial pyramid pooling: parallel dilated convolutions of different rates.

    v2:  y = sum_r conv_r(x), every branch straight to the scores
    v3:  y = score(dropout(r(conv1x1([r(conv1x1(x)), r(conv_r(x)) ..., r(conv1x1(mean x))]))))
         with r = relu bn, and the mean over all pixels repeated at each

    Parameters: v2 `rate_<i>` {kernel [kh, kw, C, features]}; v3 `point`, `rate_<i>`, `pool`,
    `project` {kernel [.., width]} and as many `<name>_norm` {scale, bias}, and `score` {kernel
    [1, 1, width, features]}; `bias` [features] with `use_bias`.

    Attributes: those of every layer, see `rfjax.nn`, where `stride` is that of all branches and
      `dilation` multiplies all rates; and
      variant: v2 | v3.
      rates: the branches' dilations, static. None is (6, 12, 18, 24) for v2 and (12, 24, 36) for
        v3, which are meant for features of stride 8.
      blur: standard deviation of a Gaussian before each dilated branch, in units of its dilation;
        None for plain dilation.
      width: channels of v3's branches and of their projection; None is 256. v2 has none.
      dropout: share of v3's projected features that training sets to 0, drawn from the key
        "dropout"; None is 0.1. v2 has none.
      axis_name: pmapped axis over which batch statistics are averaged in training, or None.
      norm: layer class of the normalisation, with the constructor of `flax.linen.BatchNorm`, whose
        running variance it has unless told; networks of `rfjax.models` tell it.

    Calling it with x [..., H, W, C] and perhaps train=True returns [..., (H - 1) // stride + 1,
    (W - 1) // stride + 1, features]. In training v3 needs more than one example, as the mean's
    normalisation sees a number of each.

    Raises:
      ValueError: an option is unknown or not v2's, or a number is not what it must be.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = ASPP(5, variant="v3", rates=(2, 4), width=8).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, [name for name in sorted(variables["params"]) if "norm" not in name]
      ((1, 9, 12, 5), ['point', 'pool', 'project', 'rate_0', 'rate_1', 'score'])

    Reference: Chen et al., "DeepLab", TPAMI 2018, section 3.2 (v2); "Rethinking Atrous Convolution
      for Semantic Image Segmentation", 2017, section 3.3 (v3).
    """

    variant: str = "v2"
    rates: Sequence[int] | None = None
    width: int | None = None
    dropout: float | None = None

    RATES: ClassVar[dict[str, tuple[int, ...]]] = {"v2": (6, 12, 18, 24), "v3": (12, 24, 36)}

    @linen.compact
    def __call__(self, x: ArrayLike, train: bool = False) -> jax.Array:
        x = self.checked(x)
        default = _checks.choose("variant", self.variant, self.RATES)
        rates = _checks.integers("rates", default if self.rates is None else self.rates)
        if self.variant == "v2":
            return self.add_bias(self._sum(x, rates))
        return self.add_bias(self._concatenation(x, rates, train))

    def _sum(self, x: jax.Array, rates: tuple[int, ...]) -> jax.Array:
        """The pyramid of DeepLab v2."""
        for name in ("width", "dropout"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is an option of v3; v2 goes straight to the scores")
        branch = partial(self.branch, self.features, stride=self.stride)
        return reduce(add, (branch(rate, f"rate_{i}")(x) for i, rate in enumerate(rates)))

    def _concatenation(self, x: jax.Array, rates: tuple[int, ...], train: bool) -> jax.Array:
        """The pyramid of DeepLab v3, and its scores."""
        width = _checks.integer("width", self.width, optional=True) or 256
        y = self.pyramid(x, width, rates, self.dropout, train)
        return self.pointwise(self.features, "score")(y)
