"""Gaussians over the pixels of the maps that they blur."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfjax import covariance
from rfjax.visualize._style import INK, LARGEST_REACH, MUTED, ellipse


def covariance_ellipses(covariances: Mapping[str, ArrayLike], *, columns: int = 4) -> Figure:
    """The Gaussian of each layer over the pixels of its map, with ellipses at one and two sigma.

    Args:
        covariances: log-Cholesky parameters [..., F] by layer; of a layer with several, all
            ellipses are drawn, and the density is that of the first.
        columns: panels in a row.

    Returns:
        A figure with a panel for each layer, all to the same scale; y points down.
    """
    count = max(len(covariances), 1)
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(3.1 * columns, 3.25 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    reach = _reach(*covariances.values())
    for (layer, params), axes in zip(covariances.items(), panels, strict=False):
        _gaussian_panel(axes, np.asarray(params), reach)
        sigma = np.asarray(covariance.standard_deviations(params)).reshape(-1, 2)
        text = (
            f"σ {sigma[0, 0]:.2f}, {sigma[0, 1]:.2f}"
            if len(sigma) == 1
            else f"{len(sigma)} Gaussians"
        )
        axes.set_title(f"{layer}\n{text}", fontsize=9, color=INK)
    for axes in panels:  # those that are left in the last row
        axes.set_visible(False)
    return figure


def blur_panels(
    rows: Mapping[str, tuple[Sequence[ArrayLike], Sequence[ArrayLike]]], *, titles: Sequence[str]
) -> Figure:
    """Blurred images above the Gaussians that blurred them, as an optimisation finds them.

    Args:
        rows: by name, images [H, W, 3] in 0 ... 1 and as many covariances [F]; the ellipses of a
            row share the scale of its last one.
        titles: of the columns, such as the iterations.

    Returns:
        A figure with two rows of panels for each name.
    """
    figure = Figure(figsize=(1.6 * len(titles), 3.3 * len(rows)), layout="constrained")
    panels = figure.subplots(2 * len(rows), len(titles), squeeze=False)
    for pair, (name, (images, covariances)) in enumerate(rows.items()):
        reach = _reach(covariances[-1])
        for column, (image, params) in enumerate(zip(images, covariances, strict=True)):
            above, below = panels[2 * pair : 2 * pair + 2, column]
            above.imshow(np.clip(np.asarray(image), 0, 1))
            _gaussian_panel(below, np.asarray(params), reach)
            for axes in (above, below):
                axes.set_xticks([])
                axes.set_yticks([])
        panels[2 * pair, 0].set_ylabel(name, color=INK)
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    return figure


def _reach(*covariances: ArrayLike) -> float:
    """Half the width of a panel: two of the largest sigma, of those that are finite."""
    sigmas = [np.ravel(covariance.standard_deviations(params)) for params in covariances]
    flat = np.concatenate([np.zeros(1), *sigmas])
    largest = np.max(flat[np.isfinite(flat)])
    return math.ceil(min(2.0 * largest, LARGEST_REACH)) + 0.5 if largest else 2.5


def _gaussian_panel(axes: Axes, params: np.ndarray, reach: float) -> None:
    """Density, grid of pixels, and ellipses of one layer, of those that are finite."""
    matrices = np.asarray(covariance.covariance_matrix(params), np.float64).reshape(-1, 2, 2)
    finite = matrices[np.isfinite(matrices).all((1, 2))]
    if len(finite):
        axes.imshow(
            _density(finite[0], reach),
            extent=(-reach, reach, reach, -reach),
            cmap="Blues",
            vmin=0,
            vmax=1.25,
        )
    if len(finite) < len(matrices):
        text = f"{len(matrices) - len(finite)} not finite"
        axes.text(0.5, 0.05, text, transform=axes.transAxes, ha="center", color=MUTED)
    _pixel_grid(axes, reach)
    for matrix in finite:
        for level, style in ((1.0, "-"), (2.0, "--")):
            ellipse(axes, matrix, level, style, opacity=1.0 if len(matrices) == 1 else 0.4)
    axes.plot(0, 0, marker="+", color=INK, markersize=7)


def _density(matrix: np.ndarray, reach: float) -> np.ndarray:
    """The Gaussian of a covariance on a fine grid, 1 in its middle."""
    fine = np.linspace(-reach, reach, 241)
    points = np.stack(np.meshgrid(fine, fine, indexing="ij"), -1)
    variances, vectors = np.linalg.eigh(matrix)
    along = points @ vectors  # in units of the pixel, of at least a thousandth of it
    return np.exp(-0.5 * np.sum(along**2 / np.maximum(variances, 1e-6), -1))


def _pixel_grid(axes: Axes, reach: float) -> None:
    """Lines between the pixels, as long as they can be told apart."""
    if reach < 30:
        edges = np.arange(-reach, reach + 1)
        axes.hlines(edges, -reach, reach, color="#00000018", linewidth=0.6)
        axes.vlines(edges, -reach, reach, color="#00000018", linewidth=0.6)
    axes.set_xlim(-reach, reach)
    axes.set_ylim(reach, -reach)
    axes.tick_params(colors=MUTED, length=0, labelsize=8)
    for spine in axes.spines.values():
        spine.set_color("#bbbbbb")
