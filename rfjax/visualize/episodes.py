"""Episodes: images with what is marked in them, and queries with what is segmented."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from rfjax.visualize.images import _greyed, _image_grid, colorize, overlay

_DENSE = 1 / 8  # of the pixels: from here on marks are areas, and no points


def marked_image(image: ArrayLike, marks: ArrayLike, palette: ArrayLike) -> np.ndarray:
    """A picture with its marks: dots with a white rim where they are few, else colors over it.

    Args:
        image: uint8 [H, W, 3].
        marks: integers [H, W], 255 where nothing is marked.
        palette: uint8 [K, 3].

    Returns:
        uint8 [H, W, 3], of few marks two times as large or more, so that dots are small on it.
    """
    marks, palette = np.asarray(marks), np.asarray(palette)
    points = np.argwhere((marks >= 0) & (marks < len(palette)))
    if len(points) > _DENSE * marks.size:
        shown = overlay(image, marks, palette)
        return np.where((marks < len(palette))[..., None], shown, np.asarray(image))
    factor = max(2, -(-256 // max(marks.shape)))
    height, width = marks.shape
    large = cv2.resize(
        np.ascontiguousarray(image), (factor * width, factor * height),
        interpolation=cv2.INTER_LINEAR,
    )  # fmt: skip
    radius = max(2, min(large.shape[:2]) // 60)
    for y, x in points:
        middle = (int(factor * (x + 0.5)), int(factor * (y + 0.5)))
        color = tuple(map(int, palette[marks[y, x]]))
        cv2.circle(large, middle, radius + 1, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(large, middle, radius, color, -1, cv2.LINE_AA)
    return large


def episode_panels(
    shots: Sequence[tuple[ArrayLike, ArrayLike]],
    queries: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
    *,
    palette: ArrayLike,
) -> Figure:
    """Of each episode in a row: an image of the support with its marks, query, truth and output.

    Args:
        shots: (image uint8 [H, W, 3], marks [H, W]) of each episode.
        queries: (image uint8 [H, W, 3], truth [H, W], output [H, W]); outputs are greyed where the
            truth is void.
        palette: uint8 [K, 3].
    """
    rows: list[Sequence[Any]] = [
        (
            marked_image(*shot, palette),
            image,
            colorize(truth, palette),
            colorize(_greyed(output, truth), palette),
        )
        for shot, (image, truth, output) in zip(shots, queries, strict=True)
    ]
    figure, _ = _image_grid(rows, titles=("support", "query", "truth", "output"))
    return figure
