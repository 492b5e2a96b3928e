"""Tables of schedules with their spread over seeds, verdicts, and the sweep as a picture."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rfjax import visualize
from rfjax._files import write_json, write_text
from rfjax._markdown import table as markdown
from rfjax.studies.clockwork import measuring
from rfjax.studies.clockwork.measuring import Place
from rfjax.studies.clockwork.schedules import CLIPS, CLOCKS, ORACLE, Way
from rfjax.studies.clockwork.tables import CHANGES, LAYERS, MEAN, Table
from rfjax.studies.report import verdict
from rfjax.studies.statistics import spread

VERDICTS = (
    "A claim holds if it does for every seed, fails if its opposite does, and is not resolved "
    "otherwise; the rows of a seed are one network's.\n"
)


def _spread(values: Any, digits: int = 1) -> str:
    """Mean and deviation over seeds, in words."""
    found = spread(np.asarray(values, float))
    return f"{found.mean:.{digits}f} ± {found.deviation:.{digits}f}"


class Filled:
    """A table with what the networks of all seeds gave.

    Args:
      name, table: the table; rows of networks that are not there are left out.
      places: of the networks, one for each seed.
      data: name of the data, for the caption.
    """

    def __init__(self, name: str, table: Table, places: Sequence[Place], *, data: str):
        self.name, self.table, self._places, self._data = name, table, places, data
        there = set.intersection(*(set(place.workdirs) for place in places))
        self.ways = {row: way for row, way in table.ways.items() if way.head in there}

    @cached_property
    def _found(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """What was measured by (row, clips), a record for each seed."""
        return {
            (row, clips): [measuring.scored(place, way, clips) for place in self._places]
            for clips in self.table.clips
            for row, way in self.ways.items()
        }

    @cached_property
    def _times(self) -> list[dict[str, float]]:
        """Seconds by way, for each seed."""
        ways = list(dict.fromkeys((ORACLE, *self.ways.values())))
        return [measuring.timed(place, self.name, ways) for place in self._places]

    def values(self, row: str, clips: str, measure: str = MEAN) -> np.ndarray:
        """A measure of a cell in %, [seeds]."""
        found = self._found[row, clips]
        return np.array([measuring.measures(record)[measure] for record in found])

    def ran(self, row: str, clips: str) -> np.ndarray:
        """Share of the frames on which the deepest stage ran, [seeds]."""
        # The last one fuses; a network that is not cut is one stage.
        return np.array([record["ran"][-2] for record in self._found[row, clips]])

    def seconds(self, row: str) -> np.ndarray:
        """Of a frame, [seeds]."""
        return np.array([times[self.ways[row].name] for times in self._times])

    def claims(self) -> list[dict[str, Any]]:
        """Every claim about rows that are there, with its verdict."""
        found = []
        for claim in self.table.claims:
            try:
                sides = claim.lower, claim.higher
                lower, higher = (side(self.values, self.values) for side in sides)
            except KeyError:
                continue
            difference = float(np.mean(higher - lower))
            judged = verdict(lower, higher, paired=claim.paired)
            found.append({"claim": claim.text, "verdict": judged, "difference": difference})
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        cells = [
            {
                "row": row,
                "clips": clips,
                "schedules": [record["schedule"] for record in self._found[row, clips]],
                "ran": [record["ran"] for record in self._found[row, clips]],
                "seconds": self.seconds(row),
                **{name: self.values(row, clips, name) for name in self.table.measures},
                "paper": (self.table.paper or {}).get((row, clips)),
            }
            for row, clips in self._found
        ]
        return {
            "table": self.name,
            "title": self.table.title,
            "data": self._data,
            "seeds": len(self._places),
            "cells": cells,
            "claims": self.claims(),
        }

    def as_markdown(self) -> str:
        """The table, and under it the claims."""
        heading = [
            "clips",
            "schedule",
            *self.table.measures,
            "paper",
            "deepest stage",
            "ms",
            "time",
        ]
        text = f"## Table {self.name}. {self.table.title}\n\n{self._data}: in %, mean ± standard "
        text += f"deviation over {len(self._places)} seeds; ms a frame and its time in % of the "
        text += "oracle's, measured in turns; deepest: % of frames on which that stage ran.\n\n"
        text += markdown(heading, [self._line(row, clips) for row, clips in self._found])
        lines = [[c["claim"], c["verdict"], f"{c['difference']:+.2f}"] for c in self.claims()]
        if lines:
            text += "\n" + markdown(["claim", "verdict", "difference"], lines) + "\n" + VERDICTS
        return text

    def _line(self, row: str, clips: str) -> list[str]:
        seconds = self.seconds(row)
        share = seconds / [times[ORACLE.name] for times in self._times]
        paper = (self.table.paper or {}).get((row, clips))
        return [
            CLIPS[clips].title,
            row,
            *(_spread(self.values(row, clips, name)) for name in self.table.measures),
            f"{paper:.1f}" if paper is not None else "",
            _spread(100 * self.ran(row, clips), 0),
            _spread(1e3 * seconds, 2),
            _spread(100 * share, 0),
        ]

    def write(self, folder: Path) -> list[Path]:
        """Writes the table, and the sweep's picture; returns the paths."""
        stem = folder / f"table_{self.name}"
        paths = [stem.with_suffix(f"{stem.suffix}{end}") for end in (".md", ".json")]
        write_text(paths[0], self.as_markdown())
        write_json(paths[1], self.as_json())
        if self.name == "sweep":
            paths.append(folder / "table_sweep.png")
            visualize.save(self.figure(), paths[-1])
        return paths

    def figure(self) -> Figure:
        """Accuracy over the share of frames on which the deepest stage runs, by clock."""
        clips = self.table.clips[0]
        groups = {name: [row for row in self.ways if row.startswith(name)] for name in CLOCKS}
        curves = {
            clock: [(100 * self.ran(row, clips), self.values(row, clips)) for row in rows]
            for clock, rows in groups.items()
            if rows
        }
        fixed = [row for row in self.ways if not row.startswith(CLOCKS)]
        points = {row: (100 * self.ran(row, clips), self.values(row, clips)) for row in fixed}
        return visualize.clock_curves(curves, points, title=self.table.title)


