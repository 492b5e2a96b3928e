"""Receptive fields."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from rfjax.visualize._style import INK, LINES, ellipse


def receptive_field(
    image: ArrayLike,
    effective_map: ArrayLike,
    *,
    box: Sequence[Sequence[float]],
    effective_covariance: ArrayLike,
    center: tuple[float, float],
    learned: Mapping[str, ArrayLike] | None = None,
) -> Figure:
    """What one output sees: theoretical box, effective map with its ellipses, learned Gaussians.

    Args:
        image: uint8 [H, W, 3], drawn in grey below the map.
        effective_map: [H, W], how much each pixel counts.
        box: ((first, last), (first, last)) pixels along y and x; what lies outside is not drawn.
        effective_covariance: [2, 2] in (y, x) order, drawn at one and two standard deviations.
        center: (y, x) of the output's field.
        learned: covariances [2, 2] in image pixels by layer, drawn at one standard deviation.
    """
    weights = np.asarray(effective_map, np.float64)
    height, width = weights.shape
    figure = Figure(figsize=(5.4 * max(width / height, 0.6) + 0.4, 6.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.asarray(image, np.float64).mean(-1), cmap="gray", vmin=-150, vmax=300)
    strength = np.sqrt(weights / max(weights.max(), 1e-300))  # the tails would not be seen
    axes.imshow(strength, cmap="Blues", vmin=0, vmax=1.1, alpha=0.9 * strength)
    (top, bottom), (left, right) = box
    axes.add_patch(
        Rectangle(
            (left - 0.5, top - 0.5),
            right - left + 1,
            bottom - top + 1,
            fill=False,
            edgecolor=INK,
            linewidth=1.5,
            label=f"theoretical: {bottom - top + 1:g} × {right - left + 1:g}",
        )
    )
    matrix = np.asarray(effective_covariance, np.float64)
    for level, style in ((1.0, "-"), (2.0, "--")):
        ellipse(axes, matrix, level, style, opacity=1.0, center=center)
    sigma = np.sqrt(np.diag(matrix))
    axes.plot([], color=LINES[1], label=f"effective: σ {sigma[0]:.1f}, {sigma[1]:.1f} (and 2 σ)")
    for index, (layer, params) in enumerate((learned or {}).items()):
        color = LINES[2 + index % (len(LINES) - 2)]
        spread = np.asarray(params, np.float64)
        ellipse(axes, spread, 1.0, "-", opacity=1.0, center=center, color=color)
        sigma = np.sqrt(np.diag(spread))
        axes.plot([], color=color, label=f"{layer}: σ {sigma[0]:.1f}, {sigma[1]:.1f}")
    axes.plot(center[1], center[0], marker="+", color=INK, markersize=8)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_axis_off()
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return figure
