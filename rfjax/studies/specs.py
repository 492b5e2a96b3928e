"""What one cell of a table trains, and what a table is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

# The networks of the papers, by the roles that a scale fills.
ROLES = {"drn": "DRN-A", "resnet": "ResNet-34", "dla": "DLA-34", "vgg": "VGG-16"}
IU = "mean IU"  # the column of tables that have one


@dataclass(frozen=True)
class Spec:
    """A training run but for its data, its scale and its seed. Tables that share one run it once.

    Attributes:
      network: a role, one of `ROLES`, which a scale gives a network.
      head, options: of the network, options as ((name, value), ...).
      composed: options of the composition of the network's own merging layers, or None.
      trainable: as in a config.
      parent: the run whose trained weights this one starts from.
      partner: that whose weights the second of two streams starts from, see `model.late_fusion`.
      enlargement: of the images, in training and evaluation.
      learning_rate: factor on that of the scale.
      evaluations: how many, evenly over the run.
      settings: other keys of the config, as (("task.name", "classification"), ...).
      share: of the steps of a full training; None is all of them, and the scale's share for
        fine-tuning of a run that starts from another.
      label: its name; "" for one that is made of all of the above but the parent.
      weights: of a run without a parent: given, those that the study was given, if it was; wanted,
        without which it cannot be; none, whatever it was given.
    """

    network: str
    head: str = "score"
    options: tuple[tuple[str, Any], ...] = ()
    composed: tuple[tuple[str, Any], ...] | None = None
    trainable: str = "all"
    parent: "Spec | None" = None
    partner: "Spec | None" = None
    enlargement: int = 1
    learning_rate: float = 1.0
    evaluations: int = 1
    settings: tuple[tuple[str, Any], ...] = ()
    share: float | None = None
    label: str = ""
    weights: str = "given"

    @property
    def name(self) -> str:
        """Tells this run from all others of the tables; the name of its directory."""
        if self.label:
            return self.label
        parts = [self.network, self.head, *(f"{key}={_text(value)}" for key, value in self.options)]
        if self.composed is not None:
            parts += ["composed", *(f"{key}={_text(value)}" for key, value in self.composed)]
        marks = (
            (_text(self.trainable), self.trainable != "all"),
            (f"x{self.enlargement}", self.enlargement != 1),
            (f"lr{self.learning_rate:g}", self.learning_rate != 1.0),
            (f"{self.evaluations}evals", self.evaluations != 1),
            (f"{self.share}steps", self.share is not None),
        )
        parts += [mark for mark, shown in marks if shown]
        parts += [f"{key.rpartition('.')[2]}={_text(value)}" for key, value in self.settings]
        return "-".join(parts)

    @property
    def lineage(self) -> tuple["Spec", ...]:
        """The runs that come before this one, and it, in their order."""
        before = (run for each in self.parents for run in each.lineage)
        return (*dict.fromkeys(before), self)

    @property
    def parents(self) -> tuple["Spec", ...]:
        """The runs that this one starts from."""
        return tuple(each for each in (self.parent, self.partner) if each is not None)


def _text(value: Any) -> str:
    """`value` without the signs that file names do without."""
    value = f"{value:.3g}" if isinstance(value, float) else value
    return "".join(letter for letter in str(value) if letter not in "()' /*").strip(",")


def mean_iu(scores: Mapping[str, Any]) -> float:
    """What a cell shows unless told."""
    return scores["mean_iu"]


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
      spec: what is trained for it.
      paper: the number that the paper prints, in %, or None where it has none.
      at: how much of the training is behind when it is read off, 0 < at <= 1.
      read: of the scores of a run, such as `mean_iu`.
      data: options of the data on which the trained network is evaluated anew, where they are not
        those that it was trained with, as (("mask", "background"),).
    """

    spec: Spec
    paper: float | None = None
    at: float = 1.0
    read: Callable[[Mapping[str, Any]], float] = mean_iu
    data: tuple[tuple[str, Any], ...] = ()


