"""NYUDv2: 1,449 indoor scenes of 425x560, 40 classes, with their depth.

    DIR/data/images/img_NAME.png   DIR/segmentation/img_NAME.mat   variable segmentation, 0..40
    DIR/data/depth/img_NAME.png    depth in millimeters, 16 bits
    DIR/data/hha/img_NAME.png      disparity, height and angle; optional
    DIR/{train,val,trainval,test}.txt                              names, one a line

0 in a label is void. Depth is what a sensor gives and a person has filled in, so it is dense.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rfjax._checks import choose
from rfjax.data import decoding, files
from rfjax.data.dataset import Dataset, enlarged
from rfjax.data.depth import hha, log_levels, log_normalization

SPLITS = ("train", "val", "trainval", "test")
OPTIONS = ("enlargement", "modality")
CLASS_NAMES = (
    "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf",
    "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror",
    "floor mat", "clothes", "ceiling", "books", "refrigerator", "television", "paper", "towel",
    "shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp",
    "bathtub", "bag", "other structure", "other furniture", "other prop",
)  # fmt: skip
# Mean levels of the reference of FCN as shares of white: of red, green, blue, and of the channels
# of HHA in the order of their files.
_MEANS = {
    "rgb": (92.318 / 255, 97.203 / 255, 116.190 / 255),
    "hha": (118.477 / 255, 94.076 / 255, 132.431 / 255),
}
STD = (0.229, 0.224, 0.225)  # of ImageNet
# What is read for an image, one after the other along the channels.
MODALITIES = {
    "rgb": ("rgb",),
    "hha": ("hha",),
    "depth": ("depth",),
    "rgbd": ("rgb", "depth"),
    "rgb_hha": ("rgb", "hha"),
}


def load(
    split: str, data_dir: str | None, *, enlargement: int = 1, modality: str = "rgb"
) -> Dataset:
    """A split of NYUDv2, read from the files in `data_dir`.

    Args:
        split: "train", "val", "trainval" or "test".
        data_dir: the folder with data and segmentation; None for `downloads/manual/nyud`.
        enlargement: whole factor by which images and labels are enlarged as they are read.
        modality: what is the image: rgb | hha, which is computed from depth where it has no file |
            depth, one channel, whose normalization makes it log(depth in mm) - 7.844 | rgbd, four
            channels | rgb_hha, six.

    Raises:
        FileNotFoundError: a list or a file is missing.
    """
    parts = choose("modality", modality, MODALITIES)
    root = files.root(data_dir, "nyud")
    at = lambda kind, name: root / "data" / kind / f"img_{name}.png"
    rows = files.pairs(
        files.names(root / f"{split}.txt"),
        partial(at, "images"),
        lambda name: root / "segmentation" / f"img_{name}.mat",
    )
    source: Any = files.Pairs(rows, _label, len(CLASS_NAMES))
    if modality != "rgb":
        source = _Depth(source, at, parts)
    mean, deviation = zip(*map(_statistics, parts), strict=True)
    return Dataset(
        name="nyud",
        split=split,
        source=enlarged(source, enlargement),
        num_classes=len(CLASS_NAMES),
        class_names=CLASS_NAMES,
        palette=files.bits_palette(len(CLASS_NAMES) + 1)[1:],
        mean=sum(mean, ()),
        std=sum(deviation, ()),
    )


def _statistics(part: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the channels of a part."""
    if part == "depth":
        mean, deviation = log_normalization()
        return (mean,), (deviation,)
    return _MEANS[part], STD


def _label(path: Path) -> np.ndarray:
    return files.shifted(files.mat_label(path, "segmentation"))


class _Depth:
    """Examples whose image is made of colors and depth.

    Args:
        source: of examples with colors.
        at: the file of a kind and a name.
        parts: of the image, some of "rgb", "hha" and "depth".
    """

    def __init__(self, source: files.Pairs, at: Callable[[str, str], Path], parts: Iterable[str]):
        self._source, self._at, self._parts = source, at, tuple(parts)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        found = [self._part(part, example) for part in self._parts]
        return example | {"image": np.dstack(found)}

    def _part(self, part: str, example: dict[str, Any]) -> np.ndarray:
        """Some channels of the image of an example."""
        if part == "rgb":
            return example["image"]
        path = self._at("hha", example["id"])
        if part == "hha" and path.is_file():
            return decoding.decode_image(decoding.read_bytes(path), str(path))
        depth = read_depth(self._at("depth", example["id"]))
        return hha(depth) if part == "hha" else log_levels(depth)

    def shape(self, index: int) -> tuple[int, int]:
        return self._source.shape(index)


def read_depth(path: Path) -> np.ndarray:
    """Depth in meters, float32 [H, W], of a PNG of 16 bits in millimeters."""
    encoded = np.frombuffer(decoding.read_bytes(path), np.uint8)
    found = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 2 or found.dtype != np.uint16:
        raise ValueError(f"{path}: depth is a PNG of one channel of 16 bits, in millimeters")
    return found.astype(np.float32) / 1000
