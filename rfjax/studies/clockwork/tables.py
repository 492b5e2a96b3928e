"""What the tables of the study show, and what is claimed of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from rfjax.studies.clockwork.schedules import CUT, HEADS, ORACLE, Way, sweep
from rfjax.studies.specs import Claim, below

MEAN, WEIGHTED = "mean IU", "fwIU"
MEASURES = (MEAN, WEIGHTED, f"{MEAN}, boundary", f"{WEIGHTED}, boundary")


@dataclass(frozen=True)
class Table:
    """A table: schedules by name, on some clips.

    Attributes:
      title: what it compares.
      ways: by the name of the row.
      clips: names of the columns, see `schedules.CLIPS`.
      measures: shown of each cell.
      claims: orderings of the mean IU, by (row, clips).
      paper: the mean IU that the paper prints, by (row, clips).
    """

    title: str
    ways: Mapping[str, Way]
    clips: tuple[str, ...]
    measures: tuple[str, ...] = MEASURES
    claims: tuple[Claim, ...] = ()
    paper: Mapping[tuple[str, str], float] | None = None


def _claims(clips: tuple[str, ...], *orderings: tuple[str, str]) -> tuple[Claim, ...]:
    """On each of the clips each first row is below the second; a seed's rows are one network's."""
    return tuple(
        below(f"{lower} < {higher}, {name}", (lower, name), (higher, name), paired=True)
        for name in clips
        for lower, higher in orderings
    )


def _printed(clips: tuple[str, ...], rows: Mapping[str, Way], *columns: tuple[float, ...]):
    """Numbers of the paper by (row, clips)."""
    return {
        (row, name): value
        for name, values in zip(clips, columns, strict=True)
        for row, value in zip(rows, values, strict=True)
    }


_SLID = ("slow", "fast")
_PIPELINES = {
    "3-stage baseline": Way("fcn_pool3", "oracle"),
    "3-stage pipeline": Way(CUT, "pipeline3"),
    "2-stage baseline": Way("fcn_pool4", "oracle"),
    "2-stage pipeline": Way(CUT, "pipeline2"),
    "oracle": ORACLE,
}
_PIPELINED = (
    ("3-stage baseline", "3-stage pipeline"),
    ("2-stage baseline", "2-stage pipeline"),
    ("3-stage pipeline", "2-stage pipeline"),
    ("2-stage pipeline", "oracle"),
)
_PIPELINES_SLOW = 9.2, 56.0, 22.5, 63.3, 65.9  # mean IU in the paper
_RATES = {
    "skip": Way(CUT, "skip"),
    "exponential": Way(CUT, "exponential"),
    "alternating": Way(CUT, "alternating"),
    "oracle": ORACLE,
}
_RATED = (
    ("alternating", "oracle"),
    ("exponential", "alternating"),
    ("skip", "alternating"),
    ("exponential", "skip"),
)
_CLOCKED = {
    "skip": Way(CUT, "skip"),
    "alternating": Way(CUT, "alternating"),
    "adaptive 50 %": Way(CUT, "adaptive:50%"),
    "oracle": ORACLE,
}
_SWEPT = {**{row: way for row, way in _RATES.items() if row != "exponential"}, **sweep()}

TABLES = {
    "3.5": Table(
        "fixed rates, on stills that slide",
        _RATES,
        _SLID,
        claims=_claims(_SLID, *_RATED),
        paper=_printed(_SLID, _RATES, (63.0, 61.4, 64.7, 65.9), (59.5, 55.5, 61.9, 65.6)),
    ),
    "3.6": Table(
        "fixed rates and a clock that fires on half of the frames, on video",
        _CLOCKED,
        ("video",),
        measures=(MEAN, WEIGHTED),
        claims=_claims(
            ("video",),
            ("skip", "alternating"),
            ("alternating", "adaptive 50 %"),
            ("adaptive 50 %", "oracle"),
        ),
    ),
    "sweep": Table(
        "clocks of the data at many thresholds, on video",
        _SWEPT,
        ("video",),
        measures=(MEAN, f"{MEAN}, boundary"),
        claims=_claims(
            ("video",),
            ("adaptive 10 %", "adaptive 25 %"),
            ("adaptive 25 %", "adaptive 50 %"),
            ("adaptive 50 %", "adaptive 75 %"),
            ("alternating", "adaptive 50 %"),
            ("pixels 50 %", "adaptive 50 %"),
            ("confidence 50 %", "adaptive 50 %"),
        ),
    ),
    "3.3": Table(
        "pipelines and truncated networks, on stills that slide",
        _PIPELINES,
        _SLID,
        claims=_claims(_SLID, *_PIPELINED),
        paper=_printed(
            _SLID, _PIPELINES, (9.2, 56.0, 22.5, 63.3, 65.9), (9.2, 45.5, 22.4, 57.8, 65.6)
        ),
    ),
    "3.4": Table(
        "pipelines and truncated networks, on video and on stills that slide",
        _PIPELINES,
        ("video", "slow"),
        measures=(MEAN, WEIGHTED),
        claims=_claims(("video",), *_PIPELINED),
        paper=_printed(("slow",), _PIPELINES, _PIPELINES_SLOW),
    ),
}
CHANGES = "3.1"  # the table of what changes from frame to frame, which is of another form
# By network: the name of what is scored, and what the paper prints of change and accuracy.
LAYERS = {
    "pixels": ("pixels", 0.26, None),
    "fcn_pool3": ("pool3", 0.11, 9.6),
    "fcn_pool4": ("pool4", 0.11, 20.7),
    "fcn_32s": ("fc7", 0.02, 65.5),
}
NAMES = (*TABLES, CHANGES)


def heads(name: str) -> tuple[str, ...]:
    """The heads of the networks that a table needs, first of the one that has stages.

    Example:
      >>> heads("3.3"), heads("sweep")
      (('fcn_8s', 'fcn_pool3', 'fcn_pool4'), ('fcn_8s',))
    """
    wanted = LAYERS if name == CHANGES else [way.head for way in TABLES[name].ways.values()]
    return tuple(head for head in HEADS if head == CUT or head in wanted)
