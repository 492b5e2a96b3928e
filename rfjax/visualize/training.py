"""Curves of a training run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfjax.visualize._style import LINES, finish


def training_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Loss and mean IU over the steps of a run, on training batches and in evaluations.

    Args:
        records: the lines of metrics.jsonl as dictionaries with "step" and "split".
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _split_lines(left, records, "loss", scale=1.0)
    _split_lines(right, records, "mean_iu", scale=100.0)
    finish(left, title="loss", xlabel="step")
    finish(right, title="mean IU (%)", xlabel="step")
    left.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    return figure


def _split_lines(
    axes: Axes, records: Sequence[Mapping[str, Any]], key: str, *, scale: float
) -> None:
    """One line for each split that has `key`; evaluations, which are few, with their points."""
    splits = list(dict.fromkeys(record["split"] for record in records))
    for index, split in enumerate(splits):
        chosen = [r for r in records if r["split"] == split and r.get(key) is not None]
        if not chosen:
            continue
        steps, values = [r["step"] for r in chosen], [scale * r[key] for r in chosen]
        marker = None if split == "train" and len(chosen) > 1 else "o"
        axes.plot(
            steps,
            values,
            color=LINES[index % len(LINES)],
            marker=marker,
            markersize=4,
            linewidth=1.6,
            label=f"{split}: {values[-1]:.3g}",
        )


def sigma_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """The learned standard deviations over the steps of a run, by layer.

    Layers whose two standard deviations differ get a solid line for y and a dashed one for x.

    Args:
        records: the lines of metrics.jsonl, of which those with "sigmas" are drawn.
    """
    chosen = [record for record in records if record.get("sigmas")]
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    steps = [record["step"] for record in chosen]
    marker = "o" if len(steps) == 1 else None
    for index, layer in enumerate(chosen[-1]["sigmas"] if chosen else ()):
        pairs = [record["sigmas"].get(layer, (np.nan, np.nan)) for record in chosen]
        values = np.array(pairs, np.float64)  # null, for what is not finite, becomes nan
        color = LINES[index % len(LINES)]
        same = np.allclose(values[:, 0], values[:, 1], rtol=1e-3)
        axes.plot(steps, values[:, 0], color=color, linewidth=1.6, marker=marker, label=layer)
        if not same:
            axes.plot(
                steps, values[:, 1], color=color, linewidth=1.6, linestyle="--", marker=marker
            )
    finish(axes, title="learned standard deviations (pixels of the layer's map)", xlabel="step")
    axes.set_ylim(bottom=0)
    return figure
