"""Xception-65 as DeepLab has it: depthwise strides in place of poolings, and a deeper middle."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from flax import linen

from rfjax import nn
from rfjax.models.blocks import START, Convolving, conv_norm_relu
from rfjax.models.dilating import Step as Resolution
from rfjax.models.dilating import check_output_stride, dilated
from rfjax.models.stages import Staged, Step, chained
from rfjax.places import Place, in_sequence, window

STEM = (32, 64)
# Channels of the three convolutions of each block, and its stride: entry, middle and exit flow.
BLOCKS = (
    *(((width,) * 3, 2) for width in (128, 256, 728)),
    *((((728,) * 3, 1),) * 16),
    ((728, 1024, 1024), 2),
    ((1536, 1536, 2048), 1),
)


@dataclass(frozen=True)
class Aligned:
    """Blocks of separable convolutions; the maps "stem", "blocks_0" ... "blocks_20"."""

    output_stride: int = 32

    @property
    def resolutions(self) -> list[Resolution]:
        """Stride and dilation of every block."""
        return dilated([stride for _, stride in BLOCKS], self.output_stride, first=2)

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the last map."""
        return self.output_stride

    @property
    def features(self) -> int:
        """Channels of the last map."""
        return BLOCKS[-1][0][-1]

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        windows = {"stem": window(3, stride=2)}
        for number, step in enumerate(self.resolutions):
            windows[f"blocks_{number}"] = window(3, stride=step.stride)
        return in_sequence(windows)

    @property
    def children(self) -> dict[str, str]:
        """A reference has names of its own, see `canonical`."""
        return {}

    @property
    def unread(self) -> tuple[str, ...]:
        """Parts of the reference that nothing reads: none."""
        return ()

    def canonical(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The arrays of timm's network, by the names of the layers here."""
        return {_canonical(name): array for name, array in arrays.items()}

    def build(self, **options: Any) -> "Xception":
        """The backbone; options are its attributes."""
        return Xception(self, **options)


def _canonical(name: str) -> str:
    """The name of an array of timm's, by the layers here.

    Example:
      >>> _canonical("blocks.19.stack.conv3.bn_dw.bias"), _canonical("stem.1.conv.weight")
      ('blocks.19.bn3_dw.bias', 'stem_1_conv.weight')
    """
    name = re.sub(r"^stem\.(\d)\.", r"stem_\1_", name)
    name = re.sub(r"\.stack\.conv(\d)\.(conv|bn)_", r".\2\1_", name)
    return name.replace(".shortcut.", ".shortcut_").replace("head.fc.", "fc.")


def xception_65(*, output_stride: int = 32) -> Aligned:
    """Xception-65.

    Args:
      output_stride: 32, or 16 or 8 with dilations in place of the last strides.

    Raises:
      ValueError: there is no such network.
    """
    return Aligned(check_output_stride(output_stride))


class Xception(Staged):
    """A backbone of this family.

    Attributes: those of every backbone, see `rfjax.models.stages.Staged`, and
      architecture: what it is built of.

    Calling it with images [N, H, W, C] returns [N, ceil(H / stride), ceil(W / stride), 2048] in
    `dtype`.

    Reference: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
      Segmentation", ECCV 2018, section 3.2 and figure 4.
    """

    architecture: Aligned

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        return self.architecture.places

    def steps(self, train: bool) -> dict[str, Step]:
        """The stem and the blocks."""
        # TensorFlow's epsilon, which the published weights were trained with.
        norm = partial(self.normalization(train), epsilon=1e-3)
        blocks = [partial(self._block, number=n, norm=norm) for n in range(len(BLOCKS))]
        return chained(
            dict(zip(self.places, [partial(self._stem, norm=norm), *blocks], strict=True))
        )

    def _stem(
        self, x: jax.Array, forward: nn.Forward, norm: Callable
    ) -> tuple[jax.Array, nn.Forward]:
        for number, (features, stride) in enumerate(zip(STEM, (2, 1), strict=True)):
            names = (f"stem_{number}_conv", f"stem_{number}_bn")
            options = {"norm": norm, "fixed": True, "stride": stride}
            x, forward = conv_norm_relu(self, x, forward, features, names, **options)
        return x, forward

    def _block(
        self, x: jax.Array, forward: nn.Forward, number: int, norm: Callable
    ) -> tuple[jax.Array, nn.Forward]:
        widths, _ = BLOCKS[number]
        step = self.architecture.resolutions[number]
        block = linen.remat(SeparableBlock) if self.remat else SeparableBlock
        return block(
            widths,
            stride=step.stride,
            dilation=step.first,  # a block of its own is the first of its stage
            residual=number < len(BLOCKS) - 1,
            conv=self.conv,
            norm=norm,
            dtype=self.dtype,
            name=f"blocks_{number}",
        )(x, forward)


class SeparableBlock(Convolving):
    """Three separable convolutions, the stride in the last one, and a shortcut.

    x + s(r(s(r(s(r(x)))))),   s(x) = bn(conv1x1(bn(depthwise3x3(x)))),   r = relu

    The shortcut is bn(conv1x1(x)) where the block has a stride or changes channels. Without one the
    block is t(t(t(x))), t(x) = r(bn(conv1x1(r(bn(depthwise3x3(x)))))).

    Attributes: those of `rfjax.models.blocks.Convolving`, and
      widths: channels of the three.
      stride: of the last depthwise convolution.
      dilation: of all three.
      residual: whether there is a shortcut.

    Reference: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
      Segmentation", ECCV 2018, figure 4.
    """

    widths: tuple[int, ...]
    stride: int = 1
    dilation: int = 1
    residual: bool = True

    @linen.compact
    def __call__(self, x: jax.Array, forward: nn.Forward = START) -> tuple[jax.Array, nn.Forward]:
        y = x
        for number, features in enumerate(self.widths, start=1):
            y = jax.nn.relu(y) if self.residual else y
            stride = self.stride if number == 3 else 1
            parts = {
                "dw": self.depthwise(y.shape[-1], f"conv{number}_dw", stride, self.dilation),
                "pw": self.pointwise(features, f"conv{number}_pw"),
            }
            for part, layer in parts.items():
                y, forward = nn.call(layer, y, forward)
                y, forward = nn.call(self.norm(name=f"bn{number}_{part}"), y, forward)
                y = y if self.residual else jax.nn.relu(y)
        if not self.residual:
            return y, forward
        shortcut: Any = x
        if self.stride != 1 or x.shape[-1] != y.shape[-1]:
            projection = self.pointwise(y.shape[-1], "shortcut_conv", self.stride)
            shortcut, forward = nn.call(projection, x, forward)
            shortcut, forward = nn.call(self.norm(name="shortcut_bn"), shortcut, forward)
        return y + shortcut, forward
