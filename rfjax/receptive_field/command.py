"""What `python -m rfjax.receptive_field` prints and draws."""

import argparse
import ast
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import covariance, models, nn, predict, visualize
from rfjax.data.normalization import SCHEMES
from rfjax.receptive_field import networks, published
from rfjax.receptive_field.effective import EffectiveField, effective
from rfjax.receptive_field.functions import theoretical
from rfjax.receptive_field.layers import ReceptiveField, theoretical_of_layers

_LEAST, _LARGEST = 65, 257

_DOCUMENT = """# Receptive fields

Sizes in input pixels of what one output sees, the same along both axes, by
`python -m rfjax.receptive_field --table`. "Field" is that of the features, on which a 1×1 head
scores; the other columns are those of a composed 3×3 head (blur and resampling, hard support) whose
σ is given in pixels of the features. The final upsampling adds less than two strides.

## Networks of `rfjax.models`

{models}

## Published networks

{published}

FCN-AlexNet and FCN-VGG16 end at their scores and have 100 pixels of padding, as in the reference;
GoogLeNet's last average pooling is part of it in one row.
"""


def run(options: argparse.Namespace) -> None:
    """Prints what the options ask for."""
    if options.table:
        print(document(), end="")
    elif options.model in published.NETWORKS:
        print(listing(_of_layers(published.NETWORKS[options.model]())))
    else:
        _report(options)


def document() -> str:
    """The page of the documentation that lists all networks."""
    return _DOCUMENT.format(models=networks.table(), published=networks.published_table())


def listing(fields: dict[str, ReceptiveField]) -> str:
    """A table in plain text, a layer a row; below it each note at the first layer that has it."""
    rows = [("layer", "size", "stride", "offset", "")]
    for name, field in fields.items():
        bounded = field.data_dependent or field.missing
        unbounded = bounded and any(field.clipped)
        size = "any" if unbounded else _pair(field.size)
        rows.append((name, size, _pair(field.stride), _pair(field.offset), _remark(field)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        zip(row, widths, (str.ljust, *[str.rjust] * 3, str.ljust), strict=True) for row in rows
    )
    table = ["  ".join(put(text, n) for text, n, put in line).rstrip() for line in lines]
    first: dict[str, str] = {}
    for name, field in fields.items():
        for note in field.notes:
            first.setdefault(note, name)
    return "\n".join([*table, *(f"{name}: {note}" for note, name in first.items())])


def _remark(field: ReceptiveField) -> str:
    """What a reader of size and stride has to know."""
    if field.missing:
        return f"no rule for {', '.join(field.missing)}: a bound"
    if field.data_dependent:
        return "positions depend on the input"
    return "cut by the border" if any(field.clipped) else ""


def _pair(numbers: Sequence[float]) -> str:
    first, second = ("-" if np.isnan(number) else f"{number:g}" for number in numbers)
    return first if first == second else f"{first} x {second}"


def _of_layers(layers: published.Named) -> dict[str, ReceptiveField]:
    names = list(layers)
    return {
        name: theoretical_of_layers([layers[n] for n in names[: index + 1]])
        for index, name in enumerate(names)
    }


def _report(options: argparse.Namespace) -> None:
    """The table and the picture of a network."""
    run = _network(options)
    channels = run.normalization.channels
    fields = networks.by_layer(run.model, run.variables, (1, None, None, channels))
    print(listing(networks.changes(fields)))
    # Scores of whole images are no map: the field is that of the features then.
    drawn, method = ("output", None) if "output" in fields else ("backbone", "features")
    image, images = _image(options, run, fields[drawn].output)
    print(f"effective receptive field on {options.draws} draws of {image.shape[1]} x "
          f"{image.shape[0]} pixels ...", flush=True)  # fmt: skip
    size = image.shape[:2]
    field = effective(
        lambda x, variables: run.model.apply(variables, x, method=method),
        (*size, channels),
        run.variables,
        key=jax.random.key(options.seed),
        images=images,
        draws=options.draws,
    )
    _print_effective(field)
    seen = theoretical(
        lambda x, v: run.model.apply(v, x, method=method),
        (1, *size, channels),
        run.variables,
        unit=field.unit,
    )
    learned = _learned(nn.structure(run.model, run.variables), run.variables["params"], fields)
    figure = visualize.receptive_field(
        image,
        field.map,
        box=seen.box,
        effective_covariance=field.covariance,
        center=[(low + high) / 2 for low, high in seen.box],
        learned=learned,
    )
    visualize.save(figure, options.output)
    if seen.missing:
        print(f"no rule for {', '.join(seen.missing)}: the box is a bound")
    elif seen.data_dependent:
        print("what is read depends on the input: the box is its bound")
    elif any(seen.clipped):
        print("the box ends at the border of the picture: the field may go on")
    print(f"drawn to {options.output}")


def _print_effective(field: EffectiveField) -> None:
    y, x = np.sqrt(np.diag(field.covariance))
    print(f"effective: standard deviation {y:.1f} (y), {x:.1f} (x) pixels; 95 % of its mass within "
          f"{field.radius(0.95):.1f} pixels")  # fmt: skip


def _network(options: argparse.Namespace) -> networks.Run:
    """The trained network, or a new one."""
    if options.workdir:
        return networks.load_run(options.workdir, step=options.step)
    model = models.create(
        options.model,
        num_classes=19,
        head=options.head,
        head_options=_options(options.head_option),
        backbone_options=_options(options.backbone_option),
    )
    variables = jax.jit(model.init)(jax.random.key(options.seed), jnp.zeros((1, 64, 64, 3)))
    # Images for networks that were not trained here are normalised as ImageNet's.
    return networks.Run(model, variables, SCHEMES["imagenet"], 0)


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as a dictionary; values are Python literals, or else strings."""
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def _image(
    options: argparse.Namespace, run: networks.Run, field: ReceptiveField
) -> tuple[np.ndarray, np.ndarray | None]:
    """The picture to draw on [H, W, 3] uint8, and as an input [1, H, W, 3], or None for noise."""
    if options.image is None:
        wanted = options.size or min(max(round(1.2 * max(field.size)), _LEAST), _LARGEST)
        return np.full((wanted, wanted, 3), 255, np.uint8), None
    image = predict.read_image(options.image)
    if options.size:
        image = _middle(image, options.size)
    return image, networks.normalized(image[None], run.normalization)


def _middle(image: np.ndarray, size: int) -> np.ndarray:
    """At most `size` pixels along each axis, from the middle."""
    starts = [max((n - size) // 2, 0) for n in image.shape[:2]]
    return image[starts[0] : starts[0] + size, starts[1] : starts[1] + size]


def _learned(
    structure: nn.Structure, params: dict[str, Any], fields: dict[str, networks.LayerField]
) -> dict[str, np.ndarray]:
    """The last six covariances of the network's layers, in squared input pixels."""
    found = {}
    for layer, parts in structure.by_layer(params).items():
        if layer in fields and fields[layer].input is not None:
            stride = np.asarray(fields[layer].input.stride)
            for part, leaf in parts.items():
                matrix = np.asarray(covariance.covariance_matrix(leaf)).reshape(-1, 2, 2).mean(0)
                found["/".join(filter(None, (layer, part)))] = matrix * np.outer(stride, stride)
    return dict(list(found.items())[-6:])
