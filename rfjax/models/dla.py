"""Deep layer aggregation (Yu et al., CVPR 2018): trees of blocks, and a decoder that merges them.

Levels 0 and 1 are plain convolutions, every further one is a tree of basic blocks whose root, a 1x1
convolution, reads all of them. Level l has stride 2^l. The decoder raises coarse levels by learned
interpolation and merges them into finer ones, a 3x3 convolution a merge (`node_*`), until all are
in the level of the output. Sizes that 2^l does not divide are rounded up, and what is raised is
cropped to the map that it joins; at the multiples of the reference nothing is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import _checks, nn
from rfjax.models.blocks import START, BasicBlock, conv_norm_relu
from rfjax.models.raising import BilinearRaise
from rfjax.models.stages import Staged, Step, chained
from rfjax.places import Place, in_sequence, window

# What a part returns: a map and the forward pass after it.
Computed = tuple[jax.Array, nn.Forward]

# The level whose resolution the output has, by its stride.
FIRST_LEVELS = {2: 1, 4: 2}
PLAIN_LEVELS = 2


@dataclass(frozen=True)
class Aggregation:
    """A backbone of deep layer aggregation with its decoder.

    Attributes:
      widths: channels of the levels, from the finest.
      depths: of the trees, which are levels 2, 3 ...; a tree of depth d has 2^d blocks.
      stride: input pixels per pixel of the output, 2 or 4.
      kernel_size: of the stem's convolution.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stride: int = 2
    kernel_size: int = 7

    @property
    def first_level(self) -> int:
        """The level that the output is of."""
        return FIRST_LEVELS[self.stride]

    @property
    def features(self) -> int:
        """Channels of the output."""
        return self.widths[self.first_level]

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of the levels and of the decoder's output "dla_up"."""
        stem = window(self.kernel_size).then(window(3))
        levels = {f"level{level}": window(3, stride=2) for level in range(1, len(self.widths))}
        places = in_sequence({"level0": stem, **levels})
        return places | {"dla_up": places[f"level{self.first_level}"]}

    @property
    def children(self) -> dict[str, str]:
        """What the children of `base` in the reference's segmentation network are called here."""
        levels = [f"level{level}" for level in range(len(self.widths))]
        return {name: name for name in ("base_layer", *levels)}

    @property
    def unread(self) -> tuple[str, ...]:
        """Parts of the reference that nothing reads: the projections around trees of trees."""
        deep = (level for level, depth in enumerate(self.depths, start=PLAIN_LEVELS) if depth > 1)
        return tuple(f"level{level}.project" for level in deep)

    def build(self, **options: Any) -> "DeepLayerAggregation":
        """The backbone; options are its other attributes."""
        return DeepLayerAggregation(self, **options)


def dla_34(*, down_ratio: int = 2) -> Aggregation:
    """DLA-34, whose decoder merges ten times at a down ratio of 2, and six times at 4.

    Args:
      down_ratio: input pixels per pixel of the output, 2 or 4.

    Raises:
      ValueError: the ratio is neither.
    """
    return Aggregation((16, 32, 64, 128, 256, 512), (1, 2, 2, 1), _stride(down_ratio))


def dla_tiny(*, width: int = 8, depth: int = 3, down_ratio: int = 2) -> Aggregation:
    """A small one for studies on a CPU: level l has l + 1 times `width` channels.

    Args:
      width: channels of level 0.
      depth: the number of the coarsest level, whose stride is 2^depth; at least 3. There are
        depth (depth - 1) / 2 merges at a down ratio of 2, (depth - 1) (depth - 2) / 2 at 4.
      down_ratio: input pixels per pixel of the output, 2 or 4.

    Raises:
      ValueError: there is no such network.
    """
    width, depth = _checks.integer("width", width), _checks.integer("depth", depth, least=3)
    widths = tuple(width * (level + 1) for level in range(depth + 1))
    depths = (1,) * (depth + 1 - PLAIN_LEVELS)
    return Aggregation(widths, depths, _stride(down_ratio), kernel_size=3)


def _stride(down_ratio: int) -> int:
    if not _checks.is_integer(down_ratio) or down_ratio not in FIRST_LEVELS:
        raise ValueError(f"down_ratio is one of 2, 4; got {down_ratio!r}")
    return int(down_ratio)


