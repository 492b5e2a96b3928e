"""Learned receptive fields by inflation: one factor against dilations that are enumerated.

The 3x3 convolution of the scores has a dilation to start from, 1, 2, 4 or 8, which is kept, or of
which a factor is learned: the map is enlarged by it before the convolution, and brought back.
`gradients` compares three gradients of the factor. Adam makes steps of one size of them all: what
differs is how much of each comes from the inflation and from the way back, and, of the published
layers, the gradient of the map. The paper has no table of either.

Reference: Wei et al., "Learning Adaptive Receptive Fields for Deep Image Parsing Network", CVPR
2017.
"""

import numpy as np

from rfjax._names import FACTOR_GRADIENTS
from rfjax.studies.specs import Cell, Claim, Place, Spec, Table, Values, below

STARTS = (1, 2, 4, 8)
FIXED, LEARNED = "fixed", "learned"
NUMBERS = {"factor": "factor", "dilation / factor": "reached_dilation"}


def fixed(dilation: int) -> Spec:
    """The scores by a convolution of this dilation."""
    return Spec("vgg", head="conv3", options=(("dilation", dilation),), label=f"fixed-{dilation}")


def learned(dilation: int, gradient: str = "paper") -> Spec:
    """The same with a factor, which starts at 1."""
    return Spec(
        "vgg",
        head="inflated_conv",
        options=(("dilation", dilation), ("gradient", gradient)),
        label=f"{gradient}-{dilation}",
    )


def _row(dilation: int) -> str:
    return f"dilation {dilation}"


def _best(iu: Values) -> np.ndarray:
    """Of every seed the score of the best fixed dilation."""
    return np.max([iu(_row(dilation), FIXED) for dilation in STARTS], 0)


def _enumeration() -> Table:
    cells: dict[Place, Cell] = {}
    for dilation in STARTS:
        cells[_row(dilation), FIXED] = Cell(fixed(dilation))
        cells[_row(dilation), LEARNED] = Cell(learned(dilation))
    rows = [*map(_row, STARTS)]
    claims = [
        Claim(
            f"{row}: learned ≥ the best fixed dilation (within 1)",
            lambda iu, _: _best(iu) - 1.0,
            lambda iu, _, row=row: iu(row, LEARNED),
            paired=True,
        )
        for row in rows
    ]
    claims += [below(f"{row}: fixed < learned", (row, FIXED), (row, LEARNED)) for row in rows]
    return _table("A learned factor against enumerated dilations", cells, claims)


def _table(title: str, cells: dict[Place, Cell], claims: list[Claim]) -> Table:
    """A table whose rows are compared with fixed dilations, with the factors and their way."""
    return Table(
        title,
        cells,
        lambda row, _: (row, FIXED),
        (*claims,),
        numbers=NUMBERS,
        measured=("factor",),
        pictures=("factors",),
    )


def _gradients() -> Table:
    cells: dict[Place, Cell] = {}
    for dilation in (1, 8):
        cells[_row(dilation), FIXED] = Cell(fixed(dilation))
        for gradient in FACTOR_GRADIENTS:
            cells[_row(dilation), gradient] = Cell(learned(dilation, gradient))
    claims = [
        below(f"{_row(d)}: {g} helps", (_row(d), FIXED), (_row(d), g))
        for d in (1, 8)
        for g in FACTOR_GRADIENTS
    ]
    return _table("Gradients of the factor", cells, claims)


TABLES = {"enumeration": _enumeration(), "gradients": _gradients()}
