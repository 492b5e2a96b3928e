"""Means and spreads of what was trained with several seeds; without JAX."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Spread(NamedTuple):
    """Numbers over seeds; NaN where none is known.

    Attributes:
        mean, low, high: of those that are known.
        deviation: standard deviation, sqrt(sum (x - mean)^2 / (n - 1)); 0 of a single one.
        lost: how many are not known, since their training diverged.
    """

    mean: float
    low: float
    high: float
    deviation: float
    lost: int


def spread(values: ArrayLike) -> Spread:
    """Mean, range and deviation of [seeds] numbers, of which NaN is left out.

    Example:
        >>> found = spread([1.0, 3.0, np.nan])
        >>> print(found.mean, found.low, found.high, found.lost)
        2.0 1.0 3.0 1
    """
    values = np.asarray(values)
    known = values[~np.isnan(values)]
    lost = len(values) - len(known)
    if not len(known):
        return Spread(np.nan, np.nan, np.nan, 0.0, lost)
    deviation = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    return Spread(known.mean(), known.min(), known.max(), deviation, lost)
