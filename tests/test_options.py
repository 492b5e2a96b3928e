"""Options of every function, layer, head, model and data set: wrong values, NumPy's right ones.

The options are walked over, so that a new one must say here of which kind it is.
"""

import dataclasses
import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax import data, models, nn, search
from rfjax import receptive_field as rf
from rfjax.data.digit_scenes import DigitScenesConfig
from rfjax.models import heads
from rfjax.models.decoders import Decoder
from rfjax.models.resizing import bilinear_upsample
from rfjax.training import optimizers

X = jnp.ones((2, 9, 9, 3))
KERNEL = jnp.ones((3, 3, 3, 4))
P = jnp.zeros(1)
AFFINE = jnp.zeros((2, 3))

# kind: (wrong values, right ones). None is wrong but for the options in OPTIONAL.
NOT_NUMBERS = (True, np.bool_(False), "x", (), 1j)
KINDS = {
    "integer": ((*NOT_NUMBERS, 1.5, 2.0, math.nan, math.inf, -1), (np.int32(3), np.int64(3))),
    "pair": ((*NOT_NUMBERS, 1.5, math.nan, -1, 2, (3, 3, 3), (3, True), (3, 1.5), "33"),
             (np.int32(3), np.array([3, 3]), [np.int64(3), 3])),
    "step": ((*NOT_NUMBERS, 1.5, math.nan, math.inf, -1, 0, (3, 3, 3), (3, True), (3, 0), "33"),
             (np.int32(3), np.array([3, 1]), [np.int64(1), 3])),
    "Blur": ((*NOT_NUMBERS, 1.5, math.nan, {"padding": "zero"}), (rfjax.Blur(padding="edge"),)),
    "integers": ((*NOT_NUMBERS, 3, (1.5,), (True,), (0,), (-1,), "33"),
                 ([np.int64(2)], np.array([2]))),
    "number": ((*NOT_NUMBERS, math.nan, math.inf), (np.float32(0.5), np.float64(0.5))),
    "not negative": ((*NOT_NUMBERS, math.nan, math.inf, -1.0), (np.float32(4), np.int64(0))),
    "positive": ((*NOT_NUMBERS, math.nan, math.inf, 0.0, -1.0), (np.float32(4), np.int64(4))),
    "sigma": ((*NOT_NUMBERS, math.nan, math.inf, 0.0, -1.0, (1.0, 2.0, 3.0), (1.0, math.nan)),
              (np.float32(0.75), np.array([0.75, 0.75]), jnp.float32(0.75))),
    "fraction": ((*NOT_NUMBERS, math.nan, 1.5, -0.5), (np.float32(0.5), np.float64(0.5))),
    "flag": (("x", 1, 0.0, np.int64(1), math.nan), (np.bool_(False), True)),
    "choice": (("bogus", "", True, 1, math.nan, 1.5), ()),
    "dtype": (("bogus", "int32", jnp.int8, 3), ("float32", jnp.bfloat16, np.dtype("float32"))),
}  # fmt: skip
OPTIONS = {
    "integer": "sample_stride channels max_displacement displacement_stride "
               "groups offset_groups max_half_size rings points_per_ring components width depth "
               "num_classes output_stride down_ratio spatial_ndim factor draws chunk batch_size "
               "seed process_index process_count threads prefetch train_scenes val_scenes least "
               "count",
    "pair": "kernel_size samples",
    "step": "stride dilation size target window",
    "Blur": "how",
    "integers": "dilations rates sample_strides",
    "number": "rate spread",
    "not negative": "blur lighting",
    "positive": "truncate bound max_surround extent min_scale max_scale temperature",
    "sigma": "sigma sigma_center sigma_surround",
    "fraction": "dropout color keep",
    "flag": "attention residual per_image "
            "odd resample use_bias per_channel mean normalize remat flip whole_degrees modulated",
    "choice": "padding method support mode family structure variant link fusion algorithm platform "
              "transition head mapping prior evaluation activation gradient order",
    "dtype": "dtype",
}  # fmt: skip
KIND = {name: kind for kind, names in OPTIONS.items() for name in names.split()}
OPTIONAL = {"components", "bound", "max_surround", "blur", "dtype", "dropout", "prefetch", "how"}
OPTIONAL_HERE = {"ASPP: rates", "ASPP: width", "layout: chunk", "train_iterator: threads"}
# Where those of the kind do not fit.
RIGHT = {"groups": (np.int64(1),), "down_ratio": (np.int64(2),), "process_index": (np.int64(0),),
         "process_count": (np.int64(2),), "spatial_ndim": (np.int64(2),)}  # fmt: skip
