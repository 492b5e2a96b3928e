"""Backbones as ordered lists of named stages, which run from any map and up to any."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import _checks, nn
from rfjax.places import Place

IMAGES, LAST = "images", "last"


class Step(NamedTuple):
    """How the map of a stage is computed.

    Attributes:
      reads: the names of the maps that it reads, of stages before it or `IMAGES`.
      run: a function of (*maps, forward) that returns (map, forward), see `rfjax.nn.forward`.
    """

    reads: tuple[str, ...]
    run: Callable[..., tuple[jax.Array, nn.Forward]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Start:
    """What a network is called with in place of images, to run from maps.

    Attributes:
      maps: by name, as `start` of `Staged.run`.
      size: (H, W) of the images that they are of, static.
    """

    maps: Mapping[str, jax.Array]
    size: tuple[int, int] = dataclasses.field(metadata={"static": True})


def chained(runs: Mapping[str, Callable]) -> dict[str, Step]:
    """Stages each of which reads the map of the one before, the first the images.

    Example:
      >>> {name: step.reads for name, step in chained({"conv1": abs, "layer1": abs}).items()}
      {'conv1': ('images',), 'layer1': ('conv1',)}
    """
    before = (IMAGES, *runs)
    return {
        name: Step((read,), run) for read, (name, run) in zip(before, runs.items(), strict=False)
    }


def with_last(by_stage: Mapping[str, Any]) -> dict[str, Any]:
    """What is known by stage, that of the last one as "last" as well.

    Example:
      >>> with_last({"conv1": 2, "layer1": 4})
      {'conv1': 2, 'layer1': 4, 'last': 4}
    """
    *_, last = by_stage.values()
    return {**by_stage, LAST: last}


class Staged(linen.Module, kw_only=True):
    """A backbone of named stages: what all backbones share, and what a new one inherits.

    A backbone defines `places` and `steps`, both by stage in the order in which they are computed.

    Attributes:
      conv: layer class of all 3x3 convolutions after the stem, with the constructor of `rfjax.nn`,
        or a selection of layers by their paths, see `rfjax.nn.select`.
      dtype: what is computed in; parameters and batch statistics are float32.
      axis_name: pmapped axis over which batch statistics are averaged in training, or None.
      remat: whether the activations inside blocks are computed again for the gradient.
      norm: layer class of the normalisation, with the constructor of `flax.linen.BatchNorm`.

    Calling it with images [N, H, W, C] and perhaps train=True returns the last map in `dtype`.
    """

    conv: Callable[..., linen.Module] | nn.Selection = nn.Conv
    dtype: Any = jnp.float32
    axis_name: str | None = None
    remat: bool = False
    norm: Callable[..., linen.Module] = nn.BatchNorm

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of the map of every stage, known without running any."""
        raise TypeError(f"the backbone {type(self).__name__} does not define places")

    def steps(self, train: bool) -> dict[str, Step]:
        """How every stage is computed; called within the module's compact method."""
        raise TypeError(f"the backbone {type(self).__name__} does not define steps")

    @property
    def merged(self) -> tuple[str, ...]:
        """The stages whose maps others read besides the one after them."""
        return ()

    @property
    def channels(self) -> int:
        """Of the images that it is tried with; one that reads all channels can have others."""
        return 3

    def normalization(self, train: bool) -> Callable[..., linen.Module]:
        """Normalisation, a function of its name that returns a layer."""
        return partial(
            self.norm,
            use_running_average=not train,
            axis_name=self.axis_name,
            dtype=self.dtype,
        )

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        maps, _ = self.run(images, nn.Forward(train))
        return maps[LAST]

    @linen.compact
    def run(
        self,
        images: jax.Array | None = None,
        forward: nn.Forward = nn.Forward(),  # noqa: B008 (it is frozen)
        *,
        start: Mapping[str, jax.Array] | None = None,
        until: str | None = None,
    ) -> tuple[dict[str, jax.Array], nn.Forward]:
        """The maps by name, and the forward pass after them.

        Args:
          images: [N, H, W, C]; None with `start`.
          forward: the pass so far.
          start: maps by name. Only the stages after the last of them run.
          until: the last stage that runs; None for the last of all.

        Returns:
          The maps that were computed and those that were given, by stage, the last one as "last" as
          well; and the pass.

        Raises:
          ValueError: there is no such stage, or a map is missing that a stage reads.
        """
        names = tuple(self.places)
        maps = self._given(images, start, names)
        first = max((names.index(name) + 1 for name in maps if name != IMAGES), default=0)
        stop = len(names) if until is None else self._index(until, names) + 1
        steps = self.steps(forward.train)
        for name in names[first:stop]:
            reads, run = steps[name]
            _check_read(name, reads, maps)
            maps[name], forward = run(*(maps[read] for read in reads), forward)
        # In the order of the stages, which a dictionary that went through `jax.jit` has lost.
        maps = {name: maps[name] for name in names if name in maps}
        return (with_last(maps) if names[-1] in maps else maps), forward

    def _given(
        self,
        images: jax.Array | None,
        start: Mapping[str, jax.Array] | None,
        names: Sequence[str],
    ) -> dict[str, jax.Array]:
        """The images, or the maps to start from, in the type of the computation."""
        if (images is None) == (not start):
            raise ValueError("a network runs either on images or from the maps of start")
        given = start or {IMAGES: images}
        maps = {}
        for name, x in given.items():
            own = name if name == IMAGES else names[self._index(name, names)]
            maps[own] = _checks.float_array(name, x).astype(self.dtype)
            if maps[own].ndim != 4:
                raise ValueError(f"{name} must have shape [N, H, W, C]; got {maps[own].shape}")
        return maps

    def _index(self, name: str, names: Sequence[str]) -> int:
        """The number of a stage."""
        _checks.choose("stage", name, (*names, LAST))
        return len(names) - 1 if name == LAST else names.index(name)


def _check_read(name: str, reads: Sequence[str], maps: Mapping[str, Any]) -> None:
    """Raises unless the maps are there that a stage reads."""
    missing = [read for read in reads if read not in maps]
    if missing:
        raise ValueError(
            f"stage {name!r} reads {', '.join(missing)} as well; start has {', '.join(maps)}"
        )
