"""How the levels of an image become the numbers that a network reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from rfjax._checks import choose, is_number

ORDERS = ("rgb", "bgr")
_LEVELS = np.arange(256, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Normalization:
    """(x / 255 - mean) / std for each channel, in this order of the channels.

    Attributes:
        mean, std: of R, G, B, or whatever channels there are, where white is 1, whatever the order.
        order: rgb, or bgr: the network reads each three channels from the last to the first. What
            they leave over, as a fourth channel of depth, keeps its place.

    Raises:
        ValueError: they are not finite numbers, one for each channel, std above 0; or there is no
            such order.

    Example:
        >>> white = np.full((1, 1, 3), 255, np.uint8)
        >>> print(Normalization((0.5, 0.4, 0.3), (0.5, 0.5, 0.5), "bgr")(white)[0, 0])
        [1.4 1.2 1. ]
    """

    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    order: str = "rgb"

    def __post_init__(self) -> None:
        choose("order", self.order, ORDERS)
        for name in ("mean", "std"):
            value = tuple(getattr(self, name))
            finite = value and all(map(is_number, value)) and np.isfinite(value).all()
            if not finite or (name == "std" and min(value) <= 0):
                positive = " above 0" if name == "std" else ""
                raise ValueError(
                    f"{name} is finite numbers{positive}, one a channel; got {value!r}"
                )
            object.__setattr__(self, name, value)
        if len(self.mean) != len(self.std):
            raise ValueError(
                "mean and std have a number for each channel; got "
                f"{len(self.mean)} and {len(self.std)}"
            )

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Normalization:
        """That which the facts of a data set tell."""
        return cls(facts["mean"], facts["std"], facts.get("order", "rgb"))

    @property
    def channels(self) -> int:
        """Of an image."""
        return len(self.mean)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, C] -> float32 [H, W, C], on the host."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        table = (_LEVELS[:, None] / 255.0 - mean[None]) / std[None]
        normalized = cv2.LUT(np.ascontiguousarray(image), table[:, None]).reshape(image.shape)
        return normalized if self.order == "rgb" else np.ascontiguousarray(self._turned(normalized))

    def on_device(self, images: jax.Array) -> jax.Array:
        """uint8 [N, H, W, C] -> float32 [N, H, W, C], traced."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        images = images.astype(jnp.float32) / 255.0 - mean[None, None, None]
        normalized = images / std[None, None, None]
        return normalized if self.order == "rgb" else self._turned(normalized)

    def _turned(self, images: Any) -> Any:
        """Each three channels in the other order."""
        if self.channels == 3:
            return images[..., ::-1]
        pictures = self.channels // 3 * 3
        rest = list(range(pictures, self.channels))
        order = [*np.arange(pictures).reshape(-1, 3)[:, ::-1].ravel(), *rest]
        return images[..., np.asarray(order)]

    def of_pictures(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The facts of normalization of a data set in which each three channels follow this one.

        What they leave over, as a fourth channel of depth, keeps its own mean and deviation.

        Args:
            facts: "mean" and "std" of the data set.

        Example:
            >>> own = {"mean": (0.3, 0.3, 0.3, 0.1), "std": (1.0, 1.0, 1.0, 2.0)}
            >>> Normalization((0.5,) * 3, (0.2,) * 3, "bgr").of_pictures(own)["std"]
            (0.2, 0.2, 0.2, 2.0)
        """
        count, rest = divmod(len(facts["mean"]), 3)
        own = {
            name: (*tuple(getattr(self, name)) * count, *facts[name][len(facts[name]) - rest :])
            for name in ("mean", "std")
        }
        return {**own, "order": self.order}


# Statistics that trunks were trained with: torchvision's of ImageNet, and the mean levels that
# Caffe's networks subtract from blue, green, red in 0..255.
SCHEMES = {
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": Normalization(
        tuple(level / 255.0 for level in (122.67892, 116.66877, 104.00699)),
        (1.0 / 255.0,) * 3,
        "bgr",
    ),
}
