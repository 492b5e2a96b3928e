"""Late fusion: networks of one kind that read different channels, and the mean of their scores.

    Streams(backbone, (3, 1))     a backbone for colors, and one for depth
    MeanOfStreams(head, 2)        a head for each, whose scores are averaged
    of_channels(kernel, 4)        the first kernel of a network of colors, for other channels

Early fusion needs none of this: a network reads all channels that the images have.

Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019, section
  2.5 (NYUDv2).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, nn
from rfjax.models.decoders import Decoder, Places, within
from rfjax.models.stages import Staged
from rfjax.places import Place

COLORS = 3


def stream_names(count: int) -> tuple[str, ...]:
    """Under which names the variables of each network lie.

    Example:
      >>> stream_names(2)
      ('stream_0', 'stream_1')
    """
    return tuple(f"stream_{number}" for number in range(count))


class Streams(Staged):
    """Backbones of one kind, each of channels of its own.

    The map of a stage is that of the first, then that of the second, ..., along the channels.
    Parameters lie under "stream_0", "stream_1", ...

    Attributes: those of every backbone, which have no effect here, see
      `rfjax.models.stages.Staged`, and
      backbone: what each of them is.
      split: channels that each of them reads, one after the other.

    Calling it with images [N, H, W, sum(split)] returns the last maps side by side.

    Raises:
      ValueError: the images have another number of channels.
    """

    backbone: Staged
    split: tuple[int, ...]

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map, the same for all."""
        return self.backbone.places

    @property
    def channels(self) -> int:
        """Of the images."""
        return sum(self.split)

    @linen.compact
    def run(
        self,
        images: jax.Array | None = None,
        forward: nn.Forward = nn.Forward(),  # noqa: B008 (it is frozen)
        *,
        start: Mapping[str, jax.Array] | None = None,
        until: str | None = None,
    ) -> tuple[dict[str, jax.Array], nn.Forward]:
        """The maps by name, see `Staged.run`; the carry after them has one of each backbone."""
        names, found, carries = stream_names(len(self.split)), [], []
        parts = self._of_images(images)
        starts = _parts(start or {}, len(self.split))
        for name, part, own in zip(names, parts, starts, strict=True):
            backbone = within(self.scope, self.backbone, name)
            maps, after = backbone.run(part, forward, start=own or None, until=until)
            found.append(maps)
            carries.append(after.carry)
        maps = {name: jnp.concatenate([each[name] for each in found], -1) for name in found[0]}
        return maps, dataclasses.replace(forward, carry=tuple(carries))

    def _of_images(self, images: jax.Array | None) -> Sequence[jax.Array | None]:
        """The channels of each backbone."""
        if images is None:
            return [None] * len(self.split)
        if images.shape[-1] != self.channels:
            raise ValueError(
                f"late fusion of {self.split} wants images of {self.channels} channels; got "
                f"{images.shape[-1]}"
            )
        ends = [sum(self.split[:number]) for number in range(1, len(self.split))]
        return jnp.split(images, ends, axis=-1)


