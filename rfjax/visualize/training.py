"""Curves of a training run, and its confusions of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from rfjax.visualize._style import INK, LINES, finish

_LEGIBLE_CLASSES = 20  # up to which numbers are written into a confusion matrix


def training_curves(
    records: Sequence[Mapping[str, Any]],
    *,
    score: str = "mean_iu",
    title: str = "mean IU",
    percent: bool = True,
) -> Figure:
    """Loss and score over the steps of a run, on training batches and in evaluations.

    Args:
        records: the lines of metrics.jsonl as dictionaries with "step" and "split".
        score, title: the entry of a record, and what it is called.
        percent: whether it is a share, to be shown in percent.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    _split_lines(left, records, "loss", scale=1.0)
    _split_lines(right, records, score, scale=100.0 if percent else 1.0)
    finish(left, title="loss", xlabel="step")
    finish(right, title=f"{title} (%)" if percent else title, xlabel="step")
    left.set_ylim(bottom=0)
    if percent:
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


def confusion(counts: ArrayLike, class_names: Sequence[str]) -> Figure:
    """Of each true class (row), the shares that were given to every class (column), in percent.

    Args:
        counts: [K, K], row true, column predicted.
        class_names: K names.
    """
    counts = np.asarray(counts, np.float64)
    total = counts.sum(1, keepdims=True)
    shares = 100.0 * np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    side = 1.6 + 0.42 * len(counts)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="% of the true class")
    places = np.arange(len(counts))
    axes.set_xticks(places, class_names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, class_names)
    axes.tick_params(labelsize=9, length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(counts) <= _LEGIBLE_CLASSES:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                ink = "white" if share > 55 else INK
                axes.text(
                    column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=ink
                )
    return figure
