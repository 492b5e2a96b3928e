"""Your own pictures and masks, in folders.

    DIR/train/images/NAME.jpg   DIR/train/masks/NAME.png      or   DIR/images/train, DIR/masks/train
    DIR/val/images/…            DIR/val/masks/…               or   DIR/images, DIR/masks
    DIR/classes.txt             names, colors and values of the classes, if you want to tell them

An image and its mask have one name. Other arrangements are told by two patterns, see `load`. Where
there is no "val", a share of "train" is held out for it. Images may differ in size.

Masks are PNG or TIFF files of values, of palette indices, or of colors. Which classes there are
says the list, see `rfjax.data.class_lists.read`; without one the masks themselves, all of which are
read once. What was found so, and the mean and deviation of the training images, is kept in
`DIR/rfjax.json` until files change.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rfjax._console import tell
from rfjax._faults import reason
from rfjax._files import write_json
from rfjax._progress import counted
from rfjax.data import class_lists, decoding
from rfjax.data.class_lists import Classes
from rfjax.data.dataset import VOID, Dataset, check_pair, enlarged
from rfjax.data.files import root as folder_of

SPLITS = ("train", "val", "test")
OPTIONS = ("enlargement", "images", "masks", "holdout", "seed", "ignore")
KEPT = "rfjax.json"
_LAYOUTS = (
    ("{split}/images", "{split}/masks"),
    ("images/{split}", "masks/{split}"),
    ("images", "masks"),
)
_WORDS = {"val": ("val", "valid", "validation")}  # the folders of a split are called so
_LISTED = 10  # files that an error names
Row = tuple[str, Path, Path]  # an example's name, its image and its mask


def load(
    split: str,
    data_dir: str | None,
    *,
    enlargement: int = 1,
    images: str | None = None,
    masks: str | None = None,
    holdout: float = 0.2,
    seed: int = 0,
    ignore: str | None = None,
) -> Dataset:
    """A split of the pictures and masks in `data_dir`.

    Args:
        split: "train", "val" or "test".
        data_dir: the folder; None for `downloads/manual/folder` of the data's folder.
        enlargement: whole factor by which images and masks are enlarged as they are read.
        images, masks: patterns of paths within the folder, both or none. "{split}" stands for the
            split, and each "*" for a part of a name that an image and its mask share, as
            "leftImg8bit/{split}/*/*_leftImg8bit.png" and
            "gtFine/{split}/*/*_gtFine_labelIds.png". A pattern without "*" is a folder.
        holdout: share of the training images that is held out for "val" where it has no folder.
        seed: of the choice of these.
        ignore: the value, or the color as #RRGGBB, of pixels without a class; 255 unless told, and
            none in masks of colors.

    Raises:
        FileNotFoundError: there are no images, or an image has no mask.
        ValueError: two files share a name, or the masks or the list of classes make no sense.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> place = Path(tempfile.mkdtemp())
        >>> for name in ("images", "masks"):
        ...     (place / name).mkdir()
        >>> for number in range(5):
        ...     Image.new("RGB", (8, 6)).save(place / "images" / f"{number}.jpg")
        ...     Image.new("L", (8, 6), number % 2).save(place / "masks" / f"{number}.png")
        >>> dataset = load("train", str(place))
        >>> len(dataset), dataset.class_names
        (4, ('0', '1'))
    """
    root = folder_of(data_dir, "folder")
    layout = _layout(root, images, masks)
    rows = {name: _held_out(root, name, layout, holdout, seed) for name in ("train", "val")}
    chosen = rows[split] if split in rows else _found(root, split, layout)
    if not chosen:
        raise _missing(root, split, layout)
    facts = _facts(root, rows["train"], rows["val"], ignore)
    return Dataset(
        name="folder",
        split=split,
        source=enlarged(_Files(chosen, facts.classes), enlargement),
        num_classes=len(facts.classes.names),
        class_names=facts.classes.names,
        palette=np.array(facts.classes.palette, np.uint8),
        mean=facts.mean,
        std=facts.std,
    )


class _Files:
    """Random access to images and the labels that their masks say."""

    def __init__(self, rows: list[Row], classes: Classes):
        self._rows, self._classes = rows, classes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, image_path, mask_path = self._rows[index]
        image = _image(image_path)
        label = self._classes.label(class_lists.read_mask(mask_path), str(mask_path))
        check_pair(image, label, str(image_path))
        return {"image": image, "label": label, "id": name}

    def shape(self, index: int) -> tuple[int, int]:
        return decoding.read_size(self._rows[index][1])


# -- Which files -----------------------------------------------------------------------------------


def _layout(root: Path, images: str | None, masks: str | None) -> tuple[str, str]:
    """The patterns of images and masks: those given, or the first that fit what lies there."""
    if images is not None and masks is not None:
        stars = (_pattern(images).count("*"), _pattern(masks).count("*"))
        if stars[0] != stars[1]:
            raise ValueError(
                f"an image and its mask share what each * stands for; images={images!r} has"
                f" {stars[0]} of them, masks={masks!r} {stars[1]}"
            )
        return images, masks
    if (images, masks) != (None, None):
        raise ValueError(f"images and masks are told both or not at all; got {images=}, {masks=}")
    fit = (layout for layout in _LAYOUTS if _files(root, "train", layout[0], ()))
    return next(fit, _LAYOUTS[0])


def _pattern(text: str) -> str:
    """A pattern of files: a folder's files where it has no star."""
    return text if "*" in text else f"{text.rstrip('/')}/*"


