"""Guidance: from what was marked in some images to what is segmented in others.

    A = downsample_mask(mask, size)          annotations on the grid of a map of features
    z = pool(features, A)                    the mean feature under each class of them
    guide = update(guide, features, A)       the mean over all shots that have the class
    h = fuse(features, guide["mean"], kernel, bias)       each class beside the features of a query

Annotations are masks [*batch, H, W, K], one channel a class, zero where nothing is known. A guide
is {"mean": [K, C], "count": [K]}, a plain pytree that grows with every shot, see `empty`.

Reference: Rakelly, Shelhamer, Darrell, Efros & Levine, "Few-shot Segmentation Propagation with
Guided Networks", 2018; Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019,
chapter 4.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rfjax import _checks
from rfjax._engine.meshes import partitioned

Guide = dict[str, jax.Array]


@partitioned("mask")
def downsample_mask(
    mask: ArrayLike,
    size: int | Sequence[int],
    *,
    stride: float | Sequence[float] = (32, 32),
    offset: Sequence[float] = (31.5, 31.5),
) -> jax.Array:
    """The annotations on the grid of a map, by bilinear weights around every cell.

        A(i, j) = sum_(y, x) w_y(y - y_i) w_x(x - x_j) mask(y, x)
        w(d) = max(0, 1 - |d| / stride) / stride,   y_i = stride i + offset

    Taps sum to one, and are twice the stride wide, or one less where the offset is whole. Beyond
    the image nothing is annotated. `pool` normalizes the result.

    Args:
      mask: [*batch, H, W, K]; traced.
      size: (h, w) of the map; static.
      stride: pixels of the image from one cell to the next, (y, x) or one number; static.
      offset: where cell (0, 0) lies in the image, (y, x); static. Stride and offset are those of
        the map's `rfjax.places.Place`.

    Returns:
      [*batch, h, w, K] in the dtype of `mask`; sums in float32 at least.

    Raises:
      ValueError: `mask` has fewer than three axes, or a size, stride or offset is none.
      TypeError: `mask` does not hold floating-point numbers.

    Example:
      >>> click = jnp.zeros((64, 64, 1)).at[31, 35].set(32.0**2)
      >>> print(downsample_mask(click, (2, 2))[..., 0])  # cells lie at 31.5 and 63.5
      [[0.876709   0.10766602]
       [0.         0.        ]]

    Reference: Rakelly et al., "Few-shot Segmentation Propagation with Guided Networks", 2018.
    """
    mask = _checks.float_array("mask", mask, min_ndim=3, layout="[*batch, H, W, K]")
    sizes, strides = _checks.pair("size", size), _checks.positive_pair("stride", stride)
    offsets = _offsets(offset)
    dtype = _checks.accumulation_dtype(mask)
    *_, height, width, _ = mask.shape
    rows = _weights(height, sizes[0], strides[0], offsets[0], dtype)
    columns = _weights(width, sizes[1], strides[1], offsets[1], dtype)
    # The weights are a product of those along y and along x: one sum after the other.
    cells = jnp.einsum("iy,...yxk->...ixk", rows, mask.astype(dtype), precision="highest")
    cells = jnp.einsum("jx,...ixk->...ijk", columns, cells, precision="highest")
    return cells.astype(mask.dtype)


def _offsets(offset: Sequence[float]) -> tuple[float, float]:
    try:
        y, x = (_checks.number("offset", value) for value in offset)
    except (TypeError, ValueError) as error:
        raise ValueError(f"offset must be two numbers (y, x); got {offset!r}") from error
    return y, x


def _weights(pixels: int, cells: int, stride: float, offset: float, dtype: jnp.dtype) -> jax.Array:
    """[cells, pixels], w(y - y_i) along an axis."""
    # y_i, and the distances y - y_i
    centers = stride * jnp.arange(cells, dtype=dtype) + offset
    distances = jnp.abs(jnp.arange(pixels, dtype=dtype)[None] - centers[:, None])
    return jnp.maximum(0.0, 1.0 - distances / stride) / stride


@partitioned("features")
def pool(features: ArrayLike, mask: ArrayLike) -> jax.Array:
    """The mean feature under the annotations of each class.

        z_k = sum_i A_ik features_i / sum_i A_ik,   0 where the class has no annotation

    Args:
      features: [*batch, h, w, C]; traced.
      mask: [*batch, h, w, K], what `downsample_mask` returns, at least 0; traced. Its scale has no
        effect.

    Returns:
      [*batch, K, C] in the dtype of `features`; sums in float32 at least. Where a class has no
      annotation the gradients are zero.

    Raises:
      ValueError: the maps do not have the same batch and size.
      TypeError: an operand does not hold floating-point numbers.

    Example:
      >>> features = jnp.arange(4.0).reshape(1, 4, 1)
      >>> mask = jnp.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [3.0, 0.0]]).reshape(1, 4, 2)
      >>> print(pool(features, mask))
      [[2.75]
       [0.  ]]

    Reference: Rakelly et al., "Few-shot Segmentation Propagation with Guided Networks", 2018.
    """
    features, mask = _of_one_grid(features, mask)
    weights, _ = _normalized(mask)
    dtype = _checks.accumulation_dtype(features)
    operands = weights.astype(dtype), features.astype(dtype)
    mean = jnp.einsum("...ijk,...ijc->...kc", *operands, precision="highest")
    return mean.astype(features.dtype)


def _of_one_grid(features: ArrayLike, mask: ArrayLike) -> tuple[jax.Array, jax.Array]:
    features = _checks.float_array("features", features, min_ndim=3, layout="[*batch, h, w, C]")
    mask = _checks.float_array("mask", mask, min_ndim=3, layout="[*batch, h, w, K]")
    if features.shape[:-1] != mask.shape[:-1]:
        raise ValueError(
            f"features and mask must be of one grid, [*batch, h, w, C] and [*batch, h, w, K]; got "
            f"{features.shape} and {mask.shape}"
        )
    return features, mask


def _normalized(mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The weights of the cells, which sum to 1 or 0, and whether each class has annotations."""
    mask = mask.astype(_checks.accumulation_dtype(mask))
    total = jnp.sum(mask, (-3, -2), keepdims=True)
    present = total > 0
    weights = mask / jnp.where(present, total, 1.0)
    return jnp.where(present, weights, 0.0), present[..., 0, 0, :]


