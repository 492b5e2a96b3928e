"""Any residual backbone, built from its description: a family of networks is data, not code."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import nn
from rfjax.models.blocks import BasicBlock, Bottleneck, conv_norm_relu

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
    """A backbone: its stem and its stages, which are numbered from 1 as `layer1`, `layer2` ..."""

    stem: Stem
    stages: tuple[Stage, ...]

    @property
    def stride(self) -> int:
        """Input pixels per pixel of the last map."""
        strides = [stage.stride for stage in self.stages]
        return self.stem.stride * (2 if self.stem.pool else 1) * math.prod(strides)

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

    def build(self, **options: Any) -> linen.Module:
        """The backbone; options are its other attributes."""
        return Backbone(self, **options)


class Backbone(linen.Module):
    """A backbone of some architecture.

    Attributes:
      architecture: what it is built of.
      conv: layer class of all 3x3 convolutions after the stem, with the constructor of `rfjax.nn`,
        or a selection of layers by their paths, see `rfjax.nn.select`.
      dtype: what is computed in; parameters and batch statistics are float32.
      axis_name: pmapped axis over which batch statistics are averaged in training, or None.
      remat: whether the activations inside blocks are computed again for the gradient.
      norm: layer class of the normalisation, with the constructor of `flax.linen.BatchNorm`.

    Calling it with images [N, H, W, C] returns [N, ceil(H / stride), ceil(W / stride), features]
    in `dtype`.
    """

    architecture: Architecture
    conv: Callable[..., linen.Module] | nn.Selection = nn.Conv
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False
    norm: Callable[..., linen.Module] = nn.BatchNorm

    @linen.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        norm = partial(
            self.norm,
            use_running_average=not train,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )
        x = self._stem(jnp.asarray(images, self.dtype), norm)
        for number, stage in enumerate(self.architecture.stages, start=1):
            make = self._plain if stage.block == "plain" else self._block
            for index in range(stage.depth):
                x = make(x, stage, index, f"layer{number}", norm)
        return x

    def _stem(self, x: jax.Array, norm: Callable[..., linen.Module]) -> jax.Array:
        stem = self.architecture.stem
        x = conv_norm_relu(
            self,
            x,
            stem.width,
            stem.names,
            norm=norm,
            fixed=True,
            kernel_size=stem.kernel_size,
            stride=stem.stride,
        )
        if stem.pool:
            x = linen.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])
        return x

    def _block(
        self, x: jax.Array, stage: Stage, index: int, name: str, norm: Callable
    ) -> jax.Array:
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
        )(x)

    def _plain(
        self, x: jax.Array, stage: Stage, index: int, name: str, norm: Callable
    ) -> jax.Array:
        """Convolution, normalisation, relu; each takes a number in the reference's sequence."""
        stride, (dilation, _) = stage.step(index)
        names = (f"{name}_{3 * index}", f"{name}_{3 * index + 1}")
        return conv_norm_relu(
            self, x, stage.width, names, norm=norm, stride=stride, dilation=dilation
        )
