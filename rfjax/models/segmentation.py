"""A segmentation network: backbone, head, and a fixed upsampling to the image's resolution."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks


class Segmenter(linen.Module):
    """Class scores at every pixel of an image.

    logits = crop(upsample(head(backbone(images))))

    Parameters lie under "backbone" and "head", the last stage.

    Attributes:
      backbone: a module of (images, train) that returns features.
      head: a module of features, or of (features, train), that returns scores.
      stride: input pixels per pixel of the features, static.

    Calling it with images [N, H, W, 3] returns float32 logits [N, H, W, num_classes], for any H
    and W. With train=True batch statistics are those of the batch, and "batch_stats" must be
    mutable; `train_head` says it of the head alone, where the two differ.

    Raises:
      ValueError: the images do not have four axes.
      TypeError: they are not floating-point numbers.

    Reference: Yu, Koltun & Funkhouser, "Dilated Residual Networks", CVPR 2017, section 4.
    """

    backbone: linen.Module
    head: linen.Module
    stride: int

    def features(self, images: ArrayLike, train: bool = False) -> jax.Array:
        """The map that the head reads, [N, ceil(H / stride), ceil(W / stride), D]."""
        images = _checks.float_array("images", images)
        if images.ndim != 4:
            raise ValueError(f"images must have shape [N, H, W, 3]; got {images.shape}")
        return self.backbone(images, train)

    def __call__(
        self, images: ArrayLike, train: bool = False, train_head: bool | None = None
    ) -> jax.Array:
        options = {}
        if "train" in inspect.signature(self.head.__call__).parameters:
            options["train"] = train if train_head is None else train_head
        scores = self.head(self.features(images, train), **options).astype(jnp.float32)
        height, width = jnp.shape(images)[1:3]
        return bilinear_upsample(scores, self.stride)[:, :height, :width]


def bilinear_upsample(x: jax.Array, factor: int) -> jax.Array:
    """The map enlarged by a whole factor, linearly interpolated along both axes.

    Pixel i of the result lies at (i + 1/2) / factor - 1/2 in the map; beyond the outermost centres
    the edge value is repeated.

    Args:
      x: [N, h, w, C].
      factor: static, at least 1.

    Returns:
      [N, factor h, factor w, C] in the dtype of x.

    Raises:
      ValueError: `factor` is less than 1, or x does not have four axes.

    Example:
      >>> print(bilinear_upsample(jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1), 2)[0, 0, :, 0])
      [0. 1. 3. 4.]
    """
    factor = _checks.integer("factor", factor)
    if x.ndim != 4:
        raise ValueError(f"x must have shape [N, h, w, C]; got {x.shape}")
    return _upsample_axis(_upsample_axis(x, 1, factor), 2, factor)


def _upsample_axis(x: jax.Array, axis: int, factor: int) -> jax.Array:
    """Every phase of the enlarged axis is one fixed blend of two neighbours."""
    size = x.shape[axis]
    part = partial(jax.lax.slice_in_dim, x, axis=axis)
    before = jnp.concatenate([part(0, 1), part(0, size - 1)], axis)
    after = jnp.concatenate([part(1, size), part(size - 1, size)], axis)
    phases = []
    for position in (np.arange(factor) + 0.5) / factor - 0.5:
        neighbour = before if position < 0 else after
        weight = float(abs(position))
        phases.append((1.0 - weight) * x + weight * neighbour)
    shape = list(x.shape)
    shape[axis] *= factor
    return jnp.stack(phases, axis + 1).reshape(shape)
