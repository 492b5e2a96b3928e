"""The losses of dense prediction: cross-entropies over the pixels that have a label."""

import jax
import jax.numpy as jnp
import optax

from rfjax import _options

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
    valid = _valid(logits, labels)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.where(valid, labels, 0)
    )
    total = jnp.sum(jnp.where(valid, losses, 0.0))
    return total, jnp.sum(valid, dtype=jnp.float32)


def sigmoid_cross_entropy(
    logits: jax.Array, labels: jax.Array, *, background: bool = True
) -> tuple[jax.Array, jax.Array]:
    """The sum of the pixels' cross-entropies of one yes or no for each class, and their number.

        sum over valid p and over k of  log(1 + exp(z_pk)) - [label(p) = k] z_pk

    Args:
        logits: [..., K] class scores; traced.
        labels: [...] integers, a class in 0..K-1 or `VOID` (255) for pixels without a label.
        background: whether class 0 is one of the k. Without it the background has no score of its
            own: it is what no other class claims, and is predicted where all scores are below 0,
            if z_p0 is 0 as `rfjax.models.decoders.NullBackground` makes it.

    Returns:
        A float32 scalar and a float32 scalar, the mean loss being their quotient.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> total, count = sigmoid_cross_entropy(jnp.zeros((1, 3, 4)), jnp.array([[0, 3, VOID]]))
        >>> float(count), round(float(total / count), 4)  # 4 log 2
        (2.0, 2.7726)

    Reference: Shelhamer, Long & Darrell, "Fully Convolutional Networks for Semantic Segmentation",
        PAMI 2017, section 6.
    """
    valid = _valid(logits, labels)
    scores = logits.astype(jnp.float32)
    wanted = jax.nn.one_hot(labels, scores.shape[-1], dtype=jnp.float32)  # void: all zeros
    losses = optax.sigmoid_binary_cross_entropy(scores, wanted)
    losses = jnp.sum(losses if background else losses[..., 1:], -1)
    total = jnp.sum(jnp.where(valid, losses, 0.0))
    return total, jnp.sum(valid, dtype=jnp.float32)


def _valid(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Where there is a label; raises unless there is a place for one at every score."""
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels must have shape {logits.shape[:-1]}, as logits; got {labels.shape}"
        )
    return labels != VOID


def sampled(key: jax.Array, labels: jax.Array, probability: float, *, cell: int = 1) -> jax.Array:
    """Labels of which only some cells are kept; all others are void.

    A cell, cell x cell pixels, is what one position of the last layer's map is enlarged to. It is
    kept with `probability`, independently of all others, so that the sum of the losses that remain
    is `probability` times the whole sum in expectation. It is not divided by it: the learning rate
    or the size of the batch makes up for it.

    Args:
        key: of the random numbers.
        labels: [*batch, H, W] integers; traced.
        probability: that a cell is kept, in (0, 1]; static.
        cell: its height and width in pixels, static.

    Returns:
        [*batch, H, W] in the type of `labels`.

    Raises:
        ValueError: the probability or the cell is out of its range.

    Example:
        >>> kept = sampled(jax.random.key(0), jnp.zeros((4, 6), jnp.int32), 0.5, cell=2)
        >>> print(kept)
        [[255 255 255 255   0   0]
         [255 255 255 255   0   0]
         [  0   0 255 255   0   0]
         [  0   0 255 255   0   0]]

    Reference: Shelhamer, Long & Darrell, "Fully Convolutional Networks for Semantic Segmentation",
        PAMI 2017, sections 3.5 and 6.
    """
    probability = _options.number("probability", probability, above=0, most=1)
    cell = _options.integer("cell", cell)
    *batch, height, width = labels.shape
    cells = (*batch, -(-height // cell), -(-width // cell))
    kept = jax.random.bernoulli(key, probability, cells)
    kept = jnp.repeat(jnp.repeat(kept, cell, -2), cell, -1)[..., :height, :width]
    return jnp.where(kept, labels, VOID).astype(labels.dtype)


def end_point_error(flow: jax.Array, truth: jax.Array) -> jax.Array:
    """The distance between two flows at every pixel: |flow - truth|.

    Its gradient is 0 where they are equal.

    Args:
        flow, truth: [..., 2].

    Returns:
        float32 [...].

    Example:
        >>> flow = jnp.array([[3.0, 4.0], [0.0, 0.0]])
        >>> print(end_point_error(flow, jnp.zeros((2, 2))))
        [5. 0.]
    """
    squared = jnp.sum(jnp.square(flow.astype(jnp.float32) - truth.astype(jnp.float32)), -1)
    # Two selections, since the gradient of the root is infinite at 0.
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)
