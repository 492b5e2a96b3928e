"""Depth as channels that a network of colors can read.

hha           three: disparity, height, angle
log_levels    one: its logarithm
"""

import numpy as np

# Of NYUDv2's camera, in pixels of its images: focal length, and the center of a 425x560 image.
FOCAL, CENTER = 518.86, (207.5, 284.6)
LOG_MEAN = 7.844  # of the logarithm of millimeters, in FCN's reference
LOGARITHMS = (float(np.log(300.0)), float(np.log(12000.0)))  # of the levels 0 and 255
_LEVELS = (31000.0, 100.0)  # of disparity 1/cm, and of height in levels per meter


def hha(
    depth: np.ndarray, *, focal: float = FOCAL, center: tuple[float, float] = CENTER
) -> np.ndarray:
    """Horizontal disparity, height above the lowest point, and angle to gravity.

        H1 = 31000 / depth in cm;   H2 = height in cm;   A = angle of the normal to up, in degrees

    each clipped to 0..255.

    Args:
        depth: in meters, [H, W]; 0 where it is not known.
        focal, center: of the camera, in pixels; center (y, x).

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: it is no map with known depths.

    Reference: Gupta, Girshick, Arbelaez & Malik, "Learning Rich Features from RGB-D Images for
        Object Detection and Segmentation", ECCV 2014, section 3.1.
    """
    depth = np.asarray(depth, np.float64)
    if depth.ndim != 2 or not (depth > 0).any():
        raise ValueError(f"depth must be [H, W] in meters, above 0 somewhere; got {depth.shape}")
    known = depth > 0
    points = _points(depth, focal, center)
    normals = _normals(points)
    up = -_gravity(normals[known])
    height = points @ up
    height -= np.percentile(height[known], 0.5)  # the floor, but for a few wrong points
    angle = np.degrees(np.arccos(np.clip(normals @ up, -1, 1)))
    disparity = _LEVELS[0] / np.maximum(100 * depth, 1)
    found = np.stack([disparity, _LEVELS[1] * height, angle], -1)
    return np.where(known[..., None], np.clip(np.rint(found), 0, 255), 0).astype(np.uint8)


def log_levels(depth: np.ndarray) -> np.ndarray:
    """The logarithm of depth in levels, from that of 0.3 m at 0 to that of 12 m at 255.

    A level is 1.5 % of the depth.

    Args:
        depth: in meters, [H, W]; 0 where it is not known, which is level 0.

    Returns:
        uint8 [H, W].

    Example:
        >>> log_levels(np.array([[0.3, 12.0, 0.0]])).tolist()
        [[0, 255, 0]]
    """
    low, high = LOGARITHMS
    logarithm = np.log(np.maximum(1000.0 * np.asarray(depth, np.float64), 1.0))
    return np.rint(255 * np.clip((logarithm - low) / (high - low), 0, 1)).astype(np.uint8)


def log_normalization() -> tuple[float, float]:
    """Mean and deviation, where white is 1, that make log(depth in mm) - 7.844 of these levels."""
    low, high = LOGARITHMS
    return (LOG_MEAN - low) / (high - low), 1 / (high - low)


def _points(depth: np.ndarray, focal: float, center: tuple[float, float]) -> np.ndarray:
    """(right, down, away) of every pixel in meters."""
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]]
    return np.stack(
        [(x - center[1]) * depth / focal, (y - center[0]) * depth / focal, depth], axis=-1
    )


def _normals(points: np.ndarray) -> np.ndarray:
    """Unit normals that look at the camera, by the differences over neighbors."""
    along_y, along_x = np.gradient(points, axis=(0, 1))
    normals = np.cross(along_x, along_y)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return np.where((normals * points).sum(-1, keepdims=True) > 0, -normals, normals)


def _gravity(normals: np.ndarray) -> np.ndarray:
    """Which way is down: along the normals of floors, and across those of walls.

    The direction g that minimizes sum over walls (n g)^2 - sum over floors (n g)^2, where what is a
    wall and what a floor is told by the g before, first within 45 degrees and then within 15.
    """
    down = np.array([0.0, 1.0, 0.0])
    for degrees in (45.0,) * 5 + (15.0,) * 5:
        near = np.abs(normals @ down)
        floors = normals[near > np.cos(np.radians(degrees))]
        walls = normals[near < np.sin(np.radians(degrees))]
        _, vectors = np.linalg.eigh(walls.T @ walls - floors.T @ floors)
        down = vectors[:, 0] * np.sign(vectors[1, 0] or 1.0)
    return down
