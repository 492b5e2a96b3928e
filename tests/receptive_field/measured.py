"""The support of gradients, which theoretical receptive fields have to equal."""

import jax
import jax.numpy as jnp
import numpy as np

from rfjax.receptive_field._interpreter import tracing
from rfjax.receptive_field._interpreter.reach import NOTHING


def gradient_boxes(function, shape):
    """[H', W', 4]: first and last row and column of the input that each output's gradient is not
    zero at; -1 where it is zero everywhere. Inputs are positive."""
    x = np.random.default_rng(3).uniform(0.5, 1.5, shape)
    jacobian = jax.jit(jax.jacrev(lambda x: function(x)[0].sum(-1)))(jnp.asarray(x))
    size = np.abs(np.asarray(jacobian)).sum((2, -1))
    support = size > 1e-12 * size.max()  # Fourier transforms leave rounding errors everywhere
    boxes = np.full((*support.shape[:2], 4), -1)
    for place in np.ndindex(support.shape[:2]):
        rows, columns = (np.flatnonzero(support[place].any(axis)) for axis in (1, 0))
        if rows.size:
            boxes[place] = rows[0], rows[-1], columns[0], columns[-1]
    return boxes


def traced_boxes(function, shape):
    """The same by the interpreter."""
    x = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
    (output,), _, _ = tracing.trace(function, x, (1, 2), ())
    bounds = [np.broadcast_to(bound, output.shape)[0].max(-1) for bound in output.bounds]
    boxes = np.stack([-bounds[0], bounds[1], -bounds[2], bounds[3]], -1)
    return np.where(boxes[..., 1:2] == NOTHING, -1, boxes)


def positive(variables):
    """Weights that nothing cancels with: kernels of sum one over what they read, means below 0."""
    rng = np.random.default_rng(0)

    def leaf(path, a):
        value = rng.uniform(0.5, 1.5, a.shape)
        if len(a.shape) == 4:
            value = value / np.prod(a.shape[:-1])
        return jnp.asarray(-value if path[-1].key == "mean" else value)

    return jax.tree_util.tree_map_with_path(leaf, variables)
