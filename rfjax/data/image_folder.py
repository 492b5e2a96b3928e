"""Images in folders, one for each class: DIR/train/CLASS/*.jpg, DIR/val/CLASS/*.jpg.

The classes are the folders of `train`, in the order of their names. Images are normalised by the
statistics of ImageNet. They may have any size; training wants a crop where they differ.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rfjax.data import decoding
from rfjax.data.dataset import Dataset, data_folder, enlarged
from rfjax.data.normalization import SCHEMES

SPLITS = ("train", "val", "test")
OPTIONS = ("enlargement",)


class _Images:
    """Random access to the images of a split."""

    def __init__(self, files: list[tuple[Path, int]]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self._files[index]
        image = decoding.decode_image(decoding.read_bytes(path), str(path))
        return {"id": f"{path.parent.name}/{path.name}", "image": image, "label": label}

    def shape(self, index: int) -> tuple[int, int]:
        return decoding.read_size(self._files[index][0])


def load(split: str, data_dir: str | None, *, enlargement: int = 1) -> Dataset:
    """A split of the images in `data_dir`.

    Args:
        split: "train", "val" or "test".
        data_dir: the folder with train/ and val/; None for `image_folder` in TFDS_DATA_DIR or
            `~/tensorflow_datasets`.
        enlargement: whole factor by which images are enlarged as they are read.

    Raises:
        FileNotFoundError: there are no classes, or no images.
        ValueError: a folder of the split is no class of the training images.
    """
    root = data_folder(data_dir) if data_dir else data_folder(None) / "image_folder"
    names = _folders(root / "train")
    files = []
    for name in _folders(root / split):
        if name not in names:
            raise ValueError(f"{root / split / name} is no class of {root / 'train'}")
        found = decoding.picture_files(root / split / name)
        files += [(path, names.index(name)) for path in found]
    if not files:
        raise FileNotFoundError(f"{root / split}: its folders have no images")
    scheme = SCHEMES["imagenet"]
    return Dataset(
        name="image_folder",
        split=split,
        source=enlarged(_Images(files), enlargement),
        num_classes=len(names),
        class_names=tuple(names),
        palette=np.zeros((0, 3), np.uint8),
        mean=scheme.mean,
        std=scheme.std,
    )


def _folders(parent: Path) -> list[str]:
    """The names of the folders in a folder, one for each class."""
    if not parent.is_dir():
        raise FileNotFoundError(f"there is no folder {parent}: want {parent}/CLASS/*.jpg")
    names = sorted(path.name for path in parent.iterdir() if path.is_dir())
    if not names:
        raise FileNotFoundError(f"{parent} has no folders: want {parent}/CLASS/*.jpg")
    return names
