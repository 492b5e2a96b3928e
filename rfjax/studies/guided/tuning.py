"""A network without guidance that learns a support by gradients."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rfjax import tasks
from rfjax.models.stages import Start
from rfjax.training import runs

Images = jax.Array | np.ndarray | Start
MOMENTUM = 0.9


class Learner:
    """Fine-tuning, compiled.

    Args:
      trained: a network of the task "guided" with fusion "foreground".
      rate: of the gradient's steps.
    """

    def __init__(self, trained: runs.Trained, rate: float):
        self._model, self._optimizer = trained.model, optax.sgd(rate, MOMENTUM)
        variables = jax.device_put(trained.variables)
        self._learned = partial(jax.jit(self._learn), variables)
        self.scores = partial(jax.jit(self._scores), variables)

    def learn(self, images: Images, labels: np.ndarray, chosen: np.ndarray) -> Any:
        """Parameters after a step on each of chosen rows of a support.

        Args:
          images: [N, H, W, 3], or the maps of them to start from.
          labels: int32 [N, H, W], 255 for void.
          chosen: the rows of each step, [steps, rows].
        """
        return self._learned(images, labels, chosen)

    def classes(self, params: Any, images: Images) -> np.ndarray:
        """Those of each image, int [N, H, W]."""
        return np.asarray(jnp.argmax(self.scores(params, images), -1))

    def _scores(self, variables: Any, params: Any, images: Images) -> jax.Array:
        count = jax.tree.leaves(images)[0].shape[0]
        size = images.size if isinstance(images, Start) else images.shape[1:3]
        marks = jnp.zeros((count, 1, *size, 2))
        variables = {**variables, "params": params}
        return self._model.apply(variables, None, marks, images, train=False)

    def _learn(self, variables: Any, images: Images, labels: jax.Array, chosen: jax.Array) -> Any:
        def loss(params: Any, rows: jax.Array) -> jax.Array:
            some = jax.tree.map(lambda x: x[rows], images)
            outputs = self._scores(variables, params, some)
            total, count = tasks.losses.cross_entropy(outputs, labels[rows])
            return total / jnp.maximum(count, 1.0)

        def step(carry: tuple, rows: jax.Array) -> tuple:
            params, state = carry
            updates, state = self._optimizer.update(jax.grad(loss)(params, rows), state)
            return (optax.apply_updates(params, updates), state), None

        start = (variables["params"], self._optimizer.init(variables["params"]))
        (params, _), _ = jax.lax.scan(step, start, chosen)
        return params
