"""Filled tables: means and spreads over seeds, verdicts on what the paper claims, pictures."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from matplotlib.figure import Figure

from rfjax import nn, visualize
from rfjax._console import tell
from rfjax._files import write_text
from rfjax._markdown import table
from rfjax.studies import evaluations, measures
from rfjax.studies.runs import Run
from rfjax.studies.specs import ROLES, Cell, Table
from rfjax.studies.statistics import Spread, mean_sigma, spread
from rfjax.training import composed, loop, optimizers, reporting
from rfjax.training import config as configs

HOLDS, OPEN, FAILS = "holds", "not resolved", "fails"


def verdict(lower: np.ndarray, higher: np.ndarray, *, paired: bool = False) -> str:
    """Whether one quantity is below another, by their values for every seed.

    Args:
      lower, higher: [seeds]; NaN for trainings that diverged.
      paired: whether values of one seed belong together.

    Returns:
      "holds" if all of `lower` are below all of `higher`, or each below its own if they are paired;
      "fails" if all are above; "not resolved" otherwise, if a value is missing, and with one seed.

    Example:
      >>> verdict(np.array([1.0, 2.0]), np.array([3.0, 2.5]))
      'holds'
      >>> verdict(np.array([1.0, 2.7]), np.array([3.0, 2.5]))
      'not resolved'
      >>> verdict(np.array([1.0, 2.7]), np.array([2.5, 3.0]), paired=True)
      'holds'
    """
    if len(lower) < 2 or np.isnan([*lower, *higher]).any():
        return OPEN
    gaps = higher - lower if paired else np.subtract.outer(higher, lower)
    if np.all(gaps > 0):
        return HOLDS
    return FAILS if np.all(gaps < 0) else OPEN


class Counts(NamedTuple):
    """Parameters of a network: all, those that its run trains, and those that are structure."""

    total: int
    trained: int
    structure: int


class Filled:
    """A table with what its runs gave.

    Args:
      name, table: the table.
      runs: its runs, all done.
      data, scale: what they were trained on, for the captions.
      costs: of a training step, by the runs' names, see `rfjax.studies.costs`.
    """

    def __init__(
        self,
        name: str,
        table: Table,
        runs: Sequence[Run],
        *,
        data: str,
        scale: str,
        costs: Mapping[str, Mapping[str, float]] | None = None,
    ):
        self.name, self.table, self.data, self.scale = name, table, data, scale
        self._costs = costs or {}
        self._runs: dict[Any, list[Run]] = {}
        for run in sorted(runs, key=lambda run: run.seed):
            self._runs.setdefault(run.spec, []).append(run)

    @property
    def seeds(self) -> int:
        """How many there are."""
        return max(map(len, self._runs.values()))

    def iu(self, row: str, column: str) -> np.ndarray:
        """The score of a cell in %, [seeds], mean IU unless it reads another; NaN where the
        training diverged."""
        cell = self.table.cells[row, column]
        found = [_scores(run, cell) for run in self._runs[cell.spec]]
        return np.array([100.0 * cell.read(scores) if scores else math.nan for scores in found])

    def measure(self, row: str, column: str, name: str) -> np.ndarray:
        """Another score at the end of a cell's training, in %, [seeds]; NaN where it diverged."""
        return 100.0 * self.number(row, column, name)

    def number(self, row: str, column: str, name: str) -> np.ndarray:
        """What a cell's training has found besides, [seeds]; NaN where it diverged."""
        cell = self.table.cells[row, column]
        paid = self._costs.get(cell.spec.name, {})
        if name in paid:
            return np.full(len(self._runs[cell.spec]), paid[name])
        found = [_scores(run, cell) for run in self._runs[cell.spec]]
        return np.array([_known(scores, name) for scores in found])

    def runs(self, row: str, column: str) -> list[Run]:
        """Those of a cell, by their seeds."""
        return self._runs[self.table.cells[row, column].spec]

    def _shown(self, row: str, column: str) -> dict[str, np.ndarray]:
        """All that is shown beside the score, by its name in result.json."""
        table = self.table
        shares = {name: self.measure(row, column, name) for name in table.measures.values()}
        return shares | {name: self.number(row, column, name) for name in table.numbers.values()}

    def sigma(self, row: str, column: str) -> np.ndarray:
        """The geometric mean of a cell's learned sigmas, [seeds]."""
        runs = self._runs[self.table.cells[row, column].spec]
        outcomes = [run.outcome() for run in runs]
        return np.array(
            [
                mean_sigma(np.ravel([*outcome["sigmas"].values()]))
                if outcome and outcome["sigmas"]
                else math.nan
                for outcome in outcomes
            ]
        )

    def sigmas(self, row: str, column: str) -> dict[str, list[float]]:
        """The learned standard deviations by layer, [y, x] each, mean over the seeds."""
        outcomes = [run.outcome() for run in self._runs[self.table.cells[row, column].spec]]
        found = [outcome["sigmas"] for outcome in outcomes if outcome]
        if not found:
            return {}
        return {layer: np.mean([s[layer] for s in found], 0).tolist() for layer in found[0]}

    def networks(self) -> str:
        """What stands for the networks of the paper."""
        found = {}
        for spec, runs in self._runs.items():
            section = configs.from_dict(runs[0].config).model
            options = [f"{k}={v}" for k, v in configs.options(section.backbone_options).items()]
            found[ROLES[spec.network]] = " ".join([section.name, *options])
        return "; ".join(f"{role} is {network}" for role, network in found.items())

    def _bases(self) -> str:
        places = dict.fromkeys(self.table.base(*place) for place in self.table.cells)
        return ", ".join(" / ".join(place) for place in places)

    def claims(self) -> list[dict[str, Any]]:
        """Every claim with the values of its two sides and its verdict."""
        found = []
        for claim in self.table.claims:
            read = partial(self.number, name=claim.of) if claim.of else self.iu
            lower = np.asarray(claim.lower(read, self.sigma))
            higher = np.asarray(claim.higher(read, self.sigma))
            found.append(
                {
                    "claim": claim.text,
                    "verdict": verdict(lower, higher, paired=claim.paired),
                    "paired": claim.paired,
                    "lower": lower.tolist(),
                    "higher": higher.tolist(),
                    "difference": float(np.mean(higher) - np.mean(lower)),
                }
            )
        return found

    def parameters(self, row: str, column: str) -> Counts:
        """How many parameters the network of a cell has."""
        runs = self._runs[self.table.cells[row, column].spec]
        classes = next(filter(None, map(_classes, runs)), self._classes())
        return count_parameters(configs.from_dict(runs[0].config), num_classes=classes)

    def steps(self, row: str, column: str) -> list[int]:
        """The steps of a cell's training, after those of the runs that it starts from."""
        lineage = self.table.cells[row, column].spec.lineage
        return [configs.from_dict(self._runs[spec][0].config).steps for spec in lineage]

    def _classes(self) -> int | dict[str, int]:
        """How many classes the data have, from any training that did not diverge."""
        every = (run for runs in self._runs.values() for run in runs)
        return next(filter(None, map(_classes, every)), 2)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        cells = []
        for (row, column), cell in self.table.cells.items():
            values = self.iu(row, column)
            found, counts = spread(values), self.parameters(row, column)
            cells.append(
                {
                    "row": row,
                    "column": column,
                    "run": cell.spec.name,
                    "at": cell.at,
                    "mean_iu": values.tolist(),
                    "mean": float(found.mean),
                    "standard_deviation": float(found.deviation),
                    "paper": cell.paper,
                    **{name: v.tolist() for name, v in self._shown(row, column).items()},
                    "steps": self.steps(row, column),
                    "parameters": counts.total,
                    "trained_parameters": counts.trained,
                    "structure_parameters": counts.structure,
                    "sigmas": self.sigmas(row, column),
                }
            )
        return {
            "table": self.name,
            "title": self.table.title,
            "data": self.data,
            "scale": self.scale,
            "seeds": self.seeds,
            "cells": cells,
            "claims": self.claims(),
        }

    def as_markdown(self) -> str:
        """The table, and under it the claims."""
        caption = f"## Table {self.name}. {self.table.title}\n\n"
        caption += (
            f"{self.data}, scale {self.scale}: {self.table.score} in %, mean ± standard deviation "
            f"over {self.seeds} seeds; Δ to {self._bases()}; "
            f"σ in pixels of the layer's map. Networks: {self.networks()}.\n\n"
        )
        heading = ["row", "column", self.table.score, "Δ", "paper", "Δ", *self.table.measures]
        heading += [*self.table.numbers, "steps", "parameters", "trained", "structure", "σ"]
        lines = [self._line(row, column) for row, column in self.table.cells]
        text = caption + table(heading, lines)
        claims = [
            [c["claim"] + " (paired)" * c["paired"], c["verdict"], f"{c['difference']:+.2f}"]
            for c in self.claims()
        ]
        if claims:
            text += "\n" + table(["claim", "verdict", "difference"], claims)
            text += (
                "\nA claim holds if it does between the worst seed of one side and the best of the "
                "other, fails if its opposite does, and is not resolved otherwise. "
                "Paired runs, which start from one checkpoint, are compared seed by seed.\n"
            )
        return text

    def _line(self, row: str, column: str) -> list[str]:
        values, cell = self.iu(row, column), self.table.cells[row, column]
        found, place = spread(values), self.table.base(row, column)
        base = self.table.cells[place].paper
        delta = found.mean - spread(self.iu(*place)).mean
        counts = self.parameters(row, column)
        printed = cell.paper is not None and base is not None
        return [
            row,
            column,
            f"{found.mean:.1f} ± {found.deviation:.1f}{_lost(found, len(values))}",
            f"{delta:+.1f}",
            f"{cell.paper:.1f}" if cell.paper is not None else "",
            f"{cell.paper - base:+.1f}" if printed else "",
            *(_number(shown) for shown in self._shown(row, column).values()),
            " + ".join(f"{steps:,}" for steps in self.steps(row, column)),
            f"{counts.total:,}",
            f"{counts.trained:,}",
            f"{counts.structure:,}",
            reporting.sigma_text(self.sigmas(row, column)).removeprefix("sigma "),
        ]

    def write(self, folder: Path) -> list[Path]:
        """Writes the table as markdown, JSON and a picture; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        names = (f"table_{self.name}.{ending}" for ending in ("md", "json", "png"))
        markdown, json, picture = (folder / name for name in names)
        write_text(markdown, self.as_markdown())
        reporting.write_json(json, self.as_json())
        failed = visualize.Failures()
        with failed.of(picture.name):
            visualize.save(self.figure(), picture)
        failed.tell(tell)
        return [path for path in (markdown, json, picture) if path.exists()]

    def figure(self) -> Figure:
        """Every cell's seeds as points, with the mean as a bar."""
        return visualize.seed_bars(
            {place: self.iu(*place) for place in self.table.cells}, title=self.table.title
        )


