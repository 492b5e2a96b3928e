"""Digit scenes as a data set: 4,096 training and 384 validation scenes, drawn once and kept.

The scenes (see `rfjax.data.scenes`) are drawn when first asked for, in about ten seconds, and kept
in `data_dir` (default: TFDS_DATA_DIR, else `~/tensorflow_datasets`) under `digit_scenes/`, in a
folder named after every option that changes them. Scene i of a split depends only on the options
and on i: more scenes continue the same sequence. Nothing is downloaded.

With `modality` "depth" or "rgbd" the scenes have a map of depth, as the image's only channel or as
its fourth; they are drawn and kept apart from those without, which are otherwise the same. With
`labels` "geometric" the classes are ground, small and large digits; with "both" there are two sets
of labels, for the task "segmentations".

A scene enlarged twice (`enlargement=2`) is the same scene, images resized bilinearly and masks by
copies as it is read: networks are compared on the same pictures, and nothing is stored twice.
"""

import dataclasses
import io
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import tensorflow_datasets as tfds

from rfjax import _checks
from rfjax._checks import choose
from rfjax._progress import counted
from rfjax.data import decoding, preparing
from rfjax.data.dataset import (
    VOID,
    Dataset,
    check_pair,
    data_folder,
    enlarged,
)
from rfjax.data.masking import masked
from rfjax.data.scenes import (
    CLASS_NAMES,
    MAX_INSTANCES,
    check_options,
    compose_scene,
    digits,
)

SPLITS = ("train", "val")
OPTIONS = (
    "size",
    "min_scale",
    "max_scale",
    "train_scenes",
    "val_scenes",
    "seed",
    "enlargement",
    "modality",
    "labels",
    "mask",
)
# Of the 4,096 default training scenes, of colors and of depth.
MEAN = (0.3256, 0.3239, 0.3218)
STD = (0.1591, 0.1595, 0.1597)
DEPTH_MEAN, DEPTH_STD = 0.6342, 0.2417
# Which channels an image has, of colors and depth.
MODALITIES = {"rgb": slice(3), "depth": slice(3, 4), "rgbd": slice(4)}
GEOMETRIC = ("ground", "small", "large")
LABELS = ("semantic", "geometric", "both")
_SCENES_PER_SHARD = 4096  # 40 MB
PALETTE = np.array(
    [
        (40, 40, 40),
        (31, 119, 180),
        (255, 127, 14),
        (44, 160, 44),
        (214, 39, 40),
        (148, 103, 189),
        (140, 86, 75),
        (227, 119, 194),
        (188, 189, 34),
        (23, 190, 207),
        (174, 199, 232),
    ],
    np.uint8,
)


@dataclasses.dataclass(eq=False)
class DigitScenesConfig(tfds.core.BuilderConfig):
    """Everything that changes the scenes; the name, and so the folder, follows from it.

    Attributes:
        size: height and width of a scene in pixels.
        min_scale, max_scale: limits of the digits' scale in pixels.
        train_scenes, val_scenes: numbers of scenes.
        seed: 0 or more; another seed gives other scenes (of the same digits).
        depth: whether they have a map of depth.
    """

    name: str = ""
    size: int = 64
    min_scale: float = 20.0
    max_scale: float = 48.0
    train_scenes: int = 4096
    val_scenes: int = 384
    seed: int = 0
    depth: bool = False

    def __post_init__(self):
        for field in ("size", "train_scenes", "val_scenes", "seed"):
            least = int(field != "seed")
            setattr(self, field, _checks.integer(field, getattr(self, field), least=least))
        for field in ("min_scale", "max_scale"):
            setattr(self, field, _checks.number(field, getattr(self, field), above=0))
        check_options(self.size, self.min_scale, self.max_scale)
        self.name = (
            f"{self.size}px_scale{self.min_scale!r}-{self.max_scale!r}"
            f"_{self.train_scenes}+{self.val_scenes}_seed{self.seed}{'_depth' * self.depth}"
        )

    @property
    def pictures(self) -> tuple[str, ...]:
        """What is kept as PNG."""
        return ("image", "label", "instances", *["depth"] * self.depth)