# Arrays, functions, names, and what other tests are about.
OTHERS = {"x", "params", "params_map", "kernel", "points", "offsets", "means", "positions",
          "center", "surround", "coordinates", "weights", "kernel_init", "name", "parent",
          "axis_name", "norm", "mask", "affine", "delta", "surround_kernel",
          "first", "second", "function", "updates", "initial", "within", "across",
          "sample_attention", "position_attention"}  # fmt: skip

ARRAYS = {("continuous_dilated_conv", "rates"), ("interpolate", "size"), ("inflate", "factor"),
          ("interpolate", "factor"), ("inflate", "max_factor"), ("Inflated", "layer"),
          ("Inflated", "initial"), ("Inflated", "bounds")}  # fmt: skip

FUNCTIONS = {
    "half_size": lambda **o: rfjax.half_size(1.0, **o),
    "gaussian_kernel1d": lambda **o: rfjax.gaussian_kernel1d(1.0, **{"max_half_size": 8} | o),
    "gaussian_kernel": lambda **o: rfjax.gaussian_kernel(P, **{"max_half_size": 8} | o),
    "gaussian_blur": lambda **o: rfjax.gaussian_blur(X, P, **o),
    "difference_of_gaussians": lambda **o: rfjax.difference_of_gaussians(X, P, P + 1, **o),
    "local_gaussian_blur": lambda **o: rfjax.local_gaussian_blur(
        X, jnp.zeros((2, 9, 9, 1)), **{"max_half_size": 8} | o
    ),
    "ring_points": rfjax.ring_points,
    "lattice_points": lambda **o: rfjax.lattice_points(**{"kernel_size": 3} | o),
    "circular_points": lambda **o: rfjax.circular_points(**{"kernel_size": 3} | o),
    "sampling_offsets": lambda **o: rfjax.sampling_offsets(P, jnp.ones((9, 2)), **o),
    "affine_coordinates": lambda **o: rfjax.affine_coordinates(AFFINE, **{"size": (9, 9)} | o),
    "affine_conv": lambda **o: rfjax.affine_conv(X, KERNEL, AFFINE, **o),
    "bilinear_sample": lambda **o: rfjax.bilinear_sample(X, jnp.ones((2, 2)), **o),
    "sampled_conv": lambda **o: rfjax.sampled_conv(X, KERNEL, jnp.ones((9, 2)), **o),
    "blur_conv": lambda **o: rfjax.blur_conv(X, KERNEL, P, **o),
    "blur_resample_conv": lambda **o: rfjax.blur_resample_conv(X, KERNEL, P, **o),
    "gaussian_deformable_conv": lambda stride=1, **o: rfjax.gaussian_deformable_conv(
        X, KERNEL, jnp.zeros((2, *outputs(stride), 1)),
        stride=stride, **o,
    ),
    "deformable_conv": lambda **o: rfjax.deformable_conv(X, KERNEL, jnp.zeros((9, 2)), **o),
    "composed_conv": lambda **o: rfjax.composed_conv(X, KERNEL, P, **o),
    "dog_conv": lambda **o: rfjax.dog_conv(X, KERNEL, P, P + 1, **o),
    "regressed_covariance": lambda **o: rfjax.regressed_covariance(P, P, **o),
    "surround_covariance": lambda **o: rfjax.surround_covariance(P, P, **o),
    "channel_conv": lambda **o: rfjax.channel_conv(X, KERNEL, jnp.zeros((4, 1)), **o),
    "mixture_conv": lambda **o: rfjax.mixture_conv(
        X, KERNEL, jnp.zeros((2, 1)), jnp.ones(2), **o
    ),
    "adaptive_dilated_conv": lambda stride=1, dilations=(1, 2), **o: rfjax.adaptive_dilated_conv(
        X, KERNEL, jnp.zeros((2, *outputs(stride), np.size(dilations))),
        stride=stride, dilations=dilations, **o,
    ),
    "continuous_dilated_conv": lambda stride=1, **o: rfjax.continuous_dilated_conv(
        X, KERNEL, jnp.zeros((2, *outputs(stride), 1)),
        stride=stride, **o,
    ),
    "correlation": lambda **o: rfjax.correlation(X, X, **o),
    "dynamic_filter": lambda **o: rfjax.dynamic_filter(
        X, jnp.zeros((2, 9, 9, 4, 3, 3)), jnp.zeros((2, 9, 9, 4, 3)), **o
    ),
    "inflate": lambda **o: rfjax.inflate(X, 1.0, **o),
    "interpolate": lambda **o: rfjax.interpolate(
        X, 1.0, **{"size": jnp.array([9, 9]), "target": (4, 4)} | o
    ),
    "blurred_dilated_conv": lambda **o: rfjax.blurred_dilated_conv(
        X, KERNEL, **{"dilation": 2} | o
    ),
    "bilinear_kernel": lambda **o: rfjax.bilinear_kernel(**{"factor": 2} | o),
    "transposed_bilinear": lambda **o: rfjax.transposed_bilinear(X, **{"factor": 2} | o),
    "dense_to_conv": lambda **o: rfjax.dense_to_conv(jnp.ones((36, 4)), **{"window": 3} | o),
    "shift_and_stitch": lambda **o: rfjax.shift_and_stitch(
        lambda x: x[:, ::2, ::2], X, **{"stride": 2} | o
    ),
}  # fmt: skip
WITHOUT_EFFECT = {
    "composed_conv, blur alone": lambda **o: FUNCTIONS["composed_conv"](resample=False, **o),
    "channel_conv, blur alone": lambda **o: FUNCTIONS["channel_conv"](resample=False, **o),
    "mixture_conv, blur alone": lambda **o: FUNCTIONS["mixture_conv"](resample=False, **o),
    "blurred_dilated_conv, plain": lambda **o: FUNCTIONS["blurred_dilated_conv"](blur=None, **o),
    "ComposedConv, blur alone": lambda **o: built(nn.ComposedConv, 4, resample=False, **o),
    "DoGConv, blur alone": lambda **o: built(nn.DoGConv, 4, resample=False, **o),
    "ComposedConv, channel": lambda **o: built(
        nn.ComposedConv, 4, resample=False, structure="channel", **o
    ),
    "BlurredDilatedConv of 1x1": lambda **o: built(nn.BlurredDilatedConv, 4, kernel_size=1, **o),
    "CCL of one layer": lambda **o: built(nn.CCL, 4, **o),
}
NO_OPTIONS = {"cascade", "cholesky_factor", "covariance_matrix", "log_cholesky", "from_ellipse",
              "to_ellipse", "standard_deviations", "compose_kernel", "Blur",
              "weighted_gradient"}  # fmt: skip