def _files(
    root: Path, split: str, pattern: str, suffixes: tuple[str, ...]
) -> dict[tuple[str, ...], Path]:
    """The pictures that fit a pattern, by what its stars stand for, in the order of their names.

    A star that is the last part of a pattern stands for a name without its suffix.
    """
    suffixes = suffixes or decoding.IMAGE_SUFFIXES
    for word in _WORDS.get(split, (split,)):
        said = _pattern(pattern).replace("{split}", word)
        suffix = r"\.[^./]*" if said.endswith("/*") else ""
        fits = re.compile(r"([^/]*)".join(map(re.escape, said.split("*"))) + suffix)
        found: dict[tuple[str, ...], Path] = {}
        for path in sorted(root.glob(said)):
            match = fits.fullmatch(path.relative_to(root).as_posix())
            if match is None or not decoding.is_picture(path, suffixes):
                continue
            other = found.setdefault(match.groups(), path)
            if other is not path:
                raise ValueError(f"{other} and {path} have one name: remove one of the two")
        if found:
            return found
    return {}


def _found(root: Path, split: str, layout: tuple[str, str]) -> list[Row]:
    """The images of a split's own files, with their masks."""
    images = _files(root, split, layout[0], decoding.IMAGE_SUFFIXES)
    masks = _files(root, split, layout[1], decoding.LABEL_SUFFIXES)
    bare = [str(path.relative_to(root)) for key, path in images.items() if key not in masks]
    if bare:
        raise FileNotFoundError(
            f"{len(bare)} of {len(images)} images in {root} have no mask of their name in"
            f" {layout[1]}, as a PNG or TIFF: {', '.join(bare[:3])}{', …' * (len(bare) > 3)}"
        )
    return [("/".join(key), path, masks[key]) for key, path in images.items()]


def _held_out(
    root: Path, split: str, layout: tuple[str, str], holdout: float, seed: int
) -> list[Row]:
    """Training or validation: by their folders, or else a share of all that is there."""
    told = "{split}" in layout[0]
    if told and _files(root, "val", layout[0], decoding.IMAGE_SUFFIXES):
        return _found(root, split, layout)
    rows = _found(root, "train", layout)
    if len(rows) == 1:
        raise ValueError(f"{root} has one image, of which none can be held out for validation")
    order = np.random.default_rng(seed).permutation(len(rows))
    count = int(np.clip(round(holdout * len(rows)), 1, max(len(rows) - 1, 1)))
    chosen = order[:count] if split == "val" else order[count:]
    return [rows[index] for index in sorted(chosen)]


def _missing(root: Path, split: str, layout: tuple[str, str]) -> FileNotFoundError:
    layouts = _LAYOUTS if layout == _LAYOUTS[0] else (layout,)
    wanted = ", or ".join(" and ".join(of) for of in layouts).replace("{split}", split)
    return FileNotFoundError(
        f"no images of the {split} split in {root.absolute()}: want {wanted}, with files of the"
        " same names, or patterns in the options images and masks. The setting data.dir, or the"
        " argument data_dir, names the folder"
    )


