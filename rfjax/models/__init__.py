"""Segmentation networks by name, and the weights that others have trained for them.

    resnet_18 | 34 | 50 | 101                       stride 32, or 16 or 8 dilated
    drn_a_18 | 34 | 50                              stride 8, dilated; the weights of the ResNets
    drn_c_26 | 42 | 58                              stride 8, without gridding
    drn_d_22 | 24 | 38 | 40 | 54 | 56 | 105 | 107   stride 8, likewise, with fewer shortcuts
    dla_34                                          stride 2 or 4, by a decoder of 10 or 6 merges
    vgg_16                                          stride 32, or 8 dilated; no normalization
    alexnet, googlenet                              stride 32, as Caffe has them
    mobilenet_v2, xception_65                       stride 32, or 16 or 8 dilated; depthwise
    flownet_s, flownet_thin, flownet_c              flow from one image to the next
    resnet_tiny, drn_tiny                           stride 4 and small, for studies on a CPU
    dla_tiny                                        stride 2 or 4, likewise
    vgg_tiny                                        stride 32 or 8, likewise

Heads are listed in `rfjax.models.heads`. Parameters lie under "backbone" and "head".

Networks and heads of your own are made known by `register` and `register_head`; what they are built
of is in `stages` (backbones), `decoders` (heads) and `resizing`. `pad_layers` selects the
convolutions that have an adaptive dilation in the literature.
"""

from rfjax import _extras

if fault := _extras.missing(__name__, "flax"):
    raise fault

from rfjax.models.adaptive import pad_layers
from rfjax.models.heads import register_head
from rfjax.models.registry import create, names, register
from rfjax.models.torch_import import import_torch

__all__ = ["create", "import_torch", "names", "pad_layers", "register", "register_head"]
