"""A network of images: backbone, decoder, and an enlargement to the image's resolution."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, nn
from rfjax.models.decoders import Decoder
from rfjax.models.stages import Staged, Start, with_last
from rfjax.places import Place


class Segmenter(linen.Module):
    """Class scores at every pixel of an image.

    logits = crop(enlarge(head(backbone(images))))

    Parameters lie under "backbone" and "head", the last stage.

    Attributes:
      backbone: named stages, see `rfjax.models.stages`.
      head: a decoder of their maps, see `rfjax.models.decoders`.
      stride: input pixels per pixel of the last map, static.

    Calling it with images [N, H, W, 3] returns float32 logits [N, H, W, num_classes], for any H
    and W; or by name, where the decoder does; or as the decoder returns them, where they are no
    map. With train=True batch statistics are those of the batch, and "batch_stats" must be mutable;
    `train_head` says it of the head alone, where the two differ. In place of the images it takes
    `start`, maps by name, and `size`, (H, W) of the images that they are of, or both in one
    `rfjax.models.stages.Start`: only the stages after the last of these maps run. Or it takes
    `parts` and `size`: what `scores` makes of maps that the head reads, and those that it leaves
    out.

    Raises:
      ValueError: the images do not have four axes, or a map is missing.
      TypeError: they are not floating-point numbers.

    Reference: Yu, Koltun & Funkhouser, "Dilated Residual Networks", CVPR 2017, section 4.
    """

    backbone: Staged
    head: Decoder
    stride: int

    @property
    def channels(self) -> int:
        """Of the images that the network is tried with."""
        return self.backbone.channels

    def features(self, images: ArrayLike, train: bool = False) -> jax.Array:
        """The map that the head reads, [N, ceil(H / stride), ceil(W / stride), D]; the last if it
        reads several."""
        read = self.head.READS[-1]
        return self.maps(images, train, until=read)[read]

    def maps(
        self,
        images: ArrayLike | None = None,
        train: bool = False,
        *,
        start: Mapping[str, jax.Array] | None = None,
        until: str | None = None,
    ) -> dict[str, jax.Array]:
        """The maps of the stages by name, the last one as "last" as well.

        Args:
          images: [N, H, W, 3]; None with `start`.
          train: as in calling it.
          start: maps by name; only the stages after the last of them run.
          until: the last stage that runs; None for all.

        Returns:
          The maps that were computed and those of `start`. Stride and offset of each are in
          `backbone.places`.
        """
        maps, _ = self._run(images, train, start, until)
        return maps

    def scores(self, maps: Mapping[str, jax.Array]) -> dict[str, Any]:
        """What the head makes of some of the maps that it reads, each alone, by their names; those
        that it reads together with others are left out."""
        return self.head.scores(maps, with_last(self.backbone.places))

    @linen.compact
    def __call__(
        self,
        images: ArrayLike | Start | None = None,
        train: bool = False,
        train_head: bool | None = None,
        *,
        start: Mapping[str, jax.Array] | None = None,
        parts: Mapping[str, Any] | None = None,
        size: Sequence[int] | None = None,
    ) -> Any:
        if isinstance(images, Start):
            images, start, size = None, images.maps, images.size
        size = _image_size(images, size)
        if parts is not None:
            return self._of_images(self.head.fuse(parts, with_last(self.backbone.places)), size)
        maps, forward = self._run(images, train, start, self._last_read())
        train_head = train if train_head is None else train_head
        own = with_last(self.backbone.places)
        forward = nn.Forward(train_head, forward.carry)
        scores, _ = nn.call(self.head, maps, forward, places=own)
        return self._of_images(scores, size)

    def _run(
        self,
        images: ArrayLike | None,
        train: bool,
        start: Mapping[str, jax.Array] | None,
        until: str | None,
    ) -> tuple[dict[str, jax.Array], nn.Forward]:
        if images is not None:
            images = _checks.float_array("images", images)
            if images.ndim != 4:
                raise ValueError(f"images must have shape [N, H, W, 3]; got {images.shape}")
        return self.backbone.run(images, nn.Forward(train), start=start, until=until)

    def _last_read(self) -> str:
        """The last of the stages that the head reads; those after it do not run."""
        names = tuple(with_last(self.backbone.places))
        return max(self.head.READS, key=names.index)

    def _of_images(self, scores: Any, size: Sequence[int]) -> Any:
        """Scores, or those of each name, at the images' resolution."""
        places: Any = self.head.place(with_last(self.backbone.places))
        if not isinstance(scores, Mapping):  # one map, or one for each path
            return jax.tree.map(lambda each: self._of_image(each, places, size), scores)
        return {name: self._of_image(scores[name], places[name], size) for name in scores}

    def _of_image(self, scores: jax.Array, place: Place | None, size: Sequence[int]) -> jax.Array:
        """Scores at the image's resolution, if they are a map."""
        scores = scores.astype(jnp.float32)
        if place is None:
            return scores
        return self.head.RESIZE(_factor(place)).to_image(scores, place, size)


def _image_size(images: ArrayLike | None, size: Sequence[int] | None) -> tuple[int, int]:
    """(H, W) of the images."""
    if images is not None:
        _, height, width, *_ = np.shape(images)
        return height, width
    if size is None:
        raise ValueError("want the size (H, W) of the images that the maps of start are of")
    return _checks.pair("size", size)


def _factor(place: Place) -> int:
    """What scores at a place are enlarged by."""
    factor = round(place.stride[0])
    if factor < 1 or any(abs(stride - factor) > 1e-6 for stride in place.stride):
        raise ValueError(f"scores must have a whole stride, one for both axes; got {place}")
    return factor
