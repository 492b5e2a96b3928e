"""Files of flow, `.flo` as of the Middlebury benchmark: reader and writer.

    bytes 0-3    "PIEH", which is 202021.25 as a float32
    bytes 4-11   width and height, int32
    then         (right, down) of every pixel, float32, row by row; all little-endian

A displacement beyond 1e9 says that it is not known; it is read as not a number.
"""

import os
from pathlib import Path

import numpy as np

TAG = b"PIEH"
_UNKNOWN = 1e9
_HEADER = 12


def read_flow(path: str | os.PathLike) -> np.ndarray:
    """The flow in a file, float32 [H, W, 2].

    Raises:
        ValueError: it is not such a file, or is cut off.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.flo"
        >>> write_flow(path, np.ones((2, 3, 2), np.float32))
        >>> read_flow(path).shape, path.stat().st_size
        ((2, 3, 2), 60)
    """
    content = Path(path).read_bytes()
    width, height = _size(content, path)
    wanted = _HEADER + 8 * width * height
    if len(content) != wanted:
        raise ValueError(
            f"{path}: a flow of {height}x{width} takes {wanted} bytes; got {len(content)}"
        )
    flow = np.frombuffer(content, "<f4", offset=_HEADER).reshape(height, width, 2)
    return np.where(np.abs(flow) > _UNKNOWN, np.nan, flow).astype(np.float32)


def flow_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width of the flow in a file.

    Raises:
        ValueError, OSError: as in `read_flow`.
    """
    with Path(path).open("rb") as file:
        width, height = _size(file.read(_HEADER), path)
    return height, width


def _size(content: bytes, path: str | os.PathLike) -> tuple[int, int]:
    """Width and height."""
    if len(content) < _HEADER or content[:4] != TAG:
        raise ValueError(f"{path}: not a file of flow: it begins with {content[:4]!r}, not {TAG!r}")
    width, height = (int(n) for n in np.frombuffer(content, "<i4", count=2, offset=4))
    if min(width, height) < 1:
        raise ValueError(f"{path}: a flow has pixels; got {height}x{width}")
    return width, height


def write_flow(path: str | os.PathLike, flow: np.ndarray) -> None:
    """Writes a flow [H, W, 2]; see `encode_flow`."""
    Path(path).write_bytes(encode_flow(flow))


def encode_flow(flow: np.ndarray) -> bytes:
    """What a file of a flow [H, W, 2] holds; what is not finite becomes unknown.

    Raises:
        ValueError: it has another shape.
    """
    flow = np.asarray(flow)
    if flow.ndim != 3 or flow.shape[-1] != 2 or 0 in flow.shape:
        raise ValueError(f"a flow has shape [H, W, 2]; got {flow.shape}")
    known = np.where(np.isfinite(flow), flow, 2 * _UNKNOWN).astype("<f4")
    size = np.array([flow.shape[1], flow.shape[0]], "<i4")
    return TAG + size.tobytes() + known.tobytes()
