"""What a config can name: networks, heads, data sets and tasks, with their options.

The programs check their command lines by these tables before they import JAX. What the names stand
for is in `rfjax.models`, `rfjax.data` and `rfjax.tasks`; a test holds the tables against them. What
is registered from outside the package is entered here as well.
"""

_TINY = ("width", "depth")
_MERGED = ("down_ratio",)
_TRANSITION = ("transition",)
_SLIDING = ("border", "light")
_DILATED = ("output_stride",)
_FLOWING = ("context", "samples", "sample_stride")

NETWORKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("resnet_18", "resnet_34", "resnet_50", "resnet_101"), _DILATED),
    "resnet_tiny": (*_TINY, "output_stride"),
    "dla_34": _MERGED,
    "dla_tiny": (*_TINY, *_MERGED),
    **dict.fromkeys(("drn_a_18", "drn_a_34", "drn_a_50"), _TRANSITION),
    "drn_tiny": _TINY,
    **dict.fromkeys((f"drn_c_{depth}" for depth in (26, 42, 58)), ()),
    **dict.fromkeys((f"drn_d_{depth}" for depth in (22, 24, 38, 40, 54, 56, 105, 107)), ()),
    **dict.fromkeys(("vgg_16", "vgg_tiny"), (*_SLIDING, "dropout", "output_stride")),
    "alexnet": _SLIDING,
    "googlenet": (),
    **dict.fromkeys(("mobilenet_v2", "xception_65"), _DILATED),
    **dict.fromkeys(("flownet_s", "flownet_thin", "flownet_c"), _FLOWING),
}

_TAPS = ("dilation", "kernel_size")
_COMPOSED = ("family", "method", "mode", "padding", "rate", "resample", "support", "truncate")
_SCORES = ("null_background", "sigma")
_FUSED = (*_SCORES, "at_once", "learn_upsampling")
_REGRESSED = ("bound", "family", "link", "mean", "mode", "rate", "sigma")

# Of the options of a head's layer those that a config has keys for.
HEADS: dict[str, tuple[str, ...]] = {
    "score": ("dilation",),
    "conv3": ("dilation",),
    "composition": (*_TAPS, *_COMPOSED, "sigma", "structure", "components"),
    "dog": (*_TAPS, *_COMPOSED, "sigma_center", "sigma_surround", "max_surround", "variant"),
    "gauss_deform": (*_TAPS, *_REGRESSED),
    "dynamic": (*_TAPS, *_REGRESSED),
    "deform": (*_TAPS, "modulated", "offset_groups"),
    "stn": (*_TAPS, "extent", "padding"),
    "static_deform": _TAPS,
    "pad": ("activation", "dilations", "evaluation", "kernel_size", "prior", "temperature"),
    "adadr": _TAPS,
    "inflated_conv": (*_TAPS, "bounds", "gradient", "initial"),
    "ccl": (*_TAPS, "blur", "dilations", "fusion", "normalize", "width"),
    "aspp": (*_TAPS, "blur", "dropout", "rates", "variant", "width"),
    "deeplab_v3_plus": ("at", "blur", "depth", "dropout", "low", "rates", "width"),
    "inflated": (
        *("at", "bounds", "dilation", "dropout", "gradient", "initial", "kernel_size", "paths"),
        *("per_image", "sets", "weight", "width"),
    ),
    "lsdfn": ("attention", "channels", "residual", "sample_strides", "samples"),
    "lsdfn_concat": (
        *("attention", "channels", "outputs", "residual", "sample_stride", "samples", "width"),
    ),
    "classify": (),
    "fcn_32s": _SCORES,
    **dict.fromkeys(("fcn_16s", "fcn_8s"), _FUSED),
    **dict.fromkeys(("fcn_pool3", "fcn_pool4", "fcn_pool5"), _SCORES),
}
# Those whose layers a config can have in place of convolutions of the backbone.
PLACED = ("composition", "gauss_deform", "dynamic", "deform", "static_deform", "pad", "adadr")
SEARCHED_HEADS = ("composition", "dog", "dynamic")  # those whose covariances a search sets

