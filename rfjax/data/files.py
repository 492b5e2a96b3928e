"""Pairs of a file of an image and one of its label, by lists of names: what several sets share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from rfjax.data import decoding
from rfjax.data.dataset import VOID, check_pair, data_folder

Read = Callable[[Path], np.ndarray]  # a label uint8 [H, W], 255 for void


class Pairs:
    """Random access to images and labels.

    Args:
        rows: of each example its name, the file of its image and that of its label.
        read: what makes a label of its file.
        num_classes: labels are in 0..num_classes-1, or 255.
        more: what else an example has, by name a function of the example's name.
    """

    def __init__(
        self,
        rows: Iterable[tuple[str, Path, Path]],
        read: Read,
        num_classes: int,
        more: dict[str, Callable[[str], np.ndarray]] | None = None,
    ):
        self._rows, self._read = list(rows), read
        self._num_classes, self._more = num_classes, more or {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, image_path, label_path = self._rows[index]
        image = decoding.decode_image(decoding.read_bytes(image_path), str(image_path))
        label = self._read(label_path)
        check_pair(image, label, str(image_path))
        check_classes(label, self._num_classes, label_path)
        more = {key: of(name) for key, of in self._more.items()}
        return {"image": image, "label": label, "id": name, **more}

    def shape(self, index: int) -> tuple[int, int]:
        return decoding.read_size(self._rows[index][1])


def check_classes(label: np.ndarray, num_classes: int, path: Path) -> None:
    """Raises a ValueError that names the file of a label with values that are no classes."""
    wrong = np.unique(label[(label >= num_classes) & (label != VOID)])
    if len(wrong):
        raise ValueError(
            f"{path} has label values {wrong.tolist()}; want 0 to {num_classes - 1}, or {VOID} for "
            "void"
        )


def names(path: Path) -> list[str]:
    """The names that a list of a split holds, one a line."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, the list of the names of a split, one a line")
    found = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    if not found:
        raise ValueError(f"{path} names no example")
    return found


def pairs(chosen: Iterable[str], image: Callable, label: Callable) -> list[tuple[str, Path, Path]]:
    """Names with the files of their images and labels, all of which are there.

    Args:
        chosen: names.
        image, label: of a name, its file.

    Raises:
        FileNotFoundError: some are not; the first of them are named.
    """
    found = [(name, image(name), label(name)) for name in chosen]
    missing = [str(path) for _, *both in found for path in both if not path.is_file()]
    if missing:
        listed = ", ".join(missing[:3]) + ", …" * (len(missing) > 3)
        raise FileNotFoundError(f"{len(missing)} files are missing: {listed}")
    return found


def palette_label(path: Path) -> np.ndarray:
    """The values of a PNG, the indices of its palette."""
    return decoding.decode_mask(decoding.read_bytes(path), str(path))


def mat_label(path: Path, *fields: str) -> np.ndarray:
    """An array [H, W] of a MATLAB file, as int32.

    Args:
        path: of the file.
        fields: its variable, and the fields within structures to go down to.

    Raises:
        ValueError: it cannot be read, or has no such array.
    """
    try:
        found = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=True)[fields[0]]
        for field in fields[1:]:
            found = found[field][()]
        label = np.asarray(found)
        if label.ndim != 2:
            raise ValueError(f"an array of shape {label.shape}")
        return label.astype(np.int32)
    except (OSError, KeyError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        raise ValueError(f"{path}: no array {'.'.join(fields)} [H, W] ({error})") from error


def shifted(label: np.ndarray) -> np.ndarray:
    """Labels 1..K as 0..K-1, with 0, which stands for none, as void."""
    return np.where(label == 0, VOID, label - 1).astype(np.uint8)


def bits_palette(count: int) -> np.ndarray:
    """The colors of PASCAL VOC, uint8 [count, 3]: bits of the class, highest first, by color.

    Example:
        >>> bits_palette(4).tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    colors = np.zeros((count, 3), np.uint8)
    for index in range(count):
        for bit in range(24):
            if index >> bit & 1:
                colors[index, bit % 3] |= 128 >> (bit // 3)
    return colors


def root(data_dir: str | None, default: str) -> Path:
    """The folder of a data set: `data_dir`, or `downloads/manual/DEFAULT` of the data's folder."""
    if data_dir:
        return data_folder(data_dir)
    return data_folder(None) / "downloads" / "manual" / default
