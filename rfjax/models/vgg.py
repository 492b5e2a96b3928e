"""VGG-16 (Simonyan & Zisserman, ICLR 2015) as a fully convolutional network, and a tiny one.

Five blocks of 3x3 convolutions, each with a pooling, and the dense layers of the classifier as
convolutions. The maps are "pool1" ... "pool5", "fc6" and "fc7".
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rfjax import _checks, nn
from rfjax.models import caffe, caffe_names
from rfjax.places import Place, in_sequence, window

STRIDE = 32
OUTPUT_STRIDES = (32, 8)


@dataclass(frozen=True)
class Blocks:
    """What a network of this family is built of.

    Attributes:
      widths, depths: channels and convolutions of the five blocks.
      features: channels of fc6 and fc7.
      border: padding of the first convolution; None for 1, with fc6 padded.
      stride: input pixels per pixel of "fc7", 32 or 8.
      dropout: share of the outputs of fc6 and fc7 that training drops.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    features: int
    border: int | None = None
    stride: int = STRIDE
    dropout: float = 0.5

    @property
    def poolings(self) -> tuple[tuple[int, int], ...]:
        """Stride of every pooling, and dilation of it and of its block."""
        sparse = 5 if self.stride == STRIDE else 3
        return tuple((2, 1) if n < sparse else (1, 2 ** (n - sparse)) for n in range(5))

    @property
    def dilation(self) -> int:
        """Of fc6."""
        return STRIDE // self.stride

    @property
    def padding(self) -> int:
        """Of fc6: the least with which the scores reach over the image."""
        return caffe.least_padding(self._pooled["pool5"], 7, self.dilation)

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        pooled = self._pooled
        fc6 = window(7, dilation=self.dilation, padding=self.padding)
        return pooled | dict.fromkeys(("fc6", "fc7"), pooled["pool5"].then(fc6))

    @property
    def _pooled(self) -> dict[str, Place]:
        """The places of the maps of the five blocks."""
        windows = {
            f"pool{number}": window(2, stride=stride, dilation=dilation, padding=0)
            for number, (stride, dilation) in enumerate(self.poolings, start=1)
        }
        windows["pool1"] = window(3, padding=self.border or 1).then(windows["pool1"])
        return in_sequence(windows)

    @property
    def names(self) -> tuple[str, ...]:
        """The convolutions in order."""
        blocks = enumerate(self.depths, start=1)
        return tuple(f"conv{block}_{i}" for block, depth in blocks for i in range(1, depth + 1))

    @property
    def children(self) -> dict[str, str]:
        """A reference has names of its own, see `canonical`."""
        return {}

    @property
    def unread(self) -> tuple[str, ...]:
        """The classifier's last layer has no place."""
        return ("fc8",)

    @property
    def sliding(self) -> tuple[str, ...]:
        """The layers that slide over the last pooled map."""
        return ("fc6", "fc7")

    def canonical(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The arrays of a network of PyTorch under the names of Caffe's layers."""
        return caffe_names.vgg(arrays, self.names)

    def build(self, **options: Any) -> "Vgg":
        """The backbone; options are its other attributes."""
        return Vgg(self, **options)


def vgg_16(
    *,
    border: int | None = 100,
    light: int | None = None,
    output_stride: int = STRIDE,
    dropout: float = 0.5,
) -> Blocks:
    """VGG-16.

    Args:
      border: padding of conv1_1, 100 or 81, with fc6 not padded; or None (or 0) for 1, with fc6
        padded so that the scores reach over the image.
      light: channels of fc6 and fc7; None for 4096.
      output_stride: 32; or 8, with dilations 2 and 4 in place of the last two strides, so that
        every fourth pixel along each axis sees what it sees at 32.
      dropout: share of the outputs of fc6 and fc7 that training drops, 0 <= dropout < 1.

    Raises:
      ValueError: there is no such network.
    """
    widths, depths = (64, 128, 256, 512, 512), (2, 2, 3, 3, 3)
    return _blocks(widths, depths, 4096 if light is None else light, border, output_stride, dropout)


def vgg_tiny(
    *,
    border: int | None = None,
    light: int | None = None,
    output_stride: int = STRIDE,
    dropout: float = 0.5,
) -> Blocks:
    """A small one for studies on a CPU: five blocks of one convolution, 16 to 64 channels.

    Args:
      border, light, output_stride, dropout: as of `vgg_16`; None for 64 channels of fc6 and fc7.

    Raises:
      ValueError: there is no such network.
    """
    widths, depths = (16, 24, 32, 48, 64), (1, 1, 1, 1, 1)
    return _blocks(widths, depths, 64 if light is None else light, border, output_stride, dropout)


def _blocks(
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    features: int,
    border: int | None,
    output_stride: int,
    dropout: float,
) -> Blocks:
    features = _checks.integer("light", features)
    if not _checks.is_integer(output_stride) or output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride is one of 32, 8; got {output_stride!r}")
    border = caffe.check_border(border)
    dropout = _checks.number("dropout", dropout, least=0, below=1)
    return Blocks(widths, depths, features, border, int(output_stride), dropout)


class Vgg(caffe.Plain):
    """A backbone of this family.

    Attributes: those of every backbone, see `rfjax.models.stages.Staged`, and
      blocks: what it is built of.

    Calling it with images [N, H, W, C] returns the map "fc7" in `dtype`. With train=True it draws
    from the stream "dropout".
    """

    blocks: Blocks

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        return self.blocks.places

    def runs(self) -> dict[str, Callable]:
        """The blocks, and the classifier."""
        blocks = {f"pool{number}": partial(_block, number=number) for number in range(1, 6)}
        return {**blocks, "fc6": _first_dense, "fc7": _second_dense}


def _block(
    module: Vgg, x: jax.Array, forward: nn.Forward, number: int
) -> tuple[jax.Array, nn.Forward]:
    """Convolutions and a pooling."""
    blocks = module.blocks
    stride, dilation = blocks.poolings[number - 1]
    if number == 1:  # a layer pads by 1 itself
        x = caffe.bordered(x, (blocks.border or 1) - 1)
    for index in range(1, blocks.depths[number - 1] + 1):
        name, first = f"conv{number}_{index}", (number, index) == (1, 1)
        options = {"dilation": dilation, "fixed": first}
        x, forward = module.convolve(x, forward, name, blocks.widths[number - 1], **options)
    return (caffe.max_pool(x, 2, 2) if stride == 2 else _dense_pool(x, dilation)), forward


def _dense_pool(x: jax.Array, dilation: int) -> jax.Array:
    """The largest of 2x2 pixels `dilation` apart, at every pixel.

    A dilated pooling of XLA has no gradient.
    """
    for axis in (1, 2):
        margins = [(0, dilation if axis == each else 0) for each in range(4)]
        padded = jnp.pad(x, margins, constant_values=-jnp.inf)
        x = jnp.maximum(x, jax.lax.slice_in_dim(padded, dilation, None, axis=axis))
    return x


def _first_dense(module: Vgg, x: jax.Array, forward: nn.Forward) -> tuple[jax.Array, nn.Forward]:
    blocks = module.blocks
    drops = {"dropout": blocks.dropout}
    options = {"kernel_size": 7, "padding": blocks.padding, "dilation": blocks.dilation}
    return module.classify(x, forward, "fc6", blocks.features, **options, **drops), forward


def _second_dense(module: Vgg, x: jax.Array, forward: nn.Forward) -> tuple[jax.Array, nn.Forward]:
    blocks = module.blocks
    return module.classify(x, forward, "fc7", blocks.features, dropout=blocks.dropout), forward
