"""Helen's faces with the parts of Smith et al.: 2,330 images, eleven classes.

    DIR/images/NAME.jpg   DIR/labels/NAME/NAME_lbl00.png … NAME_lbl10.png   a part a file, 0 to 255
    DIR/exemplars.txt     DIR/tuning.txt     DIR/testing.txt                "NUMBER , NAME" a line

This is the archive `SmithCVPR2013_dataset_resized`. A pixel is of the part whose file has the
highest value there. Training reads exemplars.txt (2,000 images), validation tuning.txt (230),
the split "test" testing.txt (100).

Faces differ from left to right: the two eyes are two classes, and so are the brows. Mirrored images
(`data.augmentation.flip`) would have them exchanged. The scores merge them, see `GROUPS`.

Reference: Smith et al., "Exemplar-Based Face Parsing", CVPR 2013.
"""

from pathlib import Path

import numpy as np

from rfjax.data import files
from rfjax.data.dataset import Dataset, enlarged

SPLITS = ("train", "val", "test")
OPTIONS = ("enlargement",)
LISTS = {"train": "exemplars.txt", "val": "tuning.txt", "test": "testing.txt"}
CLASS_NAMES = (
    *("background", "face skin", "hair", "nose", "upper lip", "inner mouth", "lower lip"),
    *("left eye", "right eye", "left brow", "right brow"),
)
# The class of each file by its number: they begin with background, skin, brows, eyes.
CLASS_OF_FILE = np.array((0, 1, 9, 10, 7, 8, 3, 4, 5, 6, 2), np.uint8)
# Whose F1 the literature gives. Overall is without face skin and hair.
GROUPS = {"eyes": (7, 8), "brows": (9, 10), "mouth_all": (4, 5, 6), "overall": tuple(range(3, 11))}
MEAN = (0.485, 0.456, 0.406)  # of ImageNet
STD = (0.229, 0.224, 0.225)


def load(split: str, data_dir: str | None, *, enlargement: int = 1) -> Dataset:
    """A split of Helen, read from the files in `data_dir`.

    Args:
        split: "train", "val" or "test".
        data_dir: the folder with images and labels; None for `downloads/manual/helen`.
        enlargement: whole factor by which images and labels are enlarged as they are read.

    Raises:
        FileNotFoundError: a list or a file is missing.
    """
    root = files.root(data_dir, "helen")
    rows = files.pairs(
        _names(root / LISTS[split]),
        lambda name: root / "images" / f"{name}.jpg",
        lambda name: root / "labels" / name / f"{name}_lbl00.png",
    )
    return Dataset(
        name="helen",
        split=split,
        source=enlarged(files.Pairs(rows, _label, len(CLASS_NAMES)), enlargement),
        num_classes=len(CLASS_NAMES),
        class_names=CLASS_NAMES,
        palette=files.bits_palette(len(CLASS_NAMES)),
        mean=MEAN,
        std=STD,
        more={"groups": {name: list(classes) for name, classes in GROUPS.items()}},
    )


def _names(path: Path) -> list[str]:
    """The names of a list, each the last field of its line."""
    if not path.is_file():
        raise FileNotFoundError(
            f'there is no {path}, the list of the names of a split, as "1 , NAME" a line'
        )
    lines = [line.replace(",", " ").split() for line in path.read_text().splitlines()]
    found = [fields[-1] for fields in lines if fields]
    if not found:
        raise ValueError(f"{path} names no example")
    return found


def _label(first: Path) -> np.ndarray:
    """The classes of the pixels, of the file of part 0 and the ten beside it."""
    stem = first.name.removesuffix("00.png")
    paths = [first.with_name(f"{stem}{number:02d}.png") for number in range(len(CLASS_OF_FILE))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{first.parent} has no {', '.join(missing)}")
    parts = [files.palette_label(path) for path in paths]
    if len({part.shape for part in parts}) > 1:
        raise ValueError(f"{first.parent}: the files of the parts differ in size")
    return CLASS_OF_FILE[np.argmax(parts, axis=0)]
