"""Weights of PyTorch's networks, by their names there.

A name such as `layer1.0.downsample.0.weight` gives the place of the array: numbers join the part
before them (`layer1_0/downsample_0`), and the last part names the array, whose axes are reordered.
The segmentation networks of the DRN reference number their children instead (`base.4.0.conv1`);
those are given their names first, as are those of torchvision's (`torchvision_names`). Those of DLA
have the names of its parts after `base.`.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from rfjax import _checks, nn
from rfjax.models import caffe_names, fusion, registry, torchvision_names, weight_files

Path = tuple[str, ...]

# Last parts of names: of convolutions, and of normalisations.
_ARRAYS = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "kernel": "weight",
}
_IGNORED = re.compile(r"(^|\.)num_batches_tracked$|^base\.fc\.|^up\.")
# Parts that a state dict has as a whole, or lacks as a whole.
_OPTIONAL = ("seg.", "fc.", "dla_up.", "head.")
_FEW = 8  # names that an error lists; of more it gives their first parts


def import_torch(
    name: str,
    state_dict: Mapping[str, Any],
    *,
    num_classes: int | Mapping[str, int],
    key: jax.Array | None = None,
    colors: str = "rgb",
    channels: int = fusion.COLORS,
    **options: Any,
) -> dict[str, Any]:
    """The variables of a network with weights that PyTorch trained.

    Names are those of torchvision's and timm's ResNets, of timm's DLA and of the references of DRN
    and DLA, or of the latter two's segmentation networks (`base.*`; `seg.*` or `fc.0.*`;
    `dla_up.*`); all may begin with `module.`. The backbone must be complete, but for the decoder
    `dla_up.*`, which is drawn anew if all of it is missing. A 1x1 score becomes the head: in a
    larger kernel it is the centre tap among zeros, so that the network starts from what the narrow
    one computes. Without it the head is drawn anew. The classifier `fc.*` becomes the head
    "classify", and is left out where the head is another, as are the fixed upsampling `up.*`,
    `num_batches_tracked` and projections that the reference of DLA has and does not read. What
    PyTorch does not have (covariances, regressors, kernels of
    surrounds) starts as in a new network.

    torchvision's segmentation networks (`backbone.*`, `classifier.*`, `aux_classifier.*`) are the
    "drn_a_*" of `backbone_options={"transition": "previous"}`, which has to be said, as the network
    that the variables are for is created with it as well. A head "aspp" of variant v3 takes the
    pyramid of DeepLabV3; other parts of the classifiers have no place, and a warning lists them.
    The same ResNets without a classifier look like plain ones: the transition is the caller's.

    Of "mobilenet_v2" they are timm's or torchvision's, of "xception_65" timm's.

    Of "flownet_*" they are those of PyTorch's ports; what sees further behind conv3 starts anew.

    Of "vgg_16" they are torchvision's, timm's, or those of a port of its dense networks (`conv1_1`,
    `fc6`, `score_fr`, `score_pool4`; `upscore2`, which is loaded where it is learned, and must be
    bilinear where it is fixed); of "alexnet" and "googlenet" Caffe's. Of these fc6, fc7 and scores
    may be missing, or fc6 and fc7 of another width: they are drawn anew, and a warning lists them.

    Args:
      name: one of `names()`, of a network that was not registered from outside, or that says what
        its parts are called in PyTorch.
      state_dict: arrays or tensors by name; convolutions [O, I, kh, kw].
      num_classes: number of classes K; or several by name, whose heads are drawn anew.
      key: for what is drawn anew, `jax.random.key(0)` unless given.
      colors: rgb, or bgr for weights of a network that read blue first, as Caffe's: the kernel that
        reads the image is turned, so that it reads red first. Names do not tell. For images that
        are themselves given blue first leave it at rgb.
      channels: of the images. Of others than 3 the kernel that reads the image has the colors' mean
        for those that are no colors: the fourth, or a single one.
      **options: the others of `create` but late_fusion, each of whose networks is imported alone.

    Returns:
      {"params": ..., "batch_stats": ...}, float32, as `create(...).init` returns them.

    Raises:
      ValueError: names are missing or unknown, shapes do not fit, or numbers are not finite; the
        message lists them, many by their first parts. Or the network is not the one that
        torchvision trained.

    Example:
      >>> try:
      ...     import_torch("resnet_18", {"conv1.weight": np.zeros([64, 3, 7, 7])}, num_classes=19)
      ... except ValueError as error:
      ...     print(str(error)[:70])
      resnet_18 and the state dict do not fit: missing 99: bn1.* (4), layer1
    """
    if options.get("late_fusion"):
        raise ValueError("weights are of one network: import those of each stream alone")
    model = registry.create(name, num_classes=num_classes, **options)
    whole = registry.architecture(name, options.get("backbone_options"))
    if isinstance(whole, registry.ImportableNetwork):
        return _import_whole(name, model, whole, state_dict, key)
    built = _importable(name, options.get("backbone_options"))
    _checks.choose("colors", colors, ("rgb", "bgr"))
    channels = _checks.integer("channels", channels)
    images = jnp.zeros((1, 2 * model.stride, 2 * model.stride, 3))

    def initial(rng: jax.Array) -> Any:
        return model.init(rng, images)

    variables = jax.eval_shape(initial, jax.random.key(0))
    declared = nn.structure(model, variables, images)
    wanted: dict[Path, Any] = traverse_util.flatten_dict(variables)
    if torchvision_names.is_segmentation(_plain(state_dict)):
        torchvision_names.check_transition(name, options.get("backbone_options"))
    score = "fc" if _classifies(wanted) else "seg"
    sliding = isinstance(built, registry.Sliding)
    given = _canonical(state_dict, built)
    given, left = _placeable(given, wanted, score, of_torchvision=not sliding)
    places = {}
    for path, leaf in wanted.items():
        torch_name = None if declared.is_structure(path[1:]) else _torch_name(path, score)
        if torch_name is not None:
            places[path] = (torch_name, leaf.shape)
    optional = _OPTIONAL
    if sliding:
        given, optional = _of_sliding(name, given, dict(places.values()), built)
    absent = tuple(part for part in optional if not any(n.startswith(part) for n in given))
    placed = {path: place for path, place in places.items() if not place[0].startswith(absent)}
    _check(name, given, dict(placed.values()))
    if left:
        _warn_of_left_out(name, left)
    values = {path: _convert(given[source], shape) for path, (source, shape) in placed.items()}
    if colors == "bgr":
        values = {path: _of_image(path, value, _turned) for path, value in values.items()}
    if channels != fusion.COLORS:
        widen = partial(fusion.of_channels, channels=channels)
        values = {path: _of_image(path, value, widen) for path, value in values.items()}
    rest = [path for path in wanted if path not in values]
    values |= _fresh(initial, rest, jax.random.key(0) if key is None else key)
    return traverse_util.unflatten_dict({path: values[path] for path in wanted})


def expected(name: str) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """The arrays of a backbone by their names in PyTorch: their places here, and shapes there.

    Args:
      name: of a network of `registry.Importable`.

    Example:
      >>> expected("resnet_18")["conv1.weight"]
      (('params', 'backbone', 'conv1', 'kernel'), (64, 3, 7, 7))
    """
    model = registry.create(name, num_classes=1)
    images = jnp.zeros((1, 2 * model.stride, 2 * model.stride, 3))
    initial = lambda rng: model.init(rng, images, method="features")
    flat: dict[Path, Any] = traverse_util.flatten_dict(jax.eval_shape(initial, jax.random.key(0)))
    named = {path: _torch_name(path) for path in flat}
    return {own: (path, _torch_shape(flat[path].shape)) for path, own in named.items() if own}


def canonical(name: str, state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays that matter to a network under the names that `expected` lists.

    Raises:
      ValueError: the names tell that they are of another network, or the network has none in
        PyTorch.
    """
    return _canonical(state_dict, _importable(name))