class _Part(linen.Module):
    """What the parts of the network share.

    Attributes:
      norm: normalisation, a function of its name that returns a layer.
      conv: layer class of the 3x3 convolutions, or a selection of several.
      dtype: what is computed in.
      remat: whether activations inside are computed again for the gradient.
    """

    norm: Callable[..., linen.Module] = partial(nn.BatchNorm, use_running_average=True)
    conv: Callable[..., linen.Module] | nn.Selection = nn.Conv
    dtype: Any = None
    remat: bool = False

    def shared(self) -> dict[str, Any]:
        """The attributes that parts of this part have, too."""
        return {"norm": self.norm, "conv": self.conv, "dtype": self.dtype}

    def lifted(self, part: type[linen.Module]) -> type[linen.Module]:
        """A class of parts, computed again for the gradient if this one is."""
        return linen.remat(part) if self.remat else part


class Root(_Part):
    """All blocks of a tree in one map: relu(bn(conv1x1([x_1, ..., x_n])))."""

    features: int = 1

    @linen.compact
    def __call__(self, maps: tuple[jax.Array, ...], forward: nn.Forward = START) -> Computed:
        options = {"norm": self.norm, "fixed": True, "kernel_size": 1}
        x = jnp.concatenate(maps, -1)
        return conv_norm_relu(self, x, forward, self.features, ("conv", "bn"), **options)


class Tree(_Part):
    """A tree of blocks, of which the last root reads all roots before it.

    Attributes: those of `_Part`, and
      width: channels of the output.
      depth: of the tree, at least 1.
      stride: of the first block.
      reads_input: whether the root reads the (pooled) input, too.

    Reference: Yu et al., "Deep Layer Aggregation", CVPR 2018, section 3.2 (hierarchical).
    """

    width: int = 1
    depth: int = 1
    stride: int = 1
    reads_input: bool = False

    @linen.compact
    def __call__(
        self,
        x: jax.Array,
        forward: nn.Forward = START,
        children: tuple[jax.Array, ...] = (),
    ) -> Computed:
        bottom = _pooled(x, self.stride)
        if self.reads_input:
            children = (*children, bottom)
        if self.depth > 1:
            subtree = partial(
                Tree, **self.shared(), remat=self.remat, width=self.width, depth=self.depth - 1
            )
            left, forward = subtree(stride=self.stride, name="tree1")(x, forward)
            return subtree(name="tree2")(left, forward, (*children, left))
        block = partial(self.lifted(BasicBlock), self.width, **self.shared())
        shortcut, forward = self._projected(bottom, forward)
        left, forward = block(stride=self.stride, name="tree1")(x, forward, shortcut)
        right, forward = block(name="tree2")(left, forward)
        root = self.lifted(Root)(features=self.width, name="root", **self.shared())
        return root((right, left, *children), forward)

    def _projected(self, x: jax.Array, forward: nn.Forward) -> Computed:
        """The shortcut of the first block."""
        if x.shape[-1] == self.width:
            return x, forward
        layer = nn.layer_at(self.conv, self, "project_0", fixed=nn.Conv)
        projection = layer(self.width, kernel_size=1, dtype=self.dtype, name="project_0")
        return nn.call(self.norm(name="project_1"), *nn.call(projection, x, forward))


