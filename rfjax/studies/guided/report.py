"""Filled tables: means and spreads over seeds, verdicts, and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import visualize
from rfjax._console import tell
from rfjax._files import write_json, write_text
from rfjax._markdown import table as markdown_table
from rfjax.studies.guided import measuring
from rfjax.studies.guided.networks import CLIPS, DATA
from rfjax.studies.guided.tables import Place, Table
from rfjax.studies.report import verdict
from rfjax.studies.statistics import spread

_POOLED = {
    DATA: f"{measuring.EPISODES} episodes of held-out digits",
    CLIPS: "all frames of the clips of validation",
}


class Filled:
    """A table with what its networks answered.

    Args:
      name, table: the table.
      workdirs: of each network the runs, one for each seed.
    """

    def __init__(self, name: str, table: Table, workdirs: Mapping[str, Sequence[Path]]):
        self.name, self.table, self._workdirs = name, table, workdirs
        self.values = {place: self._asked(place) for place in table.cells}

    def _asked(self, place: Place) -> np.ndarray:
        """What a cell shows, [seeds]."""
        cell = self.table.cells[place]
        return np.array([measuring.asked(run, cell) for run in self._workdirs[cell.network]])

    def claims(self) -> list[dict[str, Any]]:
        """Every claim with the values of its two sides and its verdict."""
        found = []
        for claim in self.table.claims:
            lower = claim.factor * self.values[claim.lower]
            higher = self.values[claim.higher]
            found.append(
                {
                    "claim": claim.text,
                    "verdict": verdict(lower, higher),
                    "lower": lower.tolist(),
                    "higher": higher.tolist(),
                    "difference": float(np.mean(higher) - np.mean(lower)),
                }
            )
        return found

    def as_markdown(self) -> str:
        """The table, and under it the claims."""
        rows, columns = (tuple(dict.fromkeys(names)) for names in zip(*self.values, strict=True))
        seeds = max(map(len, self.values.values()))
        text = (
            f"## Table {self.name}. {self.table.title}\n\nPositive IU in %, pooled over "
            f"{_POOLED[self.table.data]}, mean ± standard deviation over {seeds} seeds.\n\n"
        )
        lines = [[row, *(self._shown((row, column)) for column in columns)] for row in rows]
        text += markdown_table(["", *columns], lines)
        claims = [[c["claim"], c["verdict"], f"{c['difference']:+.1f}"] for c in self.claims()]
        if claims:
            text += "\n" + markdown_table(["claim", "verdict", "difference"], claims)
            text += (
                "\nA claim holds if it does between the worst seed of one side and the best of the "
                "other, fails if its opposite does, and is not resolved otherwise.\n"
            )
        return text

    def _shown(self, place: Place) -> str:
        if place not in self.values:
            return ""
        found = spread(self.values[place])
        digits = 1 if self.table.cells[place].read.endswith("iu") else 3
        return f"{found.mean:.{digits}f} ± {found.deviation:.{digits}f}"

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        cells = [
            {"row": row, "column": column, cell.read: self.values[row, column].tolist()}
            for (row, column), cell in self.table.cells.items()
        ]
        return {
            "table": self.name,
            "title": self.table.title,
            "cells": cells,
            "claims": self.claims(),
        }

    def write(self, folder: Path) -> list[Path]:
        """Writes the table as markdown, JSON and a picture; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / f"table_{self.name}"
        markdown, json, picture = (stem.with_suffix(end) for end in (".md", ".json", ".png"))
        write_text(markdown, self.as_markdown())
        write_json(json, self.as_json())
        failed = visualize.Failures()
        with failed.of(picture.name):
            visualize.save(self.figure(), picture)
        failed.tell(tell)
        return [path for path in (markdown, json, picture) if path.exists()]

    def figure(self) -> Any:
        """Curves of the rows, or every cell's seeds as points with the mean as a bar."""
        names = {"title": self.table.title, "score": "positive IU, %"}
        if not self.table.curve:
            shares = [place for place, cell in self.table.cells.items() if cell.read.endswith("iu")]
            return visualize.seed_bars({place: self.values[place] for place in shares}, **names)
        return visualize.seed_curves(self.values, along=self.table.curve, **names)
