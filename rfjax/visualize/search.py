"""Pictures of a search: sigma over the steps, and scores against sigma."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from rfjax.visualize._style import LINES, MUTED, RULE, finish

SIGMA = "σ (pixels of the layer's map)"
# An enumeration by value: "values", "mean", "low" and "high" scores, "optimum" and "flat_top".
Table = Mapping[str, Any]


class Paths(NamedTuple):
    """How the candidates of a search moved.

    Attributes:
        sigmas: [K, T + 1, L] standard deviation of each layer before the first step and after each.
        seeds: [K], which color the lines.
        ended: [K] bool, whether a candidate diverged or was dropped.
    """

    sigmas: np.ndarray
    seeds: np.ndarray
    ended: np.ndarray


def trajectories(searched: Mapping[int, Paths], tables: Mapping[int, Table]) -> Figure:
    """The sigma of every candidate over the steps, a panel for each enlargement.

    One line for each candidate and layer, colored by seed; the enumerated optimum of the first
    layer is a dashed line, its flat top a band.

    Args:
        searched: by enlargement.
        tables: by those enlargements that were enumerated as well.
    """
    figure, panels = _panels(len(searched))
    for axes, (factor, paths) in zip(panels, searched.items(), strict=True):
        if factor in tables:
            _optimum(axes, tables[factor])
        _lines(axes, paths)
        finish(axes, title=f"enlarged ×{factor}", xlabel="step")
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    panels[0].set_ylabel(SIGMA, color=MUTED)
    return figure


def scores_against_sigma(
    ends: Mapping[int, tuple[np.ndarray, np.ndarray]], tables: Mapping[int, Table]
) -> Figure:
    """Final scores against sigma, enumerated and searched, a panel for each enlargement.

    Args:
        ends: by enlargement, sigma [S] and score [S] in 0 ... 1 where the best candidate of each
            seed ended.
        tables: by those enlargements that were enumerated as well.
    """
    figure, panels = _panels(len(ends))
    for axes, (factor, (sigmas, scores)) in zip(panels, ends.items(), strict=True):
        if factor in tables:
            _enumerated(axes, tables[factor])
        _searched(axes, sigmas, scores)
        axes.set_xscale("log")
        finish(axes, title=f"enlarged ×{factor}", xlabel=SIGMA)
        _plain_ticks(axes.xaxis)
    panels[0].set_ylabel("mean IU (%)", color=MUTED)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.1 * count + 0.3, 3.9), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False, sharey=True)[0])


def _lines(axes: Axes, paths: Paths) -> None:
    """Trajectories, thin where a candidate diverged or was dropped."""
    seeds = np.unique(paths.seeds).tolist()
    known = set()
    for candidate, seed, ended in zip(*paths, strict=True):
        color = LINES[seeds.index(seed) % len(LINES)]
        for place, sigmas in enumerate(candidate.T):
            axes.plot(
                sigmas,
                color=color,
                linewidth=0.8 if ended else 1.6,
                linestyle="-" if place == 0 else ":",
                alpha=0.5 if ended else 1.0,
                label=None if seed in known else f"searched, seed {seed}",
            )
            known.add(seed)


def _optimum(axes: Axes, table: Table) -> None:
    """The enumerated optimum and its flat top, across the panel."""
    if table["optimum"] is None:
        return
    axes.axhspan(*_flat_top(table), color=RULE, alpha=0.6, linewidth=0)
    axes.axhline(
        table["optimum"],
        color=MUTED,
        linestyle="--",
        linewidth=1.2,
        label="enumerated optimum, flat top",
    )


def _flat_top(table: Table) -> tuple[float, float]:
    """Its ends on a logarithmic axis, which cannot show an end at 0."""
    low, high = table["flat_top"]
    return low or 0.5 * table["values"][0], high


def _enumerated(axes: Axes, table: Table) -> None:
    """Mean score by value with the range over seeds, and the optimum."""
    values = np.asarray(table["values"])
    mean, low, high = (100 * np.asarray(table[name], float) for name in ("mean", "low", "high"))
    if table["optimum"] is None:
        return
    axes.axvspan(*_flat_top(table), color=RULE, alpha=0.6, linewidth=0)
    axes.fill_between(values, low, high, color=LINES[0], alpha=0.18, linewidth=0)
    axes.plot(
        values, mean, color=LINES[0], marker="o", markersize=4, linewidth=1.6, label="enumerated"
    )
    best = int(np.nanargmax(mean))
    axes.plot(
        values[best],
        mean[best],
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=LINES[0],
        markeredgewidth=1.5,
        linestyle="none",
        label="its optimum",
    )


def _searched(axes: Axes, sigmas: np.ndarray, scores: np.ndarray) -> None:
    """Where each seed's best candidate ended."""
    axes.plot(
        sigmas,
        100 * scores,
        color=LINES[1],
        marker="D",
        markersize=6,
        linestyle="none",
        label="searched",
    )


def _plain_ticks(axis) -> None:
    """Whole and half numbers on a logarithmic axis."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_ticks([0.25, 0.5, 1, 2, 4, 8])
