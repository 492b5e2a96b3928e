"""Maps enlarged by whole factors, and cropped to where others lie.

    HalfPixelBilinear(factor)               between pixel centers, edges repeated
    TransposedBilinear(factor)              a transposed convolution, zero outside; even kernels
                                            are aligned by half pixels, odd ones by their indices
    FittedBilinear(factor)                  that of the two which fits the map

Where a map lies is a `rfjax.places.Place`; crops follow from two of them.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from rfjax import _checks
from rfjax.fully_convolutional import interleaved, transposed_bilinear
from rfjax.places import Place, shift

# Whether the kernel is odd, by how it is aligned.
ALIGNMENTS = {"half-pixel": False, "index": True}


class HalfPixelBilinear(linen.Module):
    """The map enlarged by `bilinear_upsample`.

    Attributes:
      factor: static, at least 1.

    Calling it with x [N, h, w, C] returns [N, factor h, factor w, C].

    Example:
      >>> x = jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)
      >>> print(HalfPixelBilinear(2).apply({}, x)[0, 0, :, 0])
      [0. 1. 3. 4.]
    """

    factor: int

    def __call__(self, x: jax.Array) -> jax.Array:
        return bilinear_upsample(x, self.factor)

    def place(self, place: Place) -> Place:
        """Where the enlarged map lies."""
        return place.then(Place(1 / self.factor, 0.5 / self.factor - 0.5))

    def to_image(self, x: jax.Array, place: Place, size: Sequence[int]) -> jax.Array:
        """The scores [N, H, W, C] of an image of `size` (H, W), from those of stride `factor`.

        As in the references of these networks, the corners of map and image are one point: what
        lies at offset 0 comes out (factor - 1) / 2 pixels further.
        """
        del place
        height, width = size
        return bilinear_upsample(x, self.factor)[:, :height, :width]


class TransposedBilinear(linen.Module):
    """The map enlarged by a transposed convolution with bilinear taps.

    y(i) = sum_j w(i - factor j) x(j),   w(t) = 1 - |t - (k - 1) / 2| / factor,   t = 0 ... k - 1

    along both axes, zero outside, and not cropped: pixel j of the map lies in the middle of its
    taps, at factor j + (k - 1) / 2 of the result.

    Attributes:
      factor: static, at least 1.
      aligned: half-pixel, k = 2 factor, for maps of even windows, which lie half a pixel off; or
        index, k = 2 factor - 1, for maps of odd ones: every pixel is one of the result as well.

    Calling it with x [N, h, w, C] returns [N, factor (h - 1) + k, factor (w - 1) + k, C].

    Raises:
      ValueError: there is no such alignment.

    Example:
      >>> x = jnp.array([4.0, 8.0]).reshape(1, 1, 2, 1)
      >>> print(TransposedBilinear(2, aligned="index").apply({}, x)[0, 1, :, 0])
      [2. 4. 6. 8. 4.]

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.3.
    """

    factor: int
    aligned: str = "half-pixel"

    def __call__(self, x: jax.Array) -> jax.Array:
        return self._enlarged(x)

    def place(self, place: Place) -> Place:
        """Where the enlarged map lies."""
        return place.then(Place(1 / self.factor, (1 - self._size()) / (2 * self.factor)))

    def to_image(self, x: jax.Array, place: Place, size: Sequence[int]) -> jax.Array:
        """The scores [N, H, W, C] of an image of `size` (H, W), from those of stride `factor`.

        Raises:
          ValueError: the scores do not reach over the whole image.
        """
        enlarged = self._enlarged(x)
        first = shift(self.place(place), Place())
        last = [start + length for start, length in zip(first, size, strict=True)]
        if min(first) < 0 or last[0] > enlarged.shape[1] or last[1] > enlarged.shape[2]:
            raise ValueError(
                f"scores at {place} of size {x.shape[1:3]} do not reach over an image of size "
                f"{tuple(size)}: pad the images"
            )
        return enlarged[:, first[0] : last[0], first[1] : last[1]]

    def _size(self) -> int:
        """k."""
        return 2 * _checks.integer("factor", self.factor) - self.odd

    @property
    def odd(self) -> bool:
        """Whether the size of the kernel is."""
        return _checks.choose("aligned", self.aligned, ALIGNMENTS)

    def _enlarged(self, x: jax.Array) -> jax.Array:
        return transposed_bilinear(x, self.factor, odd=self.odd)


def fitted(factor: int, place: Place, target: Place) -> TransposedBilinear:
    """The enlargement that puts a map whole pixels apart from another one.

    The even kernel where that does, else the odd one.

    Args:
      factor: static.
      place: of the map that is enlarged.
      target: of the other one, whose stride is that of the map after it.

    Example:
      >>> fitted(32, Place(32, 12.5), Place()).aligned, fitted(32, Place(32, 13), Place()).aligned
      ('half-pixel', 'index')

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 4.2.
    """
    even = TransposedBilinear(factor, parent=None)
    raised = even.place(place)
    offsets = zip(raised.offset, target.offset, target.stride, strict=True)
    whole = all(abs((a - b) / stride - round((a - b) / stride)) < 1e-6 for a, b, stride in offsets)
    return even if whole else TransposedBilinear(factor, aligned="index", parent=None)


class FittedBilinear(linen.Module):
    """The map enlarged to the image by the one of two `TransposedBilinear` that fits, see `fitted`.

    Attributes:
      factor: static, at least 1.

    Example:
      >>> x = jnp.ones((1, 2, 2, 1))
      >>> FittedBilinear(4).apply({}, x, Place(4), (6, 5), method="to_image").shape
      (1, 6, 5, 1)
    """

    factor: int

    def to_image(self, x: jax.Array, place: Place, size: Sequence[int]) -> jax.Array:
        """The scores [N, H, W, C] of an image of `size` (H, W), see `TransposedBilinear`."""
        return fitted(self.factor, place, Place()).to_image(x, place, size)


def align(
    x: jax.Array, place: Place, other: jax.Array, other_place: Place
) -> tuple[jax.Array, jax.Array]:
    """Two maps cropped to what lies on top of each other, at `common(place, other_place)`.

    Pixel 0 of `other` lies on pixel d = (offset_other - offset) / stride of x: where d is positive,
    x is cropped by d in front, where it is negative, `other` by -d. Behind, the longer one is cut.

    Args:
      x, other: [N, H, W, C] each, of any sizes and channels.
      place, other_place: of one stride.

    Raises:
      ValueError: the strides differ, or the maps do not lie whole pixels apart.

    Example:
      >>> a, b = jnp.arange(5.0).reshape(1, 1, 5, 1), jnp.arange(9.0).reshape(1, 1, 9, 1)
      >>> a, b = align(a, Place(4, (0, 8)), b, Place(4, 0))
      >>> print(a[0, 0, :, 0], b[0, 0, :, 0])
      [0. 1. 2. 3. 4.] [2. 3. 4. 5. 6.]

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 4.2.
    """
    first = shift(place, other_place)
    x = x[:, max(first[0], 0) :, max(first[1], 0) :]
    other = other[:, max(-first[0], 0) :, max(-first[1], 0) :]
    height, width = (min(x.shape[axis], other.shape[axis]) for axis in (1, 2))
    if min(height, width) == 0:
        raise ValueError(f"maps at {place} and {other_place} have no pixel in common")
    return x[:, :height, :width], other[:, :height, :width]


def bilinear_upsample(x: jax.Array, factor: int) -> jax.Array:
    """The map enlarged by a whole factor, linearly interpolated along both axes.

    Pixel i of the result lies at (i + 1/2) / factor - 1/2 in the map; beyond the outermost centers
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
    return interleaved(phases, axis)
