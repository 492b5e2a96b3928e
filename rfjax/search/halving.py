"""Successive halving: only the better candidates are trained further."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from rfjax import _options


@dataclasses.dataclass(frozen=True)
class Halving:
    """After each rung the best part of the candidates goes on.

    Attributes:
        rungs: steps at which candidates are compared, increasing. The learning rate's schedule is
            that of the whole search, so what is dropped is not annealed.
        keep: the part that goes on, in (0, 1).
        least: the number of candidates that always goes on.

    Raises:
        ValueError: rungs do not increase from 1, or a number is out of its bounds.
        TypeError: rungs are not a sequence of whole numbers.

    Example:
        >>> Halving((100,)).survivors(np.array([0.1, 0.4, np.nan, 0.3])).tolist()
        [1, 3]

    Reference: Jamieson & Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
        Optimization", AISTATS 2016.
    """

    rungs: tuple[int, ...]
    keep: float = 0.5
    least: int = 1

    def __post_init__(self):
        if not isinstance(self.rungs, Sequence) or not all(map(_options.is_integer, self.rungs)):
            raise TypeError(
                f"rungs must be a tuple of whole numbers, as (100,); got {self.rungs!r}"
            )
        object.__setattr__(self, "rungs", tuple(self.rungs))
        _options.number("keep", self.keep, above=0, below=1)
        _options.integer("least", self.least)
        if not all(a < b for a, b in zip((0, *self.rungs), self.rungs, strict=False)):
            raise ValueError(f"want increasing rungs from 1; got {self.rungs}")

    def check(self, steps: int) -> None:
        """Raises a ValueError unless all rungs come before the last of `steps`."""
        if self.rungs and self.rungs[-1] >= steps:
            raise ValueError(f"rungs must come before the last of {steps} steps; got {self.rungs}")

    def survivors(self, merits: np.ndarray) -> np.ndarray:
        """The indices that go on, in order; of equal merits the earlier ones, nan last."""
        count = max(self.least, math.ceil(self.keep * len(merits)))
        order = np.argsort(-np.where(np.isnan(merits), -np.inf, merits), kind="stable")
        return np.sort(order[:count])
