"""Every figure, each a function that returns a Matplotlib `Figure`.

Figures are made without pyplot, so nothing is shown, kept or configured globally: they work without
a display and in any thread. `save` writes one to a file and `to_rgb` turns one into an array. Label
maps are integers [H, W]; values without a color, as 255 for void, are drawn in light grey.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Patch, Rectangle
from numpy.typing import ArrayLike
from PIL import Image

from rfjax import covariance
from rfjax._drawing import Failures as Failures
from rfjax._drawing import save as save
from rfjax._drawing import to_rgb as to_rgb
from rfjax._drawing import write_png as write_png

VOID_COLOR = (225, 225, 225)
INK, MUTED, RULE = "#222222", "#6b6b6b", "#e3e3e3"
LINES = ("#2166ac", "#c8502d", "#3a8f5c", "#8c5aa8", "#b8860b", "#3c9fb0", "#d46a9f", "#5f6b76")
LARGEST_REACH = 1e6  # of what is drawn of a Gaussian, in pixels of its map


# -- label maps ------------------------------------------------------------------------------------


def colorize(labels: ArrayLike, palette: ArrayLike) -> np.ndarray:
    """The colors of a label map.

    Args:
        labels: [...] integers.
        palette: [K, 3] uint8 colors of the classes.

    Returns:
        uint8 [..., 3]; light grey where a label is not in 0..K-1.

    Example:
        >>> colorize([[0, 255]], [[10, 20, 30]]).tolist()
        [[[10, 20, 30], [225, 225, 225]]]
    """
    labels, palette = np.asarray(labels), np.asarray(palette, np.uint8)
    colors = np.concatenate([palette, np.array([VOID_COLOR], np.uint8)])
    known = (labels >= 0) & (labels < len(palette))
    return colors[np.where(known, labels, len(palette))]


def overlay(
    image: ArrayLike, labels: ArrayLike, palette: ArrayLike, *, opacity: float = 0.55
) -> np.ndarray:
    """A picture with the colors of its label map laid over it.

    Args:
        image: [H, W, 3] uint8.
        labels: [H, W] integers.
        palette: [K, 3] uint8.
        opacity: of the colors, 0..1.

    Returns:
        uint8 [H, W, 3].
    """
    colors = colorize(labels, palette).astype(np.float32)
    mixed = (1.0 - opacity) * np.asarray(image, np.float32) + opacity * colors
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def palette_image(classes: ArrayLike, palette: ArrayLike) -> Image.Image:
    """A picture whose values are the classes and whose palette is theirs.

    Args:
        classes: [H, W] integers below 256.
        palette: [K, 3] uint8.
    """
    classes = np.ascontiguousarray(classes, np.uint8)
    image = Image.frombytes("P", classes.shape[::-1], classes.tobytes())
    image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    return image


def legend(class_names: Sequence[str], palette: ArrayLike) -> Figure:
    """The colors of the classes with their names, and that of void."""
    patches = _patches(class_names, palette)
    columns = min(4, len(patches))
    rows = math.ceil(len(patches) / columns)
    figure = Figure(figsize=(1.75 * columns + 0.2, 0.28 * rows + 0.2))
    figure.legend(handles=patches, loc="center", ncols=columns, frameon=False, fontsize=10)
    return figure


def _patches(class_names: Sequence[str], palette: ArrayLike) -> list[Patch]:
    colors = [*np.asarray(palette)[: len(class_names)], np.array(VOID_COLOR)]
    names = [*class_names, "void"]
    return [
        Patch(facecolor=tuple(c / 255.0), edgecolor="#999999", linewidth=0.5, label=name)
        for c, name in zip(colors, names, strict=True)
    ]


# -- curves ----------------------------------------------------------------------------------------


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


# -- covariances -----------------------------------------------------------------------------------


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
            _ellipse(axes, matrix, level, style, opacity=1.0 if len(matrices) == 1 else 0.4)
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


def _ellipse(
    axes: Axes,
    matrix: np.ndarray,
    level: float,
    style: str,
    *,
    opacity: float,
    center: Sequence[float] = (0.0, 0.0),
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
            center[::-1],
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


# -- receptive fields ------------------------------------------------------------------------------


def receptive_field(
    image: ArrayLike,
    effective_map: ArrayLike,
    *,
    box: Sequence[Sequence[float]],
    effective_covariance: ArrayLike,
    center: Sequence[float],
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
        _ellipse(axes, matrix, level, style, opacity=1.0, center=center)
    sigma = np.sqrt(np.diag(matrix))
    axes.plot([], color=LINES[1], label=f"effective: σ {sigma[0]:.1f}, {sigma[1]:.1f} (and 2 σ)")
    for index, (layer, params) in enumerate((learned or {}).items()):
        color = LINES[2 + index % (len(LINES) - 2)]
        spread = np.asarray(params, np.float64)
        _ellipse(axes, spread, 1.0, "-", opacity=1.0, center=center, color=color)
        sigma = np.sqrt(np.diag(spread))
        axes.plot([], color=color, label=f"{layer}: σ {sigma[0]:.1f}, {sigma[1]:.1f}")
    axes.plot(center[1], center[0], marker="+", color=INK, markersize=8)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_axis_off()
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=INK)
    return figure


# -- panels of images ------------------------------------------------------------------------------


def segmentation_panels(
    images: Sequence[ArrayLike],
    truths: Sequence[ArrayLike],
    outputs: Sequence[ArrayLike],
    *,
    palette: ArrayLike,
    class_names: Sequence[str],
) -> Figure:
    """Input, truth and output of each image in a row, with the legend below.

    Args:
        images: uint8 [H, W, 3] each.
        truths, outputs: integers [H, W] each; output is greyed where truth is void.
        palette: [K, 3] uint8.
        class_names: K names.
    """
    rows = [
        (image, colorize(truth, palette), colorize(_greyed(output, truth), palette))
        for image, truth, output in zip(images, truths, outputs, strict=True)
    ]
    figure, _ = _image_grid(rows, titles=("input", "truth", "output"))
    used = _used_classes([*truths, *outputs], len(class_names))
    patches = _patches([class_names[k] for k in used], np.asarray(palette)[used])
    columns = min(len(patches), 6)
    figure.legend(
        handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    return figure


def _greyed(output: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """`output`, void where `truth` is."""
    return np.where(np.asarray(truth) == 255, 255, np.asarray(output))


def _used_classes(maps: Sequence[ArrayLike], num_classes: int) -> list[int]:
    """The classes that are seen somewhere in `maps`."""
    seen = np.unique(np.concatenate([np.unique(np.asarray(labels)) for labels in maps]))
    return [int(label) for label in seen if 0 <= label < num_classes]


def captioned_images(images: Sequence[ArrayLike], captions: Sequence[str]) -> Figure:
    """Images side by side, a line over each.

    Args:
        images: uint8 [H, W, 3].
        captions: as many.
    """
    figure = Figure(figsize=(2.2 * len(images), 2.6), layout="constrained")
    for axes, image, caption in zip(
        figure.subplots(1, len(images), squeeze=False)[0], images, captions, strict=True
    ):
        axes.imshow(np.asarray(image), interpolation="nearest")
        axes.set_title(caption, fontsize=9)
        axes.set_axis_off()
    return figure


def scale_panels(images: Sequence[ArrayLike], scale_maps: Sequence[ArrayLike]) -> Figure:
    """Each image beside the map of scales that a dynamic layer chose for it.

    Args:
        images: uint8 [H, W, 3] each.
        scale_maps: float [H', W'] each, in pixels of the layer's map; colors are shared by all.
    """
    maps = [np.asarray(scale_map, np.float32) for scale_map in scale_maps]
    stacked = np.concatenate([scale_map.ravel() for scale_map in maps])
    finite = stacked[np.isfinite(stacked)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if high - low < 1e-3 * max(abs(high), 1e-6):  # a constant map
        low, high = low - 0.5, high + 0.5
    rows = [(image, None) for image in images]
    figure, panels = _image_grid(rows, titles=("input", "scale"), margin=1.4)
    for axes, scale_map, image in zip(panels[:, 1], maps, images, strict=True):
        height, width = np.shape(image)[:2]
        drawn = axes.imshow(
            scale_map,
            cmap="viridis",
            vmin=low,
            vmax=high,
            interpolation="nearest",
            extent=(0, width, height, 0),
        )
    bar = figure.colorbar(drawn, ax=list(panels[:, 1]), shrink=0.8, aspect=30)
    bar.set_label("pixels of the map", color=MUTED)
    bar.outline.set_visible(False)
    return figure


def _image_grid(
    rows: Sequence[Sequence[Any]], *, titles: Sequence[str], margin: float = 0.4
) -> tuple[Figure, np.ndarray]:
    """A figure of images in rows, `margin` inches wider; None leaves a panel empty."""
    height, width = np.shape(rows[0][0])[:2]
    panel_width = 2.2 if height >= width else 3.2
    panel_height = min(panel_width * height / width, 10.0)  # of a picture that is a mere strip
    figure = Figure(
        figsize=(panel_width * len(titles) + margin, panel_height * len(rows) + 0.8),
        layout="constrained",
    )
    panels = figure.subplots(len(rows), len(titles), squeeze=False)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            axes = panels[row, column]
            axes.set_axis_off()
            if image is not None:
                axes.imshow(np.asarray(image), interpolation="nearest")
            if row == 0:
                axes.set_title(titles[column], fontsize=10, color=INK)
    return figure, panels