class Changes:
    """The table of what changes from frame to frame.

    Args:
      places: of the networks, one for each seed.
      data: name of the data, for the caption.
    """

    name = CHANGES

    def __init__(self, places: Sequence[Place], *, data: str):
        there = {"pixels"}.union(set.intersection(*(set(place.workdirs) for place in places)))
        self._places, self._data = places, data
        self._heads = [head for head in LAYERS if head in there]

    @cached_property
    def _found(self) -> dict[str, list[dict[str, Any]]]:
        return {head: [measuring.changes(p, head) for p in self._places] for head in self._heads}

    def values(self, head: str) -> np.ndarray:
        """The mean change in %, [seeds]."""
        return np.array([100 * record["mean"] for record in self._found[head]])

    def accuracy(self, head: str) -> np.ndarray | None:
        """Mean IU in %, [seeds]; None of pixels."""
        if head == "pixels":
            return None
        found = [measuring.scored(p, Way(head, "oracle"), "video") for p in self._places]
        return np.array([measuring.measures(record)[MEAN] for record in found])

    def claims(self) -> list[dict[str, Any]]:
        """Deeper is slower."""
        found = []
        for shallow, deep in zip(self._heads, self._heads[1:], strict=False):
            lower, higher = self.values(deep), self.values(shallow)
            text = f"change of {LAYERS[deep][0]} < {LAYERS[shallow][0]}"
            found.append({"claim": text, "verdict": verdict(lower, higher, paired=True)})
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        layers = [
            {"layer": LAYERS[head][0], "change": self.values(head), MEAN: self.accuracy(head)}
            for head in self._heads
        ]
        return {"table": self.name, "data": self._data, "layers": layers, "claims": self.claims()}

    def as_markdown(self) -> str:
        """The table, and under it the claims."""
        lines = []
        for head in self._heads:
            name, change, iu = LAYERS[head]
            own = self.accuracy(head)
            deviation = np.mean([100 * record["deviation"] for record in self._found[head]])
            cells = [name, _spread(self.values(head)), f"{deviation:.1f}"]
            cells += ["–" if own is None else _spread(own), f"{100 * change:.0f}"]
            lines.append([*cells, "–" if iu is None else f"{iu:.1f}"])
        heading = [
            "scores of",
            "change %",
            "over frames ±",
            "mean IU %",
            "paper: change",
            "mean IU",
        ]
        claims = [[c["claim"], c["verdict"]] for c in self.claims()]
        return (
            f"## Table {self.name}. Change from frame to frame\n\n{self._data}: share of pixels "
            f"whose class changes, of networks that end at a map, mean ± deviation over "
            f"{len(self._places)} seeds; of the frames their mean difference in units of the frame."
            "\n\n"
            + f"{markdown(heading, lines)}\n{markdown(['claim', 'verdict'], claims)}\n{VERDICTS}"
        )

    def write(self, folder: Path) -> list[Path]:
        """Writes the table; returns the paths."""
        paths = [folder / f"table_{self.name}{end}" for end in (".md", ".json")]
        write_text(paths[0], self.as_markdown())
        write_json(paths[1], self.as_json())
        return paths
