"""The sequences of Cityscapes, 30 frames of which one has a label, from unpacked archives.

    DATA_DIR/leftImg8bit_sequence/SPLIT/CITY/CITY_NUMBER_FRAME_leftImg8bit.png
    DATA_DIR/gtFine/SPLIT/CITY/CITY_NUMBER_FRAME_gtFine_labelIds.png

A clip ends where the number of the sequence changes or a number of a frame is left out.
"""

from pathlib import Path

import numpy as np

from rfjax.data import cityscapes, davis, decoding, files
from rfjax.data.dataset import Dataset, enlarged, map_labels

SPLITS = cityscapes.SPLITS
OPTIONS = davis.OPTIONS
_IMAGE, _LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"


def load(
    split: str, data_dir: str | None, *, enlargement: int = 1, frames: str = "labeled"
) -> Dataset:
    """A split of the sequences, read from the files in `data_dir`.

    Args:
        split: "train", "val" or "test".
        data_dir: the folder that holds both; None for `downloads/manual/cityscapes`.
        enlargement: whole factor by which frames and labels are enlarged as they are read.
        frames: "labeled", those that have labels; or "all".

    Raises:
        FileNotFoundError: there are no frames.
    """
    root = files.root(data_dir, "cityscapes")
    images = root / "leftImg8bit_sequence" / split
    paths = sorted(images.glob(f"*/*{_IMAGE}"))
    if not paths:
        raise FileNotFoundError(f"there are no frames {images}/CITY/CITY_NUMBER_FRAME{_IMAGE}")
    rows = davis.chosen(_rows(paths, root / "gtFine" / split), frames)
    return Dataset(
        name="cityscapes_clips",
        split=split,
        source=enlarged(davis.Frames(rows, _label), enlargement),
        num_classes=len(cityscapes.CLASS_NAMES),
        class_names=cityscapes.CLASS_NAMES,
        palette=cityscapes.PALETTE,
        mean=cityscapes.MEAN,
        std=cityscapes.STD,
    )


def _rows(paths: list[Path], labels: Path) -> list[davis.Row]:
    """All frames, with the name of the clip's first one for the clip."""
    rows: list[davis.Row] = []
    before, clip = ("", -1), ""
    for path in paths:
        name = path.name.removesuffix(_IMAGE)
        sequence, _, frame = name.rpartition("_")
        if before != (sequence, int(frame) - 1):
            clip = name
        before = (sequence, int(frame))
        label = labels / path.parent.name / f"{name}{_LABEL}"
        rows.append((clip, name, path, label if label.is_file() else None))
    return rows


def _label(path: Path) -> np.ndarray:
    """The classes of the benchmark."""
    encoded = decoding.read_bytes(path)
    return map_labels(decoding.decode_mask(encoded, str(path)), cityscapes.LABEL_TABLE, str(path))