def _scores(run: Run, cell: Cell) -> Mapping[str, Any] | None:
    """The scores of a run that a cell reads; None where the training diverged."""
    outcome = run.outcome()
    if outcome is None:
        return None
    if cell.data:
        return outcome | evaluations.read(run, cell.data)
    if cell.at == 1.0:
        return outcome | measures.read(run)
    records = [r for r in reporting.read_records(run.workdir) if r["split"] == loop.EVAL_SPLIT]
    wanted = cell.at * outcome["step"]
    return min(records, key=lambda record: abs(record["step"] - wanted))


def _classes(run: Run) -> int | dict[str, int] | None:
    """How many classes a network tells apart, of several sets each; None if it diverged."""
    scores = run.outcome() or {}
    by_class = ("class_iu", "class_accuracy")  # of segmentations, and of a classification
    found = [len(values) for key, values in scores.items() if key.endswith(by_class)]
    if len(found) > 1:
        return {f"set_{number}": classes for number, classes in enumerate(found)}
    return found[0] if found else None


def _known(scores: Mapping[str, Any] | None, name: str) -> float:
    """A number of a run, NaN where it has none."""
    value = scores.get(name) if scores else None
    return math.nan if value is None else value


def _number(values: np.ndarray) -> str:
    """The mean over the seeds that have a number, "" where none has."""
    mean = spread(values).mean
    return "" if math.isnan(mean) else f"{mean:.3g}"


def _lost(found: Spread, seeds: int) -> str:
    """How many trainings diverged, in words."""
    return f" ({found.lost} of {seeds} diverged)" if found.lost else ""


def count_parameters(config, *, num_classes: int | Mapping[str, int]) -> Counts:
    """How many parameters a config's network has.

    Example:
      >>> from rfjax.training import config as configs
      >>> config = configs.base()
      >>> config.model.head = "composition"
      >>> count_parameters(config, num_classes=11).structure
      1
    """
    if config.task.cross_entropy == "null_background" and isinstance(num_classes, int):
        num_classes -= 1  # no score of the background
    model = composed.build_model(config, num_classes)
    images = jax.ShapeDtypeStruct((1, 64, 64, getattr(model, "channels", 3)), np.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    flat = traverse_util.flatten_dict(shapes["params"])
    sizes = {path: math.prod(leaf.shape) for path, leaf in flat.items()}
    is_structure = nn.structure(model, shapes, images).is_structure

    def total(trainable: str) -> int:
        chosen = optimizers.selection(trainable)
        return sum(size for path, size in sizes.items() if chosen(path, is_structure))

    return Counts(*map(total, ("all", config.trainable, "structure")))
