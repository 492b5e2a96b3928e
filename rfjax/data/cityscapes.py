"""Cityscapes with fine labels, prepared from the two official archives without TensorFlow.

`leftImg8bit_trainvaltest.zip` and `gtFine_trainvaltest.zip` (from cityscapes-dataset.com, after
registration) are read in place and written once as array records, with the names and features of
the stock `cityscapes/semantic_segmentation` of tensorflow-datasets: a copy that it prepared as
array records is used as it is. Records keep the files' own bytes and label ids; the ids become the
19 classes of the benchmark as they are read, and all others void.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from rfjax._progress import counted
from rfjax.data import decoding, preparing
from rfjax.data.dataset import (
    VOID,
    Dataset,
    check_pair,
    data_folder,
    enlarged,
    label_table,
    map_labels,
)

SPLITS = ("train", "val", "test")
OPTIONS = ("enlargement",)
ARCHIVES = ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")
# Class, label id, colour: the benchmark's table, in the order of its train ids.
_CLASSES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
CLASS_NAMES = tuple(name for name, _, _ in _CLASSES)
PALETTE = np.array([color for _, _, color in _CLASSES], np.uint8)
# As the training recipes of DRN and DLA state them.
MEAN = (0.290101, 0.328081, 0.286964)
STD = (0.182954, 0.186566, 0.184475)

_IMAGES_PER_SHARD = 64  # 150 MB
_TFDS_SPLITS = {"train": "train", "val": "validation", "test": "test"}
# Label ids run from -1 (which an 8-bit file holds as 255) to 33.
LABEL_TABLE = label_table(
    {
        **dict.fromkeys([*range(34), 255], VOID),
        **{label_id: train_id for train_id, (_, label_id, _) in enumerate(_CLASSES)},
    }
)


class Cityscapes(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Copies the pictures of the two archives into array records, unchanged."""

    name = "cityscapes"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="semantic_segmentation")]

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image_id": tfds.features.Text(),
            "image_left": tfds.features.Image(shape=(1024, 2048, 3), encoding_format="png"),
            "segmentation_label": tfds.features.Image(
                shape=(1024, 2048, 1), encoding_format="png", use_colormap=True
            ),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Cityscapes semantic segmentation, fine labels.",
            features=tfds.features.FeaturesDict(features),
            homepage="https://www.cityscapes-dataset.com",
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # which would want TensorFlow to unpack the archives
        archives = find_archives(Path(self.data_dir_root))
        with zipfile.ZipFile(archives[0]) as images:
            files = (n for n in images.namelist() if n.endswith("_leftImg8bit.png"))
            # A Mac adds to each file one of the same name with "._" before it.
            names = sorted(n for n in files if not Path(n).name.startswith("."))
        members = {split: [n for n in names if f"leftImg8bit/{split}/" in n] for split in SPLITS}
        if not members["train"] or not members["val"]:
            raise ValueError(f"{archives[0]} has no leftImg8bit/train and leftImg8bit/val")
        return {
            _TFDS_SPLITS[split]: preparing.sharded(
                _examples(split, found, archives), len(found), _IMAGES_PER_SHARD
            )
            for split, found in members.items()
            if found
        }


def _examples(
    split: str, members: list[str], archives: tuple[Path, Path]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The images that `members` names in the first archive, with labels from the second."""
    with zipfile.ZipFile(archives[0]) as images, zipfile.ZipFile(archives[1]) as labels:
        known = set(labels.namelist())
        shown = counted(members, len(members), f"preparing cityscapes {split}")
        for index, member in enumerate(shown):
            label = member.replace("leftImg8bit/", "gtFine/", 1)
            label = label.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
            if label not in known:
                raise ValueError(f"{archives[1]} lacks {label}, the label of {member}")
            yield (
                index,
                {
                    "image_id": Path(member).name.removesuffix("_leftImg8bit.png"),
                    "image_left": io.BytesIO(images.read(member)),
                    "segmentation_label": io.BytesIO(labels.read(label)),
                },
            )


class _Records:
    """Random access to prepared pictures of one size, label ids mapped to classes."""

    def __init__(self, records: Any, shape: tuple[int, int]):
        self._records = records
        self._shape = shape

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        name = record["image_id"].decode()
        where = f"cityscapes {name}"
        image = decoding.decode_image(record["image_left"], where)
        label = decoding.decode_mask(record["segmentation_label"], where)
        check_pair(image, label, where)
        return {"image": image, "label": map_labels(label, LABEL_TABLE, where), "id": name}

    def shape(self, index: int) -> tuple[int, int]:
        return self._shape


def find_archives(root: Path) -> tuple[Path, Path]:
    """The two archives, in `root` or where tensorflow-datasets looks for manual downloads."""
    folders = (root, root / "downloads" / "manual")
    for folder in folders:
        paths = tuple(folder / name for name in ARCHIVES)
        if all(path.is_file() for path in paths):
            return paths
    raise FileNotFoundError(
        f"Cityscapes is not prepared in {root.absolute()}, and the archives to prepare it from are"
        f" not there. Download {' and '.join(ARCHIVES)} from https://www.cityscapes-dataset.com"
        f" (free, after registration) and put both, as they are, into {root.absolute()}. The"
        " setting data.dir, or the argument data_dir, names that folder"
    )


def load(split: str, data_dir: str | None, *, enlargement: int = 1) -> Dataset:
    """A split of Cityscapes, prepared first if it is not in `data_dir` yet.

    Args:
        split: "train", "val" or "test" (whose published labels are void throughout).
        data_dir: folder with the archives or the prepared data; None for TFDS_DATA_DIR or
            `~/tensorflow_datasets`.
        enlargement: whole factor by which images and labels are enlarged as they are read.
    """
    root = data_folder(data_dir)
    builder = preparing.prepared(lambda: Cityscapes(data_dir=str(root)))
    if _TFDS_SPLITS[split] not in builder.info.splits:
        raise ValueError(f"{builder.data_path} has no {split} split: {list(builder.info.splits)}")
    records = preparing.encoded_source(
        builder, _TFDS_SPLITS[split], ("image_left", "segmentation_label")
    )
    return Dataset(
        name="cityscapes",
        split=split,
        source=enlarged(_Records(records, preparing.shape(builder, "image_left")), enlargement),
        num_classes=len(CLASS_NAMES),
        class_names=CLASS_NAMES,
        palette=PALETTE,
        mean=MEAN,
        std=STD,
    )
