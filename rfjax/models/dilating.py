"""Dilations in place of strides: the same weights, at a finer resolution."""

from collections.abc import Sequence
from typing import NamedTuple

from rfjax import _checks

OUTPUT_STRIDES = (32, 16, 8)


class Step(NamedTuple):
    """What a stage does to the resolution.

    Attributes:
      stride: of its first block.
      first: dilation of its first block.
      dilation: of the others.
    """

    stride: int
    first: int
    dilation: int


def dilated(strides: Sequence[int], output_stride: int, *, first: int) -> list[Step]:
    """Stages of a network of which no map has a larger stride than the last one is to have.

    A stage whose stride would go beyond it has stride 1, and the dilation of all later blocks is
    multiplied by the stride that is gone. Its first block still reads the map of the stage before,
    and has the dilation of that.

    Args:
      strides: of the first blocks of all stages.
      output_stride: 32, 16 or 8.
      first: stride of the map that the first stage reads.

    Raises:
      ValueError: there is no such output stride.

    Example:
      >>> dilated((1, 2, 2), 8, first=4)
      [Step(stride=1, first=1, dilation=1), Step(stride=2, first=1, dilation=1), \
Step(stride=1, first=1, dilation=2)]

    Reference: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
      section 3.1.
    """
    check_output_stride(output_stride)
    reached, dilation, steps = first, 1, []
    for stride in strides:
        before = dilation
        if reached * stride > output_stride:
            dilation, stride = dilation * stride, 1
        reached *= stride
        steps.append(Step(stride, before, dilation))
    return steps


def check_output_stride(output_stride: int) -> int:
    """The output stride, if a network can have it.

    Raises:
      ValueError: it is none of 32, 16 and 8.
    """
    if not _checks.is_integer(output_stride) or output_stride not in OUTPUT_STRIDES:
        raise ValueError(f"output_stride is one of 32, 16, 8; got {output_stride!r}")
    return int(output_stride)
