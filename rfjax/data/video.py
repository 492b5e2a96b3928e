"""Frames in a row: of a folder, of a video file, or of a still over which a window slides."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from rfjax import _checks
from rfjax.data import decoding
from rfjax.data.dataset import Dataset, size_of

FRAMES = 6


class Frame(NamedTuple):
    """A frame of a clip: its name, and its pixels uint8 [H, W, 3], or what is wrong with it."""

    name: str
    pixels: np.ndarray | None
    fault: str = ""


class Clip(NamedTuple):
    """Frames to be read one after the other.

    Attributes:
        count: how many there are, by what the folder or the file says.
        rate: frames per second, where the file says it.
        frames: reads them.
    """

    count: int
    rate: float | None
    frames: Iterator[Frame]


def open_clip(path: str | Path) -> Clip:
    """The clip in a folder of pictures, in the order of their names, or in a video file.

    Args:
        path: of the folder, or of a file that OpenCV reads.

    Raises:
        ValueError: there is no such clip, or it is empty.
    """
    path = Path(path)
    if path.is_dir():
        files = decoding.picture_files(path)
        if not files:
            suffixes = ", ".join(decoding.IMAGE_SUFFIXES)
            raise ValueError(f"{path}: there are no frames ({suffixes}) in this folder")
        return Clip(len(files), None, map(_picture, files))
    if not path.exists():
        raise ValueError(f"{path}: there is no such folder or file")
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if not video.isOpened() or count < 1:
        raise ValueError(f"{path}: not a video that OpenCV reads")
    return Clip(count, video.get(cv2.CAP_PROP_FPS) or None, _decoded(video, count))


def _picture(path: Path) -> Frame:
    try:
        return Frame(path.stem, decoding.decode_image(decoding.read_bytes(path), str(path)))
    except ValueError as error:
        return Frame(path.stem, None, str(error))


def _decoded(video: cv2.VideoCapture, count: int) -> Iterator[Frame]:
    """The frames of a file; where no more can be read than it says, the next one is a fault."""
    for index in range(count):
        readable, pixels = video.read()
        if not readable:
            yield Frame(f"{index:05d}", None, f"the file ends after {index} of {count} frames")
            return
        yield Frame(f"{index:05d}", cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def translated(
    example: dict[str, Any], shift: float, *, frames: int = FRAMES
) -> list[dict[str, Any]]:
    """A clip of a still: a window that slides along its longer side, with its labels.

    d = max(1, round(shift L)) pixels per frame; the window has L - (frames - 1) d of the longer
    side L, and all of the other.

    Args:
        example: "image" [H, W, 3], "label" [H, W] and "id".
        shift: share of the longer side.
        frames: of the clip.

    Returns:
        The frames as examples, whose names are that of the still and a number.

    Raises:
        ValueError: nothing is left for the window.

    Example:
        >>> still = {"id": "a", "image": np.zeros((4, 100, 3), np.uint8)}
        >>> clip = translated(still | {"label": np.zeros((4, 100), np.uint8)}, 0.03)
        >>> len(clip), clip[5]["label"].shape, clip[5]["id"]
        (6, (4, 85), 'a/5')

    Reference:
        Shelhamer, "Local Adaptive Visual Recognition", 2019, section 3.4.
    """
    shape = size_of(example)
    axis = int(shape[1] >= shape[0])
    step = max(1, round(_checks.number("shift", shift, above=0) * shape[axis]))
    length = shape[axis] - (_checks.integer("frames", frames) - 1) * step
    if length < 1:
        raise ValueError(
            f"{frames} frames that move by {step} pixels want more than the {shape[axis]} that "
            f"{example.get('id', 'the still')} has"
        )

    def window(array: np.ndarray, t: int) -> np.ndarray:
        return np.take(array, range(t * step, t * step + length), axis)

    return [
        {
            "image": window(example["image"], t),
            "label": window(example["label"], t),
            "id": f"{example.get('id', '')}/{t}",
        }
        for t in range(frames)
    ]


class _Translated:
    """Random access to the frames of clips of stills."""

    def __init__(self, dataset: Dataset, indices: range, shift: float, frames: int):
        self._indices, self._frames = indices, frames

        @functools.lru_cache(maxsize=1)
        def clip(index: int) -> list[dict[str, Any]]:
            return translated(dataset.source[indices[index]], shift, frames=frames)

        self._clip = clip

    def __len__(self) -> int:
        return len(self._indices) * self._frames

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)} frames")
        return self._clip(index // self._frames)[index % self._frames]

    def clip(self, index: int) -> int:
        return index // self._frames


def translations(
    dataset: Dataset, shift: float, *, frames: int = FRAMES, every: int = 1
) -> Dataset:
    """A data set of clips, one of each still of another; see `translated`.

    Args:
        dataset: of stills with labels.
        shift, frames: of each clip.
        every: takes each so many-th still.
    """
    indices = range(0, len(dataset), _checks.integer("every", every))
    source = _Translated(dataset, indices, shift, frames)
    return dataclasses.replace(dataset, source=source)