def empty(classes: int, features: int, *, dtype: jax.typing.DTypeLike = jnp.float32) -> Guide:
    """The guide of no shots: zeros.

        mean = 0 [K, C],  count = 0 [K]

    Args:
      classes: K; static.
      features: C; static.
      dtype: of the mean; counts are float32.

    Returns:
      {"mean": [classes, features], "count": [classes]}.

    Raises:
      ValueError: a size is not a positive integer.
      TypeError: `dtype` is no floating-point type.

    Example:
      >>> {name: array.shape for name, array in empty(2, 8).items()}
      {'mean': (2, 8), 'count': (2,)}

    Reference: Rakelly et al., "Few-shot Segmentation Propagation with Guided Networks", 2018.
    """
    _checks.float_dtype("dtype", dtype)
    size = (_checks.integer("classes", classes), _checks.integer("features", features))
    return {"mean": jnp.zeros(size, dtype), "count": jnp.zeros(size[:1], jnp.float32)}


@partitioned(None)
def update(guide: Mapping[str, ArrayLike], features: ArrayLike, masks: ArrayLike) -> Guide:
    """The guide after more shots: of every class the mean over all shots that have it.

        n_k' = n_k + sum_s [A_sk > 0 somewhere]
        z_k' = z_k + (sum_s z_sk - (n_k' - n_k) z_k) / n_k',   z_sk of `pool`

    A class that no shot has an annotation of stays as it is, bit for bit.

    Args:
      guide: {"mean": [K, C], "count": [K]}, of `empty` at first; traced.
      features: [*shots, h, w, C]; traced. One shot has no axis in front.
      masks: [*shots, h, w, K], what `downsample_mask` returns; traced.

    Returns:
      A guide of the same shapes and dtypes.

    Raises:
      ValueError: maps and guide do not belong together.
      TypeError: an operand does not hold floating-point numbers.

    Example:
      >>> features, masks = jnp.array([[[2.0]], [[4.0]]])[..., None], jnp.ones((2, 1, 1, 1))
      >>> guide = update(empty(1, 1), features, masks)
      >>> print(guide["mean"], guide["count"])
      [[3.]] [2.]

    Reference: Rakelly et al., "Few-shot Segmentation Propagation with Guided Networks", 2018.
    """
    features, masks = _of_one_grid(features, masks)
    mean, count = (_checks.float_array(name, guide[name]) for name in ("mean", "count"))
    if mean.shape != (masks.shape[-1], features.shape[-1]) or count.shape != mean.shape[:1]:
        raise ValueError(
            f"a guide must have mean [K, C] and count [K] of masks [..., K] and features [..., C]; "
            f"got {mean.shape} and {count.shape} with {masks.shape} and {features.shape}"
        )
    _, present = _normalized(masks)
    shots = tuple(range(present.ndim - 1))
    # n_k' - n_k
    added = jnp.sum(present, shots, dtype=count.dtype)
    dtype = _checks.accumulation_dtype(features, mean)
    wide = lambda x: x.astype(dtype)
    # sum_s z_sk, to which shots without the class add zero
    total = jnp.sum(pool(wide(features), wide(masks)), shots)
    new, weight = count + added, wide(added)[:, None]
    change = (total - weight * wide(mean)) / jnp.maximum(wide(new), 1.0)[:, None]
    return {"mean": (wide(mean) + change).astype(mean.dtype), "count": new}