# -- Facts about them ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What is found once: the classes, and the statistics of the training images."""

    classes: Classes
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _facts(root: Path, train: list[Row], val: list[Row], ignore: str | None) -> _Facts:
    """The facts that are kept in the folder, or that are found now and kept."""
    of, path = _fingerprint(root, [*train, *val], ignore), root / KEPT
    kept = _kept(path, of)
    if kept is not None:
        return kept
    facts = _Facts(_classes(root, [*train, *val], ignore), *_statistics(train))
    try:
        # Processes that start together write the same, so that it does not matter who ends first.
        write_json(path, {"of": of} | dataclasses.asdict(facts))
    except OSError as error:
        tell(f"{path} was not written ({reason(error)}): its facts will be found again")
    return facts


def _fingerprint(root: Path, rows: list[Row], ignore: str | None) -> str:
    """What the facts depend on: the files, by name, size and time, and the list of the classes."""
    found = hashlib.sha256(f"{ignore}".encode())
    lists = [root / name for name in class_lists.FILES if (root / name).is_file()]
    for path in [*lists, *(path for _, *both in rows for path in both)]:
        stat = path.stat()
        where = path.relative_to(root).as_posix()
        found.update(f"{where} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return found.hexdigest()


def _kept(path: Path, of: str) -> _Facts | None:
    """The facts in a file, unless it is not there, damaged, or of other files."""
    try:
        found = json.loads(path.read_text())
        if found["of"] != of:
            return None
        classes = found["classes"]
        for key in ("names", "codes"):
            classes[key] = tuple(classes[key])
        classes["palette"] = tuple(map(tuple, classes["palette"]))
        return _Facts(Classes(**classes), tuple(found["mean"]), tuple(found["std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _classes(root: Path, rows: list[Row], ignore: str | None) -> Classes:
    """The classes by their list, or by all masks."""
    first = rows[0][2]
    colored = decoding.is_color(decoding.read_bytes(first), str(first))
    ignored = _ignored(ignore, colored=colored)
    listed = class_lists.read(root, ignored, colored=colored)
    if listed is not None:
        return listed
    masks = _each([path for *_, path in rows], class_lists.read_mask, "classes of the masks")
    return class_lists.found(masks, ignored)


def _ignored(ignore: str | None, *, colored: bool) -> int | None:
    """The number of the void pixels, a value or a color."""
    if ignore is None:
        return None if colored else VOID
    wanted = (r"#[0-9a-fA-F]{6}", "a color #RRGGBB") if colored else (r"\d+", "a value")
    if not re.fullmatch(wanted[0], str(ignore)):
        raise ValueError(f"ignore is {wanted[1]} of these masks; got {ignore!r}")
    return int(str(ignore).lstrip("#"), 16 if colored else 10)


def _statistics(rows: list[Row]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the images' R, G, B, where white is 1, over all pixels."""
    counts = np.zeros((3, 256))
    for _, image in _each([path for _, path, _ in rows], _image, "mean of the images"):
        for channel in range(3):
            counts[channel] += np.bincount(image[..., channel].ravel(), minlength=256)
    levels, shares = np.arange(256) / 255, counts / counts.sum(1, keepdims=True)
    mean = shares @ levels
    variance = shares @ levels**2 - mean**2
    std = np.sqrt(np.maximum(variance, 1e-6))  # of images of one color alone
    return tuple(mean.round(6).tolist()), tuple(std.round(6).tolist())


def _image(path: Path) -> np.ndarray:
    return decoding.decode_image(decoding.read_bytes(path), str(path))


def _each(
    paths: list[Path], read: Callable[[Path], np.ndarray], what: str
) -> Iterator[tuple[Path, np.ndarray]]:
    """What is read of each file, with progress; after the last, one error for all that failed."""
    faults = []
    for path in counted(paths, len(paths), what):
        try:
            picture = read(path)
        except ValueError as error:
            faults.append(str(error))
            continue
        yield path, picture
    if faults:
        more = f"; and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise ValueError("; ".join(faults[:_LISTED]) + more)
