"""Fourier transforms: each number depends on the whole map, unless a filter is all that happens.

A transform, products with known numbers, and the inverse transform are a circular convolution, and
its taps are known: those below rounding are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from rfjax.receptive_field._interpreter import reach as reaches
from rfjax.receptive_field._interpreter import rules
from rfjax.receptive_field._interpreter.constants import Constant
from rfjax.receptive_field._interpreter.reach import NOTHING, WHOLE_AXIS, Reach
from rfjax.receptive_field._interpreter.rules import Operand, dependent, rule

# Taps of less than this part of the largest are rounding errors of the transforms.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Spectrum(Reach):
    """The transform of `origin` over its last `rank` axes, times `factors`."""

    origin: Reach | None = None
    rank: int = 0
    factors: tuple[Constant, ...] = ()


@rule("fft")
def _transform(equation: Any, operands: Sequence[Operand]) -> Reach:
    (x,) = dependent(operands)
    shape = tuple(equation.outvars[0].aval.shape)
    lengths = tuple(equation.params["fft_lengths"])
    rank = len(lengths)
    forward = str(equation.params["fft_type"]).rsplit(".", 1)[-1] in ("FFT", "RFFT", "0", "2")
    if not forward and isinstance(x, Spectrum) and x.origin.shape[-rank:] == lengths:
        taps = _taps(x, lengths)
        if taps is not None:
            return x.origin.map(shape, lambda b: _circular(b, x.origin.shape, taps))
    axes = tuple(range(-rank, 0))
    mixed = x.map(shape, lambda bound: bound.max(axes, keepdims=True))
    mixed = mixed.noted(rules.note_of(equation, WHOLE_AXIS))
    if forward and not isinstance(x, Spectrum):
        return Spectrum(shape, mixed.bounds, mixed.notes, origin=x, rank=rank)
    return mixed


_product_of_numbers = rules.RULES["mul"]


@rule("mul")
def _multiply(equation: Any, operands: Sequence[Operand]) -> Reach:
    """A spectrum times known numbers stays a filtered one."""
    spectra = [operand for operand in operands if isinstance(operand, Spectrum)]
    factors = tuple(operand for operand in operands if isinstance(operand, Constant))
    result = _product_of_numbers(equation, operands)
    if len(spectra) != 1 or not factors:
        return result
    return replace(spectra[0], bounds=result.bounds, factors=spectra[0].factors + factors)


def _taps(spectrum: Spectrum, lengths: Sequence[int]) -> np.ndarray | None:
    """Which taps [*lengths] of the filter that a spectrum was multiplied by are not zero."""
    values = [factor.value for factor in spectrum.factors]
    if any(value is None for value in values):
        return None
    product = np.ones((1,) * len(spectrum.shape), np.complex128)
    for value in values:
        value = np.asarray(value, np.complex128)
        product = product * value.reshape((1,) * (len(spectrum.shape) - value.ndim) + value.shape)
    axes = tuple(range(-spectrum.rank, 0))
    product = np.broadcast_to(
        product, (*product.shape[: -spectrum.rank], *spectrum.shape[axes[0] :])
    )
    halved = spectrum.shape[-1] != lengths[-1]
    kernel = (np.fft.irfftn if halved else np.fft.ifftn)(product, lengths, axes)
    size = np.abs(kernel).max(tuple(range(kernel.ndim - spectrum.rank)))
    return size > _ROUNDING * size.max()


def _circular(bound: np.ndarray, shape: Sequence[int], taps: np.ndarray) -> np.ndarray:
    """The union over the taps of a circular convolution along the last axes of an array."""
    rank = taps.ndim
    axes = tuple(range(bound.ndim - rank, bound.ndim))
    lines = [taps.any(tuple(set(range(rank)) - {axis})) for axis in range(rank)]
    if np.array_equal(taps, reduce(np.logical_and.outer, lines)):
        for axis, line in zip(axes, lines, strict=True):
            bound = _roll_union(bound, [(int(s),) for s in np.flatnonzero(line)], (axis,))
        return bound
    full = reaches.spread(bound, shape, axes)
    return _roll_union(full, [tuple(map(int, place)) for place in np.argwhere(taps)], axes)


def _roll_union(
    bound: np.ndarray, shifts: Sequence[tuple[int, ...]], axes: tuple[int, ...]
) -> np.ndarray:
    result = np.full(bound.shape, NOTHING, np.int32)
    for shift in shifts:
        result = np.maximum(result, np.roll(bound, shift, axes))
    return result
