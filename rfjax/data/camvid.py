"""CamVid street scenes in the folders of the SegNet tutorial, read where they are.

    DATA_DIR/train/NAME.png   DATA_DIR/trainannot/NAME.png
    DATA_DIR/val/…            DATA_DIR/valannot/…            (and test/, testannot/, if you have it)

Images are PNG, JPEG, TIFF, BMP or WebP; labels of the same names are single-channel PNG or TIFF
files, grey or with a palette, with the values 0..10 for the classes and 11 or 255 for void; see
`rfjax.data.decoding`. Suffixes may be in upper case; folders, other files and those that start with
a dot are passed over. The files give random access as they stand, so they are not copied into
records as the other data sets are: a copy would cost space and a preparation step, and change
nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rfjax.data import decoding
from rfjax.data.dataset import (
    VOID,
    Dataset,
    check_pair,
    data_folder,
    enlarged,
    label_table,
    map_labels,
    reduced,
)

SPLITS = ("train", "val", "test")
OPTIONS = ("enlargement", "reduction")
CLASS_NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
PALETTE = np.array(
    [
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ],
    np.uint8,
)
# Of the 367 training images.
MEAN = (0.4116, 0.4249, 0.4322)
STD = (0.3067, 0.3113, 0.3068)
_TABLE = label_table({**{k: k for k in range(len(CLASS_NAMES))}, 11: VOID, VOID: VOID})


class _Files:
    """Random access to pairs of an image file and a label file."""

    def __init__(self, pairs: list[tuple[Path, Path]]):
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image_path, label_path = self._pairs[index]
        image = decoding.decode_image(decoding.read_bytes(image_path), str(image_path))
        label = decoding.decode_mask(decoding.read_bytes(label_path), str(label_path))
        check_pair(image, label, str(image_path))
        label = map_labels(label, _TABLE, str(label_path))
        return {"image": image, "label": label, "id": image_path.stem}

    def shape(self, index: int) -> tuple[int, int]:
        return decoding.read_size(self._pairs[index][0])

    def clip(self, index: int) -> str:
        """The drive that a frame is of: its name without the frame's number."""
        return self._pairs[index][0].stem.rstrip("0123456789")


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The pictures of a folder by their names without suffix, sorted."""
    found: dict[str, Path] = {}
    for path in decoding.picture_files(folder, suffixes) if folder.is_dir() else ():
        other = found.setdefault(path.stem, path)
        if other is not path:
            raise ValueError(f"{other} and {path} have one name: remove one of the two")
    return found


def _pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """The files of a split, by name; every image needs its label."""
    images, labels = root / split, root / f"{split}annot"
    found = _by_stem(images, decoding.IMAGE_SUFFIXES)
    if not found or not labels.is_dir():
        raise FileNotFoundError(
            f"no CamVid {split} images with labels in {root.absolute()}. Put the images (as PNG or"
            f" JPEG) into {images.absolute()} and their labels, PNG files of the same names with"
            f" classes 0..10 and 11 for void, into {labels.absolute()}: the folders train,"
            " trainannot, val, valannot of the SegNet tutorial's CamVid. The setting data.dir,"
            " or the argument data_dir, names the folder that holds them"
        )
    labelled = _by_stem(labels, decoding.LABEL_SUFFIXES)
    missing = [path.name for stem, path in found.items() if stem not in labelled]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(found)} images in {images} have no label NAME.png in"
            f" {labels}: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"
        )
    return [(path, labelled[stem]) for stem, path in found.items()]


def load(split: str, data_dir: str | None, *, enlargement: int = 1, reduction: int = 1) -> Dataset:
    """A split of CamVid, read from the files in `data_dir`.

    Args:
        split: "train", "val" or "test".
        data_dir: the folder with train/ and trainannot/ and so on; None for
            `downloads/manual/camvid` in TFDS_DATA_DIR or `~/tensorflow_datasets`.
        enlargement: whole factor by which images and labels are enlarged as they are read.
        reduction: whole factor by which they are made smaller.
    """
    default = data_folder(None) / "downloads" / "manual" / "camvid"
    root = data_folder(data_dir) if data_dir else default
    return Dataset(
        name="camvid",
        split=split,
        source=reduced(enlarged(_Files(_pairs(root, split)), enlargement), reduction),
        num_classes=len(CLASS_NAMES),
        class_names=CLASS_NAMES,
        palette=PALETTE,
        mean=MEAN,
        std=STD,
    )
