"""What all figures have in common: colors, quiet axes, and ellipses of covariances."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

INK, MUTED, RULE = "#222222", "#6b6b6b", "#e3e3e3"
LINES = ("#2166ac", "#c8502d", "#3a8f5c", "#8c5aa8", "#b8860b", "#3c9fb0", "#d46a9f", "#5f6b76")
LARGEST_REACH = 1e6  # of what is drawn of a Gaussian, in pixels of its map


def finish(axes: Axes, *, title: str, xlabel: str = "", legend: bool = True) -> None:
    """Title, quiet axes, and a legend if there is something to tell apart."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(xlabel, color=MUTED)
    axes.grid(True, color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#bbbbbb")
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def ellipse(
    axes: Axes,
    matrix: np.ndarray,
    level: float,
    style: str,
    *,
    opacity: float,
    center: tuple[float, float] = (0.0, 0.0),
    color: str = LINES[1],
) -> None:
    """The contour at `level` standard deviations of a covariance in (y, x) order, at (y, x)."""
    variances, vectors = np.linalg.eigh(matrix)
    # Far outside of any panel it makes no difference; the renderer takes no larger numbers.
    height, width = 2.0 * level * np.sqrt(np.clip(variances, 0.0, LARGEST_REACH**2))
    y, x = vectors[:, 1]  # direction of the larger axis
    angle = math.degrees(math.atan2(y, x))
    axes.add_patch(
        Ellipse(
            (center[1], center[0]),
            width,
            height,
            angle=angle,
            fill=False,
            edgecolor=color,
            linestyle=style,
            linewidth=1.5,
            alpha=opacity,
        )
    )
