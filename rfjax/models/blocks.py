"""The two residual blocks that most networks here are built of, the plain one, and their base."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax
from flax import linen

from rfjax import nn

START = nn.Forward()


def conv_norm_relu(
    module: linen.Module,
    x: jax.Array,
    forward: nn.Forward,
    features: int,
    names: tuple[str, str],
    *,
    norm: Callable[..., linen.Module],
    fixed: bool = False,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    **options: Any,
) -> tuple[jax.Array, nn.Forward]:
    """relu(norm(conv(x))), two children of a module that has `conv` and `dtype`.

    With `fixed` the convolution is plain unless a selection names it. `activation` takes the place
    of relu.
    """
    conv, bn = names
    layer = nn.layer_at(module.conv, module, conv, fixed=nn.Conv if fixed else None)
    convolution = layer(features, dtype=module.dtype, name=conv, **options)
    y, forward = nn.call(convolution, x, forward)
    y, forward = nn.call(norm(name=bn), y, forward)
    return activation(y), forward


def norm_relu(
    norm: linen.Module, x: jax.Array, forward: nn.Forward
) -> tuple[jax.Array, nn.Forward]:
    """relu(norm(x))."""
    y, forward = nn.call(norm, x, forward)
    return jax.nn.relu(y), forward


class Convolving(linen.Module, kw_only=True):
    """What blocks of convolutions share.

    Attributes:
      conv: layer class of the 3x3 convolutions, with the constructor of `rfjax.nn`, or a selection
        of several, see `rfjax.nn.select`.
      norm: normalisation, a function of its name that returns a layer.
      dtype: what is computed in.

    Calling a block with (x, forward) returns the output and the forward pass after it, see
    `rfjax.nn.forward`.
    """

    conv: Callable[..., linen.Module] | nn.Selection = nn.Conv
    norm: Callable[..., linen.Module] = partial(nn.BatchNorm, use_running_average=True)
    dtype: Any = None

    def pointwise(self, features: int, name: str, stride: int = 1) -> linen.Module:
        """A 1x1 convolution, which is plain unless a selection names it."""
        layer = nn.layer_at(self.conv, self, name, fixed=nn.Conv)
        return layer(features, kernel_size=1, stride=stride, dtype=self.dtype, name=name)

    def depthwise(
        self, channels: int, name: str, stride: int = 1, dilation: int = 1
    ) -> linen.Module:
        """A 3x3 convolution of each channel by itself."""
        layer = nn.layer_at(self.conv, self, name)
        return layer(
            channels,
            stride=stride,
            dilation=dilation,
            groups=channels,
            dtype=self.dtype,
            name=name,
        )


class _Block(Convolving):
    """What the residual blocks share.

    Attributes: those of `Convolving`, and
      width: channels of the 3x3 convolutions; the block has `expansion` times as many outputs.
      stride: of the block's first 3x3 convolution.
      dilations: of its first 3x3 convolution, and of a second one.
      residual: whether the block's input is added to its output.

    A shortcut that it is called with as well takes the place of the block's own.
    """

    expansion: ClassVar[int] = 1

    width: int
    stride: int = 1
    dilations: tuple[int, int] = (1, 1)
    residual: bool = True

    def spatial(self, name: str, stride: int = 1, dilation: int = 1) -> linen.Module:
        """A 3x3 convolution."""
        layer = nn.layer_at(self.conv, self, name)
        return layer(self.width, stride=stride, dilation=dilation, dtype=self.dtype, name=name)

    def finish(
        self, x: jax.Array, y: jax.Array, forward: nn.Forward, shortcut: jax.Array | None
    ) -> tuple[jax.Array, nn.Forward]:
        """The branch's output, with the shortcut if there is one: the block's own unless given."""
        if shortcut is not None:
            return jax.nn.relu(y + shortcut), forward
        own: Any = x
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            # Without a residual nothing reads the projection. The references have it all the same,
            # so their weights have a place here; a compiler removes it.
            projection = self.pointwise(y.shape[-1], "downsample_0", self.stride)
            own, forward = nn.call(projection, x, forward)
            own, forward = nn.call(self.norm(name="downsample_1"), own, forward)
        return jax.nn.relu(y + own if self.residual else y), forward


class BasicBlock(_Block):
    """Two 3x3 convolutions and a shortcut.

    relu(x + bn(conv3x3(relu(bn(conv3x3(x))))))

    Reference: He et al., "Deep Residual Learning", CVPR 2016, figure 5 left.
    """

    @linen.compact
    def __call__(
        self, x: jax.Array, forward: nn.Forward = START, shortcut: jax.Array | None = None
    ) -> tuple[jax.Array, nn.Forward]:
        first, second = self.dilations
        y, forward = nn.call(self.spatial("conv1", self.stride, first), x, forward)
        y, forward = norm_relu(self.norm(name="bn1"), y, forward)
        y, forward = nn.call(self.spatial("conv2", dilation=second), y, forward)
        y, forward = nn.call(self.norm(name="bn2"), y, forward)
        return self.finish(x, y, forward, shortcut)


class Bottleneck(_Block):
    """A 3x3 convolution between two 1x1 ones, and a shortcut; the stride is in the 3x3.

    relu(x + bn(conv1x1(relu(bn(conv3x3(relu(bn(conv1x1(x)))))))))

    Reference: He et al., "Deep Residual Learning", CVPR 2016, figure 5 right.
    """

    expansion: ClassVar[int] = 4

    @linen.compact
    def __call__(
        self, x: jax.Array, forward: nn.Forward = START, shortcut: jax.Array | None = None
    ) -> tuple[jax.Array, nn.Forward]:
        y, forward = nn.call(self.pointwise(self.width, "conv1"), x, forward)
        y, forward = norm_relu(self.norm(name="bn1"), y, forward)
        y, forward = nn.call(self.spatial("conv2", self.stride, self.dilations[0]), y, forward)
        y, forward = norm_relu(self.norm(name="bn2"), y, forward)
        y, forward = nn.call(self.pointwise(self.width * self.expansion, "conv3"), y, forward)
        y, forward = nn.call(self.norm(name="bn3"), y, forward)
        return self.finish(x, y, forward, shortcut)
