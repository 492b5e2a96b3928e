"""The losses of dense prediction: cross-entropies over the pixels that have a label."""

from collections.abc import Sequence

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


def balanced_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    class_weights: Sequence[float] = (),
    focal: float = 0.0,
    dice: float = 0.0,
    hard_examples: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
    """The sum of weighted losses for classes of which some are rare, and the sum of the weights.

        sum over valid p of  w_y(p) [(1 - q_p)^focal (-log q_p) + dice D(picture of p)]

    with q_p the softmax probability of the label y(p), and D that of `soft_dice`. Each picture has
    a D of its own, and hard examples of its own, so that sums add up over devices to exactly those
    of the whole batch.

    Args:
        logits: [*batch, H, W, K] class scores; traced.
        labels: [*batch, H, W] integers, a class in 0..K-1 or `VOID` (255) without a label.
        class_weights: w, one for each class; () for 1. Static.
        focal: exponent, 0 for the cross-entropy; static.
        dice: factor on D, 0 for none; static.
        hard_examples: the share of each picture's valid pixels over which the sums go, see
            `hardest`; 1 for all. D is that of all pixels. Static.

    Returns:
        A float32 scalar and a float32 scalar, the mean loss being their quotient.

    Raises:
        ValueError: if the shapes or the weights do not belong together, or the share is none.

    Example:
        >>> logits, labels = jnp.zeros((1, 1, 3, 2)), jnp.array([[[0, 1, VOID]]])
        >>> total, count = balanced_cross_entropy(logits, labels, class_weights=(1, 3), focal=2)
        >>> float(count), round(float(total / count), 4)  # (1 - 1/2)^2 log 2
        (4.0, 0.1733)

    Reference: Lin, Goyal, Girshick, He & Dollar, "Focal Loss for Dense Object Detection", ICCV
        2017, equation 5, for several classes.
    """
    valid = _valid(logits, labels)
    scores = logits.astype(jnp.float32)
    known = jnp.where(valid, labels, 0)
    plain = losses = optax.softmax_cross_entropy_with_integer_labels(scores, known)
    if focal:
        losses = _doubt(losses, focal) * losses
    weights = jnp.float32(1.0)
    if len(class_weights):
        weights = _weights(class_weights, scores.shape[-1])[known]
    weights = jnp.where(valid, weights, 0.0)
    if hard_examples != 1:
        weights = jnp.where(hardest(plain, weights > 0, hard_examples), weights, 0.0)
    total = jnp.sum(jnp.where(valid, weights * losses, 0.0))
    if dice:
        total = total + dice * jnp.sum(jnp.sum(weights, (-2, -1)) * soft_dice(scores, labels))
    return total, jnp.sum(weights)


def hardest(losses: jax.Array, counted: jax.Array, share: float) -> jax.Array:
    """The pixels of each picture that have the largest losses: online hard example mining.

    Of n pixels that count it is the ceil(share * n) whose losses are largest, and those whose loss
    equals the least of these. A picture of which nothing counts has none.

    Args:
        losses: [*batch, H, W], none of them negative; no gradient is taken of them. Traced.
        counted: bool [*batch, H, W], which pixels count.
        share: in (0, 1]; static.

    Returns:
        bool [*batch, H, W].

    Raises:
        ValueError: the share is out of its range.

    Example:
        >>> losses = jnp.array([[[0.1, 2.0, 0.5, 9.0]]])
        >>> print(hardest(losses, losses < 5, 0.5))
        [[[False  True  True False]]]

    References: Shrivastava, Gupta & Girshick, "Training Region-based Object Detectors with Online
        Hard Example Mining", CVPR 2016, of regions; Wu, Shen & van den Hengel, "Bridging
        Category-level and Instance-level Semantic Image Segmentation", 2016, of pixels.
    """
    share = _options.number("hard_examples", share, above=0, most=1)
    # Bits of numbers that are not negative have the order of the numbers. The least loss to keep is
    # found bit by bit, the highest first: some 20 times faster on a CPU than sorting, and exact.
    known = jnp.abs(jnp.maximum(jax.lax.stop_gradient(losses).astype(jnp.float32), 0.0))
    bits = jnp.where(counted, jax.lax.bitcast_convert_type(known, jnp.int32), -1)
    flat = bits.reshape(*bits.shape[:-2], -1)
    number = jnp.sum(flat >= 0, -1, keepdims=True, dtype=jnp.int32)
    # Rounded down a little first: 0.1 * 30 is above 3 in binary numbers.
    wanted = jnp.ceil(share * number.astype(jnp.float32) * (1 - 1e-6)).astype(jnp.int32)

    def refine(turn: jax.Array, least: jax.Array) -> jax.Array:
        higher = least | (1 << (30 - turn))
        reached = jnp.sum(flat >= higher, -1, keepdims=True, dtype=jnp.int32) >= wanted
        return jnp.where(reached, higher, least)

    least = jax.lax.fori_loop(0, 31, refine, jnp.zeros_like(number))
    return bits >= least[..., None]


def _weights(class_weights: Sequence[float], classes: int) -> jax.Array:
    """One weight for each class."""
    if len(class_weights) != classes:
        raise ValueError(f"class_weights wants {classes}, one a class; got {len(class_weights)}")
    return jnp.asarray(class_weights, jnp.float32)


def _doubt(losses: jax.Array, exponent: float) -> jax.Array:
    """(1 - q)^exponent of the cross-entropies -log q."""
    rest = -jnp.expm1(-losses)
    # Two selections, since the gradient of a power below 1 is infinite at 0.
    apart = rest > 0
    return jnp.where(apart, jnp.where(apart, rest, 1.0) ** exponent, 0.0)


def soft_dice(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """One less the Dice coefficient of each picture, a mean over the classes that are in it.

        D = 1 - mean over k of  2 sum_p q_pk g_pk / (sum_p q_pk^2 + sum_p g_pk^2)

    with sums over valid pixels p, softmax probabilities q, and g 1 at the label and else 0.

    Args:
        logits: [*batch, H, W, K] class scores; traced.
        labels: [*batch, H, W] integers, a class in 0..K-1 or `VOID` (255) without a label.

    Returns:
        float32 [*batch], in 0..1; of a picture without labels 1, with gradient 0.

    Raises:
        ValueError: if the shapes do not belong together.

    Example:
        >>> soft_dice(jnp.zeros((1, 1, 2, 2)), jnp.array([[[0, VOID]]])).tolist()  # 1 - 1 / 1.25
        [0.19999998807907104]

    Reference: Milletari, Navab & Ahmadi, "V-Net", 3DV 2016, section 3.
    """
    valid = _valid(logits, labels)[..., None]
    likely = jnp.where(valid, jax.nn.softmax(logits.astype(jnp.float32)), 0.0)
    wanted = jnp.where(valid, jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32), 0.0)
    shared = jnp.sum(likely * wanted, (-3, -2))
    sizes = jnp.sum(jnp.square(likely) + wanted, (-3, -2))
    present = jnp.any(wanted > 0, (-3, -2))
    found = jnp.where(present, 2 * shared / jnp.where(present, sizes, 1.0), 0.0)
    return 1 - jnp.sum(found, -1) / jnp.maximum(jnp.sum(present, -1, dtype=jnp.float32), 1.0)


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
