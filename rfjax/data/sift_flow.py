"""SIFT Flow: 2,688 outdoor scenes of 256x256 with 33 semantic and 3 geometric classes.

    DIR/Images/…/NAME.jpg   DIR/SemanticLabels/…/NAME.mat   DIR/GeoLabels/…/NAME.mat
    DIR/trainval.txt        DIR/test.txt                    names, one a line

where … is spatial_envelope_256x256_static_8outdoorcategories. A label file has the variables S,
0 for void and classes from 1, and names, those of the classes. Training reads trainval.txt (2,488
images), evaluation test.txt (200).
"""

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
        labels: semantic | geometric.

    Raises:
        FileNotFoundError: a list or a file is missing.
    """
    choose("labels", labels, _FOLDERS)
    root = files.root(data_dir, "sift_flow")
    chosen = files.names(root / _LISTS[split])
    of = {kind: root / folder / _SUBFOLDER for kind, folder in _FOLDERS.items()}
    rows = files.pairs(
        chosen,
        lambda name: root / "Images" / _SUBFOLDER / f"{name}.jpg",
        lambda name: of[labels] / f"{name}.mat",
    )
    class_names = _class_names(rows[0][2])
    return Dataset(
        name="sift_flow",
        split=split,
        source=enlarged(files.Pairs(rows, _label, len(class_names)), enlargement),
        num_classes=len(class_names),
        class_names=class_names,
        palette=files.bits_palette(len(class_names) + 1)[1:],
        mean=MEAN,
        std=STD,
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
