"""Pictures of filled tables."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from rfjax import visualize


def seed_bars(values: Mapping[tuple[str, str], ArrayLike], *, title: str) -> Figure:
    """Scores by row and column of a table: bars at the means over seeds, points for the seeds.

    Args:
        values: [seeds] scores in % by (row, column); NaN is left out.
        title: of the figure.
    """
    rows = tuple(dict.fromkeys(row for row, _ in values))
    columns = tuple(dict.fromkeys(column for _, column in values))
    height = 0.8 / len(columns)
    figure = Figure(figsize=(8, 1.1 + 0.3 * len(values)), layout="constrained")
    axes = figure.subplots()
    for (row, column), scores in values.items():
        known = np.asarray(scores)[~np.isnan(scores)]
        place = rows.index(row) + height * (columns.index(column) - (len(columns) - 1) / 2)
        color = visualize.LINES[columns.index(column) % len(visualize.LINES)]
        if len(known):
            axes.barh(place, known.mean(), height=0.9 * height, color=color, alpha=0.35)
            axes.plot(known, np.full(len(known), place), "o", color=color, markersize=4)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    found = np.concatenate([np.ravel(scores) for scores in values.values()])
    found = found[~np.isnan(found)]
    if len(found):
        axes.set_xlim(left=max(0.0, found.min() - 0.25 * (np.ptp(found) + 1.0)))
    visualize.finish(axes, title=title, xlabel="mean IU, %", legend=False)
    if len(columns) > 1:
        patches = [
            Patch(facecolor=color, alpha=0.6, label=column)
            for column, color in zip(columns, visualize.LINES * len(columns), strict=False)
        ]
        axes.legend(handles=patches, frameon=False, fontsize=9)
    return figure
