"""Where the classes of a label map meet, to be scored apart."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from rfjax import _checks
from rfjax.tasks.losses import VOID

RADIUS = 5


def boundary_band(
    label: ArrayLike, *, radius: int = RADIUS, foreground: bool = False
) -> np.ndarray:
    """The pixels with another label within so many pixels of them.

    Void counts as a label here, so that outlines that are void are boundaries.

    Args:
        label: [H, W] integers.
        radius: in pixels. The band of a straight edge is twice as wide.
        foreground: whether all classes but 0 and void count as one, as PASCAL VOC's objects do.

    Returns:
        bool [H, W].

    Example:
        >>> boundary_band([[0] * 8 + [1] * 8], radius=2).sum()
        np.int64(4)

    Reference:
        Shelhamer, "Local Adaptive Visual Recognition", 2019, table 3.3.
    """
    label = np.asarray(label)
    if foreground:
        label = (label != 0) & (label != VOID)
    reach = np.arange(-_checks.integer("radius", radius), radius + 1)
    disk = np.hypot(reach[:, None], reach) <= radius
    edges = {"footprint": disk, "mode": "nearest"}
    whole = label.astype(np.int32)
    return ndimage.maximum_filter(whole, **edges) != ndimage.minimum_filter(whole, **edges)
