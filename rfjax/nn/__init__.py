"""Linen layers: parameters, and one call of a primitive.

Layers with a kernel share one constructor, so that a network which is built with one of them can be
built with any other:

    Layer(features, kernel_size=3, stride=1, dilation=1, use_bias=False, dtype=None,
          kernel_init=reference, groups=1)

    features      number of output channels
    kernel_size   odd size of the kernel, or (height, width)
    stride        step between output pixels, in input pixels, one number or (y, x)
    dilation      spacing of the free-form taps, in input pixels, likewise
    use_bias      whether a number is added to each output channel at the end
    dtype         what is computed in; None for the type that input and parameters promote to
    kernel_init   initialiser of the kernel; N(0, 2 / (kh kw features)) unless told
    groups        number of equal parts of the channels, each of which makes the same part of the
                  features; the kernel is [kh, kw, C / groups, features]

Flax's words for these are understood, too: `strides`, `kernel_dilation`, `feature_group_count`, and
`padding="SAME"` where that is what layers do, at stride 1. So are the options of a blur, where a
layer has them, as `blur=rfjax.Blur(...)`.

Layers that normalise (`CCL`, `ASPP`) are called with (x, train), and take the name of the pmapped
axis that batch statistics go over and `norm`, the layer class that normalises (a `BatchNorm`).

Parameters are float32. Output (i, j) is centred on input (stride i, stride j), and outside the map
there are zeros.

Networks call their layers by `call`, which gives a layer what it asks for: whether the network
trains, and what the layer before handed on, see `rfjax.nn.forward`.

A layer declares which of its parameters are structure and what its covariances are: it inherits
`Structured`, as layers of your own can. `structure(model, variables)` and `covariances(model,
variables)` ask all layers of a network. The names of parameters and modules mean nothing.
"""

from rfjax import _extras

if fault := _extras.missing(__name__, "flax"):
    raise fault

from rfjax.compound import surround_covariance
from rfjax.nn._structure import Structure, Structured, covariances, declared, structure
from rfjax.nn.adaptive import AdaptiveDilationConv, ContinuousDilationConv
from rfjax.nn.blur import GaussianBlur
from rfjax.nn.context import ASPP, CCL, BlurredDilatedConv
from rfjax.nn.convolution import ComposedConv, Conv, DoGConv
from rfjax.nn.deformation import DeformableConv, DynamicComposedConv, GaussianDeformableConv
from rfjax.nn.dynamic import LSDFN, DynamicFilter
from rfjax.nn.forward import Forward, call
from rfjax.nn.inflation import Inflated
from rfjax.nn.normalization import BatchNorm
from rfjax.nn.selection import Selection, layer_at, select
from rfjax.nn.static import AffineConv, StaticDeformableConv

__all__ = [
    "ASPP",
    "AdaptiveDilationConv",
    "AffineConv",
    "BatchNorm",
    "BlurredDilatedConv",
    "CCL",
    "ComposedConv",
    "ContinuousDilationConv",
    "Conv",
    "DeformableConv",
    "DoGConv",
    "DynamicComposedConv",
    "DynamicFilter",
    "Forward",
    "GaussianBlur",
    "GaussianDeformableConv",
    "Inflated",
    "LSDFN",
    "Selection",
    "StaticDeformableConv",
    "Structure",
    "Structured",
    "call",
    "covariances",
    "declared",
    "layer_at",
    "select",
    "structure",
    "surround_covariance",
]
