"""CamVid street scenes in the folders of the SegNet tutorial, read where they are.

    DATA_DIR/train/NAME.png   DATA_DIR/trainannot/NAME.png
    DATA_DIR/val/…            DATA_DIR/valannot/…            (and test/, testannot/, if you have it)

Images are PNG or JPEG; labels are single-channel PNG files with the classes 0..10 and 11 for void.
The files give random access as they stand, so they are not copied into records as the other data
sets are: a copy would cost space and a preparation step, and change nothing.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rfjax.data.dataset import (
    VOID,
    Dataset,
    check_pair,
    data_folder,
    decode_image,
    decode_mask,
    enlarged,
    label_table,
    map_labels,
    read_bytes,
)

SPLITS = ("train", "val", "test")
OPTIONS = ("enlargement",)
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
_SUFFIXES = (".png", ".jpg", ".jpeg")
_TABLE = label_table({**{k: k for k in range(len(CLASS_NAMES))}, 11: VOID, VOID: VOID})


class _Files:
    """Random access to pairs of an image file and a label file."""

    def __init__(self, pairs: list[tuple[Path, Path]]):
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image_path, label_path = self._pairs[index]
        image = decode_image(read_bytes(image_path), str(image_path))
        label = decode_mask(read_bytes(label_path), str(label_path))
        check_pair(image, label, str(image_path))
        label = map_labels(label, _TABLE, str(label_path))
        return {"image": image, "label": label, "id": image_path.stem}


def _pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """The files of a split, by name; every image needs its label."""
    images, labels = root / split, root / f"{split}annot"
    found = sorted(p for p in images.glob("*") if p.suffix.lower() in _SUFFIXES)
    if not found or not labels.is_dir():
        raise FileNotFoundError(
            f"no CamVid {split} images with labels in {root.absolute()}. Put the images (PNG or"
            f" JPEG) into {images.absolute()} and their labels, PNG files of the same names with"
            f" classes 0..10 and 11 for void, into {labels.absolute()}: the folders train,"
            " trainannot, val, valannot of the SegNet tutorial's CamVid. The setting data.dir,"
            " or the argument data_dir, names the folder that holds them"
        )
    pairs = [(p, labels / f"{p.stem}.png") for p in found]
    missing = [image.name for image, label in pairs if not label.exists()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(pairs)} images in {images} have no label NAME.png in"
            f" {labels}: {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"
        )
    return pairs


def load(split: str, data_dir: str | None, *, enlargement: int = 1) -> Dataset:
    """A split of CamVid, read from the files in `data_dir`.

    Args:
        split: "train", "val" or "test".
        data_dir: the folder with train/ and trainannot/ and so on; None for
            `downloads/manual/camvid` in TFDS_DATA_DIR or `~/tensorflow_datasets`.
        enlargement: whole factor by which images and labels are enlarged as they are read.
    """
    default = data_folder(None) / "downloads" / "manual" / "camvid"
    root = data_folder(data_dir) if data_dir else default
    return Dataset(
        name="camvid",
        split=split,
        source=enlarged(_Files(_pairs(root, split)), enlargement),
        num_classes=len(CLASS_NAMES),
        class_names=CLASS_NAMES,
        palette=PALETTE,
        mean=MEAN,
        std=STD,
    )