@partitioned("features", channels="kernel")
def fuse(features: ArrayLike, guide: ArrayLike, kernel: ArrayLike, bias: ArrayLike) -> jax.Array:
    """A 1x1 convolution of the features of a query and, beside them, what guides each class.

        h_k(p) = W^T [features(p), z_k] + b = W_1^T features(p) + (W_2^T z_k + b)

    The right side is what is computed: the first term is that of all classes, and does not change
    with the guide.

    Args:
      features: [*batch, h, w, C]; traced.
      guide: z, [*batch, K, C], the same for all places; or [*batch, K, h, w, C], of each; traced.
      kernel: W, [2 C, D]; traced.
      bias: b, [D]; traced.

    Returns:
      [*batch, K, h, w, D] in the dtype of `features`.

    Raises:
      ValueError: shapes do not belong together.
      TypeError: an operand does not hold floating-point numbers.

    Example:
      >>> features, guide = jnp.ones((4, 5, 3)), jnp.zeros((2, 3)).at[1].set(1.0)
      >>> h = fuse(features, guide, jnp.ones((6, 1)), jnp.zeros(1))
      >>> print(h.shape, h[:, 0, 0, 0])
      (2, 4, 5, 1) [3. 6.]

    Reference: Rakelly et al., "Few-shot Segmentation Propagation with Guided Networks", 2018.
    """
    features = _checks.float_array("features", features, min_ndim=3, layout="[*batch, h, w, C]")
    guide, kernel, bias = (
        _checks.float_array(name, value)
        for name, value in (("guide", guide), ("kernel", kernel), ("bias", bias))
    )
    *batch, height, width, channels = features.shape
    of_each = guide.ndim == features.ndim + 1
    places = (height, width) if of_each else ()
    classes = guide.shape[len(batch)] if guide.ndim > len(batch) else 0
    if guide.shape != (*batch, classes, *places, channels):
        raise ValueError(
            f"guide must have shape [*batch, K, C] or [*batch, K, h, w, C] for features "
            f"{features.shape}; got {guide.shape}"
        )
    if kernel.shape != (2 * channels, *bias.shape) or bias.ndim != 1:
        raise ValueError(
            f"kernel and bias must have shapes [{2 * channels}, D] and [D] for features of "
            f"{channels} channels; got {kernel.shape} and {bias.shape}"
        )
    # W_1^T features(p), once for all classes, then W_2^T z_k + b, once for all places
    of_query = (features @ kernel[:channels].astype(features.dtype))[..., None, :, :, :]
    of_guide = guide.astype(features.dtype) @ kernel[channels:].astype(features.dtype)
    of_guide = of_guide + jnp.broadcast_to(bias.astype(features.dtype), of_guide.shape)
    return of_query + (of_guide if of_each else of_guide[..., None, None, :])
