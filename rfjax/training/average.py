"""The running mean of a network's variables, which is evaluated and kept in their place."""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class Average:
    """An exponential moving average of all variables, one term at each update.

        a <- d a + (1 - d) v,   d = min(decay, (1 + n) / (10 + n))

    of variables v after update n = 0, 1, ... A small d at first lets the mean forget where training
    began: with the decay alone it would still hold a third of that after 1 / (1 - decay) updates.

    The running statistics of batch normalization are averaged like the parameters: they are those
    of activations that the parameters of the last updates made, and belong to the mean of these
    parameters. Numbers that are no fractions, as counters, are taken as they are. What is frozen
    stays as it is, bit by bit.

    Attributes:
        decay: how much of itself the mean keeps, in 0..1.
        every: steps whose gradients make one update; between updates the mean stays.

    Example:
        >>> half = Average(0.5)
        >>> start = {"w": jnp.float32(8.0)}
        >>> mean = half(start, {"w": jnp.float32(0.0)}, 0)  # with d = 0.1
        >>> round(float(mean["w"]), 5)
        0.8

    Reference: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J.
        Control and Optimization 1992; the decay at the beginning is that of TensorFlow's
        ExponentialMovingAverage.
    """

    decay: float
    every: int = 1

    def __call__(self, mean: Any, variables: Any, step: jax.typing.ArrayLike) -> Any:
        """The mean after a step.

        Args:
            mean, variables: pytrees of the same form, the mean before and the variables after it.
            step: its number, from 0.
        """
        count = step // self.every
        # 1 - d, of which small ones would be lost in the difference.
        share = jnp.maximum(jnp.float32(1 - self.decay), 9 / (10 + jnp.asarray(count, jnp.float32)))
        updated = (step + 1) % self.every == 0

        def follow(old: jax.Array, new: jax.Array) -> jax.Array:
            inexact = jnp.issubdtype(new.dtype, jnp.inexact)
            moved = old + share.astype(new.dtype) * (new - old) if inexact else new
            return jnp.where(updated, moved, old)

        return jax.tree.map(follow, mean, variables)


def averaged(config: "ConfigDict") -> Average | None:
    """The rule that the config of a run names, None for no running mean."""
    section = config.optimizer
    return Average(section.average, section.accumulate) if section.average else None
