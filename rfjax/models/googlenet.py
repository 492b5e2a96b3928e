"""GoogLeNet as Caffe's model zoo has it: no batch normalization, and branches of 5x5.

The auxiliary classifiers and the last average are left out. The maps are "pool1", "pool2",
"inception_3b", "pool3", "inception_4e", "pool4" and "inception_5b".

Reference: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rfjax import nn
from rfjax.models import caffe, caffe_names
from rfjax.places import Place, in_sequence, window

# Channels: 1x1, 3x3 and the 1x1 before it, 5x5 and the 1x1 before it, 1x1 after the pooling.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
BRANCHES = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
NAMES = (
    *("conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3"),
    *(f"inception_{part}_{branch}" for part in INCEPTIONS for branch in BRANCHES),
)
_POOL = window(3, stride=2, padding=0)
_SAME = window(5)
PLACES = in_sequence(
    {
        "pool1": window(7, stride=2).then(_POOL),
        "pool2": window(3).then(_POOL),
        "inception_3b": _SAME,
        "pool3": _POOL,
        "inception_4e": _SAME,
        "pool4": _POOL,
        "inception_5b": _SAME,
    }
)


@dataclass(frozen=True)
class Inceptions:
    """What it is built of."""

    stride: int = 32
    features: int = 1024

    @property
    def children(self) -> dict[str, str]:
        """A reference has names of its own, see `canonical`."""
        return {}

    @property
    def unread(self) -> tuple[str, ...]:
        """The classifiers have no place."""
        auxiliary = (f"loss{n}_{layer}" for n in (1, 2) for layer in ("conv", "fc", "classifier"))
        return (*auxiliary, "loss3_classifier")

    @property
    def sliding(self) -> tuple[str, ...]:
        """There are none."""
        return ()

    def canonical(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """The arrays of a network converted from Caffe."""
        return caffe_names.googlenet(arrays)

    def build(self, **options: Any) -> "GoogLeNet":
        """The backbone; options are its attributes."""
        return GoogLeNet(**options)


def googlenet() -> Inceptions:
    """BVLC GoogLeNet."""
    return Inceptions()


class GoogLeNet(caffe.Plain):
    """The backbone.

    Attributes: those of every backbone, see `rfjax.models.stages.Staged`.

    Calling it with images [N, H, W, C] returns the map "inception_5b" in `dtype`.
    """

    @property
    def places(self) -> dict[str, Place]:
        """Stride and offset of every map."""
        return PLACES

    def runs(self) -> dict[str, Callable]:
        """The stem, poolings, and inceptions of one resolution."""
        return {
            "pool1": _first,
            "pool2": _second,
            "inception_3b": partial(_inceptions, parts=("3a", "3b")),
            "pool3": _pool,
            "inception_4e": partial(_inceptions, parts=("4a", "4b", "4c", "4d", "4e")),
            "pool4": _pool,
            "inception_5b": partial(_inceptions, parts=("5a", "5b")),
        }


Computed = tuple[jax.Array, nn.Forward]


def _first(module: GoogLeNet, x: jax.Array, forward: nn.Forward) -> Computed:
    x, forward = module.convolve(x, forward, "conv1_7x7_s2", 64, kernel_size=7, stride=2)
    return caffe.local_response_norm(caffe.max_pool(x, 3, 2)), forward


def _second(module: GoogLeNet, x: jax.Array, forward: nn.Forward) -> Computed:
    x, forward = module.convolve(x, forward, "conv2_3x3_reduce", 64, kernel_size=1)
    x, forward = module.convolve(x, forward, "conv2_3x3", 192)
    return caffe.max_pool(caffe.local_response_norm(x), 3, 2), forward


def _pool(module: GoogLeNet, x: jax.Array, forward: nn.Forward) -> Computed:
    del module
    return caffe.max_pool(x, 3, 2), forward


def _inceptions(
    module: GoogLeNet, x: jax.Array, forward: nn.Forward, parts: tuple[str, ...]
) -> Computed:
    for part in parts:
        x, forward = _inception(module, x, forward, part)
    return x, forward


def _inception(module: GoogLeNet, x: jax.Array, forward: nn.Forward, part: str) -> Computed:
    """Four branches side by side."""
    widths: dict[str, int] = dict(zip(BRANCHES, INCEPTIONS[part], strict=True))
    pooled, outputs = caffe.max_pool(x, 3, 1, padding=1), []
    rows = ((x, ("1x1",)), (x, BRANCHES[1:3]), (x, BRANCHES[3:5]), (pooled, ("pool_proj",)))
    for y, branch in rows:
        for name in branch:
            size = int(name[0]) if name in ("3x3", "5x5") else 1
            full = f"inception_{part}_{name}"
            y, forward = module.convolve(y, forward, full, widths[name], kernel_size=size)
        outputs.append(y)
    return jnp.concatenate(outputs, -1), forward
