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


# The dilation that the first block of a dilated stage has, from the stage's own. The reference does
# not dilate it; networks which replace strides by dilations give it the one of the stage before.
TRANSITIONS = {
    "none": lambda dilation: 1,
    "previous": lambda dilation: dilation // 2,
    "full": lambda dilation: dilation,
}


def drn_a(depth: int, *, transition: str = "none") -> Architecture:
    """The ResNet of this depth with dilations 2 and 4 in place of the strides of stages 3 and 4.

    Args:
      depth: 18, 34 or 50; the weights are those of the ResNet.
      transition: dilation of the first block of stages 3 and 4. none: 1 and 1, as in the
        reference; previous: 1 and 2; full: 2 and 4.
    """
    first = _checks.choose("transition", transition, TRANSITIONS)
    plain = resnet.resnet(depth)
    dilated = tuple(
        replace(stage, stride=1, dilation=dilation, first_dilation=first(dilation))
        for stage, dilation in zip(plain.stages[2:], (2, 4), strict=True)
    )
    return Architecture(plain.stem, plain.stages[:2] + dilated)


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
