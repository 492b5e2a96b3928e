"""Pictures of a search: sigma over the steps, and scores against sigma."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from rfjax.search import report
from rfjax.search.result import Result
from rfjax.visualize import LINES, MUTED, RULE, finish

SIGMA = "σ (pixels of the layer's map)"
Found = Mapping[int, Mapping[str, Result]]


def trajectories(found: Found) -> Figure:
    """The sigma of every candidate over the steps, a panel for each enlargement.

    One line for each candidate and layer (geometric mean of y and x), colored by seed; the
    enumerated optimum of the first layer is a dashed line, its flat top a band.

    Args:
        found: by enlargement, "search" and perhaps "enumeration".
    """
    figure, panels = _panels(len(found))
    for axes, (factor, kinds) in zip(panels, found.items(), strict=True):
        if "enumeration" in kinds:
            _optimum(axes, kinds["enumeration"])
        _lines(axes, kinds["search"])
        finish(axes, title=f"enlarged ×{factor}", xlabel="step")
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    panels[0].set_ylabel(SIGMA, color=MUTED)
    return figure


def scores_against_sigma(found: Found) -> Figure:
    """Final scores against sigma, enumerated and searched, a panel for each enlargement.

    Args:
        found: by enlargement, "search" and "enumeration" of standard deviations.
    """
    figure, panels = _panels(len(found))
    for axes, (factor, kinds) in zip(panels, found.items(), strict=True):
        if "enumeration" in kinds:
            _enumerated(axes, kinds["enumeration"])
        _searched(axes, kinds["search"])
        axes.set_xscale("log")
        finish(axes, title=f"enlarged ×{factor}", xlabel=SIGMA)
        _plain_ticks(axes.xaxis)
    panels[0].set_ylabel("mean IU (%)", color=MUTED)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.1 * count + 0.3, 3.9), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False, sharey=True)[0])


def _lines(axes: Axes, result: Result) -> None:
    """Trajectories, thin where a candidate diverged or was dropped."""
    seeds = np.unique(result.population.seed).tolist()
    known = set()
    for k in range(len(result)):
        seed = int(result.population.seed[k])
        color = LINES[seeds.index(seed) % len(LINES)]
        ended = result.diverged_at[k] >= 0 or result.dropped_at[k] >= 0
        for place in range(len(result.layers)):
            sigma = np.sqrt(np.prod(result.sigmas[k, :, place], -1))
            axes.plot(
                sigma,
                color=color,
                linewidth=0.8 if ended else 1.6,
                linestyle="-" if place == 0 else ":",
                alpha=0.5 if ended else 1.0,
                label=None if seed in known else f"searched, seed {seed}",
            )
            known.add(seed)


def _optimum(axes: Axes, result: Result) -> None:
    """The enumerated optimum and its flat top, across the panel."""
    table = report.grid(result)
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


def _flat_top(table: Mapping[str, Any]) -> tuple[float, float]:
    """Its ends on a logarithmic axis, which cannot show an end at 0."""
    low, high = table["flat_top"]
    return low or 0.5 * table["values"][0], high


def _enumerated(axes: Axes, result: Result) -> None:
    """Mean score by value with the range over seeds, and the optimum."""
    table = report.grid(result)
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


def _searched(axes: Axes, result: Result) -> None:
    """Where each seed's best candidate ended."""
    rows = report.chosen(result)
    sigma = np.sqrt(np.prod(result.final_sigmas[rows, 0], -1))
    axes.plot(
        sigma,
        100 * result.final_scores[rows],
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
