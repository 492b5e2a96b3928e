"""What the arrays of Caffe's classifiers are called here, and of dense networks made of them.

PyTorch has them under two kinds of names: numbers in a sequence (torchvision's and timm's VGG-16)
and the names of Caffe's layers (conversions, and ports of the dense networks: `conv1_1`, `fc6`,
`score_fr`, `score_pool4`, `upscore2`). torchvision's AlexNet and GoogLeNet are other networks.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rfjax.fully_convolutional import bilinear_kernel

# Layers of the heads `fcn_*`, by stride; "raise_1" is the last enlargement, which is never learned.
_HEAD = {
    "score_fr": "head.score_32",
    "score_pool4": "head.score_16",
    "score_pool3": "head.score_8",
    "upscore2": "head.raise_16",
    "upscore_pool4": "head.raise_8",
    **dict.fromkeys(("upscore", "upscore16", "upscore8"), "head.raise_1"),
}
_DENSE = {
    **{"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"},
    **{"pre_logits.fc1": "fc6", "pre_logits.fc2": "fc7", "head.fc": "fc8"},
}
_SLIDING = ("fc6", "fc7")


def vgg(arrays: Mapping[str, Any], convolutions: Sequence[str]) -> dict[str, Any]:
    """The arrays of a VGG by the names of its layers.

    Args:
      arrays: by their names in PyTorch.
      convolutions: the names of the convolutions in order, as "conv1_1".

    Raises:
      ValueError: there is another number of convolutions.

    Example:
      >>> weights = {"features.0.weight": np.zeros((8, 3, 3, 3)), "classifier.6.bias": np.zeros(9)}
      >>> list(vgg(weights, ["conv1_1"]))
      ['conv1.1.weight', 'fc8.bias']
    """
    found = {name.split(".")[1] for name in arrays if name.startswith("features.")}
    numbers = sorted(found, key=int)
    if numbers and len(numbers) != len(convolutions):
        raise ValueError(
            f"the state dict has {len(numbers)} layers with weights before its classifier; this "
            f"network has {len(convolutions)} convolutions and no normalization"
        )
    numbered = {f"features.{n}": name for n, name in zip(numbers, convolutions, strict=False)}
    # A number at the end of a layer's name is a part of its own, as in the names of blocks.
    return _renamed(
        arrays,
        lambda layer: re.sub(r"^(conv\d)_(\d)$", r"\1.\2", (numbered | _DENSE).get(layer, layer)),
        window=7,
    )


def alexnet(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of CaffeNet by the names of its layers.

    Raises:
      ValueError: it is torchvision's AlexNet.
    """
    if "features.0.weight" in arrays:
        raise ValueError(
            "torchvision's AlexNet is another network (64 channels in conv1, no groups, no "
            "normalization across channels); want CaffeNet's arrays: conv1 ... conv5, fc6, fc7"
        )
    return _renamed(arrays, lambda layer: layer, window=6)


def googlenet(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of BVLC's GoogLeNet by the names of its layers.

    Raises:
      ValueError: it is torchvision's GoogLeNet.
    """
    if "conv1.conv.weight" in arrays:
        raise ValueError(
            "torchvision's GoogLeNet is another network (batch normalization, 3x3 where BVLC's has "
            "5x5); want BVLC's arrays: conv1/7x7_s2, inception_3a/1x1 ..."
        )
    return _renamed(arrays, lambda layer: re.sub(r"[/.]", "_", layer), window=1)


def _renamed(
    arrays: Mapping[str, Any], rename: Callable[[str], str], *, window: int
) -> dict[str, Any]:
    """The arrays by new names of their layers; dense layers as convolutions of a window."""
    renamed = {}
    for name, array in arrays.items():
        layer, _, leaf = name.rpartition(".")
        own = _HEAD.get(layer) or rename(layer)
        if own in _SLIDING and leaf == "weight" and array.ndim == 2:
            size = window if own == "fc6" else 1
            array = array.reshape(array.shape[0], -1, size, size)
        if own.startswith("head.raise_"):  # of a transposed convolution: inputs before outputs
            array = array.swapaxes(0, 1)
        renamed[f"{own}.{leaf}"] = array
    return renamed


def fitted_to(
    given: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], features: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays that have a place, and the names of those that are left out.

    An enlargement is left out without a word where it is fixed here and bilinear there. Those of a
    classifier of another width are left out, and the scores of it.

    Args:
      given: by the names of layers.
      shapes: that are wanted here, in the order of PyTorch's axes.
      features: channels of fc6.

    Raises:
      ValueError: an enlargement is fixed here and not bilinear there.
    """
    narrow = "fc6.weight" in given and given["fc6.weight"].shape[0] != features
    placed, left = {}, []
    for name, array in given.items():
        own = name in shapes or not name.startswith("head.")
        if narrow and name.startswith(("fc6.", "fc7.", "head.score_32.")):
            own = False
        if name.startswith("head.raise_"):
            if not own:
                _check_bilinear(name, array)
                continue
            array = _each_class(name, array) if shapes[name][1] == 1 else array
        if own:
            placed[name] = array
        else:
            left.append(name)
    return placed, left


def _each_class(name: str, array: np.ndarray) -> np.ndarray:
    """[K, 1, k, k] of [K, K, k, k], which must be zero between classes."""
    if array.shape[1] == 1:
        return array
    number = np.arange(len(array))
    between = array.copy()
    between[number, number] = 0.0
    if np.any(between):
        raise ValueError(
            f"{name} mixes classes; set learn_upsampling='full' in the head_options to keep it"
        )
    return array[number, number][:, None]


def _check_bilinear(name: str, array: np.ndarray) -> None:
    """Raises unless an enlargement is what it is where it is fixed."""
    size = array.shape[-1]
    taps = np.asarray(bilinear_kernel((size + 1) // 2, odd=bool(size % 2)))
    own = _each_class(name, array)[:, 0] if array.ndim == 4 else array
    if own.shape[1:] != taps.shape or np.abs(own - taps).max() > 1e-3:
        raise ValueError(
            f"{name} is not bilinear, and the network's enlargement is fixed; set learn_upsampling "
            "in the head_options to keep what was learned"
        )
