"""What a clock looks at: numbers of one frame, or of a frame and the one it is compared with."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rfjax import _checks


def change(scores: ArrayLike, reference: ArrayLike) -> jax.Array:
    """The share of places whose class differs between two maps of scores.

    d = mean_p [argmax_k s_k(p) != argmax_k r_k(p)]

    Args:
      scores: [*batch, H, W, K].
      reference: another map of the same shape.

    Returns:
      A number in [0, 1], float32, over all places of the batch: 0 for maps of the same classes.

    Raises:
      ValueError: the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> scores = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
      >>> print(change(scores, -scores), change(scores, 2 * scores))
      1.0 0.0

    Reference:
      Shelhamer, "Local Adaptive Visual Recognition", 2019, section 3.3.3.
    """
    one, other = _pair("scores", scores, reference)
    differs = jnp.argmax(one, -1) != jnp.argmax(other, -1)
    return jnp.mean(differs, dtype=jnp.float32)


def confidence(scores: ArrayLike) -> jax.Array:
    """The mean over all places of the probability of the best class.

    c = mean_p max_k softmax(s(p))_k

    Args:
      scores: [*batch, H, W, K].

    Returns:
      A number in [1 / K, 1], float32.

    Example:
      >>> import jax.numpy as jnp
      >>> print(confidence(jnp.zeros((4, 4, 2))))
      0.5
    """
    array = _checks.float_array("scores", scores, min_ndim=3, layout="[*batch, H, W, K]")
    return jnp.mean(jnp.max(jax.nn.softmax(array.astype(jnp.float32)), -1))


def difference(frame: ArrayLike, reference: ArrayLike) -> jax.Array:
    """How much two frames differ, in units of the frame that is compared with.

    d = sum_p |x(p) - r(p)| / sum_p |r(p)|

    Args:
      frame: [*batch, H, W, C].
      reference: another frame of the same shape.

    Returns:
      A number of at least 0, float32; 0 for equal frames.

    Raises:
      ValueError: the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> print(difference(jnp.full((2, 2, 3), 3.0), jnp.full((2, 2, 3), 2.0)))
      0.5
    """
    one, other = (array.astype(jnp.float32) for array in _pair("frame", frame, reference))
    moved, whole = jnp.sum(jnp.abs(one - other)), jnp.sum(jnp.abs(other))
    tiny = jnp.finfo(jnp.float32).tiny
    # Of a black frame everything differs by as much as it is.
    return jnp.where(moved > 0, moved / jnp.maximum(whole, tiny), 0.0)


def _pair(name: str, value: ArrayLike, reference: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Two maps of one shape."""
    layout = "[*batch, H, W, C]"
    one = _checks.float_array(name, value, min_ndim=3, layout=layout)
    other = _checks.float_array("reference", reference, min_ndim=3, layout=layout)
    if one.shape != other.shape:
        raise ValueError(
            f"{name} and reference must have the same shape; got {one.shape} and {other.shape}"
        )
    return one, other