def _importable(name: str, options: Mapping[str, Any] | None = None) -> registry.Importable:
    """What a network is built of whose parts have names in PyTorch."""
    built = registry.architecture(name, options)
    if not isinstance(built, registry.Importable):
        raise ValueError(f"{name} does not say what its parts are called in PyTorch")
    return built


def _import_whole(
    name: str,
    model: Any,
    built: registry.ImportableNetwork,
    state_dict: Mapping[str, Any],
    key: jax.Array | None,
) -> dict[str, Any]:
    """The variables of a network without backbone and head; its layers lie at the top."""
    inputs = built.inputs()

    def initial(rng: jax.Array) -> Any:
        return model.init(rng, *inputs)

    variables = jax.eval_shape(initial, jax.random.key(0))
    wanted: dict[Path, Any] = traverse_util.flatten_dict(variables)
    given = {entry: _numpy(array) for entry, array in built.canonical(_plain(state_dict)).items()}
    # A layer within a layer is one that the reference does not have.
    placed = {
        path: (f"{path[1]}.{_ARRAYS[path[2]]}", leaf.shape)
        for path, leaf in wanted.items()
        if len(path) == 3
    }
    _check(name, given, dict(placed.values()))
    values = {path: _convert(given[source], shape) for path, (source, shape) in placed.items()}
    rest = [path for path in wanted if path not in values]
    values |= _fresh(initial, rest, jax.random.key(0) if key is None else key)
    return traverse_util.unflatten_dict({path: values[path] for path in wanted})