_SCENES = ("size", "min_scale", "max_scale", "train_scenes", "val_scenes", "seed")
_EPISODES = (
    *("kind", "ways", "shots", "points", "missing", "folds", "fold", "held_out"),
    *("train_episodes", "val_episodes"),
)
DATA_SETS: dict[str, tuple[str, ...]] = {
    "digit_scenes": (*_SCENES, "enlargement", "modality", "labels", "mask"),
    "camvid": ("enlargement", "reduction"),
    "cityscapes": ("enlargement",),
    "digit_images": (
        *("size", "min_scale", "max_scale", "train_images", "val_images", "seed", "enlargement"),
    ),
    "image_folder": ("enlargement",),
    "folder": ("enlargement", "images", "masks", "holdout", "seed", "ignore"),
    "voc": ("enlargement", "year", "sbd"),
    "pascal_context": ("enlargement",),
    "nyud": ("enlargement", "modality"),
    "sift_flow": ("enlargement", "labels"),
    "helen": ("enlargement",),
    "digit_clips": (
        *("size", "min_scale", "max_scale", "train_clips", "val_clips", "length", "fastest"),
        *("seed", "enlargement"),
    ),
    "davis": ("enlargement", "frames"),
    "cityscapes_clips": ("enlargement", "frames"),
    "digit_episodes": (*_SCENES, "turns", *_EPISODES),
    "episodes": ("of", *_EPISODES),
    "digit_flow": ("size", "motion", "digits", "train_pairs", "val_pairs", "seed"),
    "flying_chairs": ("reduction",),
    "tfds": ("enlargement", "of", "image", "label", "train", "val", "test", "ignore"),
}


def data_set(name: str) -> tuple[str, dict[str, str]]:
    """The entry of a data set, and the options that its name says: "tfds:NAME" is `of` "tfds".

    Example:
      >>> data_set("tfds:oxford_iiit_pet"), data_set("camvid")
      (('tfds', {'of': 'oxford_iiit_pet'}), ('camvid', {}))
    """
    kind, _, of = name.partition(":")
    return (kind, {"of": of}) if kind == "tfds" and of else (name, {})


_LOSS = ("cross_entropy", "sampling", "cell", "focal", "dice", "hard_examples")
TASKS: dict[str, tuple[str, ...]] = {
    "segmentation": (*_LOSS, "class_weights"),
    "classification": (),
    "segmentations": _LOSS,
    "guided": ("fusion", "shared", "map"),
    "flow": (),
}

# Of guided networks, see `rfjax.models.guided`.
FUSIONS = ("late_global", "late_local", "prototypes", "early", "masked", "foreground")

# Of adaptive dilation and of inflation, see `rfjax.nn`.
PRIORS = ("markov", "recurrent", "gated")
DILATED_BY = ("hard", "expected", "sampled")
FACTOR_GRADIENTS = ("paper", "true", "released")

NORMALIZATIONS = ("count", "none")  # of the loss of a batch
CROSS_ENTROPIES = ("softmax", "sigmoid", "null_background")  # of a segmentation
BALANCE = ("class_weights", "focal", "dice")  # of the softmax of a segmentation
MEASURED = "median_frequency"  # what class weights may be instead of numbers
SCHEMES = ("dataset", "imagenet", "caffe")  # by which images are normalised

MAPPINGS = ("auto", "loop", "map", "vmap")  # of a search's candidates to devices
FAMILIES = ("own", "spherical", "diagonal", "full")  # of covariances that a search starts from
PUBLISHED = ("fcn_alexnet", "fcn_vgg16", "googlenet")  # networks of which the fields are known

# How a step is spread over devices, and how gradients of several steps are joined.
PARALLEL = ("pmap", "shard_map")
ACCUMULATIONS = ("mean", "sum")

UPDATES = ("momentum", "adam", "adamw")  # rules of the optimizer
SCHEDULES = ("poly", "cosine", "constant")  # of its learning rate
