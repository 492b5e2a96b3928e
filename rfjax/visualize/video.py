"""Frames of video with what ran on them, and animations."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from rfjax.visualize._files import replacing
from rfjax.visualize._style import INK, LINES, RULE

_LEAST_WIDTH = 256  # of a picture, in pixels
_COLUMN, _ROW = 6, 8  # of the strip: a frame and a stage, in pixels
_EDGE = 4


def scheduled_frame(picture: np.ndarray, fired: Sequence[ArrayLike]) -> np.ndarray:
    """A frame, and under it a strip of which stages have run on it and on the frames before.

    A row is a stage, the shallowest on top and the one that fuses below; a column is a frame, the
    latest on the right, between two marks. Small frames are enlarged by copies.

    Args:
        picture: uint8 [H, W, 3].
        fired: bool [stages] of each frame so far.

    Returns:
        uint8 [H', W', 3], as large for every frame of a clip.
    """
    factor = max(1, -(-_LEAST_WIDTH // picture.shape[1]))
    shown = np.repeat(np.repeat(picture, factor, 0), factor, 1)
    strip = schedule_strip(fired, shown.shape[1])
    return np.concatenate([shown, strip])


def schedule_strip(fired: Sequence[ArrayLike], width: int) -> np.ndarray:
    """The strip of `scheduled_frame`, uint8 [height, width, 3].

    Args:
        fired: bool [stages] of each frame so far.
        width: in pixels; the latest frames that it has room for are drawn.
    """
    room = max(1, (width - 2 * _EDGE) // _COLUMN)
    latest = np.asarray(fired, bool)[-room:].T
    stages, frames = latest.shape
    strip = np.full((stages * _ROW + 2 * _EDGE, width, 3), 255, np.uint8)
    for stage in range(stages):
        top = _EDGE + stage * _ROW
        for column in range(frames):
            left = width - _EDGE - (frames - column) * _COLUMN
            color = LINES[stage % len(LINES)] if latest[stage, column] else RULE
            strip[top : top + _ROW - 1, left : left + _COLUMN - 1] = _rgb(color)
    mark = slice(max(0, width - _EDGE - _COLUMN), width - _EDGE)
    strip[: _EDGE - 1, mark] = strip[1 - _EDGE :, mark] = _rgb(INK)
    return strip


def _rgb(color: str) -> tuple[int, ...]:
    """The three numbers of "#rrggbb"."""
    return tuple(bytes.fromhex(color.removeprefix("#")))


def animate(frames: Sequence[Path], path: Path, *, rate: float) -> None:
    """Writes pictures as an animation: a GIF by Pillow, anything else by OpenCV.

    Args:
        frames: files of pictures of one size.
        path: whose ending picks the format.
        rate: frames per second.

    Raises:
        OSError: OpenCV does not write such files here.
    """
    if path.suffix == ".gif":
        first, *rest = (
            Image.open(frame).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames
        )
        with replacing(path) as file:
            first.save(
                file, "GIF", save_all=True, append_images=rest, loop=0, duration=round(1000 / rate)
            )
        return
    _film(frames, path, rate)


def _film(frames: Sequence[Path], path: Path, rate: float) -> None:
    """By OpenCV, whose codecs want even sizes."""
    import cv2  # all other figures do without

    pictures = (np.asarray(Image.open(frame).convert("RGB")) for frame in frames)
    first = next(pictures)
    height, width = (side // 2 * 2 for side in first.shape[:2])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
    if not writer.isOpened():
        raise OSError(f"{path}: OpenCV writes no such files here; take a GIF")
    for picture in itertools.chain([first], pictures):
        writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))
    writer.release()
