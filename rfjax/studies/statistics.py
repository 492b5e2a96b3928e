"""Means and spreads of what was trained with several seeds."""

import numpy as np
from numpy.typing import ArrayLike

from rfjax._statistics import Spread as Spread
from rfjax._statistics import spread as spread


def mean_sigma(sigmas: ArrayLike) -> np.ndarray:
    """The geometric mean of standard deviations (y, x) along the last axis.

    It is the sigma of the spherical Gaussian of the same area.

    Example:
        >>> print(mean_sigma([[1.0, 4.0], [3.0, 3.0]]))
        [2. 3.]
    """
    sigmas = np.asarray(sigmas)
    return np.prod(sigmas, -1) ** (1.0 / sigmas.shape[-1])
