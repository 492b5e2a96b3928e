"""AlexNet as Caffe has it (CaffeNet), fully convolutional.

Its poolings precede its normalizations, and three of its convolutions have two groups. The maps are
"pool1", "pool2", "pool5" and "fc7"; a pooled map is followed by its normalization.

Reference: Krizhevsky, Sutskever & Hinton, "ImageNet Classification", NIPS 2012.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from rfjax import _checks, nn
from rfjax.models import caffe, caffe_names
from rfjax.places import Place, in_sequence, window

NAMES = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


@dataclass(frozen=True)
class Layers:
    """What it is built of.

    Attributes:
      features: channels of fc6 and fc7.
      border: padding of the first convolution; None for 5, with fc6 padded.
    """

    features: int
    border: int | None = None
    stride: int = 32

    @property
    def padding(self) -> int:
        """Of fc6: the least with which the scores reach over the image."""
        return caffe.least_padding(self._pooled["pool5"], 6)

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        return self._pooled | {"fc7": self._pooled["pool5"].then(window(6, padding=self.padding))}

    @property
    def _pooled(self) -> dict[str, Place]:
        pool = window(3, stride=2, padding=0)
        conv1 = window(11, stride=4, padding=self.border or 5)
        return in_sequence({"pool1": conv1.then(pool), "pool2": pool, "pool5": pool})

    @property
    def children(self) -> dict[str, str]:
        """A reference has names of its own, see `canonical`."""
        return {}

    @property
    def unread(self) -> tuple[str, ...]:
        """The classifier's last layer has no place."""
        return ("fc8",)

    @property
    def sliding(self) -> tuple[str, ...]:
        """The layers that slide over the last pooled map."""
        return ("fc6", "fc7")

    def canonical(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The arrays of a network converted from Caffe."""
        return caffe_names.alexnet(arrays)

    def build(self, **options: Any) -> "AlexNet":
        """The backbone; options are its other attributes."""
        return AlexNet(self, **options)


def alexnet(*, border: int | None = 100, light: int | None = None) -> Layers:
    """CaffeNet.

    Args:
      border: padding of conv1, 100 or 81, or None (or 0) for 5; fc6 is padded where the scores
        would not reach over the image.
      light: channels of fc6 and fc7; None for 4096.

    Raises:
      ValueError: there is no such network.
    """
    light = _checks.integer("light", light, optional=True)
    return Layers(light or 4096, caffe.check_border(border))


class AlexNet(caffe.Plain):
    """The backbone.

    Attributes: those of every backbone, see `rfjax.models.stages.Staged`, and
      layers: what it is built of.

    Calling it with images [N, H, W, C] returns the map "fc7" in `dtype`. With train=True it draws
    from the stream "dropout".
    """

    layers: Layers

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        return self.layers.places

    def runs(self) -> dict[str, Callable]:
        """Up to each pooling, and the classifier."""
        return {"pool1": _first, "pool2": _second, "pool5": _third, "fc7": _classifier}


Computed = tuple[jax.Array, nn.Forward]


def _first(module: AlexNet, x: jax.Array, forward: nn.Forward) -> Computed:
    x = caffe.bordered(x, (module.layers.border or 5) - 5)  # a layer pads by 5 itself
    x, forward = module.convolve(x, forward, "conv1", 96, kernel_size=11, stride=4)
    return caffe.local_response_norm(caffe.max_pool(x, 3, 2)), forward


def _second(module: AlexNet, x: jax.Array, forward: nn.Forward) -> Computed:
    x, forward = module.convolve(x, forward, "conv2", 256, kernel_size=5, groups=2)
    return caffe.local_response_norm(caffe.max_pool(x, 3, 2)), forward


def _third(module: AlexNet, x: jax.Array, forward: nn.Forward) -> Computed:
    for name, width, groups in (("conv3", 384, 1), ("conv4", 384, 2), ("conv5", 256, 2)):
        x, forward = module.convolve(x, forward, name, width, groups=groups)
    return caffe.max_pool(x, 3, 2), forward


def _classifier(module: AlexNet, x: jax.Array, forward: nn.Forward) -> Computed:
    layers = module.layers
    options = {"kernel_size": 6, "padding": layers.padding}
    x = module.classify(x, forward, "fc6", layers.features, **options)
    return module.classify(x, forward, "fc7", layers.features), forward
