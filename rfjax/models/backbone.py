"""Any residual backbone, built from its description: a family of networks is data, not code."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from flax import linen

from rfjax import nn
from rfjax.models.blocks import BasicBlock, Bottleneck, conv_norm_relu
from rfjax.models.stages import Staged, Step, chained
from rfjax.places import Place, in_sequence, window

BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


@dataclass(frozen=True)
class Stem:
    """The first convolution with its normalisation, and perhaps a pooling.

    Attributes:
      width: channels.
      kernel_size, stride: of the convolution.
      pool: whether a 3x3 max pooling of stride 2 follows.
      names: of the convolution and the normalisation, in the tree of parameters.
    """

    width: int
    kernel_size: int = 7
    stride: int = 1
    pool: bool = False
    names: tuple[str, str] = ("conv1", "bn1")


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution, all but perhaps the first alike.

    Attributes:
      block: basic | bottleneck | plain (convolution, normalisation, relu).
      depth: number of blocks.
      width: channels of the 3x3 convolutions.
      stride: of the first block.
      dilation: of the 3x3 convolutions.
      first_dilations: of those of the first block, one by one; None where it is no exception.
      residual: whether the blocks have shortcuts.
    """

    block: str
    depth: int
    width: int
    stride: int = 1
    dilation: int = 1
    first_dilations: tuple[int, int] | None = None
    residual: bool = True

    def step(self, index: int) -> tuple[int, tuple[int, int]]:
        """The stride of a block, and the dilations of its 3x3 convolutions."""
        dilations = (self.dilation, self.dilation)
        if index:
            return 1, dilations
        return self.stride, self.first_dilations or dilations


@dataclass(frozen=True)
class Architecture:
    """A backbone: its stem and its stages, which are numbered from 1 as `layer1`, `layer2` ...

    The maps have the names of torchvision's modules: "conv1" ("layer0" in DRN-D), "maxpool" where
    the stem pools, "layer1" and so on.
    """

    stem: Stem
    stages: tuple[Stage, ...]

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the last map."""
        *_, last = self.places.values()
        return int(last.stride[0])

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        name, *_ = self.stem.names[0].split("_")
        windows = {name: window(self.stem.kernel_size, stride=self.stem.stride)}
        if self.stem.pool:
            windows["maxpool"] = window(3, stride=2)
        # Of a block the first 3x3 convolution has the stride.
        for number, stage in enumerate(self.stages, start=1):
            windows[f"layer{number}"] = window(3, stride=stage.stride)
        return in_sequence(windows)

    @property
    def features(self) -> int:
        """Channels of the last map."""
        last = self.stages[-1]
        return last.width * (BLOCKS[last.block].expansion if last.block in BLOCKS else 1)

    @property
    def children(self) -> dict[str, str]:
        """What the children of `base` in the reference's segmentation network are called here."""
        stages = [f"layer{number}" for number in range(1, len(self.stages) + 1)]
        if self.stem.names[0].startswith("layer0"):
            before = ["layer0"]
        else:
            before = ["conv1", "bn1", "relu"] + ["maxpool"] * self.stem.pool
        return {str(index): child for index, child in enumerate(before + stages)}

    @property
    def unread(self) -> tuple[str, ...]:
        """Parts of the reference that nothing reads and that are not built here: none."""
        return ()

    def build(self, **options: Any) -> "Backbone":
        """The backbone; options are its other attributes."""
        return Backbone(self, **options)


class Backbone(Staged):
    """A backbone of some architecture.

    Attributes: those of every backbone, see `rfjax.models.stages.Staged`, and
      architecture: what it is built of.

    Calling it with images [N, H, W, C] returns [N, ceil(H / stride), ceil(W / stride), features]
    in `dtype`.
    """

    architecture: Architecture

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        return self.architecture.places

    def steps(self, train: bool) -> dict[str, Step]:
        """The stem, the pooling and the stages of blocks, one after the other."""
        norm = self.normalization(train)
        built = self.architecture
        runs = [partial(self._stem, norm=norm)] + [self._pool] * built.stem.pool
        for number, stage in enumerate(built.stages, start=1):
            runs.append(partial(self._stage, stage=stage, name=f"layer{number}", norm=norm))
        return chained(dict(zip(built.places, runs, strict=True)))

    def _stem(
        self, x: jax.Array, forward: nn.Forward, norm: Callable
    ) -> tuple[jax.Array, nn.Forward]:
        stem = self.architecture.stem
        return conv_norm_relu(
            self,
            x,
            forward,
            stem.width,
            stem.names,
            norm=norm,
            fixed=True,
            kernel_size=stem.kernel_size,
            stride=stem.stride,
        )

    def _pool(self, x: jax.Array, forward: nn.Forward) -> tuple[jax.Array, nn.Forward]:
        around: Any = [(1, 1), (1, 1)]
        return linen.max_pool(x, (3, 3), strides=(2, 2), padding=around), forward

    def _stage(
        self, x: jax.Array, forward: nn.Forward, stage: Stage, name: str, norm: Callable
    ) -> tuple[jax.Array, nn.Forward]:
        """Blocks of one resolution."""
        run = self._plain if stage.block == "plain" else self._block
        for index in range(stage.depth):
            x, forward = run(x, forward, stage, index, name, norm)
        return x, forward

    def _block(
        self, x: jax.Array, forward: nn.Forward, stage: Stage, index: int, name: str, norm: Callable
    ) -> tuple[jax.Array, nn.Forward]:
        block = linen.remat(BLOCKS[stage.block]) if self.remat else BLOCKS[stage.block]
        stride, dilations = stage.step(index)
        return block(
            stage.width,
            stride=stride,
            dilations=dilations,
            residual=stage.residual,
            conv=self.conv,
            norm=norm,
            dtype=self.dtype,
            name=f"{name}_{index}",
        )(x, forward)

    def _plain(
        self, x: jax.Array, forward: nn.Forward, stage: Stage, index: int, name: str, norm: Callable
    ) -> tuple[jax.Array, nn.Forward]:
        """Convolution, normalisation, relu; each takes a number in the reference's sequence."""
        stride, (dilation, _) = stage.step(index)
        names = (f"{name}_{3 * index}", f"{name}_{3 * index + 1}")
        options = {"norm": norm, "stride": stride, "dilation": dilation}
        return conv_norm_relu(self, x, forward, stage.width, names, **options)