class DigitScenes(tfds.core.ShardBasedBuilder):
    """Draws the scenes of a `DigitScenesConfig` and writes them as array records."""

    VERSION = tfds.core.Version("1.0.0")  # to be raised whenever the same options draw anew
    BUILDER_CONFIGS: ClassVar = [DigitScenesConfig()]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        channels = {name: 3 if name == "image" else 1 for name in self.builder_config.pictures}
        features = {
            "id": tfds.features.Text(),
            **{
                name: tfds.features.Image(shape=(size, size, count), encoding_format="png")
                for name, count in channels.items()
            },
            "scales": tfds.features.Tensor(shape=(MAX_INSTANCES,), dtype=np.float32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Scenes of handwritten digits for segmentation with receptive fields.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # nothing to download
        config = self.builder_config
        counts = {"train": config.train_scenes, "val": config.val_scenes}
        return {
            split: preparing.sharded(self._examples(split, count), count, _SCENES_PER_SHARD)
            for split, count in counts.items()
        }

    def _examples(self, split: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        images, values = digits(split)
        for index in counted(range(count), count, f"preparing digit_scenes {split}"):
            seeds = [config.seed, SPLITS.index(split), index]
            scene = compose_scene(
                np.random.default_rng(seeds),
                images,
                values,
                size=config.size,
                min_scale=config.min_scale,
                max_scale=config.max_scale,
                depth=np.random.default_rng([*seeds, 1]) if config.depth else None,
            )
            for key in config.pictures:
                scene[key] = io.BytesIO(_png(scene[key]))
            yield index, {"id": f"{split}_{index:05d}", **scene}


def _png(picture: np.ndarray) -> bytes:
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


class _Scenes:
    """Random access to prepared scenes of one size.

    Args:
        records: with the pictures encoded.
        shape: height and width.
        modality: which channels images have, one of `MODALITIES`.
        labels: one of `LABELS`.
        large: the scale from which on a digit is large.
    """

    def __init__(
        self, records: Any, shape: tuple[int, int], modality: str, labels: str, large: float
    ):
        self._records, self._shape = records, shape
        self._modality, self._labels, self._large = modality, labels, large

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self._records[index]
        name = record["id"].decode()
        where = f"digit_scenes {name}"
        example = {
            "image": decoding.decode_image(record["image"], where),
            "label": decoding.decode_mask(record["label"], where),
            "instances": decoding.decode_mask(record["instances"], where),
            "scales": record["scales"],
            "id": name,
        }
        check_pair(example["image"], example["label"], where)
        if self._modality != "rgb":
            depth = decoding.decode_mask(record["depth"], where)
            channels = np.dstack([example["image"], depth])
            example["image"] = np.ascontiguousarray(channels[..., MODALITIES[self._modality]])
        if self._labels != "semantic":
            key = "label" if self._labels == "geometric" else "label/geometric"
            example[key] = _geometric(example, self._large)
        return example

    def shape(self, index: int) -> tuple[int, int]:
        return self._shape


def _geometric(example: Mapping[str, Any], large: float) -> np.ndarray:
    """0 for the ground, 1 for digits below the scale `large`, 2 for others; void stays void."""
    sizes = np.concatenate([[0], 1 + (example["scales"] >= large)]).astype(np.uint8)
    return np.where(example["label"] == VOID, VOID, sizes[example["instances"]]).astype(np.uint8)


def load(
    split: str,
    data_dir: str | None,
    *,
    enlargement: int = 1,
    modality: str = "rgb",
    labels: str = "semantic",
    mask: str | None = None,
    **options: Any,
) -> Dataset:
    """A split of the digit scenes, drawn first if they are not in `data_dir` yet.

    Args:
        split: "train" or "val".
        data_dir: folder for the scenes; None for TFDS_DATA_DIR or `~/tensorflow_datasets`.
        enlargement: whole factor by which scenes and scales are enlarged as they are read.
        modality: what is the image: rgb; depth, one channel of logarithms; or rgbd, all four.
        labels: semantic, the digits; geometric: ground, digits below the middle scale
            sqrt(min_scale max_scale), larger ones; or both, the latter as "label/geometric".
        mask: foreground | background | both, what the images lack, see `masking.masked`.
        **options: the fields of `DigitScenesConfig` but depth.
    """
    channels = choose("modality", modality, MODALITIES)
    choose("labels", labels, LABELS)
    config = DigitScenesConfig(**options, depth=modality != "rgb")
    default = DigitScenes.BUILDER_CONFIGS[0]  # tfds wants its own object for a name it knows
    config = default if config.name == default.name else config
    root = str(data_folder(data_dir))
    builder = preparing.prepared(lambda: DigitScenes(config=config, data_dir=root))
    records = preparing.encoded_source(builder, split, config.pictures)
    large = float(np.sqrt(config.min_scale * config.max_scale))
    scenes = _Scenes(records, preparing.shape(builder, "image"), modality, labels, large)
    names = GEOMETRIC if labels == "geometric" else CLASS_NAMES
    sets = {"semantic": len(CLASS_NAMES), "geometric": len(GEOMETRIC)}
    found = Dataset(
        name="digit_scenes",
        split=split,
        source=enlarged(scenes, enlargement),
        num_classes=len(names),
        class_names=names,
        palette=PALETTE[: len(names)],
        mean=(*MEAN, DEPTH_MEAN)[channels],
        std=(*STD, DEPTH_STD)[channels],
        more={"label_sets": sets} if labels == "both" else {},
    )
    return masked(found, mask)
