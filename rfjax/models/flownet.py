"""FlowNet: where every pixel of an image has gone in the next one.

    flownet_s      both images, one after the other, are the channels of one input
    flownet_thin   the same with 3/8 of the channels
    flownet_c      both go through the same three convolutions, whose maps are correlated

A flow is (right, down) in pixels at every pixel of the first image: in this order, the reverse of
all other coordinates here, files and published weights have it.

Reference: Dosovitskiy et al., "FlowNet: Learning Optical Flow with Convolutional Networks", ICCV
  2015; Ilg et al., "FlowNet 2.0", CVPR 2017, for the thin one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from rfjax import _checks, matching, nn
from rfjax._engine.conv import convolve
from rfjax.models.resizing import bilinear_upsample

UNIT = 20.0  # pixels in which the networks count
FINEST = 4  # stride of the finest prediction
CONTEXTS = ("none", "lsdfn", "adadr")
REDIRECTED = 32  # channels of the first map that go beside its correlation

# Channels, size of the kernel and stride of the encoder's convolutions.
ENCODER = {
    **{"conv1": (64, 7, 2), "conv2": (128, 5, 2), "conv3": (256, 5, 2), "conv3_1": (256, 3, 1)},
    **{"conv4": (512, 3, 2), "conv4_1": (512, 3, 1), "conv5": (512, 3, 2), "conv5_1": (512, 3, 1)},
    **{"conv6": (1024, 3, 2), "conv6_1": (1024, 3, 1)},
}
DECODER = {5: 512, 4: 256, 3: 128, 2: 64}

activate = partial(jax.nn.leaky_relu, negative_slope=0.1)


@dataclass(frozen=True)
class Flow:
    """A network of two images.

    Attributes:
      widths: factor on all channels.
      correlated: whether the images meet in a correlation.
      context: what sees further behind conv3: none; lsdfn, filters of every pixel, whose outputs go
        to the decoder beside the map of the same stride; adadr, conv3_1 has a dilation regressed at
        every pixel.
      samples, sample_stride: of lsdfn.
    """

    widths: float = 1.0
    correlated: bool = False
    context: str = "none"
    samples: int = 7
    sample_stride: int = 2

    def network(self, **options: Any) -> linen.Module:
        """The network; of `create`'s options it has conv and dtype."""
        if options["num_classes"] != 2:
            raise ValueError(f"a flow has 2 channels; got num_classes={options['num_classes']!r}")
        if options["head"] != "score" or any(options["head_options"] or {}):
            raise ValueError(f"a network of flow has its own decoder; got head={options['head']!r}")
        return FlowNet(self, conv=options["conv"], dtype=options["dtype"])

    def inputs(self) -> tuple[jax.Array, ...]:
        """Of the smallest size, to make variables of."""
        return (jnp.zeros((1, 64, 64, 3)),) * 2

    def canonical(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The arrays of PyTorch's ports by the names of the layers here.

        A convolution is the first of a sequence there; some ports have no bias in the decoder, or
        one in the enlargement of flows, which must be zero where there is none here.

        Raises:
          ValueError: the enlargement of flows has a bias that has no place.
        """
        named = {}
        for name, array in arrays.items():
            layer, _, leaf = name.rpartition(".")
            layer = layer.removesuffix(".0")
            transposed = layer.startswith(("deconv", "upsampled_flow"))
            if transposed and leaf == "weight":
                array = array.swapaxes(0, 1)
            if layer.startswith("upsampled_flow") and leaf == "bias" and not self.correlated:
                _check_zero(name, array)
                continue
            named[f"{layer}.{leaf}"] = array
        decoding = ("deconv", "predict_flow", *(("upsampled_flow",) if self.correlated else ()))
        for name in [n for n in named if n.endswith(".weight") and n.startswith(decoding)]:
            bias = f"{name.removesuffix('weight')}bias"
            named.setdefault(bias, np.zeros(named[name].shape[0], np.float32))
        return named


def _check_zero(name: str, array: Any) -> None:
    """Raises unless an array that is left out adds nothing."""
    if np.any(np.asarray(array) != 0):
        raise ValueError(f"{name} is not zero, and this network has no such bias")


def flownet_s(*, context: str = "none", samples: int = 7, sample_stride: int = 2) -> Flow:
    """FlowNetS.

    Args:
      context: none | lsdfn | adadr, see `Flow`.
      samples, sample_stride: odd number of places along each axis and their distance, of lsdfn.

    Raises:
      ValueError: there is no such network.
    """
    return _checked(Flow(context=context, samples=samples, sample_stride=sample_stride))


def flownet_thin(*, context: str = "none", samples: int = 7, sample_stride: int = 2) -> Flow:
    """FlowNetS with 3/8 of its channels; its options are those of `flownet_s`."""
    return _checked(Flow(3 / 8, context=context, samples=samples, sample_stride=sample_stride))


def flownet_c(*, context: str = "none", samples: int = 7, sample_stride: int = 2) -> Flow:
    """FlowNetC; its options are those of `flownet_s`."""
    return _checked(
        Flow(correlated=True, context=context, samples=samples, sample_stride=sample_stride)
    )


def _checked(flow: Flow) -> Flow:
    _checks.choose("context", flow.context, CONTEXTS)
    _checks.pair("samples", flow.samples, odd=True)
    _checks.integer("sample_stride", flow.sample_stride)
    return flow


class Raise(linen.Module):
    """The map at twice its resolution, by a transposed convolution with 4 x 4 taps.

    y(p) = b + sum_q W(p + 1 - 2 q) x(q), zero outside

    Parameters: `kernel` [4, 4, C, features], `bias` [features] with `use_bias`.

    Attributes:
      features: channels of the output.
      use_bias: whether there is b.
      dtype: what is computed in; None for the type that map and parameters promote to.

    Calling it with x [N, H, W, C] returns [N, 2 H, 2 W, features].

    Example:
      >>> Raise(3).init_with_output(jax.random.key(0), jnp.ones((1, 4, 5, 2)))[0].shape
      (1, 8, 10, 3)
    """

    features: int
    use_bias: bool = True
    dtype: Any = None

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (4, 4, x.shape[-1], self.features)
        initial = linen.initializers.variance_scaling(4.0, "fan_in", "normal")
        kernel = self.param("kernel", initial, shape, jnp.float32)
        dtype = _checks.common_dtype(x, kernel) if self.dtype is None else self.dtype
        y = _raised(x.astype(dtype), kernel.astype(dtype))
        if not self.use_bias:
            return y
        bias = self.param("bias", linen.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(y.dtype).reshape(1, 1, 1, -1)


def _raised(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transposed convolution as one of 3 x 3 taps to the four pixels of each cell.

    The pixel 2 i + a reads the taps 3 - a - 2 u of the kernel at i + a + u - 1, u = 0 and 1.
    Without the zeros between the pixels of a dilated map it is half the work, and a CPU's kernel
    for it is quicker: 12 ms for 60 forward and backward at stride 4 of 192x256 pixels.
    """
    height, width, channels = x.shape[1:]
    features = kernel.shape[-1]
    taps = kernel[::-1, ::-1].reshape(2, 2, 2, 2, channels, features)  # u, a along y, then along x

    def cell(a: int, b: int) -> jax.Array:
        return jnp.pad(taps[:, a, :, b], ((a, 1 - a), (b, 1 - b), (0, 0), (0, 0)))

    cells = jnp.stack([cell(a, b) for a in (0, 1) for b in (0, 1)], 3)
    y = convolve(x, cells.reshape(3, 3, channels, 4 * features), 1, 1)
    y = y.reshape(-1, height, width, 2, 2, features).swapaxes(2, 3)
    return y.reshape(-1, 2 * height, 2 * width, features)


class FlowNet(linen.Module):
    """Flow at full resolution and at five coarser ones.

    Attributes:
      built: what it is built of.
      conv: layer class of the encoder's 3x3 convolutions, or a selection, see `rfjax.nn.select`.
      dtype: what is computed in; parameters and flows are float32.

    Calling it with two images [N, H, W, 3] returns {"flow": float32 [N, H, W, 2] in pixels, (right,
    down); "levels": five flows [N, ceil(H / s), ceil(W / s), 2], s = 4, 8, 16, 32 and 64, in units
    of 20 pixels}. Sizes are best multiples of 64: others are cropped on their way up.

    Raises:
      ValueError: the images are not of one shape with four axes.
      TypeError: they are not floating-point numbers.
    """

    built: Flow
    conv: Callable[..., linen.Module] | nn.Selection = nn.Conv
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, first: jax.Array, second: jax.Array, train: bool = False) -> dict[str, Any]:
        images = [_checks.float_array("images", image) for image in (first, second)]
        if images[0].shape != images[1].shape or images[0].ndim != 4:
            raise ValueError(
                f"want two images of one shape [N, H, W, 3]; got {images[0].shape}, "
                f"{images[1].shape}"
            )
        maps = self._encode([image.astype(self.dtype) for image in images], nn.Forward(train))
        levels = self._decode(maps)
        height, width = images[0].shape[1:3]
        whole = UNIT * bilinear_upsample(levels[0], FINEST)[:, :height, :width]
        return {"flow": whole, "levels": tuple(levels)}

    def _encode(self, images: Sequence[jax.Array], forward: nn.Forward) -> dict[int, jax.Array]:
        """The last map of each stride 2^level, by level."""
        run = partial(self._run, forward=forward)
        if self.built.correlated:
            layers = {name: self._layer(name) for name in ("conv1", "conv2", "conv3")}
            both = [self._shared(layers, image, forward) for image in images]
            (fine, x), (_, other) = both
            beside = run(self._layer("conv_redir", REDIRECTED, 1, 1), x)
            x = jnp.concatenate([beside, activate(matching.correlation(x, other))], -1)
        else:
            fine, x = self._shared(
                {name: self._layer(name) for name in ("conv1", "conv2", "conv3")},
                jnp.concatenate(images, -1),
                forward,
            )
        more = [self._context()(x)] if self.built.context == "lsdfn" else []
        maps = {2: fine}
        for level in range(3, 7):
            x = run(self._layer(f"conv{level}"), x) if level > 3 else x
            x = maps[level] = run(self._layer(f"conv{level}_1"), x)
        maps[3] = jnp.concatenate([maps[3], *more], -1)
        return maps

    def _shared(
        self, layers: dict[str, linen.Module], x: jax.Array, forward: nn.Forward
    ) -> tuple[jax.Array, jax.Array]:
        """The maps of conv2 and conv3."""
        first, second, third = layers.values()
        fine = self._run(second, self._run(first, x, forward), forward)
        return fine, self._run(third, fine, forward)

    def _layer(self, name: str, *shape: int) -> linen.Module:
        """A convolution of the encoder."""
        features, size, stride = shape or ENCODER[name]
        fixed = nn.Conv if size != 3 else None
        layer = nn.layer_at(self.conv, self, name, fixed=fixed)
        if name == "conv3_1" and self.built.context == "adadr":
            layer = nn.ContinuousDilationConv
        features = features if name == "conv_redir" else round(features * self.built.widths)
        options = {"use_bias": True, "dtype": self.dtype, "name": name}
        return layer(features, kernel_size=size, stride=stride, **options)

    def _run(self, layer: linen.Module, x: jax.Array, forward: nn.Forward) -> jax.Array:
        y, _ = nn.call(layer, x, forward)
        return activate(y)

    def _context(self) -> linen.Module:
        """Filters of every pixel behind conv3."""
        built = self.built
        return nn.DynamicFilter(
            24,
            samples=built.samples,
            sample_stride=built.sample_stride,
            dtype=self.dtype,
            name="context",
        )

    def _decode(self, maps: dict[int, jax.Array]) -> list[jax.Array]:
        """The flows from the finest to the coarsest, float32."""
        x, flows = maps[6], [self._predict(6, maps[6])]
        for level, features in DECODER.items():
            skip = maps[level]
            raised = Raise(
                round(features * self.built.widths), dtype=self.dtype, name=f"deconv{level}"
            )
            enlarge = Raise(
                2,
                use_bias=self.built.correlated,
                dtype=self.dtype,
                name=f"upsampled_flow{level + 1}_to_{level}",
            )
            parts = (activate(raised(x)), enlarge(flows[0].astype(self.dtype)))
            height, width = skip.shape[1:3]
            x = jnp.concatenate([skip, *(part[:, :height, :width] for part in parts)], -1)
            flows.insert(0, self._predict(level, x))
        return flows

    def _predict(self, level: int, x: jax.Array) -> jax.Array:
        options = {"use_bias": True, "dtype": self.dtype, "name": f"predict_flow{level}"}
        initial = linen.initializers.variance_scaling(1.0, "fan_in", "normal")
        return nn.Conv(2, kernel_init=initial, **options)(x).astype(jnp.float32)
