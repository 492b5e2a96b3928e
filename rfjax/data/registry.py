"""Data sets by name."""

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from typing import Any

from rfjax import _names
from rfjax._checks import choose
from rfjax._registry import Registry
from rfjax.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Entry:
    """A data set that can be loaded: function of (split, data_dir, **options), splits, options."""

    load: Callable[..., Dataset]
    splits: tuple[str, ...]
    options: tuple[str, ...]


def _module(name: str) -> Callable[[], Entry]:
    """The entry that a module of this package holds, imported when it is asked for."""

    def entry() -> Entry:
        module = importlib.import_module(f"rfjax.data.{name}")
        return Entry(module.load, tuple(module.SPLITS), tuple(module.OPTIONS))

    return entry


_BUILT_IN = (
    *("digit_scenes", "camvid", "cityscapes", "digit_images", "image_folder", "folder"),
    *("voc", "pascal_context", "nyud", "sift_flow", "helen"),
    *("digit_clips", "davis", "cityscapes_clips"),
    *("digit_episodes", "episodes"),
    *("digit_flow", "flying_chairs"),
    "tfds",
)

DATA_SETS: Registry[Callable[[], Entry]] = Registry(
    "data set",
    {name: _module(name) for name in _BUILT_IN},
    _names.DATA_SETS,
)


def names() -> tuple[str, ...]:
    """The names that `load` knows."""
    return tuple(DATA_SETS)


def register(
    name: str,
    load: Callable[..., Dataset],
    *,
    splits: Iterable[str] = ("train", "val"),
    options: Iterable[str] = (),
) -> None:
    """Makes a data set known by its name, to configs and to all programs.

    Args:
        name: not taken.
        load: the function of (split, data_dir, **options) that returns a `Dataset`; data_dir is
            None where the data set's own default holds.
        splits: that there are. Training reads "train" and "val".
        options: that `load` takes, and configs may set in `data.options`.

    Raises:
        ValueError: the name is taken.
    """
    entry = Entry(load, tuple(splits), tuple(options))
    DATA_SETS.register(name, lambda: entry, entry.options)


def load(name: str, split: str, *, data_dir: str | None = None, **options: Any) -> Dataset:
    """One split of a data set, prepared first where that is needed.

    Args:
        name: "digit_scenes" (drawn here, nothing to download), "camvid", "cityscapes", "voc",
            "pascal_context", "nyud", "sift_flow", "helen" or "folder" (your own), to be segmented;
            "digit_images" (drawn here, too) or "image_folder", to be classified; of video, to be
            segmented, "digit_clips" (drawn here), "davis" or "cityscapes_clips"; "digit_episodes"
            (drawn here) or "episodes" of another data set, to be segmented by marks; "digit_flow"
            (drawn here) or "flying_chairs", pairs of images; "tfds:NAME", what TensorFlow Datasets
            has prepared, see `rfjax.data.tfds`; or what was registered.
        split: "train", "val", or, except for the digits, "test".
        data_dir: where the data is or shall be kept; see the data set's module for its default.
        **options: `enlargement` (a whole factor, for every data set), and those of
            `rfjax.data.digit_scenes.DigitScenesConfig` for the digit scenes.

    Raises:
        ValueError: for a name, split, or option that does not exist; lists those that do.
        FileNotFoundError: if files are missing; says which, and where to put them.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> dataset = load("digit_scenes", "val", data_dir=folder, train_scenes=2, val_scenes=2)
        >>> dataset.source[0]["image"].shape
        (64, 64, 3)
    """
    name, said = _names.data_set(name)
    options |= said
    entry = choose("data set", name, DATA_SETS)()
    choose(f"split of {name}", split, entry.splits)
    for option in options:
        choose(f"option of {name}", option, entry.options)
    return entry.load(split, data_dir, **options)
