"""ResNet (He et al., CVPR 2016), the bottleneck's stride in its 3x3, and a tiny one.

Maps have sizes ceil(n / stride): paddings are symmetric, as in the networks whose weights fit here.
"""

from rfjax import _checks
from rfjax.models.backbone import Architecture, Stage, Stem
from rfjax.models.dilating import dilated

WIDTHS = (64, 128, 256, 512)
BLOCKS_AND_DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
}
STEM = Stem(64, stride=2, pool=True)


def resnet(depth: int, *, output_stride: int = 32) -> Architecture:
    """The ResNet of 18, 34, 50 or 101 layers.

    Args:
      depth: number of layers.
      output_stride: 32; or 16 or 8, with dilations in place of the last strides, as DeepLab and
        torchvision have it: each dilated stage begins at the dilation of the stage before.

    Raises:
      ValueError: there is no such network.
    """
    block, depths = BLOCKS_AND_DEPTHS[depth]
    steps = dilated((1, 2, 2, 2), output_stride, first=4)
    stages = [
        Stage(block, n, width, step.stride, step.dilation, (step.first, step.dilation))
        for n, width, step in zip(depths, WIDTHS, steps, strict=True)
    ]
    return Architecture(STEM, tuple(stages))


def resnet_tiny(*, width: int = 16, depth: int = 2, output_stride: int = 4) -> Architecture:
    """A ResNet for studies on a CPU: a strided 3x3 stem, then basic blocks of twice its width.

    The stem halves the resolution, and each of the first blocks does until `output_stride` is
    reached. At the defaults an output sees 31 x 31 pixels.

    Args:
      width: channels of the stem.
      depth: number of blocks.
      output_stride: input pixels per output pixel, a power of two between 4 and 2^(depth + 1).

    Raises:
      ValueError: there is no such network.
    """
    width, depth = _checks.integer("width", width), _checks.integer("depth", depth)
    output_stride = _checks.integer("output_stride", output_stride)
    halvings = output_stride.bit_length() - 2
    if halvings < 1 or output_stride != 2 ** (halvings + 1) or halvings > depth:
        raise ValueError(
            f"output_stride must be a power of two from 4 to 2^(depth + 1) = {2 ** (depth + 1)}; "
            f"got {output_stride!r}"
        )
    depths = [1] * (halvings - 1) + [depth - halvings + 1]
    stages = tuple(Stage("basic", n, 2 * width, stride=2) for n in depths)
    return Architecture(Stem(width, kernel_size=3, stride=2), stages)
