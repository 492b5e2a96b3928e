"""Which convolutions of a network have an adaptive dilation in the literature."""

from functools import partial
from typing import Any

from rfjax import _checks, nn

# The layers of PAD-Nets' experiments, as patterns of paths. In ResNet-50 "the last three conv
# layers in Layer-2" are the 3x3 ones of its last three blocks, as the published number of weights
# says.
PAD_LAYERS = {
    "resnet_50": ("backbone/layer2_[123]/conv2",),
    "resnet_101": ("backbone/layer4_*/conv2",),
    "drn_c_26": ("backbone/layer8_0/conv*",),
    "drn_d_54": ("backbone/layer7_0", "backbone/layer8_0"),
    "resnet_tiny": ("backbone/layer1_*/conv2",),
    "drn_tiny": ("backbone/layer2_*/conv*",),
}


def pad_layers(name: str, **options: Any) -> nn.Selection:
    """The convolutions of a network that have an adaptive dilation in PAD-Nets, with such layers.

    Args:
      name: resnet_50 | resnet_101 | drn_c_26 | drn_d_54, whose layers are those of the paper; or
        resnet_tiny | drn_tiny, of which the later ones are taken.
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
    return nn.select(patterns, partial(nn.AdaptiveDilationConv, **options))
