"""Episodes of any segmentation data set: what is marked in a support, and a query to segment.

An episode is a task of its own, drawn from its number: a few classes of the data, images that have
them, and points of them. Its classes are numbered anew: 0 is whatever is none of the episode's
objects, 1 the first object, and so on. An example is

    image            uint8 [H, W, 3], the query
    label            uint8 [H, W], the classes of the episode, 255 where none is known
    support          uint8 [S, H, W, 3]; missing where the support is the query itself
    label/support    uint8 [S, H, W], the classes of the marked pixels, 255 where nothing is marked
    id               a string

and, where the images come with maps, see `rfjax.data.cache_features`, these as "map/NAME" and
"support/map/NAME" [S, h, w, C].

Episodes are of four kinds. `semantic`: the objects are classes, and S = shots (ways - 1) other
images support, shots of them with each object; marks are of all objects that an image has, so that
the shots of a class differ in number. `video`: the same, where the images that support are other
frames of the query's clip. `interactive`: the objects are instances, or connected parts
of classes where the data tell no instances, and are marked in the query. `dense`: no episodes, but
images with all classes of training, for networks that learn these as usual.

Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019, sections 4.2
and 4.3.3.
"""

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from rfjax import _checks
from rfjax.data.dataset import VOID, Dataset, Source, clip_of