def _pooled(x: jax.Array, size: int) -> jax.Array:
    """Maxima over disjoint squares, which reach over the far edges where they have to.

    By reshaping: the gradient of a general max pooling takes most of a step's time on a CPU.
    """
    number, height, width, channels = x.shape
    rows, columns = -(-height // size), -(-width // size)
    far = ((0, 0), (0, rows * size - height), (0, columns * size - width), (0, 0))
    squares = jnp.pad(x, far, constant_values=-jnp.inf)
    return jnp.max(squares.reshape(number, rows, size, columns, size, channels), (2, 4))


class IterativeAggregation(_Part):
    """Coarser maps raised and merged, one after another, into the first.

    m_0 = x_0,  m_i = relu(bn(conv3x3([m_{i-1}, raise(project(x_i))])))

    Attributes: those of `_Part`, and
      width: channels of the first map, and of all results.

    Calling it with maps of one resolution after a first of twice that returns m_1, m_2 ..., and the
    forward pass after them.

    Reference: Yu et al., "Deep Layer Aggregation", CVPR 2018, sections 3.1 and 3.3 (iterative,
      interpolation).
    """

    width: int = 1

    @linen.compact
    def __call__(
        self, maps: tuple[jax.Array, ...], forward: nn.Forward = START
    ) -> tuple[tuple[jax.Array, ...], nn.Forward]:
        merged, *coarser = maps
        height, width = merged.shape[1:3]
        results = []
        for index, x in enumerate(coarser, start=1):
            raised, forward = self._raised(x, forward, index)
            names = (f"node_{index}_0", f"node_{index}_1")
            both = jnp.concatenate([merged, raised[:, :height, :width]], -1)
            merged, forward = conv_norm_relu(self, both, forward, self.width, names, norm=self.norm)
            results.append(merged)
        return tuple(results), forward

    def _raised(self, x: jax.Array, forward: nn.Forward, index: int) -> Computed:
        if x.shape[-1] != self.width:
            names = (f"proj_{index}_0", f"proj_{index}_1")
            options = {"norm": self.norm, "fixed": True, "kernel_size": 1}
            x, forward = conv_norm_relu(self, x, forward, self.width, names, **options)
        return BilinearRaise(dtype=self.dtype, name=f"up_{index}")(x), forward


class Decoder(_Part):
    """Aggregations from the two coarsest maps to all of them; the last result of the last.

    Reference: Yu et al., "Deep Layer Aggregation", CVPR 2018, figure 4.
    """

    @linen.compact
    def __call__(self, maps: tuple[jax.Array, ...], forward: nn.Forward = START) -> Computed:
        merge = self.lifted(IterativeAggregation)
        *finer, coarsest = maps
        results = (coarsest,)
        for index, x in enumerate(reversed(finer)):
            merging = merge(width=x.shape[-1], name=f"ida_{index}", **self.shared())
            # The coarser level itself was the first map that the last aggregation merged into.
            inputs = results if index == 0 else (finer[len(finer) - index], *results)
            results, forward = merging((x, *inputs), forward)
        return results[-1], forward


class DeepLayerAggregation(Staged):
    """A backbone of deep layer aggregation with its decoder.

    Its maps are "level0", "level1" and so on, and "dla_up", the output of the decoder, which reads
    all levels from that of the output.

    Attributes: those of every backbone, see `rfjax.models.stages.Staged`, and
      architecture: what it is built of.

    Calling it with images [N, H, W, C] returns [N, ceil(H / stride), ceil(W / stride), features]
    in `dtype`.

    Reference: Yu et al., "Deep Layer Aggregation", CVPR 2018.
    """

    architecture: Aggregation

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        return self.architecture.places

    @property
    def merged(self) -> tuple[str, ...]:
        """The levels that the decoder reads."""
        *levels, _ = self.places
        return tuple(levels[self.architecture.first_level :])

    def steps(self, train: bool) -> dict[str, Step]:
        """The levels, one after the other, and the decoder of all."""
        built, norm = self.architecture, self.normalization(train)
        shared = {"norm": norm, "conv": self.conv, "dtype": self.dtype, "remat": self.remat}
        levels: dict[str, Callable[..., Computed]] = {"level0": partial(self._first, norm=norm)}
        levels["level1"] = partial(self._plain_level, level=1, norm=norm)
        for level, depth in enumerate(built.depths, start=PLAIN_LEVELS):
            levels[f"level{level}"] = Tree(
                width=built.widths[level],
                depth=depth,
                stride=2,
                reads_input=level > PLAIN_LEVELS,
                name=f"level{level}",
                **shared,
            )
        decoder = Decoder(name="dla_up", **shared)

        def decode(*given: Any) -> Computed:
            *maps, forward = given
            return decoder(tuple(maps), forward)

        return chained(levels) | {"dla_up": Step(self.merged, decode)}

    def _first(self, images: jax.Array, forward: nn.Forward, norm: Callable) -> Computed:
        """The stem and level 0."""
        built = self.architecture
        names = ("base_layer_0", "base_layer_1")
        options = {"norm": norm, "fixed": True, "kernel_size": built.kernel_size}
        x, forward = conv_norm_relu(self, images, forward, built.widths[0], names, **options)
        return self._plain_level(x, forward, 0, norm)

    def _plain_level(
        self, x: jax.Array, forward: nn.Forward, level: int, norm: Callable
    ) -> Computed:
        """A convolution, of stride 2 from level 1 on."""
        names = (f"level{level}_0", f"level{level}_1")
        width = self.architecture.widths[level]
        return conv_norm_relu(self, x, forward, width, names, norm=norm, stride=level + 1)
