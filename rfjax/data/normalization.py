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
        mean, std: of R, G, B, where white is 1, whatever the order.
        order: rgb, or bgr: the network reads blue first.

    Raises:
        ValueError: they are not three finite numbers each, std above 0; or there is no such order.

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
            numbers = len(value) == 3 and all(map(is_number, value)) and np.isfinite(value).all()
            if not numbers or (name == "std" and min(value) <= 0):
                positive = " above 0" if name == "std" else ""
                raise ValueError(f"{name} is three finite numbers{positive}; got {value!r}")
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Normalization:
        """That which the facts of a data set tell."""
        return cls(facts["mean"], facts["std"], facts.get("order", "rgb"))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> float32 [H, W, 3], on the host."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        table = (_LEVELS[:, None] / 255.0 - mean[None]) / std[None]
        normalized = cv2.LUT(np.ascontiguousarray(image), table[:, None])
        return normalized if self.order == "rgb" else np.ascontiguousarray(normalized[..., ::-1])

    def on_device(self, images: jax.Array) -> jax.Array:
        """uint8 [N, H, W, 3] -> float32 [N, H, W, 3], traced."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        images = images.astype(jnp.float32) / 255.0 - mean[None, None, None]
        normalized = images / std[None, None, None]
        return normalized if self.order == "rgb" else normalized[..., ::-1]


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
