"""SIFT Flow: 2,688 outdoor scenes of 256x256 with 33 semantic and 3 geometric classes.

    DIR/Images/…/NAME.jpg   DIR/SemanticLabels/…/NAME.mat   DIR/GeoLabels/…/NAME.mat
    DIR/trainval.txt        DIR/test.txt                    names, one a line

where … is spatial_envelope_256x256_static_8outdoorcategories. A label file has the variables S,
0 for void and classes from 1, and names, those of the classes. Training reads trainval.txt (2,488
images), evaluation test.txt (200).
"""

from functools import partial
from pathlib import Path

import numpy as np
import scipy.io

from rfjax._checks import choose
from rfjax.data import files
from rfjax.data.dataset import VOID, Dataset, enlarged

SPLITS = ("train", "val")
OPTIONS = ("enlargement", "labels")
_LISTS = {"train": "trainval.txt", "val": "test.txt"}
_FOLDERS = {"semantic": "SemanticLabels", "geometric": "GeoLabels"}
LABELS = (*_FOLDERS, "both")
_SUBFOLDER = "spatial_envelope_256x256_static_8outdoorcategories"
# Mean levels of blue, green and red of FCN's reference, as shares of white.
MEAN = (108.353 / 255, 115.294 / 255, 114.578 / 255)
STD = (0.229, 0.224, 0.225)  # of ImageNet


def load(
    split: str, data_dir: str | None, *, enlargement: int = 1, labels: str = "semantic"
) -> Dataset:
    """A split of SIFT Flow, read from the files in `data_dir`.

    Args:
        split: "train" or "val".
        data_dir: the folder with Images and the rest; None for `downloads/manual/sift_flow`.
        enlargement: whole factor by which images and labels are enlarged as they are read.
        labels: semantic | geometric | both, the latter as "label/geometric".

    Raises:
        FileNotFoundError: a list or a file is missing.
    """
    choose("labels", labels, LABELS)
    root = files.root(data_dir, "sift_flow")
    kinds = tuple(_FOLDERS) if labels == "both" else (labels,)
    at = lambda kind, name: root / _FOLDERS[kind] / _SUBFOLDER / f"{name}.mat"
    rows = files.pairs(
        files.names(root / _LISTS[split]),
        lambda name: root / "Images" / _SUBFOLDER / f"{name}.jpg",
        partial(at, kinds[0]),
    )
    class_names, *others = (_class_names(at(kind, rows[0][0])) for kind in kinds)
    second = {f"label/{kind}": lambda name, kind=kind: _label(at(kind, name)) for kind in kinds[1:]}
    sets = dict(zip(kinds, map(len, (class_names, *others)), strict=True))
    return Dataset(
        name="sift_flow",
        split=split,
        source=enlarged(files.Pairs(rows, _label, len(class_names), second), enlargement),
        num_classes=len(class_names),
        class_names=class_names,
        palette=files.bits_palette(len(class_names) + 1)[1:],
        mean=MEAN,
        std=STD,
        more={"label_sets": sets} if labels == "both" else {},
    )


def _label(path: Path) -> np.ndarray:
    """Classes from 0; void is 0 in the files, and -1 in some of them."""
    label = files.mat_label(path, "S")
    return np.where(label < 1, VOID, label - 1).astype(np.uint8)


def _class_names(path: Path) -> tuple[str, ...]:
    """The names in a label file."""
    try:
        found = scipy.io.loadmat(path, squeeze_me=True)["names"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: no variable names ({error})") from error
    return tuple(str(name) for name in np.atleast_1d(found))
