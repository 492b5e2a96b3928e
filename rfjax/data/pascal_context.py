"""PASCAL-Context: every pixel of VOC 2010 labelled, 59 classes and the background of all others.

    DIR/VOC2010/JPEGImages/NAME.jpg   DIR/trainval/NAME.mat   variable LabelMap, 0..459
    DIR/labels.txt, DIR/59_labels.txt  "NUMBER: NAME" a line, of all labels and of the 59
    DIR/{train,val}.txt                names, one a line

Labels become 0 (none of the 59) and 1..59 in the order of 59_labels.txt, by their names.
"""

from functools import partial
from pathlib import Path

import numpy as np

from rfjax.data import files, voc
from rfjax.data.dataset import Dataset, enlarged

SPLITS = ("train", "val")
OPTIONS = ("enlargement",)
# Three classes are called otherwise in the list of all labels.
_ALIASES = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}


def load(split: str, data_dir: str | None, *, enlargement: int = 1) -> Dataset:
    """A split of PASCAL-Context, read from the files in `data_dir`.

    Args:
        split: "train" or "val".
        data_dir: the folder with VOC2010 and the rest; None for `downloads/manual/pascal_context`.
        enlargement: whole factor by which images and labels are enlarged as they are read.

    Raises:
        FileNotFoundError: a list or a file is missing.
        ValueError: a class of 59_labels.txt is none of labels.txt.
    """
    root = files.root(data_dir, "pascal_context")
    every, chosen = (_numbered(root / name) for name in ("labels.txt", "59_labels.txt"))
    class_names = ("background", *chosen)
    rows = files.pairs(
        files.names(root / f"{split}.txt"),
        lambda name: root / "VOC2010" / "JPEGImages" / f"{name}.jpg",
        lambda name: root / "trainval" / f"{name}.mat",
    )
    read = partial(_label, table=_table(every, chosen, root))
    return Dataset(
        name="pascal_context",
        split=split,
        source=enlarged(files.Pairs(rows, read, len(class_names)), enlargement),
        num_classes=len(class_names),
        class_names=class_names,
        palette=files.bits_palette(len(class_names)),
        mean=voc.MEAN,
        std=voc.STD,
    )


def _numbered(path: Path) -> dict[str, int]:
    """The numbers of the names of a list, in its order."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}, lines of NUMBER: NAME")
    lines = [line.partition(":") for line in path.read_text().splitlines() if line.strip()]
    try:
        return {name.strip(): int(number) for number, _, name in lines}
    except ValueError as error:
        raise ValueError(f"{path}: lines are NUMBER: NAME ({error})") from error


def _table(every: dict[str, int], chosen: dict[str, int], root: Path) -> np.ndarray:
    """The classes of all labels; 0 for those that are not chosen."""
    table = np.zeros(max(every.values()) + 1, np.uint8)
    for number, name in enumerate(chosen, start=1):
        own = name if name in every else _ALIASES.get(name, name)
        if own not in every:
            raise ValueError(f"{root / '59_labels.txt'}: {name} is none of labels.txt")
        table[every[own]] = number
    return table


def _label(path: Path, table: np.ndarray) -> np.ndarray:
    label = files.mat_label(path, "LabelMap")
    if label.min() < 0 or label.max() >= len(table):
        raise ValueError(f"{path} has labels up to {label.max()}; labels.txt has {len(table) - 1}")
    return table[label]
