"""Any data set that TensorFlow Datasets has prepared, by its name and without TensorFlow.

    data.name = "tfds:oxford_iiit_pet", "tfds:NAME/CONFIG:VERSION"

The builder's own description says which feature is the image, and which one the classes: a mask, to
be segmented, or else a label, to be classified. Nothing is downloaded. Some sets need TensorFlow to
be prepared; do it once, anywhere, and copy the folder:

    tfds.builder("NAME", data_dir=DIR).download_and_prepare(file_format="array_record")

The values of masks are the classes, all of which are read once; what was found is kept beside the
data as `rfjax.json`. Images are normalized by the statistics of ImageNet.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from rfjax._console import tell
from rfjax._faults import reason
from rfjax._files import write_json
from rfjax._progress import counted
from rfjax.data import decoding, preparing
from rfjax.data.class_lists import Classes
from rfjax.data.dataset import VOID, Dataset, check_pair, data_folder, enlarged, size_of
from rfjax.data.files import bits_palette
from rfjax.data.normalization import SCHEMES

SPLITS = ("train", "val", "test")
OPTIONS = ("enlargement", "of", "image", "label", "train", "val", "test", "ignore")
KEPT = "rfjax.json"
_IMAGES = ("image",)
_MASKS = ("segmentation_mask", "segmentation_label", "semantic_map", "annotations", "mask")
_LABELS = ("label",)
_NAMES = ("file_name", "filename", "image/filename", "id", "image_id")
# What the parts of a set are called, the likeliest first, and what stands for them otherwise.
_PARTS = {"train": ("train",), "val": ("validation", "val", "dev", "test"), "test": ("test",)}
_HELD_OUT = {"train": "[:80%]", "val": "[80%:]"}


def load(
    split: str,
    data_dir: str | None,
    *,
    of: str | None = None,
    enlargement: int = 1,
    image: str | None = None,
    label: str | None = None,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    ignore: str | None = None,
) -> Dataset:
    """A split of a data set that lies prepared in `data_dir`.

    Args:
        split: "train", "val" or "test".
        data_dir: the folder of TensorFlow Datasets; None for TFDS_DATA_DIR or
            `~/tensorflow_datasets`.
        of: name of the set, with its config and version if it has several, "NAME/CONFIG:VERSION".
        enlargement: whole factor by which images and masks are enlarged as they are read.
        image, label: features of the image, and of its mask or class; found by their names and
            types where they are not told. A mask comes before a class.
        train, val, test: which examples these are, in the words of TensorFlow Datasets, as
            "train[:90%]". By default "val" is the set's validation part, else its test part, else
            the last fifth of its training part.
        ignore: the value of a mask's pixels without a class; 255 unless told.

    Raises:
        FileNotFoundError: the set is not prepared in this folder.
        ValueError: there is no such part, or no such feature; lists those that there are.
    """
    if not of:
        raise ValueError("want the name of a set: data.name=tfds:NAME")
    builder = _builder(of, data_dir)
    features = builder.info.features
    image = _feature(of, features, image, _IMAGES, _is_image, "image")
    label = _label(of, features, label, image)
    parts = {"train": train, "val": val, "test": test}
    read = lambda name: _Records(builder, of, _part(builder, of, name, parts), image, label)
    records = read(split)
    scheme = SCHEMES["imagenet"]
    if _is_class(features[label]):
        names, palette = tuple(features[label].names), np.zeros((0, 3), np.uint8)
    else:
        records.classes = _classes(builder, [read("train"), read("val")], label, ignore)
        names, palette = records.classes.names, np.array(records.classes.palette, np.uint8)
    return Dataset(
        name=f"tfds:{of}",
        split=split,
        source=enlarged(records, enlargement),
        num_classes=len(names),
        class_names=names,
        palette=palette,
        mean=scheme.mean,
        std=scheme.std,
    )


class _Records:
    """Random access to images with a mask or a class."""

    classes: Classes | None = None  # of masks

    def __init__(self, builder: Any, of: str, part: str, image: str, label: str):
        self._of, self.part, self._image, self._label = of, part, image, label
        features = builder.info.features
        self._name = next(
            (name for name in _NAMES if name in features and _is_text(features[name])), None
        )
        decoded = {name for name in (label, self._name) if name and not _is_image(features[name])}
        # Images stay encoded; what nobody reads stays as it is, since decoding it may want more.
        decoders = {name: tfds.decode.SkipDecoding() for name in features if name not in decoded}
        try:
            with preparing.quiet():
                self._records = builder.as_data_source(split=part, decoders=decoders)
        except NotImplementedError as error:
            kind = builder.info.file_format
            raise ValueError(
                f"{builder.data_path} is prepared as {getattr(kind, 'value', kind)}; want"
                " array_record, which is read without TensorFlow"
            ) from error

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        record, name = self._read(index)
        image = decoding.decode_image(record[self._image], name)
        if self.classes is None:
            return {"id": name, "image": image, "label": int(record[self._label])}
        label = self.classes.label(decoding.decode_mask(record[self._label], name), name)
        check_pair(image, label, name)
        return {"id": name, "image": image, "label": label}

    def shape(self, index: int) -> tuple[int, ...]:
        """Height and width of an example."""
        record, name = self._read(index)
        return size_of({"image": decoding.decode_image(record[self._image], name)})

    def mask(self, index: int) -> np.ndarray:
        """The values of a mask as they are stored."""
        record, name = self._read(index)
        return decoding.decode_mask(record[self._label], f"{self._label} of {name}")

    def _read(self, index: int) -> tuple[dict[str, Any], str]:
        """A record, and what it is called."""
        record = self._records[index]
        own = record[self._name] if self._name else f"{self.part}[{index}]"
        own = own.decode(errors="replace") if isinstance(own, bytes) else str(own)
        return record, own if self._name else f"{self._of}/{own}"


# -- What there is ---------------------------------------------------------------------------------


def _builder(of: str, data_dir: str | None) -> Any:
    """The builder of a set that lies prepared in a folder."""
    folder = data_folder(data_dir)
    hint = f'want it prepared there: tfds.builder("{of}", data_dir="{folder}")'
    missing = f"{folder} holds no {of}; {hint}.download_and_prepare(file_format='array_record')"
    try:
        with preparing.quiet():
            builder = tfds.builder(of, data_dir=folder)
    except Exception as error:  # of any kind: it runs the code of the set, which may want more
        if (folder / of.partition("/")[0].partition(":")[0]).is_dir():
            raise ValueError(f"tfds:{of} in {folder}: {reason(error)}") from error
        raise FileNotFoundError(missing) from error
    if not builder.info.splits:
        raise FileNotFoundError(missing)
    return builder


def _part(builder: Any, of: str, split: str, told: dict[str, str | None]) -> str:
    """The examples of a split, in the words of TensorFlow Datasets."""
    there = list(builder.info.splits)
    named = told[split]
    if named is not None:
        if named.partition("[")[0].partition("+")[0] not in there:
            raise ValueError(f"tfds:{of} has the parts {', '.join(there)}; got {split}={named!r}")
        return named
    found = {name: next((part for part in _PARTS[name] if part in there), None) for name in _PARTS}
    if split in _HELD_OUT and found["train"] and (told["val"] or found["val"]) is None:
        return found["train"] + _HELD_OUT[split]
    if found[split] is None:
        raise ValueError(
            f"tfds:{of} has the parts {', '.join(there)}; say by the option {split} which of them"
            f" is {split}"
        )
    return found[split]


def _label(of: str, features: Any, told: str | None, image: str) -> str:
    """The feature of the masks, or of the classes."""
    rest = {name: feature for name, feature in features.items() if name != image}
    if told is not None:
        return _feature(of, rest, told, (), lambda f: _is_image(f) or _is_class(f), "label")
    if any(_is_mask(feature) for feature in rest.values()):
        return _feature(of, rest, None, _MASKS, _is_mask, "label")
    return _feature(of, rest, None, _LABELS, _is_class, "label")


def _feature(
    of: str,
    features: Any,
    told: str | None,
    names: tuple[str, ...],
    fits: Callable[[Any], bool],
    kind: str,
) -> str:
    """The name of a feature: the one told, one of these names, or the only one that fits."""
    fitting = [name for name, feature in features.items() if fits(feature)]
    usual = [name for name in names if name in fitting]
    there = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in features.items())
    if told is not None and told not in fitting:
        raise ValueError(f"tfds:{of} has the features {there}; {kind}={told!r} is no {kind} there")
    if told is None and not usual and len(fitting) != 1:
        what = "an image" if kind == "image" else "a mask of one channel or a class"
        raise ValueError(
            f"tfds:{of} has the features {there}; want {what}, by the option {kind} if it is one"
            " of these"
        )
    return told or (usual or fitting)[0]


def _is_image(feature: Any) -> bool:
    return isinstance(feature, tfds.features.Image)


def _is_mask(feature: Any) -> bool:
    """Whether a feature is an image of one channel."""
    return _is_image(feature) and feature.shape[-1] == 1


def _is_class(feature: Any) -> bool:
    return isinstance(feature, tfds.features.ClassLabel)


def _is_text(feature: Any) -> bool:
    return isinstance(feature, tfds.features.Text)


# -- Classes of masks ------------------------------------------------------------------------------


def _classes(builder: Any, parts: list[_Records], label: str, ignore: str | None) -> Classes:
    """The classes that the builder names, or the values that the masks have."""
    if ignore is not None and not str(ignore).isdecimal():
        raise ValueError(f"ignore is a value of masks; got {ignore!r}")
    ignored = VOID if ignore is None else int(ignore)
    feature = builder.info.features[label]
    if isinstance(feature, tfds.features.LabeledImage) and feature.names:
        codes = [code for code in range(len(feature.names)) if code != ignored]
        return _named([feature.names[code] for code in codes], codes, ignored)
    of = {"label": label, "ignore": ignored, "parts": [[part.part, len(part)] for part in parts]}
    path = builder.data_path / KEPT
    try:
        kept = json.loads(path.read_text())
        codes = kept["values"] if kept["of"] == of else None
    except (OSError, ValueError, KeyError, TypeError):
        codes = None
    if codes is None:
        codes = _values(parts, ignored)
        try:
            write_json(path, {"of": of, "values": codes})
        except OSError as error:
            tell(f"{path} was not written ({reason(error)}): its facts will be found again")
    return _named(list(map(str, codes)), codes, ignored)


def _values(parts: list[_Records], ignored: int) -> list[int]:
    """The values of all masks, without void."""
    masks = [(part, index) for part in parts for index in range(len(part))]
    seen: set[int] = set()
    for part, index in counted(masks, len(masks), "classes of the masks"):
        seen.update(np.unique(part.mask(index)).tolist())
    return sorted(seen - {ignored})


def _named(names: list[str], codes: list[int], ignored: int) -> Classes:
    colors = tuple(map(tuple, bits_palette(len(names)).tolist()))
    return Classes(tuple(names), colors, tuple(codes), False, ignored)
