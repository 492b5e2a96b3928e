"""The loss of dense prediction: cross-entropy over the pixels that have a label."""

import jax
import jax.numpy as jnp
import optax

VOID = 255


def cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum of the pixels' cross-entropies, and the number of pixels in it.

        sum over valid p of  log sum_k exp(z_pk) - z_p,label(p)

    Sums and counts, rather than a mean, add up over devices to exactly those of the whole batch.

    Args:
        logits: [..., K] class scores; traced.
        labels: [...] integers, a class in 0..K-1 or `VOID` (255) for pixels without a label.

    Returns:
        A float32 scalar and a float32 scalar, the mean loss being their quotient.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> total, count = cross_entropy(jnp.zeros((1, 3, 4)), jnp.array([[0, 3, VOID]]))
        >>> float(count), round(float(total / count), 4)  # log 4
        (2.0, 1.3863)
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels must have shape {logits.shape[:-1]}, as logits; got {labels.shape}"
        )
    valid = labels != VOID
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.where(valid, labels, 0)
    )
    total = jnp.sum(jnp.where(valid, losses, 0.0))
    return total, jnp.sum(valid, dtype=jnp.float32)
