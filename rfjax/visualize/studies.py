"""Figures of the studies."""

from collections.abc import Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rfjax import covariance
from rfjax.visualize._style import INK, LINES, MUTED, RULE, finish


def seed_bars(
    values: Mapping[tuple[str, str], ArrayLike], *, title: str, score: str = "mean IU, %"
) -> Figure:
    """Scores by row and column of a table: bars at the means over seeds, points for the seeds.

    Args:
        values: [seeds] scores in % by (row, column); NaN is left out.
        title: of the figure.
        score: what the axis is.
    """
    rows = tuple(dict.fromkeys(row for row, _ in values))
    columns = tuple(dict.fromkeys(column for _, column in values))
    height = 0.8 / len(columns)
    figure = Figure(figsize=(8, 1.1 + 0.3 * len(values)), layout="constrained")
    axes = figure.subplots()
    for (row, column), scores in values.items():
        known = np.asarray(scores)[~np.isnan(scores)]
        place = rows.index(row) + height * (columns.index(column) - (len(columns) - 1) / 2)
        color = LINES[columns.index(column) % len(LINES)]
        if len(known):
            axes.barh(place, known.mean(), height=0.9 * height, color=color, alpha=0.35)
            axes.plot(known, np.full(len(known), place), "o", color=color, markersize=4)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    found = np.concatenate([np.ravel(scores) for scores in values.values()])
    found = found[~np.isnan(found)]
    if len(found):
        axes.set_xlim(left=max(0.0, found.min() - 0.25 * (np.ptp(found) + 1.0)))
    finish(axes, title=title, xlabel=score, legend=False)
    if len(columns) > 1:
        patches = [
            Patch(facecolor=color, alpha=0.6, label=column)
            for column, color in zip(columns, LINES * len(columns), strict=False)
        ]
        axes.legend(handles=patches, frameon=False, fontsize=9)
    return figure


def clock_curves(
    curves: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    points: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    title: str,
) -> Figure:
    """Accuracy over how often the deepest stage runs: a curve for each clock, with its seeds.

    Args:
        curves: by clock, for each threshold the shares of frames and the scores, [seeds] in %.
        points: by schedule of fixed rates, the same.
        title: of the figure.
    """
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for color, (name, measured) in zip(LINES, curves.items(), strict=False):
        means = sorted((np.mean(share), np.mean(score)) for share, score in measured)
        axes.plot(*zip(*means, strict=True), "-", color=color, label=name, linewidth=1.6)
        for share, score in measured:
            axes.plot(share, score, "o", color=color, markersize=3, alpha=0.5)
    for marker, (name, (share, score)) in zip("sD^v", points.items(), strict=False):
        place = np.mean(share), np.mean(score)
        axes.plot(*place, marker, color=INK, label=name, markersize=7, linestyle="none")
    axes.set_ylabel("mean IU, %", color=MUTED)
    finish(axes, title=title, xlabel="frames on which the deepest stage runs, %")
    return figure


def sampling_points(cases: Mapping[str, tuple[ArrayLike, ArrayLike | None]]) -> Figure:
    """Points that a kernel samples, over the pixels: six panels.

    Args:
        cases: by title, positions [K, 2] (y, x), and the log-Cholesky parameters of the Gaussian
            that they come from, or None.
    """
    figure = Figure(figsize=(9.0, 6.2), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    for axes, (title, (positions, params)) in zip(panels, cases.items(), strict=True):
        _points(axes, np.asarray(positions), params, title)
    return figure


def _points(axes: Axes, positions: np.ndarray, params: ArrayLike | None, title: str) -> None:
    """Sampling points over the pixels, with the ellipse that they come from."""
    reach = 3.5
    edges = np.arange(-reach, reach + 1)
    axes.hlines(edges, -reach, reach, color=RULE, linewidth=0.8)
    axes.vlines(edges, -reach, reach, color=RULE, linewidth=0.8)
    if params is not None:
        turn = np.linspace(0, 2 * np.pi, 181)
        circle = np.stack([np.sin(turn), np.cos(turn)], -1)
        outline = circle @ np.asarray(covariance.cholesky_factor(params))
        axes.plot(outline[:, 1], outline[:, 0], color=LINES[1], linewidth=1.2)
    axes.plot(positions[:, 1], positions[:, 0], "o", color=LINES[0], markersize=6)
    axes.set_aspect("equal")
    axes.set_xlim(-reach, reach)
    axes.set_ylim(reach, -reach)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10, color=INK)


def seed_curves(
    values: Mapping[tuple[str, str], ArrayLike], *, title: str, along: str, score: str
) -> Figure:
    """Scores along the columns of a table, a curve a row: the mean of the seeds and their range.

    Args:
        values: by (row, column), [seeds].
        title: over it.
        along, score: what the axes are.
    """
    rows, columns = (tuple(dict.fromkeys(names)) for names in zip(*values, strict=True))
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for number, row in enumerate(rows):
        color = LINES[number % len(LINES)]
        here = [at for at, column in enumerate(columns) if (row, column) in values]
        seeds = [np.asarray(values[row, columns[at]]) for at in here]
        axes.fill_between(
            here, [s.min() for s in seeds], [s.max() for s in seeds], color=color, alpha=0.15
        )
        axes.plot(here, [s.mean() for s in seeds], "o-", color=color, markersize=4, label=row)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_ylabel(score, color=MUTED)
    finish(axes, title=title, xlabel=along, legend=False)
    figure.legend(loc="outside right center", frameon=False, fontsize=9, labelcolor=INK)
    return figure


def scale_scatter(
    true: ArrayLike, inferred: ArrayLike, *, layer: str, correlation: float
) -> Figure:
    """Inferred over true scales of objects.

    Args:
        true, inferred: [M] scales, in pixels of the image and of the layer's map.
        layer: that infers them.
        correlation: of ranks, for the title.
    """
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(true, inferred, ".", color=LINES[0], alpha=0.4)
    axes.set_ylabel(f"inferred by {layer}, pixels of its map", color=MUTED)
    title = f"rank correlation {correlation:.2f}, {len(np.asarray(true))} objects"
    finish(axes, title=title, xlabel="true scale, pixels")
    return figure
