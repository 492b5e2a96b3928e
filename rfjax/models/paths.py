"""Scores of several paths through a network, whose gradients learn different things."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rfjax import inflation


@partial(jax.tree_util.register_dataclass, data_fields=["scores"], meta_fields=["sets", "weight"])
@dataclasses.dataclass(frozen=True)
class Paths:
    """What a network with several paths returns in training, before they are fused.

    y = sum_b s_b,   dL/ds_b(p) = w_b(p) dL/dy(p),   w_b(p) = weight where label(p) is in sets[b],
                                                     1 elsewhere

    Attributes:
      scores: of each path [N, H, W, K].
      sets: of each path the classes on which it is to learn more than on others. Static.
      weight: factor on the gradient there. Static.

    Example:
      >>> paths = Paths((jnp.ones((1, 1, 2, 3)),) * 2, sets=((1,), (0, 2)), weight=2.0)
      >>> labels = jnp.array([[[1, 2]]])
      >>> gradient = jax.grad(lambda paths: fused(paths, labels).sum())(paths)
      >>> print(*(path[0, 0, :, 0] for path in gradient.scores))
      [2. 1.] [1. 2.]

    Reference: Wei et al., "Learning Adaptive Receptive Fields for Deep Image Parsing Network",
      CVPR 2017, section 3 (weighted gradient layer).
    """

    scores: tuple[jax.Array, ...]
    sets: tuple[tuple[int, ...], ...]
    weight: float

    def fused(self, labels: jax.Array) -> jax.Array:
        """The sum of the paths; labels are integers [N, H, W]."""
        weighed = [
            inflation.weighted_gradient(scores, _weights(labels, classes, self.weight))
            for scores, classes in zip(self.scores, self.sets, strict=True)
        ]
        return sum(weighed[1:], weighed[0])


def fused(outputs: Any, labels: jax.Array) -> Any:
    """The outputs of a network; of one with several paths their sum, with weighted gradients."""
    return outputs.fused(labels) if isinstance(outputs, Paths) else outputs


def _weights(labels: jax.Array, classes: Sequence[int], weight: float) -> jax.Array:
    """The factor on the gradient at every pixel, float32 [N, H, W]."""
    chosen = jnp.zeros(labels.shape, bool)
    for each in classes:
        chosen |= labels == each
    return jnp.where(chosen, jnp.asarray(weight, jnp.float32), 1)