class MeanOfStreams(Decoder):
    """The mean of the scores of several heads, each of which reads its channels of every map.

    s = 1/n sum_i head_i(x_i)

    It is taken where the heads' scores lie, before they are enlarged to the image. Parameters lie
    under "stream_0", "stream_1", ...

    Attributes:
      head: what each of them is.
      count: n.

    Calling it with (maps, train, carry, places) of `Streams` returns (scores, carry).

    Example:
      >>> from rfjax.models.decoders import Head
      >>> mean = MeanOfStreams(Head(nn.Conv(5, kernel_size=1)), 2)
      >>> maps = {"last": jnp.ones([1, 4, 4, 16])}
      >>> (scores, _), variables = mean.init_with_output(jax.random.key(0), maps)
      >>> scores.shape, variables["params"]["stream_1"]["kernel"].shape
      ((1, 4, 4, 5), (1, 1, 8, 5))
    """

    head: Decoder
    count: int

    @property
    def READS(self) -> tuple[str, ...]:
        """The maps that a head reads."""
        return self.head.READS

    @property
    def RESIZE(self) -> Callable[..., linen.Module]:
        """What enlarges the scores of a head."""
        return self.head.RESIZE

    @property
    def null_background(self) -> bool:
        """Whether the heads score the background 0."""
        return getattr(self.head, "null_background", False)

    def reading(self, places: Mapping[str, Place]) -> "MeanOfStreams":
        """The heads for a backbone."""
        return self.clone(head=self.head.reading(places))

    def place(self, places: Mapping[str, Place]) -> Places:
        """Where the scores of a head lie."""
        return self.head.place(places)

    @linen.compact
    def __call__(
        self,
        maps: Mapping[str, jax.Array],
        train: bool = False,
        carry: Any = (),
        places: Mapping[str, Place] | None = None,
    ) -> tuple[Any, Any]:
        found, carries = [], []
        before = carry or ((),) * self.count
        parts = _parts(maps, self.count)
        for name, part, own in zip(stream_names(self.count), parts, before, strict=True):
            head = within(self.scope, self.head, name)
            scores, after = nn.call(head, part, nn.Forward(train, own), places=places)
            found.append(scores)
            carries.append(after.carry)
        return jax.tree.map(lambda *each: sum(each) / self.count, *found), tuple(carries)


def _parts(maps: Mapping[str, jax.Array], count: int) -> list[dict[str, jax.Array]]:
    """The part of each network of every map."""
    split = {name: jnp.split(x, count, axis=-1) for name, x in maps.items()}
    return [{name: parts[number] for name, parts in split.items()} for number in range(count)]


def check_split(late_fusion: Sequence[int] | None) -> tuple[int, ...]:
    """The channels of each network; () for one network of all.

    Raises:
      ValueError: there is a single one, or a number is not a positive integer.
    """
    split = tuple(late_fusion or ())
    split = tuple(_checks.integer("late_fusion", number) for number in split)
    if len(split) == 1:
        raise ValueError(f"late_fusion is the channels of two networks or more; got {split}")
    return split


def stream(variables: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The variables of one of the networks, as those of a network of its own.

    Args:
      variables: of a network with late fusion.
      number: of the stream.

    Example:
      >>> stream({"params": {"head": {"stream_0": {"bias": 1}, "stream_1": {"bias": 2}}}}, 1)
      {'params': {'head': {'bias': 2}}}
    """
    name = f"stream_{number}"
    return {
        collection: {top: part[name] for top, part in tree.items() if name in part}
        for collection, tree in variables.items()
    }


def of_streams(networks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The variables of networks of their own, as those of one with late fusion.

    Example:
      >>> of_streams([{"params": {"head": {"bias": 1}}}, {"params": {"head": {"bias": 2}}}])
      {'params': {'head': {'stream_0': {'bias': 1}, 'stream_1': {'bias': 2}}}}
    """
    together: dict[str, Any] = {}
    for name, variables in zip(stream_names(len(networks)), networks, strict=True):
        for collection, tree in variables.items():
            for top, part in tree.items():
                together.setdefault(collection, {}).setdefault(top, {})[name] = part
    return together


def of_channels(kernel: ArrayLike, channels: int) -> jax.Array:
    """The first kernel of a network of colors, as one that reads other channels.

    w_c = v_c for colors c < 3 where there are all three,  w_c = mean_(c < 3) v_c for others

    Args:
      kernel: v, [kh, kw, 3, O].
      channels: of the images.

    Returns:
      w, [kh, kw, channels, O].

    Example:
      >>> kernel = jnp.array([1.0, 2.0, 6.0]).reshape(1, 1, 3, 1)
      >>> of_channels(kernel, 4).ravel().tolist(), of_channels(kernel, 1).ravel().tolist()
      ([1.0, 2.0, 6.0, 3.0], [3.0])
    """
    kernel = jnp.asarray(kernel)
    kept = COLORS if channels >= COLORS else 0
    mean = jnp.mean(kernel, axis=2, keepdims=True)
    return jnp.concatenate([kernel[:, :, :kept], jnp.repeat(mean, channels - kept, axis=2)], axis=2)
