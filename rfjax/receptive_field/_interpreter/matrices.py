"""What solutions of linear systems and factors of matrices depend on; rules as in `rules`.

Matrices are the last two axes of an array, and those before count examples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rfjax.receptive_field._interpreter import reach as reaches
from rfjax.receptive_field._interpreter.reach import NOTHING, WHOLE_AXIS, WHOLE_MATRIX, Reach
from rfjax.receptive_field._interpreter.rules import Operand, dependent, note_of, rule


@rule("triangular_solve")
def _triangular(equation: Any, operands: Sequence[Operand]) -> Reach:
    """Substitution, row by row: x_i = (b_i - sum_j a_ij x_j) / a_ii over j before i.

    A constant matrix counts where it is not zero.
    """
    a, b = operands
    params, shape = equation.params, tuple(equation.outvars[0].aval.shape)
    like = dependent(operands)[0]
    b = b if isinstance(b, Reach) else reaches.nowhere(shape, like)
    # As a lower triangle from the left: x a = b is a^T x^T = b^T, an upper one runs backwards.
    transposed = params["transpose_a"] != (not params["left_side"])
    lower = params["lower"] != transposed

    def matrix(array):
        array = array.swapaxes(-1, -2) if transposed else array
        return array if lower else array[..., ::-1, ::-1]

    def rows(array):
        array = array if params["left_side"] else array.swapaxes(-1, -2)
        return array if lower else array[..., ::-1, :]

    size = a.shape[-1]
    mask, own = np.ones((size, size), bool), [None] * len(like.bounds)
    if isinstance(a, Reach):
        own = [matrix(reaches.spread(bound, a.shape, (-2, -1))) for bound in a.bounds]
    elif (nonzero := a.nonzero()) is not None:
        mask = matrix(nonzero.any(tuple(range(nonzero.ndim - 2))))
    bounds = []
    for right, left in zip(b.bounds, own, strict=True):
        right = rows(reaches.spread(right, shape, (-2 if params["left_side"] else -1,)))
        solved = _substituted(right, left, mask, unit=params["unit_diagonal"])
        bounds.append(reaches.compress(rows_back(solved, params["left_side"], lower)))
    notes = frozenset().union(*(x.notes for x in dependent(operands)))
    return Reach(shape, tuple(bounds), notes)


def rows_back(array: np.ndarray, left_side: bool, lower: bool) -> np.ndarray:
    """Rows in the order, and on the axis, that the operation has them."""
    array = array if lower else array[..., ::-1, :]
    return array if left_side else array.swapaxes(-1, -2)


def _substituted(
    right: np.ndarray, left: np.ndarray | None, mask: np.ndarray, *, unit: bool
) -> np.ndarray:
    """The union over substitutions: of right [..., n, m] with left [..., n, n] where it counts."""
    rows: list[np.ndarray] = []
    for i in range(right.shape[-2]):
        row = right[..., i, :]
        for j in np.flatnonzero(mask[i, :i]):
            row = np.maximum(row, rows[j])
        if left is not None:
            row = np.maximum(
                row, left[..., i, : i + (not unit)].max(-1, initial=NOTHING)[..., None]
            )
        rows.append(row)
    return np.stack(np.broadcast_arrays(*rows), -2)


@rule("cholesky")
def _cholesky(equation: Any, operands: Sequence[Operand]) -> Reach:
    """L_ij of the rows up to j and of row i, as far as column j, of the lower triangle."""
    (x,) = dependent(operands)
    size = x.shape[-1]
    lower = np.tri(size, dtype=bool)

    def factor(bound):
        full = np.where(lower, reaches.spread(bound, x.shape, (-2, -1)), NOTHING)
        own = np.maximum.accumulate(full, -1)
        before = np.maximum.accumulate(own, -2)
        diagonal = np.diagonal(before, axis1=-2, axis2=-1)[..., None, :]
        return np.where(lower, np.maximum(own, diagonal), NOTHING)

    return x.map(x.shape, factor)


@rule("tridiagonal_solve")
def _tridiagonal(equation: Any, operands: Sequence[Operand]) -> Reach:
    """Each column of the solution of the diagonals and of its own right side."""
    *diagonals, b = operands
    shape = tuple(equation.outvars[0].aval.shape)
    parts = [
        x.map(shape, lambda bound: bound.max(-1, keepdims=True)[..., None])
        for x in dependent(diagonals)
    ]
    parts += [x.map(shape, lambda bound: bound.max(-2, keepdims=True)) for x in dependent([b])]
    return reaches.union(shape, parts).noted(note_of(equation, WHOLE_AXIS))


@rule("lu qr geqrf geqp3 svd eig eigh schur hessenberg tridiagonal householder_product")
@rule("lu_pivots_to_permutation")
def _factors(equation: Any, operands: Sequence[Operand]) -> list[Reach]:
    """All of a matrix, and nothing of the other examples'."""
    vector = equation.primitive.name == "lu_pivots_to_permutation"
    own = (-1,) if vector else (-2, -1)
    parts = []
    for x in dependent(operands):
        examples = x.shape[: len(operands[0].shape) - len(own)]
        axes = tuple(range(len(examples), len(x.shape)))
        parts.append(x.map(examples, lambda bound, axes=axes: bound.max(axes)))
    whole = reaches.union(parts[0].shape, parts).noted(note_of(equation, WHOLE_MATRIX))
    return [_filled(whole, out.aval.shape) for out in equation.outvars]


def _filled(x: Reach, shape: Sequence[int]) -> Reach:
    """An array of `shape`, all of whose numbers for one example see what the example's `x` sees."""
    return x.map(shape, lambda bound: bound.reshape(bound.shape + (1,) * (len(shape) - bound.ndim)))
