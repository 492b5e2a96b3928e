"""Flows as colors: hue is the direction, and pale is slow."""

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from rfjax.visualize.images import VOID_COLOR, _image_grid


def flow_colors(flow: ArrayLike, *, largest: float | None = None) -> np.ndarray:
    """The colors of a flow: the hue goes round with the direction, the saturation with the length.

    Args:
        flow: [..., 2] displacements (right, down).
        largest: length in pixels of full saturation, and beyond; None for the longest of all.

    Returns:
        uint8 [..., 3]: red to the right, then yellow, green (to the left: cyan), blue; white where
        nothing moves, and light grey where the flow is not finite.

    Example:
        >>> flow_colors([[3.0, 0.0], [0.0, 0.0]]).tolist()
        [[255, 0, 0], [255, 255, 255]]
    """
    flow = np.asarray(flow, np.float32)
    known = np.all(np.isfinite(flow), -1, keepdims=True)
    right, down = np.moveaxis(np.where(known, flow, 0.0), -1, 0)
    length = np.hypot(right, down)
    largest = float(length.max(initial=0.0)) if largest is None else largest
    saturation = np.clip(length / max(largest, 1e-6), 0.0, 1.0)
    hue = np.mod(np.arctan2(down, right) / (2 * np.pi), 1.0)
    colors = hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], -1))
    levels = np.rint(255 * colors).astype(np.uint8)
    return np.where(known, levels, np.array(VOID_COLOR, np.uint8))


def flow_wheel(size: int = 101) -> np.ndarray:
    """The colors of all directions, by where they point from the middle of a disk.

    Args:
        size: height and width of the picture in pixels.

    Returns:
        uint8 [size, size, 3], white outside the disk.

    Example:
        >>> wheel = flow_wheel(5)
        >>> wheel[2, 4].tolist(), wheel[0, 0].tolist()
        ([255, 0, 0], [255, 255, 255])
    """
    line = np.linspace(-1.0, 1.0, size)
    flow = np.stack(np.meshgrid(line, line), -1)
    outside = np.hypot(flow[..., :1], flow[..., 1:]) > 1
    return np.where(outside, np.uint8(255), flow_colors(flow, largest=1.0))


def flow_panels(
    images: Sequence[ArrayLike], truths: Sequence[ArrayLike], outputs: Sequence[ArrayLike]
) -> Figure:
    """Image, true flow and that of a network in each row, with the wheel of the colors.

    Args:
        images: uint8 [H, W, 3] each.
        truths, outputs: [H, W, 2] each, (right, down) in pixels; colors are shared by a row.
    """
    rows = []
    for image, truth, output in zip(images, truths, outputs, strict=True):
        finite = np.where(np.isfinite(truth), truth, 0.0)
        largest = float(np.hypot(finite[..., 0], finite[..., 1]).max(initial=0.0))
        rows.append((image, *(flow_colors(flow, largest=largest) for flow in (truth, output))))
    rows = [(*row, None if number else flow_wheel()) for number, row in enumerate(rows)]
    figure, _ = _image_grid(rows, titles=("first image", "true flow", "flow", "direction"))
    return figure