def is_count(value):
    return isinstance(value, int | np.integer) and value > 0 and not isinstance(value, bool)


def outputs(stride):
    """The size of the outputs of X, for strides that are right."""
    steps = np.ravel(np.asarray(stride, object))
    if len(steps) not in (1, 2) or not all(map(is_count, steps)):
        return 9, 9
    return [8 // step + 1 for step in np.broadcast_to(steps, 2)]


def built(layer, *arguments, **options):
    """The parameters of a layer, which are those of a map of three channels."""
    made = layer(*arguments, **options)
    return jax.eval_shape(made.init, jax.random.key(0), X)


LAYERS = {
    "DynamicFilter": functools.partial(built, nn.DynamicFilter, 4),
    "LSDFN": functools.partial(built, nn.LSDFN, 4),
    "Inflated": lambda **o: built(functools.partial(nn.Inflated, nn.Conv(4)), **o),
    "GaussianBlur": functools.partial(built, nn.GaussianBlur),
    "Conv": functools.partial(built, nn.Conv, 4),
    "ComposedConv": lambda **o: built(
        nn.ComposedConv, 4,
        **({"structure": "multiple"} if "components" in o else {}) | o,
    ),
    "DoGConv": lambda **o: built(nn.DoGConv, 4, **{"sigma_center": 0.5} | o),
    "GaussianDeformableConv": functools.partial(built, nn.GaussianDeformableConv, 4),
    "DynamicComposedConv": functools.partial(built, nn.DynamicComposedConv, 4),
    "DeformableConv": functools.partial(built, nn.DeformableConv, 4),
    "AdaptiveDilationConv": functools.partial(built, nn.AdaptiveDilationConv, 4),
    "ContinuousDilationConv": functools.partial(built, nn.ContinuousDilationConv, 4),
    "AffineConv": functools.partial(built, nn.AffineConv, 4),
    "StaticDeformableConv": functools.partial(built, nn.StaticDeformableConv, 4),
    "BlurredDilatedConv": functools.partial(built, nn.BlurredDilatedConv, 4),
    "CCL": lambda **o: built(nn.CCL, 4, **{"dilations": (1, 2)} | o),
    "ASPP": lambda **o: built(nn.ASPP, 4, **{"rates": (1,)} | ({"variant": "v3"} if
                              {"width", "dropout"} & o.keys() else {}) | o),
}  # fmt: skip


def segmenter(name, **options):
    """The parameters of a network."""
    backbone = {k: options.pop(k) for k in ("width", "depth", "output_stride", "down_ratio",
                                            "transition") if k in options}  # fmt: skip
    fixed = {"num_classes": 2, "backbone_options": backbone} | options
    model = models.create(name, **fixed)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 16, 16, 3)))


