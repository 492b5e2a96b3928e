"""PASCAL VOC segmentation, with the annotations of SBD where they lie beside it.

    DIR/VOC2012/JPEGImages/NAME.jpg   DIR/VOC2012/SegmentationClass/NAME.png   palette indices
    DIR/VOC2012/ImageSets/Segmentation/{train,val,trainval,test}.txt           (or VOC2011)
    DIR/sbd/img/NAME.jpg   DIR/sbd/cls/NAME.mat   DIR/sbd/{train,val}.txt      (optional)

The rule of the networks' papers: where SBD lies there, "train" is its train list, and "val" is
VOC's without what SBD trains on ("seg11valid", 736 images of VOC 2011). Without SBD both are VOC's.
"""

from pathlib import Path

import numpy as np

from rfjax.data import files
from rfjax.data.dataset import Dataset, enlarged

SPLITS = ("train", "val", "trainval", "test")
OPTIONS = ("enlargement", "year", "sbd")
CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv/monitor",
)  # fmt: skip
# Mean levels of blue, green and red that Caffe's networks subtract, as shares of white.
MEAN = (122.67892 / 255, 116.66877 / 255, 104.00699 / 255)
STD = (0.229, 0.224, 0.225)  # of ImageNet


def load(
    split: str,
    data_dir: str | None,
    *,
    enlargement: int = 1,
    year: int = 2012,
    sbd: bool = True,
) -> Dataset:
    """A split of PASCAL VOC, read from the files in `data_dir`.

    Args:
        split: "train", "val", "trainval" or "test".
        data_dir: the folder with VOC2012 and perhaps sbd; None for `downloads/manual/voc`.
        enlargement: whole factor by which images and labels are enlarged as they are read.
        year: of VOC.
        sbd: whether training takes SBD's annotations, where they lie there.

    Raises:
        FileNotFoundError: a list or a file is missing.
    """
    root = files.root(data_dir, "voc")
    voc, extra = root / f"VOC{year}", root / "sbd"
    extended = sbd and extra.is_dir()
    if extended and split == "train":
        source = _sbd(extra)
    else:
        source = _voc(voc, split, set(files.names(extra / "train.txt")) if extended else set())
    return Dataset(
        name="voc",
        split=split,
        source=enlarged(source, enlargement),
        num_classes=len(CLASS_NAMES),
        class_names=CLASS_NAMES,
        palette=files.bits_palette(len(CLASS_NAMES)),
        mean=MEAN,
        std=STD,
    )


def _voc(voc: Path, split: str, trained: set[str]) -> files.Pairs:
    """VOC's own split; of "val" what is not trained on."""
    chosen = files.names(voc / "ImageSets" / "Segmentation" / f"{split}.txt")
    if split == "val":
        chosen = [name for name in chosen if name not in trained]
    rows = files.pairs(
        chosen,
        lambda name: voc / "JPEGImages" / f"{name}.jpg",
        lambda name: voc / "SegmentationClass" / f"{name}.png",
    )
    return files.Pairs(rows, files.palette_label, len(CLASS_NAMES))


def _sbd(folder: Path) -> files.Pairs:
    """SBD's training images; its boundaries are not void, as VOC's are."""
    rows = files.pairs(
        files.names(folder / "train.txt"),
        lambda name: folder / "img" / f"{name}.jpg",
        lambda name: folder / "cls" / f"{name}.mat",
    )
    return files.Pairs(rows, _sbd_label, len(CLASS_NAMES))


def _sbd_label(path: Path) -> np.ndarray:
    return files.mat_label(path, "GTcls", "Segmentation").astype(np.uint8)