KINDS, MISSING = ("semantic", "video", "interactive", "dense"), ("unknown", "negative")
SPLITS = ("train", "val")
RULES = ("kind", "ways", "shots", "points", "missing")
FOLDS = ("folds", "fold", "held_out")
COUNTS = ("train_episodes", "val_episodes")
OPTIONS = ("of", *RULES, *FOLDS, *COUNTS)
MOST_POINTS = 100  # of a class and image, where their number is drawn
_LEAST = 32  # pixels, for a class or an instance to be in an image
COLORS = np.array(
    [(40, 40, 40), (255, 127, 14), (31, 119, 180), (44, 160, 44), (214, 39, 40), (148, 103, 189),
     (140, 86, 75), (227, 119, 194), (188, 189, 34), (23, 190, 207)],
    np.uint8,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rules:
    """How episodes are drawn.

    Attributes:
        kind: semantic | video | interactive | dense, see the module's docstring.
        ways: number of classes K, with that of what is no object.
        shots: images that support each object; 1 of interactive episodes.
        points: marks of each class in each image, or all there are if they are fewer; 0 marks every
            pixel; None draws a number from 1 to 100 for each.
        missing: what a pixel without a mark is taken for: unknown, or negative, which leaves marks
            of objects alone to be given.

    Raises:
        ValueError: one is out of its range.
    """

    kind: str = "semantic"
    ways: int = 2
    shots: int = 1
    points: int | None = None
    missing: str = "unknown"

    def __post_init__(self):
        _checks.choose("kind", self.kind, KINDS)
        _checks.choose("missing", self.missing, MISSING)
        for name, least in (("ways", 2), ("shots", 1)):
            object.__setattr__(self, name, _checks.integer(name, getattr(self, name), least=least))
        points = _checks.integer("points", self.points, least=0, optional=True)
        object.__setattr__(self, "points", points)
        if self.ways > len(COLORS):
            raise ValueError(f"ways must be at most {len(COLORS)}; got {self.ways}")
        if self.kind == "interactive" and self.shots != 1:
            raise ValueError(f"interactive episodes have one shot; got shots={self.shots}")


class Episodes:
    """Random access to episodes.

    Args:
        source: examples with "image", "label" and perhaps "instances"; of video with `clip`.
        rules: how they are drawn.
        classes: of the data, which objects are of.
        count: how many episodes there are.
        seed: integers; another one draws other episodes.

    Raises:
        ValueError: too few classes or images for an episode.
    """

    frames: Source  # the images that episodes are drawn of

    def __init__(
        self,
        source: Source,
        rules: Rules,
        classes: Sequence[int],
        count: int,
        seed: Sequence[int] = (0,),
    ):
        self.frames, self._rules, self._count = source, rules, count
        self._seed = tuple(seed)
        self._members = _members(source, classes)
        if rules.kind == "video":
            self._clips = _of_clips(source, self._members)
            self._members = _together(self._clips.values())
        several = [c for c, members in self._members.items() if len(members) > 1]
        self._classes = list(self._members) if rules.kind == "interactive" else several
        wanted = rules.ways - 1 if rules.kind == "semantic" else 1
        if len(self._classes) < wanted:
            raise ValueError(
                f"{rules.kind} episodes of {rules.ways} ways want {wanted} classes with images; "
                f"of {list(classes)} there are {len(self._classes)}"
            )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._count:
            raise IndexError(f"{index} of {self._count} episodes")
        rng = np.random.default_rng([*self._seed, index])
        kinds = {"semantic": self._semantic, "video": self._video}
        draw = kinds.get(self._rules.kind, self._interactive)
        return {**draw(rng), "id": f"episode_{index:05d}"}

    def over(self, frames: Source) -> "Episodes":
        """The same episodes of the same images, which come with something more, such as maps."""
        other = copy.copy(self)
        other.frames = frames
        return other

    def _semantic(self, rng: np.random.Generator) -> dict[str, Any]:
        objects = rng.choice(self._classes, self._rules.ways - 1, replace=False)
        query = int(rng.choice(self._members[int(rng.choice(objects))]))
        return self._supported(rng, query, objects, self._members)

    def _video(self, rng: np.random.Generator) -> dict[str, Any]:
        first = int(rng.choice(self._classes))
        query = int(rng.choice(self._members[first]))
        clip = self._clips[clip_of(self.frames, query)]
        others = rng.permutation([one for one in clip if one != first])
        objects = np.array([first, *others[: self._rules.ways - 2]])
        return self._supported(rng, query, objects, clip)

    def _supported(
        self,
        rng: np.random.Generator,
        query: int,
        objects: np.ndarray,
        members: Mapping[int, np.ndarray],
    ) -> dict[str, Any]:
        """The episode of a query whose support are these members of each object."""
        chosen = [i for one in objects for i in self._shots(rng, members[int(one)], query)]
        support = [self.frames[index] for index in chosen]
        labels = [numbered(example["label"], objects) for example in support]
        found = self.frames[query]
        stacked = {name: np.stack([one[name] for one in support]) for name in _seen(found)}
        return {
            **_seen(found),
            "label": numbered(found["label"], objects),
            "support": stacked.pop("image"),
            "label/support": np.stack([marked(rng, label, self._rules) for label in labels]),
            **{f"support/{name}": maps for name, maps in stacked.items()},
        }

    def _shots(self, rng: np.random.Generator, members: np.ndarray, query: int) -> list[int]:
        """Images with a class, other than the query; some of them twice if there are too few."""
        others = members[members != query]
        few = len(others) < self._rules.shots
        return rng.choice(others, self._rules.shots, replace=few).tolist()

    def _interactive(self, rng: np.random.Generator) -> dict[str, Any]:
        one = int(rng.choice(self._classes))
        example = self.frames[int(rng.choice(self._members[one]))]
        parts = _parts(example, set(self._classes))
        count = min(len(parts), self._rules.ways - 1)
        label = np.where(example["label"] == VOID, VOID, 0).astype(np.uint8)
        for number, part in enumerate(rng.choice(len(parts), count, replace=False), start=1):
            label[parts[part] & (label != VOID)] = number
        marks = marked(rng, label, self._rules)[None]
        return {**_seen(example), "label": label, "label/support": marks}

    def shape(self, index: int) -> tuple[int, ...]:
        """Height and width, of data whose images have one size."""
        del index
        return self.frames[0]["label"].shape


class Dense:
    """Random access to images with some classes, numbered from 1.

    Args:
        source: examples with "image" and "label".
        classes: of the data; all others are background.
    """

    def __init__(self, source: Source, classes: Sequence[int]):
        self._source, self._classes = source, tuple(classes)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        label = numbered(example["label"], self._classes)
        return {"image": example["image"], "label": label, "id": str(example.get("id", index))}


def _members(source: Source, classes: Sequence[int]) -> dict[int, np.ndarray]:
    """The images of each class that has any."""
    found: dict[int, list[int]] = {int(one): [] for one in classes}
    for index in range(len(source)):
        values, counts = np.unique(source[index]["label"], return_counts=True)
        for value, count in zip(values.tolist(), counts, strict=True):
            if value in found and count >= _LEAST:
                found[value].append(index)
    return {one: np.array(images) for one, images in found.items() if images}


def _of_clips(
    source: Source, members: Mapping[int, np.ndarray]
) -> dict[Any, dict[int, np.ndarray]]:
    """The images of each class by clip, of the classes that a clip shows more than once."""
    found: dict[Any, dict[int, list[int]]] = {}
    for one, images in members.items():
        for index in images.tolist():
            found.setdefault(clip_of(source, index), {}).setdefault(one, []).append(index)
    several = {
        clip: {one: np.array(images) for one, images in classes.items() if len(images) > 1}
        for clip, classes in found.items()
    }
    return {clip: classes for clip, classes in several.items() if classes}


def _together(clips: Iterable[Mapping[int, np.ndarray]]) -> dict[int, np.ndarray]:
    """The images of each class in all clips."""
    found: dict[int, list[np.ndarray]] = {}
    for clip in clips:
        for one, images in clip.items():
            found.setdefault(one, []).append(images)
    return {one: np.concatenate(images) for one, images in found.items()}


def _seen(example: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The image of an example and its maps."""
    return {k: array for k, array in example.items() if k == "image" or k.startswith("map/")}


def _parts(example: Mapping[str, Any], classes: set[int]) -> list[np.ndarray]:
    """The masks of the instances of some classes, large enough to be marked."""
    label = example["label"]
    allowed = np.isin(label, list(classes))
    if "instances" in example:
        instances = np.where(allowed, example["instances"], 0)
        masks = [instances == number for number in np.unique(instances) if number]
    else:
        masks = []
        for one in np.intersect1d(label, list(classes)):
            _, regions = cv2.connectedComponents((label == one).astype(np.uint8))
            masks += [regions == number for number in range(1, regions.max() + 1)]
    large = [mask for mask in masks if mask.sum() >= _LEAST]
    return large or [max(masks, key=np.sum)]


def numbered(label: np.ndarray, objects: Sequence[int]) -> np.ndarray:
    """The classes of an episode: 0 for all but the objects, these from 1, void stays.

    Example:
        >>> numbered(np.array([[7, 3, 0, 255]]), [3, 7]).tolist()
        [[2, 1, 0, 255]]
    """
    table = np.zeros(256, np.uint8)
    table[VOID] = VOID
    for number, one in enumerate(objects, start=1):
        table[one] = number
    return table[label]


def marked(rng: np.random.Generator, label: np.ndarray, rules: Rules) -> np.ndarray:
    """A label map where all but a few pixels of each class are void.

    Args:
        rng: draws the pixels.
        label: [H, W] of the episode's classes.
        rules: of the episodes.

    Example:
        >>> label = np.repeat([[0, 1]], 3, 1)
        >>> marks = marked(np.random.default_rng(0), label, Rules(points=2))
        >>> [(marks == k).sum().item() for k in (0, 1, VOID)]
        [2, 2, 2]
    """
    marks = np.full(label.shape, VOID, np.uint8)
    for one in range(rules.ways):
        pixels = np.flatnonzero(label == one)
        count = rules.points
        if count is None:
            count = int(rng.integers(1, MOST_POINTS + 1))
        if 0 < count < len(pixels):
            pixels = rng.choice(pixels, count, replace=False)
        marks.flat[pixels] = one
    return np.where(marks == VOID, 0, marks) if rules.missing == "negative" else marks


def of_fold(classes: Sequence[int], folds: int, fold: int) -> tuple[int, ...]:
    """The classes that a fold holds, one after the other.

    Example:
        >>> of_fold(range(1, 21), 4, 1)
        (6, 7, 8, 9, 10)
    """
    folds = _checks.integer("folds", folds, least=2)
    if not _checks.is_integer(fold) or not 0 <= fold < folds or len(classes) < folds:
        raise ValueError(
            f"fold must be from 0 to folds - 1, of at most as many folds as there are classes, "
            f"{len(classes)}; got fold={fold!r} of {folds}"
        )
    return tuple(int(one) for one in np.array_split(np.asarray(classes), folds)[fold])


def task_classes(
    classes: Sequence[int], split: str, rules: Rules, *, folds: int, fold: int, held_out: bool
) -> tuple[int, ...]:
    """The classes of a split's objects: in validation those of the fold, in training the others.

    With held_out=False training has all of them: what a network can do that has seen the classes.
    What is dense has those of training in validation as well. One fold divides nothing: both splits
    have all classes, as those of video where the clips of validation are others.
    """
    if _checks.integer("folds", folds) == 1:
        return tuple(classes)
    own = of_fold(classes, folds, fold)
    if split == "val" and rules.kind != "dense":
        return own
    _checks.flag("held_out", held_out)
    return tuple(one for one in classes if not (held_out and one in own))


def dataset(
    base: Dataset, rules: Rules, classes: Sequence[int], count: int, seed: Sequence[int]
) -> Dataset:
    """Episodes of a data set, normalised as it is.

    Args:
        base: images with classes.
        rules: how episodes are drawn.
        classes: of the data, which objects are of.
        count: how many episodes there are.
        seed: of the episodes.
    """
    if rules.kind == "dense":
        ways, source = 1 + len(classes), Dense(base.source, classes)
    else:
        ways, source = rules.ways, Episodes(base.source, rules, classes, count, seed)
    objects = ["object"] if ways == 2 else [f"object {k}" for k in range(1, ways)]
    return dataclasses.replace(
        base,
        source=source,
        num_classes=ways,
        class_names=("background", *objects),
        palette=np.resize(COLORS, (ways, 3)),
    )


def load(
    split: str,
    data_dir: str | None,
    *,
    of: str = "camvid",
    folds: int = 4,
    fold: int = 0,
    held_out: bool = True,
    train_episodes: int = 4096,
    val_episodes: int = 256,
    **rules: Any,
) -> Dataset:
    """Episodes of another data set, whose images have one size. Class 0 is no object.

    Args:
        split: "train" or "val".
        data_dir: of the other data set.
        of: its name.
        folds, fold: the classes are divided into so many parts, of which one is held out; 1 holds
            none out.
        held_out: whether training leaves the fold out; validation has its classes alone.
        train_episodes, val_episodes: how many there are.
        **rules: see `Rules`.

    Raises:
        ValueError: an option is out of its range, or the data have too few classes.
    """
    from rfjax.data import registry

    drawn, base = Rules(**rules), registry.load(of, split, data_dir=data_dir)
    parts = {"folds": folds, "fold": fold, "held_out": held_out}
    classes = task_classes(range(1, base.num_classes), split, drawn, **parts)
    count = _checks.integer("episodes", {"train": train_episodes, "val": val_episodes}[split])
    base = dataclasses.replace(base, name="episodes")
    return dataset(base, drawn, classes, count, (SPLITS.index(split),))