MODELS = {
    "create": functools.partial(segmenter, "resnet_tiny"),
    "resnet_tiny": lambda **o: segmenter("resnet_tiny", **{"depth": 3} | o),
    "drn_tiny": functools.partial(segmenter, "drn_tiny"),
    "dla_tiny": functools.partial(segmenter, "dla_tiny"),
    "drn_a_18": functools.partial(segmenter, "drn_a_18"),
}
MODEL_OPTIONS = {
    "create": ("num_classes", "dtype", "remat", "head"),
    "resnet_tiny": ("width", "depth"),
    "drn_tiny": ("width", "depth"),
    "dla_tiny": ("width", "depth", "down_ratio"),
    "drn_a_18": ("transition",),
}


class _Source:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        empty = np.zeros((4, 4), np.uint8)
        return {"image": np.zeros((4, 4, 3), np.uint8), "label": empty, "id": str(index)}


DATA = data.Dataset("empty", "train", _Source(), 2, ("a", "b"), np.zeros((2, 3), np.uint8),
                    mean=(0.5,) * 3, std=(1.0,) * 3)  # fmt: skip


def train_batches(**options):
    return data.train_iterator(DATA, **{"batch_size": 1, "seed": 0, "threads": 1} | options)


MORE = {
    "bilinear_upsample": (lambda **o: bilinear_upsample(X, **o), ("factor",)),
    "effective": (
        lambda **o: rf.effective(lambda x: x, (4, 4, 1), **{"draws": 1} | o), ("draws",)
    ),
    "train_iterator": (
        train_batches,
        ("batch_size", "seed", "process_index", "process_count", "threads", "prefetch"),
    ),
    "eval_batches": (
        lambda **o: data.eval_batches(DATA, **{"batch_size": 1} | o),
        ("batch_size", "process_index", "process_count"),
    ),
    "DigitScenesConfig": (DigitScenesConfig, ("train_scenes", "val_scenes", "seed")),
    "DigitScenesConfig: scales": (
        lambda **o: DigitScenesConfig(**{"min_scale": 4.0, "max_scale": 4.0} | o),
        ("min_scale", "max_scale"),
    ),
    "Augmentation": (data.Augmentation, ("color", "flip", "whole_degrees")),
    "Halving": (lambda **o: search.Halving((1,), **{"least": 1} | o), ("keep", "least")),
    "layout": (lambda **o: search.layout(**{"count": 4} | o), ("count", "chunk", "mapping")),
    "Conv of rf": (lambda **o: rf.theoretical([rf.Conv(**{"kernel_size": 3} | o)]),
                   ("stride", "dilation")),
    "Gaussian of rf": (lambda **o: rf.theoretical([rf.Gaussian(**{"sigma": 1.0} | o)]),
                       ("truncate",)),
}  # fmt: skip


def layer_options(name):
    return [field.name for field in dataclasses.fields(getattr(nn, name)) if field.init]


