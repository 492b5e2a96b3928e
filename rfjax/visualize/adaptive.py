"""Figures of receptive fields that adapt, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import ArrayLike

from rfjax.visualize._style import INK, LINES, MUTED, finish
from rfjax.visualize.images import picture

_LINE = 0.05  # a line of names, of the height of the scores
_MANY = 4.0  # the ratio of costs beyond which their axis is logarithmic


def comparison(
    marks: Mapping[str, tuple[float, float, float, float]],
    images: Sequence[ArrayLike],
    units: Sequence[tuple[int, int]],
    fields: Mapping[str, Sequence[ArrayLike]],
    *,
    cost: str,
    score: str,
) -> Figure:
    """Networks by score and cost, and below what an output of each depends on.

    Above a mark for each network, with its name and the range of its seeds. Below a row for each
    image, a column for each network: light where the marked output depends much on the image.

    Args:
        marks: by name, (cost, mean score, lowest, highest).
        images: uint8 [H, W, C] each.
        units: (y, x) of the output in each.
        fields: by name, [H, W] of each image.
        cost, score: what the axes are.
    """
    count = len(fields) + 1
    width, below = 1.2 * count, 1.25 * len(images) + 0.4
    figure = Figure(figsize=(width, 0.42 * width + below), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(0.42 * width, below))
    above, strip = parts
    colors = dict(zip(marks, LINES * len(marks), strict=False))
    _scores(above.subplots(), marks, colors, cost, score)
    grid = strip.subplots(len(images), count, squeeze=False)
    for row, image in enumerate(images):
        grid[row, 0].imshow(picture(image), interpolation="nearest")
        for axes, maps in zip(grid[row, 1:], fields.values(), strict=True):
            axes.imshow(_lit(image, maps[row]), interpolation="nearest")
        for axes in grid[row]:
            y, x = units[row]
            axes.plot(x, y, "+", color="white", markersize=7, markeredgewidth=1.4)
            axes.set_axis_off()
    for axes, title in zip(grid[0], ("", *fields), strict=True):
        axes.set_title(title.replace(" ", "\n", 1), fontsize=9, color=colors.get(title, INK))
    return figure


def _scores(
    axes: Axes, marks: Mapping[str, tuple], colors: Mapping[str, str], cost: str, score: str
) -> None:
    """A mark for each network, and its name."""
    span = max(mark[3] for mark in marks.values()) - min(mark[2] for mark in marks.values())
    below = -np.inf
    for name, (x, mean, low, high) in sorted(marks.items(), key=lambda item: item[1][1]):
        axes.plot([x, x], [low, high], color=colors[name], linewidth=2, alpha=0.4)
        axes.plot(x, mean, "o", color=colors[name], markersize=10)
        # No name lies on that of the network below.
        below = max(mean, below + _LINE * span)
        place = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(name, (x, below), color=colors[name], fontsize=11, **place)
    costs = [mark[0] for mark in marks.values()]
    if max(costs) > _MANY * min(costs):  # one that costs many times as much hides no difference
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.14, y=0.08)
    axes.set_ylabel(score, color=MUTED)
    finish(axes, title="", xlabel=cost, legend=False)


def _lit(image: ArrayLike, field: ArrayLike) -> np.ndarray:
    """An image in grey, dark where a field is nothing, red where it is strong; float [H, W, 3]."""
    grey = picture(image).mean(-1) / 255.0
    field = np.asarray(field, float)
    # The square root shows the tails as well.
    strength = np.sqrt(field / max(np.quantile(field, 0.999), 1e-12)).clip(0.0, 1.0)[..., None]
    warm = np.array([1.0, 0.55, 0.1])
    return (0.3 + 0.7 * grey[..., None]) * ((1 - strength) * 0.35 + strength * warm)


def maps_beside_images(
    images: Sequence[ArrayLike], maps: Mapping[str, Sequence[ArrayLike]]
) -> Figure:
    """Images, and beside each the maps of several networks; each network has its own colors.

    Args:
        images: uint8 [H, W, C] each.
        maps: by network, [H, W] of each image.
    """
    count = len(maps) + 1
    figure = Figure(figsize=(1.9 * count + 0.6, 1.8 * len(images) + 0.5), layout="constrained")
    grid = figure.subplots(len(images), count, squeeze=False)
    for axes, image in zip(grid[:, 0], images, strict=True):
        axes.imshow(picture(image), interpolation="nearest")
    for column, (name, shown) in zip(grid.T[1:], maps.items(), strict=True):
        low, high = (float(bound(np.stack(shown))) for bound in (np.min, np.max))
        for axes, one in zip(column, shown, strict=True):
            drawn = axes.imshow(one, interpolation="nearest", cmap="viridis", vmin=low, vmax=high)
        column[0].set_title(name, fontsize=9, color=INK)
        bar = figure.colorbar(drawn, ax=list(column), location="bottom", shrink=0.9, aspect=25)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7, colors=MUTED)
    for axes in grid.ravel():
        axes.set_axis_off()
    return figure


def number_curves(
    curves: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]], *, number: str
) -> Figure:
    """A number over the steps of training: a color for each name, a line for each of its seeds.

    Args:
        curves: by name, (steps, values) of each seed.
        number: what it is.
    """
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.subplots()
    for color, (name, seeds) in zip(LINES * len(curves), curves.items(), strict=False):
        for seed, (steps, values) in enumerate(seeds):
            label = None if seed else name
            axes.plot(steps, values, color=color, label=label, linewidth=1.5, alpha=0.85)
    axes.set_ylabel(number, color=MUTED)
    finish(axes, title="", xlabel="step", legend=False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9, labelcolor=INK)
    return figure
