"""MobileNetV2 (Sandler et al., CVPR 2018) at width 1, with strides or with dilations."""

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

STEM, TOP = 32, 1280
# Expansion, channels, number of blocks and stride of each group.
GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# torchvision numbers the layers of a block; here by what they are, without and with an expansion.
_LAYERS = {
    1: {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"},
    6: {
        **{"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2"},
        **{"2": "conv_pwl", "3": "bn3"},
    },
}


@dataclass(frozen=True)
class Inverted:
    """Groups of inverted residual blocks; the maps "conv_stem", "blocks_0" ... "blocks_6".

    At stride 32 a 1x1 convolution to 1280 channels follows, "conv_head", as classification has it.
    With dilations the network ends at the 320 channels of the last group, as DeepLab has it.
    """

    output_stride: int = 32

    @property
    def resolutions(self) -> list[Resolution]:
        """Stride and dilations of every group."""
        return dilated([stride for *_, stride in GROUPS], self.output_stride, first=2)

    @property
    def classifies(self) -> bool:
        """Whether the network ends in "conv_head"."""
        return self.output_stride == 32

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the last map."""
        return self.output_stride

    @property
    def features(self) -> int:
        """Channels of the last map."""
        return TOP if self.classifies else GROUPS[-1][1]

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        windows = {"conv_stem": window(3, stride=2)}
        for number, step in enumerate(self.resolutions):
            windows[f"blocks_{number}"] = window(3, stride=step.stride)
        return in_sequence(windows | ({"conv_head": window(1)} if self.classifies else {}))

    @property
    def children(self) -> dict[str, str]:
        """A reference has names of its own, see `canonical`."""
        return {}

    @property
    def unread(self) -> tuple[str, ...]:
        """Parts that nothing reads with dilations."""
        return () if self.classifies else ("conv_head", "bn2")

    def canonical(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The arrays of timm's or of torchvision's network, by the names of the layers here."""
        return {_canonical(name): array for name, array in arrays.items()}

    def build(self, **options: Any) -> "MobileNet":
        """The backbone; options are its attributes."""
        return MobileNet(self, **options)


def _canonical(name: str) -> str:
    """`blocks.1.0.conv_dw.weight` and `features.2.conv.1.0.weight` as `blocks_1.0.conv_dw.weight`.

    Example:
      >>> _canonical("features.2.conv.1.0.weight"), _canonical("features.18.1.bias")
      ('blocks_1.0.conv_dw.weight', 'bn2.bias')
    """
    layer, _, leaf = name.rpartition(".")
    ends = {"features.0.0": "conv_stem", "features.0.1": "bn1", "features.18.0": "conv_head"}
    ends |= {"features.18.1": "bn2", "classifier.1": "fc", "classifier": "fc"}
    if match := re.fullmatch(r"features\.(\d+)\.conv\.([\d.]+)", layer):
        group, index = _block(int(match[1]) - 1)
        part = _LAYERS[GROUPS[group][0]].get(match[2], match[2])
        return f"blocks_{group}.{index}.{part}.{leaf}"
    return f"{re.sub(r'^blocks[.](?=[0-9]+[.])', 'blocks_', ends.get(layer, layer))}.{leaf}"


def _block(number: int) -> tuple[int, int]:
    """The group of a block that is counted through, and its place there."""
    for group, (_, _, depth, _) in enumerate(GROUPS):
        if number < depth:
            return group, number
        number -= depth
    raise ValueError(f"MobileNetV2 has 17 blocks; the state dict has {18 + number} or more")


def mobilenet_v2(*, output_stride: int = 32) -> Inverted:
    """MobileNetV2.

    Args:
      output_stride: 32, or 16 or 8 with dilations in place of the last strides.

    Raises:
      ValueError: there is no such network.
    """
    return Inverted(check_output_stride(output_stride))


class MobileNet(Staged):
    """A backbone of this family.

    Attributes: those of every backbone, see `rfjax.models.stages.Staged`, and
      architecture: what it is built of.

    Calling it with images [N, H, W, C] returns [N, ceil(H / stride), ceil(W / stride), features]
    in `dtype`.
    """

    architecture: Inverted

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        return self.architecture.places

    def steps(self, train: bool) -> dict[str, Step]:
        """The stem, the groups of blocks, and perhaps the convolution that the classifier reads."""
        norm = self.normalization(train)
        outer = partial(conv_norm_relu, self, norm=norm, activation=jax.nn.relu6, fixed=True)
        stem = partial(outer, features=STEM, names=("conv_stem", "bn1"), stride=2)
        top = partial(outer, features=TOP, names=("conv_head", "bn2"), kernel_size=1)
        groups = [partial(self._group, number=n, norm=norm) for n in range(len(GROUPS))]
        runs = [stem, *groups, *([top] if self.architecture.classifies else [])]
        return chained(dict(zip(self.places, runs, strict=True)))

    def _group(
        self, x: jax.Array, forward: nn.Forward, number: int, norm: Callable
    ) -> tuple[jax.Array, nn.Forward]:
        """Blocks of one resolution."""
        expansion, features, depth, _ = GROUPS[number]
        step = self.architecture.resolutions[number]
        block = linen.remat(InvertedResidual) if self.remat else InvertedResidual
        for index in range(depth):
            x, forward = block(
                features,
                expansion=expansion,
                stride=1 if index else step.stride,
                dilation=step.dilation if index else step.first,
                conv=self.conv,
                norm=norm,
                dtype=self.dtype,
                name=f"blocks_{number}_{index}",
            )(x, forward)
        return x, forward


class InvertedResidual(Convolving):
    """A depthwise convolution of more channels than the block has, and a shortcut where it fits.

    x + bn(conv1x1(r(bn(depthwise3x3(r(bn(conv1x1(x))))))),   r(x) = min(max(x, 0), 6)

    The first convolution is left out where it does not widen, and the shortcut where the block
    has a stride or another number of channels.

    Attributes: those of `rfjax.models.blocks.Convolving`, and
      features: channels of the output.
      expansion: factor on the channels of the input.
      stride, dilation: of the depthwise convolution.

    Reference: Sandler et al., "MobileNetV2", CVPR 2018, section 3.3.
    """

    features: int
    expansion: int = 6
    stride: int = 1
    dilation: int = 1

    @linen.compact
    def __call__(self, x: jax.Array, forward: nn.Forward = START) -> tuple[jax.Array, nn.Forward]:
        channels, y = x.shape[-1], x
        width = channels * self.expansion
        wide = self.depthwise(width, "conv_dw", self.stride, self.dilation)
        layers = [(wide, jax.nn.relu6), (self.pointwise(self.features, self._last), lambda y: y)]
        if self.expansion != 1:
            layers.insert(0, (self.pointwise(width, "conv_pw"), jax.nn.relu6))
        for number, (layer, activation) in enumerate(layers, start=1):
            y, forward = nn.call(layer, y, forward)
            y, forward = nn.call(self.norm(name=f"bn{number}"), y, forward)
            y = activation(y)
        fits = self.stride == 1 and channels == self.features
        return (x + y if fits else y), forward

    @property
    def _last(self) -> str:
        """The name of the convolution after the depthwise one."""
        return "conv_pwl" if self.expansion != 1 else "conv_pw"