def cases():
    """(where, call, option) for all options."""
    for name, call in FUNCTIONS.items():
        for option in inspect.signature(getattr(rfjax, name)).parameters:
            if option != "sigma" and (name, option) not in ARRAYS:
                yield name, call, option
    for name, call in LAYERS.items():
        for option in layer_options(name):
            if option != "features" and (name, option) not in ARRAYS:
                yield name, call, option
    for name, call in WITHOUT_EFFECT.items():
        owner = name.split(",")[0].split(" of ")[0]
        if hasattr(nn, owner):
            options = layer_options(owner)
        else:
            options = inspect.signature(getattr(rfjax, owner)).parameters
        fixed = ("resample", "structure", "components", "kernel_size", "blur", "features")
        for option in (o for o in options if o not in fixed):
            yield name, call, option
    for name, call in MODELS.items():
        for option in MODEL_OPTIONS[name]:
            yield name, call, option
    for name, (call, options) in MORE.items():
        for option in options:
            yield name, call, option


CASES = [(f"{where}: {option}", call, option) for where, call, option in cases()
         if option not in OTHERS]  # fmt: skip


def kind(where, option):
    """The kind of an option; what is called alike is not of one kind everywhere."""
    owner = where.split(":")[0].split(",")[0]
    if option == "blur" and owner in FUNCTIONS and owner != "blurred_dilated_conv":
        return "Blur"
    if (owner, option) in (("ContinuousDilationConv", "dilation"), ("shift_and_stitch", "stride")):
        return "integer"
    return "integer" if owner == "Conv of rf" else KIND[option]


def test_no_function_layer_or_option_is_left_out():
    functions = {name for name in rfjax.__all__ if callable(getattr(rfjax, name))}
    assert functions == {*FUNCTIONS, *NO_OPTIONS}
    layers = {
        name for name in nn.__all__
        if isinstance(getattr(nn, name), type) and hasattr(getattr(nn, name), "init")
    }  # fmt: skip
    assert layers - {"BatchNorm"} == set(LAYERS)  # of which the options are Flax's
    # Decoders have no options but those of `create`.
    own = {layer.__name__ for layer, _ in heads.HEADS.values() if not issubclass(layer, Decoder)}
    assert own <= layers
    assert {option for _, _, option in CASES} <= set(KIND)


@pytest.mark.parametrize("where, call, option", CASES, ids=[case[0] for case in CASES])
def test_wrong_values_are_refused_in_one_line(where, call, option):
    wrong, _ = KINDS[kind(where, option)]
    for value in wrong if option in OPTIONAL or where in OPTIONAL_HERE else (*wrong, None):
        with pytest.raises((TypeError, ValueError)) as raised:
            call(**{option: value})
        text = str(raised.value)
        assert option in text and "\n" not in text and len(text) < 400, f"{value!r}: {text}"
        shown = (repr(value), str(value), "dtype", "shape (0,)")
        assert any(part in text for part in shown), f"{value!r}: {text}"


@pytest.mark.parametrize("where, call, option", CASES, ids=[case[0] for case in CASES])
def test_numbers_of_numpy_are_as_good_as_pythons(where, call, option):
    for value in RIGHT.get(option, KINDS[kind(where, option)][1]):
        if where.split(": ")[0] in FUNCTIONS:  # without computing anything
            jax.eval_shape(lambda value=value: call(**{option: value}))
        else:
            call(**{option: value})


def test_features_are_a_number_of_channels():
    for value in (True, 1.5, 0, -1, "x", None):
        with pytest.raises((TypeError, ValueError), match="features must be a positive integer"):
            built(nn.Conv, value)
    assert built(nn.Conv, np.int64(4))["params"]["kernel"].shape == (3, 3, 3, 4)


@pytest.mark.parametrize("name, value", [
    ("learning_rate", math.nan), ("learning_rate", "x"), ("steps", 1.5), ("steps", True),
    ("power", -1.0), ("warmup_steps", -1), ("warmup_steps", True),
])  # fmt: skip
def test_schedules(name, value):
    options = {"learning_rate": 0.1, "steps": 10} | {name: value}
    with pytest.raises((TypeError, ValueError), match=name):
        optimizers.poly_schedule(**options)


@pytest.mark.parametrize("name, value", [
    ("momentum", math.nan), ("momentum", True), ("weight_decay", -1.0), ("grad_clip", "x"),
    ("covariance_multiplier", math.inf), ("covariance_decay", 1),
])  # fmt: skip
def test_optimizers(name, value):
    options = {"is_structure": lambda path: False} | {name: value}
    with pytest.raises((TypeError, ValueError), match=name):
        optimizers.sgd(lambda step: 0.1, **options)
