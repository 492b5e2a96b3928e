"""torchvision's segmentation networks: what their arrays are called here, and what has no place.

Their state dicts have `backbone.*`, a ResNet, `classifier.*` and perhaps `aux_classifier.*`. The
ResNet is dilated (`replace_stride_with_dilation`), which no array shows: each dilated stage begins
at the dilation of the stage before, `transition="previous"` of `rfjax.models.drn.drn_a`. Of the
heads, the pyramid of DeepLabV3 (`classifier.0`) is that of `rfjax.nn.ASPP` in variant v3.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_BACKBONE, _CLASSIFIERS = "backbone.", ("classifier.", "aux_classifier.")

# Layers of the pyramid by their places in torchvision's sequences; branch 0 is the 1x1 one.
_PYRAMID = re.compile(
    r"classifier\.0\.(?:convs\.(?P<branch>\d+)|project)\.(?P<layer>\d)\.(?P<leaf>\w+)"
)


def is_segmentation(names: Iterable[str]) -> bool:
    """Whether these are the names of a segmentation network of torchvision.

    Example:
      >>> is_segmentation(["backbone.conv1.weight"]), is_segmentation(["conv1.weight"])
      (True, False)
    """
    return any(name.startswith(_BACKBONE) for name in names)


def check_transition(name: str, options: Mapping[str, Any] | None) -> None:
    """Raises if the network of this name does not compute what torchvision's dilated ResNet does.

    Args:
      name: of a network.
      options: of its backbone; a transition that is given is taken, whatever it is.

    Raises:
      ValueError: it is a ResNet whose stride was not chosen, or no transition was.
    """
    family, _, depth = name.rpartition("_")
    origin = (
        f"{name}: the state dict is of a segmentation network of torchvision (backbone.*), whose "
        "ResNet begins each dilated stage at the dilation of the stage before"
    )
    if family == "resnet" and (options or {}).get("output_stride") is None:
        raise ValueError(
            f"{origin}: that is drn_a_{depth} with backbone_options transition='previous'; to "
            f"start {name} from its weights, take 'backbone.' off the names, or set "
            "output_stride=8 in the backbone_options"
        )
    if family == "drn_a" and (options or {}).get("transition") is None:
        raise ValueError(
            f"{origin}: set transition='previous' in the backbone_options of the network, here and "
            "where it is created"
        )


def renamed(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays under the names that a classification network has, the pyramid's under `head.*`.

    Example:
      >>> list(renamed({"backbone.bn1.bias": 0, "classifier.0.convs.1.0.weight": 0}))
      ['bn1.bias', 'classifier.0.convs.1.0.weight']
    """
    arrays = {name.removeprefix(_BACKBONE): array for name, array in arrays.items()}
    found = {name: _PYRAMID.fullmatch(name) for name in arrays}
    branches = [int(match["branch"]) for match in found.values() if match and match["branch"]]
    last = max(branches, default=0)
    if last < 2:
        return arrays
    return {
        f"head.{_part(match, last)}.{match['leaf']}" if match else name: arrays[name]
        for name, match in found.items()
    }


def _part(match: re.Match[str], last: int) -> str:
    """The layer of `rfjax.nn.ASPP`: the last branch is the mean's, where a pooling comes first."""
    layer = int(match["layer"])
    if match["branch"] is None:
        part = "project"
    elif int(match["branch"]) == last:
        part, layer = "pool", layer - 1
    else:
        branch = int(match["branch"])
        part = f"rate_{branch - 1}" if branch else "point"
    return f"{part}_norm" if layer else part


def without_place(names: Iterable[str], *, pyramid: bool) -> list[str]:
    """Those of the renamed arrays that have no place here; of the pyramid's, unless it has one.

    Example:
      >>> without_place(["bn1.bias", "head.pool.weight", "classifier.4.bias"], pyramid=True)
      ['classifier.4.bias']
    """
    prefixes = _CLASSIFIERS if pyramid else (*_CLASSIFIERS, "head.")
    return [name for name in names if name.startswith(prefixes)]


def layers(names: Iterable[str]) -> str:
    """The layers that such arrays belong to, in torchvision's names.

    Example:
      >>> layers(["head.pool.weight", "classifier.4.bias", "aux_classifier.0.weight"])
      'classifier.0.*, classifier.4.*, aux_classifier.*'
    """
    parts = {re.sub(r"^head\..*", "classifier.0.*", name) for name in names}
    parts = {re.sub(r"^aux_classifier\..*", "aux_classifier.*", part) for part in parts}
    parts = {re.sub(r"^(classifier\.\d+)\..*", r"\1.*", part) for part in parts}
    return ", ".join(sorted(parts, key=lambda part: (part.startswith("aux"), part)))
