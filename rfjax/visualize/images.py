"""Images and their label maps: integers [H, W], of which void is drawn in light grey."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike
from PIL import Image

from rfjax.visualize._style import INK, MUTED

VOID_COLOR = (225, 225, 225)
_ROWS = 256  # of a picture that are mixed at a time


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


def picture(image: ArrayLike) -> np.ndarray:
    """What can be seen of an image of any channels: the first three, or else the first as grey.

    Args:
        image: [H, W, C] uint8, as of colors and depth.

    Returns:
        [H, W, 3] uint8.

    Example:
        >>> picture(np.full((1, 1, 1), 7, np.uint8)).tolist()
        [[[7, 7, 7]]]
    """
    image = np.asarray(image)
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def overlay(
    image: ArrayLike, labels: ArrayLike, palette: ArrayLike, *, opacity: float = 0.55
) -> np.ndarray:
    """A picture with the colors of its label map laid over it.

    Args:
        image: [H, W, C] uint8, see `picture`.
        labels: [H, W] integers.
        palette: [K, 3] uint8.
        opacity: of the colors, 0..1.

    Returns:
        uint8 [H, W, 3].
    """
    labels, shown = np.asarray(labels), picture(image)
    mixed = np.empty((*labels.shape, 3), np.uint8)
    for top in range(0, len(labels), _ROWS):  # a large picture is not there as floats
        rows = slice(top, top + _ROWS)
        colors = colorize(labels[rows], palette).astype(np.float32)
        levels = (1.0 - opacity) * shown[rows].astype(np.float32) + opacity * colors
        mixed[rows] = np.clip(np.rint(levels), 0, 255)
    return mixed


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


def segmentation_panels(
    images: Sequence[ArrayLike],
    truths: Sequence[ArrayLike],
    outputs: Sequence[ArrayLike] | None = None,
    *,
    palette: ArrayLike,
    class_names: Sequence[str],
) -> Figure:
    """Input, truth and output of each image in a row, with the legend below.

    Args:
        images: uint8 [H, W, C] each, see `picture`.
        truths, outputs: integers [H, W] each; output is greyed where truth is void. Without
            outputs, the other two alone.
        palette: [K, 3] uint8.
        class_names: K names.
    """
    rows = [
        (picture(image), colorize(truth, palette))
        for image, truth in zip(images, truths, strict=True)
    ]
    if outputs is not None:
        rows = [
            (*row, colorize(_greyed(output, truth), palette))
            for row, output, truth in zip(rows, outputs, truths, strict=True)
        ]
    figure, _ = _image_grid(rows, titles=("input", "truth", "output")[: len(rows[0])])
    used = _used_classes([*truths, *([] if outputs is None else outputs)], len(class_names))
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


def image_rows(rows: Sequence[Sequence[ArrayLike]], *, titles: Sequence[str]) -> Figure:
    """Images in rows, with a title over each column.

    Args:
        rows: of images uint8 [H, W, 3], as many as there are titles.
        titles: of the columns.
    """
    figure, _ = _image_grid(rows, titles=titles)
    return figure


def scale_panels(images: Sequence[ArrayLike], scale_maps: Sequence[ArrayLike]) -> Figure:
    """Each image beside the map of scales that a dynamic layer chose for it.

    Args:
        images: uint8 [H, W, C] each, see `picture`.
        scale_maps: float [H', W'] each, in pixels of the layer's map; colors are shared by all.
    """
    maps = [np.asarray(scale_map, np.float32) for scale_map in scale_maps]
    stacked = np.concatenate([scale_map.ravel() for scale_map in maps])
    finite = stacked[np.isfinite(stacked)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if high - low < 1e-3 * max(abs(high), 1e-6):  # a constant map
        low, high = low - 0.5, high + 0.5
    rows = [(picture(image), None) for image in images]
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
    shapes = [np.shape(row[0])[:2] for row in rows]
    panel_width = 2.2 if any(height >= width for height, width in shapes) else 3.2
    # A picture that is a mere strip has a bound.
    heights = [min(panel_width * height / width, 10.0) for height, width in shapes]
    figure = Figure(
        figsize=(panel_width * len(titles) + margin, sum(heights) + 0.8), layout="constrained"
    )
    panels = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            axes = panels[row, column]
            axes.set_axis_off()
            if image is not None:
                axes.imshow(np.asarray(image), interpolation="nearest")
            if row == 0:
                axes.set_title(titles[column], fontsize=10, color=INK)
    return figure, panels


def filter_panels(
    panels: Sequence[Sequence[np.ndarray | None]],
    *,
    rows: Sequence[str],
    titles: Sequence[str],
    signed: bool = True,
    width: float = 2.2,
) -> Figure:
    """Filters or maps in rows, one square a pixel, red and blue by their sign.

    Args:
        panels: rows of maps [H, W] each; None leaves a panel empty.
        rows, titles: names of the rows and of the columns.
        signed: whether to color by sign; False for grey.
        width: of a panel, in inches.
    """
    figure = Figure(
        figsize=(width * len(titles) + 0.5, width * len(panels) + 0.5), layout="constrained"
    )
    grid = figure.subplots(len(panels), len(titles), squeeze=False)
    for line, name, images in zip(grid, rows, panels, strict=True):
        line[0].set_ylabel(name, color=INK)
        for axes, image in zip(line, images, strict=True):
            for spine in axes.spines.values():
                spine.set_visible(False)
            axes.set_xticks([])
            axes.set_yticks([])
            if image is not None:
                limit = np.abs(image).max()
                lowest = -limit if signed else min(0.0, image.min())
                colors = "RdBu_r" if signed else "gray"
                axes.imshow(image, interpolation="nearest", cmap=colors, vmin=lowest, vmax=limit)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=10, color=INK)
    return figure


def image_columns(columns: Mapping[str, Sequence[ArrayLike]]) -> Figure:
    """Images side by side in columns; maps of scales among them share their colors.

    Args:
        columns: by title, images uint8 [H, W, 3] each; the last one maps of scales [H, W] each,
            in pixels of the layer's map.
    """
    count = len(next(iter(columns.values())))
    figure = Figure(figsize=(9.4, 2.2 * count + 0.4), layout="constrained")
    grid = figure.subplots(count, len(columns))
    largest = max(np.max(scale_map) for scale_map in list(columns.values())[-1])
    for axes_column, (title, pictures) in zip(grid.T, columns.items(), strict=True):
        axes_column[0].set_title(title, fontsize=10, color=INK)
        for axes, picture in zip(axes_column, pictures, strict=True):
            axes.imshow(picture, interpolation="nearest", cmap="viridis", vmin=0, vmax=largest)
            axes.set_axis_off()
    figure.colorbar(axes.images[0], ax=grid[:, -1], shrink=0.8, aspect=30)
    return figure
