"""The studies that are tables of runs. A new one is its tables, its scales and a line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rfjax.studies import (
    adaptive,
    camvid,
    fcn,
    inflation,
    lsdfn,
    padnets,
    scales,
    tables,
)
from rfjax.studies.specs import Table


@dataclass(frozen=True)
class Study:
    """Tables, and the machines and data that they fit.

    Attributes:
      help: a line for the command line.
      tables: by name, in the order of "all".
      scales: by data set and name; the first one is the default.
      computed: tables that need no training, likewise by name: functions of (scale, seeds,
        data_dir) that return Markdown.
    """

    help: str
    tables: Mapping[str, Table]
    scales: scales.Scales
    computed: Mapping[str, Callable[[scales.Scale, int, str], str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of all tables."""
        return (*self.tables, *self.computed)


def _oracle(scale: scales.Scale, seeds: int, data_dir: str) -> str:
    """The table of the oracle, imported when it is asked for, since it needs JAX."""
    from rfjax.studies import oracle

    return oracle.table(scale, seeds, data_dir)


STUDIES = {
    "blurring": Study("the tables of the paper, and two more", tables.BLURRING, scales.SCALES),
    "fcn": Study(
        "fully convolutional networks: skips, heavy learning, masking and more",
        fcn.FCN,
        scales.FCN_SCALES,
        {"oracle": _oracle},
    ),
    "adaptive": Study(
        "receptive fields that adapt, side by side", adaptive.TABLES, scales.ADAPTIVE_SCALES
    ),
    "padnets": Study(
        "dilations chosen at every pixel (PAD-Nets)", padnets.TABLES, scales.ADAPTIVE_SCALES
    ),
    "inflation": Study(
        "a learned factor against enumerated dilations", inflation.TABLES, scales.ADAPTIVE_SCALES
    ),
    "lsdfn": Study(
        "filters of every pixel over a large field of samples",
        lsdfn.TABLES,
        scales.ADAPTIVE_SCALES,
    ),
    "camvid": Study("FCN on street scenes, from a frozen trunk", camvid.TABLES, camvid.SCALES),
}
