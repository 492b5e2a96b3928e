"""Draws the pictures of the pages on systems, from the primitives that they describe.

    python docs/site/draw.py docs/pictures [NAME ...]

What a layer reads is the gradient of one of its outputs, drawn as a map: red where it adds, blue
where it subtracts. Each picture is smaller than 150 kB.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import rfjax
from rfjax import visualize
from rfjax.data import digit_clips, digit_flow

SIZE = 29  # pixels of a map on which is drawn what one output reads
MIDDLE = (SIZE // 2, SIZE // 2)


def read_by(function: Callable, place: tuple[int, int] = MIDDLE) -> np.ndarray:
    """How much every pixel of a map changes one output of a function of maps [1, H, W, 1]."""
    one = lambda x: function(x)[0, place[0], place[1], 0]
    return np.asarray(jax.jit(jax.grad(one))(jnp.zeros((1, SIZE, SIZE, 1)))[0, ..., 0])


def composition() -> Figure:
    """One free-form filter composed with four Gaussians."""
    kernel = jnp.asarray([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]).reshape(3, 3, 1, 1)
    ellipses = {
        "near identity": (0.3, 0.3, 0.0), "spherical": (2.0, 2.0, 0.0),
        "diagonal": (4.0, 1.2, 0.0), "full": (4.0, 1.2, 0.6),
    }  # fmt: skip

    def read(convolution, ellipse):
        params = rfjax.from_ellipse(*ellipse)
        return read_by(lambda x: convolution(x, kernel, params))

    rows = {"blur": rfjax.blur_conv, "blur and resample": rfjax.blur_resample_conv}
    panels = [[read(layer, ellipse) for ellipse in ellipses.values()] for layer in rows.values()]
    return visualize.filter_panels(panels, rows=tuple(rows), titles=tuple(ellipses))


def strides() -> Figure:
    """What is left of labels that were scored at three strides and enlarged again."""
    scenes = digit_clips.load("val", None, size=96, min_scale=36.0, max_scale=64.0)
    scene = scenes.source[5]
    label = np.asarray(scene["label"])
    colors = lambda classes: visualize.colorize(classes, scenes.palette)
    panels = [np.asarray(scene["image"]), colors(label)]
    for stride in (32, 16, 8):
        scores = jax.nn.one_hot(jnp.asarray(label), scenes.num_classes)
        cells = scores.reshape(96 // stride, stride, 96 // stride, stride, -1).mean((1, 3))
        enlarged = rfjax.transposed_bilinear(cells[None], stride)[0]
        panels.append(colors(np.asarray(enlarged.argmax(-1))))
    titles = ("picture", "labels", "scored at stride 32", "at stride 16", "at stride 8")
    return visualize.image_rows([panels], titles=titles)


def pad() -> Figure:
    """One kernel whose outputs choose their dilations."""
    kernel = jnp.ones((3, 3, 1, 1))
    choices = {
        "all weight on 1": (1.0, 0.0, 0.0), "on 2": (0.0, 1.0, 0.0), "on 4": (0.0, 0.0, 1.0),
        "0.2, 0.3 and 0.5": (0.2, 0.3, 0.5),
    }  # fmt: skip

    def read(choice):
        weights = jnp.broadcast_to(jnp.asarray(choice), (1, SIZE, SIZE, 3))
        return read_by(lambda x: rfjax.adaptive_dilated_conv(x, kernel, weights))

    panels = [[read(choice) for choice in choices.values()]]
    return visualize.filter_panels(panels, rows=("",), titles=tuple(choices))


def inflation() -> Figure:
    """A 3x3 kernel of dilation 4 in front of which the map is enlarged by several factors."""
    kernel, axes = jnp.ones((3, 3, 1, 1)), ("NHWC", "HWIO", "NHWC")
    dilated = {"padding": "SAME", "rhs_dilation": (4, 4), "dimension_numbers": axes}

    def layer(x, factor):
        canvas, size = rfjax.inflate(x, factor, max_factor=2.0)
        y = jax.lax.conv_general_dilated(canvas, kernel, (1, 1), **dilated)
        return rfjax.interpolate(y, factor, size, (SIZE, SIZE))

    factors = (0.5, 1.0, 1.5, 2.0)
    panels = [[read_by(lambda x, f=factor: layer(x, f)) for factor in factors]]
    titles = tuple(f"f = {factor:g}" for factor in factors)
    return visualize.filter_panels(panels, rows=("",), titles=titles)


def lsdfn() -> Figure:
    """A window of 3x3 taps, at one place and at several."""
    window = jax.random.uniform(jax.random.key(0), (3, 3)) + 0.2
    within = jnp.broadcast_to(window, (1, SIZE, SIZE, 1, 3, 3))
    across = jnp.ones((1, SIZE, SIZE, 1, 1))

    def read(samples, stride):
        how = {"samples": samples, "sample_stride": stride}
        return read_by(lambda x: rfjax.dynamic_filter(x, within, across, **how))

    cases = ((1, 1), (3, 2), (3, 4), (5, 4))
    titles = tuple(f"s = {s}, γ = {stride}" for s, stride in cases)
    panels = [[read(*case) for case in cases]]
    return visualize.filter_panels(panels, rows=("",), titles=titles)


def flow() -> Figure:
    """A pair of pictures and where its pixels go."""
    pair = digit_flow.load("val", None, val_pairs=4).source[2]
    shown = visualize.flow_colors(pair["flow"])
    titles = ("first picture", "second picture", "flow", "colors of directions")
    images = (pair["first"], pair["second"], shown, visualize.flow_wheel(len(shown)))
    return visualize.image_rows([images], titles=titles)


PICTURES = {
    "composition": composition,
    "strides": strides,
    "pad": pad,
    "inflation": inflation,
    "lsdfn": lsdfn,
    "flow": flow,
}


def main(folder: Path, *names: str) -> None:
    """Draws the pictures that are named, or all, into a folder."""
    for name in names or PICTURES:
        visualize.save(PICTURES[name](), folder / f"{name}.png")
        print(folder / f"{name}.png", (folder / f"{name}.png").stat().st_size, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