def _of_sliding(
    name: str,
    given: dict[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    built: registry.Sliding,
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays that have a place, and the layers that may be missing; a warning lists both."""
    shapes = {entry: _torch_shape(shape) for entry, shape in wanted.items()}
    given, left = caffe_names.fitted_to(given, shapes, built.features)
    layers = dict.fromkeys(entry.rpartition(".")[0] for entry in wanted)
    others = (*built.sliding, "head", "seg", "fc")
    optional = [layer for layer in layers if layer.startswith(others)]
    anew = [layer for layer in optional if f"{layer}.weight" not in given]
    lists = {"left out": left, "drawn anew": anew}
    told = [f"{what}: {', '.join(names)}" for what, names in lists.items() if names]
    if told:
        warnings.warn(f"{name}: {'; '.join(told)}", stacklevel=3)
    return given, tuple(f"{layer}." for layer in optional)


def _of_image(path: Path, value: jax.Array, change: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The kernel that reads the image, changed; other arrays as they are."""
    reads_image = path[1] == "backbone" and value.ndim == 4 and value.shape[2] == fusion.COLORS
    return change(value) if reads_image else value


def _turned(kernel: jax.Array) -> jax.Array:
    """A kernel of the other order of colors."""
    return kernel[:, :, ::-1]


def _plain(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays without the prefixes of wrappers."""
    return weight_files.unprefixed(state_dict)[0]


def _placeable(
    given: dict[str, np.ndarray],
    wanted: Mapping[Path, Any],
    score: str,
    *,
    of_torchvision: bool,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays for which there is a place, and the names of torchvision's that have none."""
    unread = ("seg.", "fc.")
    if ("params", "head", "kernel") in wanted:  # a head of several layers has no place for a score
        unread = tuple(part for part in unread if part != f"{score}.")
    given = {entry: array for entry, array in given.items() if not entry.startswith(unread)}
    if not of_torchvision:
        return given, []
    pyramid = ("params", "head", "project", "kernel") in wanted
    left = torchvision_names.without_place(given, pyramid=pyramid)
    return {entry: array for entry, array in given.items() if entry not in left}, left


def _classifies(wanted: Mapping[Path, Any]) -> bool:
    """Whether the head is a dense layer."""
    kernel = wanted.get(("params", "head", "kernel"))
    return kernel is not None and len(kernel.shape) == 2


def _warn_of_left_out(name: str, left: Sequence[str]) -> None:
    warnings.warn(
        f"{name}: the state dict's {torchvision_names.layers(left)} have no place in this network "
        "and are left out; what else its head has starts anew",
        stacklevel=3,
    )


def _canonical(state_dict: Mapping[str, Any], built: registry.Importable) -> dict[str, np.ndarray]:
    """The arrays that matter, under the names that a classification network has."""
    arrays = _plain(state_dict)
    if torchvision_names.is_segmentation(arrays):
        arrays = torchvision_names.renamed(arrays)
    if isinstance(built, registry.Renaming):
        arrays = built.canonical(arrays)
    renamed = {}
    for name, array in arrays.items():
        short = _named(name, built.children)
        unread = short.startswith(tuple(f"{part}." for part in built.unread))
        if not (unread or _IGNORED.search(short)):
            renamed[short] = _numpy(array)
    return renamed


def _named(name: str, children: Mapping[str, str]) -> str:
    """`base.4.0.conv1.weight` as `layer1.0.conv1.weight`, where that is what child 4 is."""
    parts = name.split(".")
    if parts[0] == "base" and len(parts) > 2 and parts[1] in children:
        return ".".join([children[parts[1]], *parts[2:]])
    if parts[:2] == ["fc", "0"]:
        return ".".join(["seg", *parts[2:]])
    return name


def _numpy(array: Any) -> np.ndarray:
    """An array of any library, PyTorch's tensors included, as NumPy's."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().float()
    return np.asarray(array)


def _torch_name(path: Path, score: str = "seg") -> str | None:
    """The name in PyTorch of the weight at `path`, None for what is not in PyTorch."""
    _, top, *modules, leaf = path
    if leaf not in _ARRAYS:
        return None
    if top == "head":
        return _name_in_head(modules, leaf, score)
    return ".".join([*map(_dotted, modules), _ARRAYS[leaf]])


def _name_in_head(modules: Sequence[str], leaf: str, score: str) -> str | None:
    """A head of one layer is a score; of one with several layers the score is no other's."""
    if not modules:
        return f"{score}.{_ARRAYS[leaf]}"
    return None if modules == ["score"] else ".".join(["head", *modules, _ARRAYS[leaf]])


def _dotted(part: str) -> str:
    """`layer1_0` as `layer1.0`, `node_1_0` as `node_1.0`; the decoder's `ida_1` and `up_1` stay."""
    return re.sub(r"^(?!(?:ida|up)_)(.+)_(\d+)$", r"\1.\2", part)


def _check(name: str, given: dict[str, np.ndarray], wanted: dict[str, tuple[int, ...]]) -> None:
    """Raises one error for all that does not fit."""
    missing = [entry for entry in wanted if entry not in given]
    unknown = [entry for entry in given if entry not in wanted]
    misshapen = [
        f"{entry} {given[entry].shape} (want {_torch_shape(shape)})"
        for entry, shape in wanted.items()
        if entry in given and not _fits(entry, given[entry].shape, shape)
    ]
    faults = {
        "missing": missing,
        "unknown": unknown,
        "misshapen": misshapen,
        "negative": [e for e in given if e.endswith("running_var") and np.any(given[e] < 0)],
        "not finite (NaN or infinite)": not_finite({e: a for e, a in given.items() if e in wanted}),
    }
    faults = [f"{fault} {_listed(found)}" for fault, found in faults.items() if found]
    if faults:
        raise ValueError(f"{name} and the state dict do not fit: {'; '.join(faults)}")


def _listed(names: Sequence[str]) -> str:
    """Names, or, of many, their first parts with the number of each.

    Example:
      >>> _listed([f"layer1.{block}.conv1.weight" for block in range(20)] + ["fc.bias"])
      '21: fc.bias, layer1.* (20)'
    """
    if len(names) <= _FEW:
        return ", ".join(sorted(names))
    groups: dict[str, list[str]] = {}
    for entry in sorted(names):
        groups.setdefault(entry.split(".")[0], []).append(entry)
    told = [
        found[0] if len(found) == 1 else f"{group}.* ({len(found)})"
        for group, found in groups.items()
    ]
    return f"{len(names)}: {', '.join(told[:_FEW])}{', …' * (len(told) > _FEW)}"


def not_finite(arrays: Mapping[str, Any]) -> list[str]:
    """The names of those arrays that hold NaN or infinite numbers, as float32.

    Example:
      >>> not_finite({"a": np.array([1.0, np.nan]), "b": np.ones(2), "c": np.array([1e39])})
      ['a', 'c']
    """
    with np.errstate(over="ignore"):
        return [
            name
            for name, array in arrays.items()
            if not np.all(np.isfinite(np.asarray(array).astype(np.float32)))
        ]


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """That of an array here, in the order of PyTorch's axes: outputs, inputs, and the rest."""
    return (*shape[-2:][::-1], *shape[:-2])


def _fits(entry: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    wanted = _torch_shape(wanted)
    # A narrow score; or a classifier that is a 1x1 convolution, as the references of DRN have it.
    pointwise = entry in ("seg.weight", "fc.weight") and given == (*wanted[:2], 1, 1)
    return given == wanted or pointwise


def _convert(array: np.ndarray, shape: tuple[int, ...]) -> jax.Array:
    """[O, I, kh, kw] as [kh, kw, I, O], widened by zeros to `shape`, [O, I] or [O, I, 1, 1] as
    [I, O]; vectors as they are."""
    array = np.asarray(array, np.float32)
    if len(shape) == 2:
        array = array.reshape(array.shape[:2]).T
    elif array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
        margins = [(wide - narrow) // 2 for wide, narrow in zip(shape, array.shape, strict=True)]
        array = np.pad(array, [(margin, margin) for margin in margins])
    return jnp.asarray(array)


def _fresh(
    initial: Callable[[jax.Array], dict], paths: list[Path], key: jax.Array
) -> dict[Path, jax.Array]:
    """What a new network has at `paths`."""

    def select(rng):
        flat = traverse_util.flatten_dict(initial(rng))
        return {path: flat[path] for path in paths}

    return jax.jit(select)(key) if paths else {}
