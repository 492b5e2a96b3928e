"""Clips in the folders of DAVIS: DAVIS itself, or videos of your own with labels on some frames.

    DATA_DIR/JPEGImages/CLIP/FRAME.jpg      DATA_DIR/Annotations/CLIP/FRAME.png
    DATA_DIR/classes.txt                    the names of the classes, one a line (optional)
    DATA_DIR/train.txt, val.txt             the names of the clips of a split (optional)

Frames are pictures in the order of their names. A label has the name of its frame; its values are
classes, 255 for void. Without classes.txt there are two, and every value but 0 is the object, as
in DAVIS 2016. Without lists two thirds of the clips, in the order of their names, are "train", and
the others "val". A folder between, as "480p", is passed through.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rfjax import _options
from rfjax.data import decoding, files
from rfjax.data.dataset import VOID, Dataset, check_pair, enlarged
from rfjax.data.normalization import SCHEMES

SPLITS = ("train", "val")
OPTIONS = ("enlargement", "frames")
FRAMES = ("labeled", "all")
CLASS_NAMES = ("background", "object")

Row = tuple[str, str, Path, Path | None]  # clip, name, files of the image and of its label


class Frames:
    """Random access to the frames of clips; those without a label are void everywhere.

    Args:
        rows: clip, name, file of the image, and file of its label or None.
        read: what makes a label uint8 [H, W] of its file.
    """

    def __init__(self, rows: list[Row], read: files.Read):
        self._rows, self._read = rows, read

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip, name, image_path, label_path = self._rows[index]
        image = decoding.decode_image(decoding.read_bytes(image_path), str(image_path))
        if label_path is None:
            label = np.full(image.shape[:2], VOID, np.uint8)
        else:
            label = self._read(label_path)
            check_pair(image, label, str(image_path))
        return {"image": image, "label": label, "id": f"{clip}/{name}"}

    def shape(self, index: int) -> tuple[int, int]:
        return decoding.read_size(self._rows[index][2])

    def clip(self, index: int) -> str:
        return self._rows[index][0]


def chosen(rows: list[Row], frames: str) -> list[Row]:
    """All frames, or those that have labels.

    Raises:
        ValueError: `frames` is neither "labeled" nor "all".
    """
    every = _options.choose("frames", frames, FRAMES) == "all"
    return [row for row in rows if every or row[3] is not None]


def load(
    split: str, data_dir: str | None, *, enlargement: int = 1, frames: str = "labeled"
) -> Dataset:
    """A split of the clips, read from the files in `data_dir`.

    Args:
        split: "train" or "val".
        data_dir: the folder with JPEGImages and Annotations; None for `downloads/manual/davis`.
        enlargement: whole factor by which frames and labels are enlarged as they are read.
        frames: "labeled", those that have labels; or "all".

    Raises:
        FileNotFoundError: there are no clips, or none of the frames has a label.
    """
    root = files.root(data_dir, "davis")
    named = root / "classes.txt"
    names = tuple(files.names(named)) if named.is_file() else CLASS_NAMES
    images = _clips(root / "JPEGImages")
    rows = [row for clip in _split(root, split, sorted(images)) for row in _rows(images, clip)]
    if not any(label for *_, label in rows):
        raise FileNotFoundError(
            f"no frame of {root / 'JPEGImages'}/CLIP has a label {root / 'Annotations'}/CLIP/"
            f"NAME.png in the split {split!r}"
        )
    scheme = SCHEMES["imagenet"]
    read = _label(len(names)) if named.is_file() else _object
    return Dataset(
        name="davis",
        split=split,
        source=enlarged(Frames(chosen(rows, frames), read), enlargement),
        num_classes=len(names),
        class_names=names,
        palette=files.bits_palette(len(names)),
        mean=scheme.mean,
        std=scheme.std,
    )


def _clips(parent: Path) -> dict[str, Path]:
    """The folders of pictures under `parent`, by name."""
    if not parent.is_dir():
        raise FileNotFoundError(f"there is no folder {parent}: want {parent}/CLIP/FRAME.jpg")
    folders = sorted(path for path in parent.iterdir() if path.is_dir())
    if len(folders) == 1 and not decoding.picture_files(folders[0]):
        return _clips(folders[0])
    if not folders:
        raise FileNotFoundError(f"{parent} has no folders: want {parent}/CLIP/FRAME.jpg")
    return {path.name: path for path in folders}


def _split(root: Path, split: str, clips: list[str]) -> list[str]:
    """The names of the clips of a split."""
    listed = root / f"{split}.txt"
    if not listed.is_file():
        train = round(len(clips) * 2 / 3)
        return clips[:train] if split == "train" else clips[train:]
    names = files.names(listed)
    missing = [name for name in names if name not in clips]
    if missing:
        raise FileNotFoundError(f"{listed} names {missing[0]!r}, which is no clip of {root}")
    return names


def _rows(images: dict[str, Path], clip: str) -> list[Row]:
    """The frames of a clip."""
    folder = images[clip]
    parts = ["Annotations" if part == "JPEGImages" else part for part in folder.parts]
    labels = Path(*parts)
    found = []
    for path in decoding.picture_files(folder):
        label = labels / f"{path.stem}.png"
        found.append((clip, path.stem, path, label if label.is_file() else None))
    return found


def _object(path: Path) -> np.ndarray:
    """1 where the object is."""
    return (files.palette_label(path) != 0).astype(np.uint8)


def _label(num_classes: int) -> files.Read:
    """The reader of labels of so many classes."""

    def read(path: Path) -> np.ndarray:
        label = files.palette_label(path)
        files.check_classes(label, num_classes, path)
        return label

    return read
