"""Dilated residual networks of stride 8 (Yu, Koltun & Funkhouser, CVPR 2017)."""

from dataclasses import replace

from rfjax import _checks
from rfjax.models import resnet
from rfjax.models.backbone import Architecture, Stage, Stem

WIDTHS = (16, 32, 64, 128, 256, 512, 512, 512)
STRIDES = (1, 2, 2, 2, 1, 1, 1, 1)
DILATIONS = (1, 1, 1, 1, 2, 4, 2, 1)

# Blocks of stages 3 to 6, by the depth of the network, and depths of all eight.
C_FAMILY = {
    26: ("basic", (1, 1, 2, 2, 2, 2, 1, 1)),
    42: ("basic", (1, 1, 3, 4, 6, 3, 1, 1)),
    58: ("bottleneck", (1, 1, 3, 4, 6, 3, 1, 1)),
}
D_FAMILY = {
    22: ("basic", (1, 1, 2, 2, 2, 2, 1, 1)),
    24: ("basic", (1, 1, 2, 2, 2, 2, 2, 2)),
    38: ("basic", (1, 1, 3, 4, 6, 3, 1, 1)),
    40: ("basic", (1, 1, 3, 4, 6, 3, 2, 2)),
    54: ("bottleneck", (1, 1, 3, 4, 6, 3, 1, 1)),
    56: ("bottleneck", (1, 1, 3, 4, 6, 3, 2, 2)),
    105: ("bottleneck", (1, 1, 3, 4, 23, 3, 1, 1)),
    107: ("bottleneck", (1, 1, 3, 4, 23, 3, 2, 2)),
}


# Dilations of the first block of a dilated stage, from the stage's own: none in the reference.
# Before a stride was replaced by a dilation, the convolution with the stride read the map of the
# stage before, and its successor the sparser one: "previous" computes what the ResNet did.
TRANSITIONS = {
    "none": lambda dilation: (1, 1),
    "previous": lambda dilation: (dilation // 2, dilation),
    "full": lambda dilation: (dilation, dilation),
}


def drn_a(depth: int, *, transition: str = "none") -> Architecture:
    """The ResNet of this depth with dilations 2 and 4 in place of the strides of stages 3 and 4.

    Args:
      depth: 18, 34 or 50; the weights are those of the ResNet.
      transition: dilations of the first block of stages 3 and 4. none: 1, as in the reference;
        previous: that of the stage before for the convolution that had the stride, so that every
        fourth pixel is the ResNet's, as torchvision's `replace_stride_with_dilation` has it;
        full: the stage's own.
    """
    first = _checks.choose("transition", transition, TRANSITIONS)
    plain = resnet.resnet(depth)
    dilated = tuple(
        replace(stage, stride=1, dilation=dilation, first_dilations=first(dilation))
        for stage, dilation in zip(plain.stages[2:], (2, 4), strict=True)
    )
    return Architecture(plain.stem, plain.stages[:2] + dilated)


def drn_tiny(*, width: int = 16, depth: int = 2) -> Architecture:
    """The ResNet of stride 8 of `resnet_tiny` with a dilation in place of its last stride.

    To it as `drn_a` is to the ResNets: the same field of view (39 x 39 pixels at the defaults) at
    twice the resolution, stride 4. The projection of the shortcut goes with the stride.

    Args:
      width: channels of the stem.
      depth: number of blocks, at least 2.
    """
    plain = resnet.resnet_tiny(width=width, depth=depth, output_stride=8)
    last = replace(plain.stages[-1], stride=1, dilation=2, first_dilations=(1, 2))
    return Architecture(plain.stem, (*plain.stages[:-1], last))


def drn_c(depth: int) -> Architecture:
    """A ResNet that ends in two stages without shortcuts, of falling dilation, against gridding."""
    block, depths = C_FAMILY[depth]
    blocks = ("basic",) * 2 + (block,) * 4 + ("basic",) * 2
    return Architecture(Stem(16), _stages(blocks, depths))


def drn_d(depth: int) -> Architecture:
    """DRN-C with plain convolutions in its first and last two stages."""
    block, depths = D_FAMILY[depth]
    blocks = ("plain",) * 2 + (block,) * 4 + ("plain",) * 2
    return Architecture(Stem(16, names=("layer0_0", "layer0_1")), _stages(blocks, depths))


def _stages(blocks: tuple[str, ...], depths: tuple[int, ...]) -> tuple[Stage, ...]:
    columns = zip(blocks, depths, WIDTHS, STRIDES, DILATIONS, strict=True)
    return tuple(
        Stage(block, depth, width, stride, dilation, residual=number < 7)
        for number, (block, depth, width, stride, dilation) in enumerate(columns, start=1)
    )