Place = tuple[str, str]  # row and column
# The values of a cell, one for each seed: of its mean IU in %, or of its learned sigma.
Values = Callable[[str, str], np.ndarray]


@dataclass(frozen=True)
class Claim:
    """What the paper says of a table: for every seed, one quantity is below another.

    Attributes:
      text: the claim in words.
      lower, higher: functions of (iu, sigma), each a `Values`, that give [seeds].
      paired: whether the runs of one seed belong together, as those that start from one checkpoint.
      of: the name of a number that stands in the place of the mean IU, as "sampling_variance".
    """

    text: str
    lower: Callable[[Values, Values], np.ndarray]
    higher: Callable[[Values, Values], np.ndarray]
    paired: bool = False
    of: str = ""


@dataclass(frozen=True)
class Table:
    """A table: cells by row and column.

    Attributes:
      title: what it compares.
      cells: by (row, column); rows and columns appear in the order of the cells.
      base: the (row, column) that the difference of a cell refers to, by its row and column.
      claims: what is said of it.
      measures: shares that are shown beside the score in %, as {heading: its name in result.json}.
      numbers: other numbers beside it, likewise.
      score: heading of what the cells show.
      measured: what is measured of every trained run, see `rfjax.studies.measures`; `numbers` may
        show what it finds.
      costs: whether time and memory of a training step are measured, see `rfjax.studies.costs`;
        likewise.
      pictures: those that are drawn besides that of the seeds, see `rfjax.studies.pictures`.
    """

    title: str
    cells: Mapping[tuple[str, str], Cell]
    base: Callable[[str, str], tuple[str, str]]
    claims: tuple[Claim, ...] = field(default=())
    measures: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)
    score: str = "mean IU"
    measured: tuple[str, ...] = ()
    costs: bool = False
    pictures: tuple[str, ...] = ()

    @property
    def specs(self) -> tuple[Spec, ...]:
        """All runs that it needs, parents before children, each once."""
        ordered = (spec for cell in self.cells.values() for spec in cell.spec.lineage)
        return tuple(dict.fromkeys(ordered))


def below(
    text: str,
    lower: tuple[str, str],
    higher: tuple[str, str],
    *,
    measure: str = "iu",
    paired: bool = False,
) -> Claim:
    """The claim that one cell's value is below another's; `measure` is iu | sigma."""
    place = ("iu", "sigma").index(measure)
    return Claim(text, lambda *v: v[place](*lower), lambda *v: v[place](*higher), paired)


def with_settings(spec: Spec, label: str, **settings: Any) -> Spec:
    """The same but for these keys of the config, with "__" for their dots."""
    changed = {key.replace("__", "."): value for key, value in settings.items()}
    merged = dict(spec.settings) | changed
    return replace(spec, label=label, settings=(*merged.items(),))


# -- tables with one column ------------------------------------------------------------------------


def one_column(rows: Mapping[str, tuple[Spec, float | None]], **fields: Any) -> dict[Place, Cell]:
    """Cells of a table with one column, of runs and what the paper prints by row."""
    return {(row, IU): Cell(spec, paper, **fields) for row, (spec, paper) in rows.items()}


def beats(low: str, high: str, text: str = "", *, paired: bool = False) -> Claim:
    """The claim that a row's score is below another's."""
    return below(text or f"{low} < {high}", (low, IU), (high, IU), paired=paired)


def near(text: str, row: str, other: str, points: float = 1.0) -> Claim:
    """The claim that two rows differ by less than some points, seed by seed."""
    return Claim(
        f"{text} (within {points:g})",
        lambda iu, _: np.abs(iu(row, IU) - iu(other, IU)),
        lambda iu, _: np.full(len(iu(row, IU)), points),
        paired=True,
    )


def no_worse(row: str, other: str, points: float = 1.0) -> Claim:
    """The claim that another row is at most some points below a row, seed by seed."""
    return Claim(
        f"{row} ≤ {other} (within {points:g})",
        lambda iu, _: iu(row, IU) - points,
        lambda iu, _: iu(other, IU),
        paired=True,
    )
