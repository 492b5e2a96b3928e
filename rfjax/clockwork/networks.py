"""Networks with named maps as the stages of a clockwork."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax

from rfjax import _checks
from rfjax.clockwork.watching import FRAME, Maps, Stage

_SCORES = "score_"


def stages(model: Any, cuts: Sequence[str] = ("pool3", "pool4")) -> tuple[Stage, ...]:
    """A network cut at some of its maps, as `make` takes it.

    Stage i runs from the map of the cut before it to its own, the last one to the end. A stage
    returns what later stages read, and "score_NAME" for each map NAME of which the head scores it
    alone, as "score_pool4" of an FCN. What fuses adds these scores up, or runs the head where it
    reads several maps together, and enlarges to the frame: on a still clip the output is that of
    the network.

    Args:
      model: a `rfjax.models.segmentation.Segmenter`, as `rfjax.models.create` makes it.
      cuts: names of maps of its backbone, in order; () for one stage and what fuses.

    Returns:
      len(cuts) + 2 functions (variables, maps) -> maps by name, of which the last one fuses.
      Frames are normalized images [H, W, 3] or [N, H, W, 3], and outputs as the network returns
      them, without N where frames have none. Layers that hand on a carry begin anew at each cut.

    Raises:
      TypeError: the network has no backbone of named stages.
      ValueError: there is no such map, they are out of order, or nothing comes after the last.

    Example:
      >>> from rfjax import models
      >>> fcn = models.create("vgg_tiny", num_classes=5, head="fcn_8s")
      >>> [function.func.__name__ for function in stages(fcn)]
      ['_computed', '_computed', '_computed', '_fused']

    Reference:
      Shelhamer, "Local Adaptive Visual Recognition", 2019, section 3.3.
    """
    if not hasattr(model, "backbone") or not hasattr(model, "head"):
        raise TypeError(f"stages wants a network of named maps; got {type(model).__name__}")
    names = tuple(model.backbone.places)
    cuts = _checked(cuts, names)
    ends = (*cuts, names[-1])
    read = {names[-1] if name == "last" else name: name for name in model.head.READS}
    kept = {*cuts, *model.backbone.merged} - {names[-1]}
    computing = []
    for before, end in zip((None, *cuts), ends, strict=True):
        first = 0 if before is None else names.index(before) + 1
        own = names[first : names.index(end) + 1]
        mine = {name: read[name] for name in own if name in read}
        start = kept & set(names[:first])
        computing.append(partial(_computed, model, start, end, kept & set(own), mine))
    return (*computing, partial(_fused, model, read))


def _checked(cuts: Sequence[str], names: tuple[str, ...]) -> tuple[str, ...]:
    """The cuts, if the network can be cut there."""
    for name in cuts:
        _checks.choose("cuts", name, names[:-1])
    if sorted(set(cuts), key=names.index) != list(cuts):
        raise ValueError(f"cuts must be maps in the order {', '.join(names[:-1])}; got {cuts}")
    return tuple(cuts)


def _computed(
    model: Any,
    start: set[str],
    end: str,
    kept: set[str],
    read: Mapping[str, str],
    variables: Any,
    maps: Maps,
) -> Maps:
    """The maps of a stage that others read, and scores of those that the head reads.

    Args:
      model: the network.
      start: the maps that it runs from; none for the frame.
      end: the last map that it computes.
      kept: those that later stages read.
      read: those of its maps that the head reads, with the names that the head has for them.
      variables: of the network.
      maps: so far.
    """
    given = {"start": {name: maps[name] for name in start}} if start else {"images": _batch(maps)}
    found = model.apply(variables, **given, until=end, method="maps")
    mine = {name: found[own] for own, name in read.items()}
    scores = model.apply(variables, mine, method="scores")
    together = {own: found[own] for own, name in read.items() if name not in scores}
    scored = {_SCORES + own: scores[name] for own, name in read.items() if name in scores}
    return {name: found[name] for name in kept} | together | scored


def _fused(model: Any, read: Mapping[str, str], variables: Any, maps: Maps) -> Any:
    """The output, from scores and from maps that the head reads together."""
    parts = {}
    for own, name in read.items():
        scored = _SCORES + own
        parts[name] = maps[scored if scored in maps else own]
    size = maps[FRAME].shape[-3:-1]
    output = model.apply(variables, parts=parts, size=size)
    return output if maps[FRAME].ndim == 4 else jax.tree.map(lambda leaf: leaf[0], output)


def _batch(maps: Maps) -> jax.Array:
    """The frame as images [N, H, W, 3]."""
    frame = maps[FRAME]
    return frame if frame.ndim == 4 else frame[None]
