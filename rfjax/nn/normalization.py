"""Batch normalisation whose running variance is that of PyTorch, or of Flax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen


class BatchNorm(linen.BatchNorm):
    """Flax's batch normalisation, with the running variance that PyTorch keeps.

    y = (x - mean) / sqrt(var + epsilon) * scale + bias

    In training mean and var are those of the batch, var = E[(x - mean)^2], and the running ones
    follow them:

        mean' = momentum mean' + (1 - momentum) mean
        var'  = momentum var'  + (1 - momentum) var n / (n - 1)

    with n the number of values per channel, over all devices of `axis_name`. The factor makes the
    running variance unbiased; the batch itself is normalised without it. One value per channel
    (n = 1) has var = 0 and no factor.

    Parameters and statistics are those of `flax.linen.BatchNorm`, whatever the options: `scale` and
    `bias` [C] in "params", `mean` and `var` [C] in "batch_stats".

    Attributes: those of `flax.linen.BatchNorm`, and
      momentum: what the running statistics keep at each step; 1 - momentum in PyTorch's terms.
      epsilon: added to the variance.
      unbiased: whether the running variance has the factor n / (n - 1), as in PyTorch; without it
        the running variance is that of Flax.

    Example:
      >>> norm, x = BatchNorm(use_running_average=False), jnp.array([[0.0], [2.0]])
      >>> variables = norm.init(jax.random.key(0), x)
      >>> _, updated = norm.apply(variables, x, mutable=["batch_stats"])
      >>> print(updated["batch_stats"]["var"])  # 0.9 * 1 + 0.1 * 1 * 2 / (2 - 1)
      [1.1]

    Reference: Ioffe & Szegedy, "Batch Normalization", ICML 2015, algorithm 2, line 10.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    unbiased: bool = True

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        running = linen.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        if running or not self.unbiased or self.is_initializing():
            return self._normalize(x, use_running_average, mask)
        kept = self.momentum * self.get_variable("batch_stats", "var")
        y = self._normalize(x, use_running_average, mask)
        # What Flax has added to the part that is kept is the biased variance's share.
        added = self.get_variable("batch_stats", "var") - kept
        self.put_variable("batch_stats", "var", kept + added * self._correction(x, mask))
        return y

    def _normalize(
        self, x: jax.Array, use_running_average: bool | None, mask: jax.Array | None
    ) -> jax.Array:
        """As Flax does it, which counts on float32 and narrower types mixing by themselves."""
        with jax.numpy_dtype_promotion("standard"):
            return super().__call__(x, use_running_average, mask=mask)

    def _correction(self, x: jax.Array, mask: jax.Array | None) -> Any:
        """n / (n - 1), or 1 where n is 1; a number, or with a mask an array [C]."""
        axes = set(np.ravel(self.axis).tolist())
        others = [axis for axis in range(x.ndim) if not axes & {axis, axis - x.ndim}]
        if mask is None:
            n = 1
            for axis in others:
                n *= x.shape[axis]
        else:
            n = jnp.sum(jnp.broadcast_to(mask, x.shape), others, dtype=jnp.float32)
        if self.axis_name is not None:
            n = jax.lax.psum(n, self.axis_name, axis_index_groups=self.axis_index_groups)
        if mask is None:
            return n / max(n - 1, 1)
        return n / jnp.maximum(n - 1, 1)
