"""The studies that are tables of runs. A new one is its tables, its scales and a line here."""

from collections.abc import Mapping
from dataclasses import dataclass

from rfjax.studies import camvid, scales, tables
from rfjax.studies.specs import Table


@dataclass(frozen=True)
class Study:
    """Tables, and the machines and data that they fit.

    Attributes:
      help: a line for the command line.
      tables: by name, in the order of "all".
      scales: by data set and name; the first one is the default.
    """

    help: str
    tables: Mapping[str, Table]
    scales: scales.Scales


STUDIES = {
    "blurring": Study("the tables of the paper, and two more", tables.BLURRING, scales.SCALES),
    "camvid": Study("FCN on street scenes, from a frozen trunk", camvid.TABLES, camvid.SCALES),
}
