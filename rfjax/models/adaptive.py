"""Which convolutions of a network have an adaptive dilation in the literature."""

from functools import partial
from typing import Any

from rfjax import _checks, nn

# The layers of PAD-Nets' experiments, as patterns of paths. In ResNet-50 "the last three conv
# layers in Layer-2" are the 3x3 ones of its last three blocks, as the published number of weights
# says.
PAD_LAYERS: dict[str, tuple[str, ...]] = {
    "vgg_16": ("backbone/conv5_*",),
    "vgg_tiny": ("backbone/conv5_*",),
    "resnet_50": ("backbone/layer2_[123]/conv2",),
    "resnet_101": ("backbone/layer4_*/conv2",),
    "drn_c_26": ("backbone/layer8_0/conv*",),
    "drn_d_54": ("backbone/layer7_0", "backbone/layer8_0"),
    "mobilenet_v2": ("backbone/blocks_2_*/conv_dw",),
    "xception_65": (
        *("backbone/blocks_[3-9]/conv?_dw", "backbone/blocks_1?/conv?_dw"),
        "backbone/blocks_20/conv?_dw",
    ),
    "resnet_tiny": ("backbone/layer1_*/conv2",),
    "drn_tiny": ("backbone/layer2_*/conv*",),
}
# Those of networks that have others with this head, where the strides of the last groups are gone.
WITH_HEAD: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("mobilenet_v2", "deeplab_v3_plus"): ("backbone/blocks_[56]_*/conv_dw",),
}


def pad_layers(name: str, *, head: str | None = None, **options: Any) -> nn.Selection:
    """The convolutions of a network that have an adaptive dilation in PAD-Nets, with such layers.

    Args:
      name: vgg_16 | resnet_50 | resnet_101 | drn_c_26 | drn_d_54 | mobilenet_v2 | xception_65, with
        the layers of the paper; or resnet_tiny | drn_tiny | vgg_tiny, of which the later ones are
        taken.
      head: that the network has; "deeplab_v3_plus" moves the layers of mobilenet_v2 from its third
        group, those for classification, to its last two.
      **options: of `rfjax.nn.AdaptiveDilationConv`.

    Returns:
      What `create` takes as `conv`. The rest of the network is plain.

    Raises:
      ValueError: no layers are known for this network.

    Example:
      >>> pad_layers("resnet_101", prior="gated").patterns
      ('backbone/layer4_*/conv2',)

    Reference: "PAD-Nets: Learning Dynamic Receptive Fields via Pixel-Wise Adaptive Dilation",
      section 4.
    """
    patterns = _checks.choose("name", name, PAD_LAYERS)
    patterns = WITH_HEAD.get((name, head), patterns)
    return nn.select(patterns, partial(nn.AdaptiveDilationConv, **options))
