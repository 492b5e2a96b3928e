"""Segments pictures by what is marked in some, with a trained run of the task "guided".

    python -m rfjax.guide --workdir=RUN --support=one.png:mask.png more/*.png --output=out
    python -m rfjax.guide --workdir=RUN --click=+40,31 --click=-5,60 picture.png --output=out

A support is a picture and a mask of its size: 0 marks what is no object, 1, 2, ... the objects, and
255 what is unknown; in a mask of 0 and 255 alone, 255 is the object. `--click` marks a pixel x,y of
the first picture, + as the object and - as none. For each picture NAME.png two files are written:
`NAME_mask.png`, the classes as a palette image, and `NAME_overlay.png`, with its marks. No file is
ever overwritten: where a name is taken, a number is added to it.

Pictures are encoded once. A further mark costs the fusion alone: both times are told. From Python:

    from rfjax import guide

    guided = guide.load("runs/guided")
    guided.click("picture", image, (31, 40), 1)
    classes = guided.segment("picture", image)
"""

import argparse
import re
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rfjax import _extras

if fault := _extras.missing("rfjax.guide", "PIL"):
    raise fault

from rfjax import predict
from rfjax._console import Parser, called, guarded, tell
from rfjax._faults import Fault
from rfjax.training import folders

# Modules that need JAX, which takes seconds, are imported where they are used: a mistake on the
# command line is told before.

VOID = 255  # of a mask: unknown


class GuideError(Fault, ValueError):
    """Marks that guide nothing, or a run that they cannot guide; the message says which."""


class Click(NamedTuple):
    """A marked pixel: its coordinates, and whether it is one of the object."""

    y: int
    x: int
    positive: bool

    def __str__(self) -> str:
        return f"--click={'+' if self.positive else '-'}{self.x},{self.y}"


class Guided:
    """A trained network, and what was marked so far.

    Pictures are known by a key, as their path. The features of each are computed once and kept, so
    that a further mark costs a mean and the scores of a map.

    Args:
        trained: a run of the task "guided".

    Raises:
        GuideError: the network is not guided by means of features.
    """

    def __init__(self, trained: Any):
        from rfjax.models.guided import POOLED

        fusion = getattr(trained.task, "fusion", None)
        if fusion not in POOLED:
            what = f"its fusion is {fusion}" if fusion else "its task is not guided"
            raise GuideError(f"marks guide runs of {' or '.join(POOLED)}; {what}")
        self._trained = trained
        self._features: dict[Any, Any] = {}
        self._marks: dict[Hashable, np.ndarray] = {}
        self._guides: dict[Hashable, Mapping[str, Any]] = {}
        self._compiled = _compiled(trained)

    @property
    def ways(self) -> int:
        """The number of classes, with that of what is no object."""
        return 1 + max([1, *(_highest(marks) for marks in self._marks.values())])

    def mark(self, key: Hashable, image: np.ndarray, marks: np.ndarray) -> None:
        """Adds marks of a picture to those that there are.

        Args:
            key: of the picture.
            image: uint8 [H, W, 3].
            marks: integers [H, W]; 0 no object, from 1 the objects, 255 not marked.

        Raises:
            GuideError: nothing is marked, or the marks have another size than the picture.
        """
        marks = np.asarray(marks)
        if marks.shape != image.shape[:2]:
            raise GuideError(
                f"the mask has {_by(marks)} pixels, its picture {_by(image)}: want one size"
            )
        if (marks == VOID).all():
            raise GuideError("nothing is marked")
        before, ways = self._marks.get(key), self.ways
        known = marks if before is None else np.where(marks == VOID, before, marks)
        self._marks[key] = known.astype(np.uint8)
        changed = [key] if self.ways == ways else list(self._marks)
        if before is None:
            self._encoded(key, image, support=True)
        for one in changed:
            features, own = self._features[one, True], self._marks[one]
            self._guides[one] = self._compiled["guide"](features, own, ways=self.ways)

    def click(self, key: Hashable, image: np.ndarray, pixel: Sequence[int], label: int) -> None:
        """Marks one pixel (y, x) of a picture as of a class, 0 for no object.

        Raises:
            GuideError: the pixel is not in the picture.
        """
        (y, x), (height, width) = pixel, image.shape[:2]
        if not (0 <= y < height and 0 <= x < width):
            raise GuideError(
                f"pixel x={x}, y={y} is outside of a picture of {width} by {height} pixels"
            )
        marks = np.full((height, width), VOID, np.uint8)
        marks[y, x] = label
        self.mark(key, image, marks)

    def segment(self, key: Hashable, image: np.ndarray) -> np.ndarray:
        """The classes uint8 [H, W] of a picture [H, W, 3] uint8 by all marks.

        Raises:
            GuideError: nothing was marked before.
        """
        if not self._guides:
            raise GuideError("nothing was marked")
        features = self._encoded(key, image)
        classes = self._compiled["segment"](features, self._mean(), size=image.shape[:2])
        return np.asarray(classes)

    def keep(self, key: Hashable, features: Any) -> None:
        """Takes over the features [1, h, w, C] of a picture, so that it is not encoded any more.

        Args:
            key: of the picture.
            features: by `encode` of the network, such as from maps that are there already.
        """
        for support in (False, True):
            self._features[key, support] = features

    def clear(self) -> None:
        """Forgets all marks. Pictures that were encoded stay so."""
        self._marks.clear()
        self._guides.clear()

    def marks(self, key: Hashable, size: Sequence[int]) -> np.ndarray:
        """What is marked in a picture, [H, W], 255 where nothing is."""
        return self._marks.get(key, np.full(tuple(size[:2]), VOID, np.uint8))

    def _encoded(self, key: Hashable, image: np.ndarray, support: bool = False) -> Any:
        """The features of a picture by the encoder of queries or supports, kept."""
        if (key, support) not in self._features:
            shared = self._trained.task.shared
            if shared and (key, not support) in self._features:
                self._features[key, support] = self._features[key, not support]
            else:
                self._features[key, support] = self._compiled["encode"](image, support=support)
        return self._features[key, support]

    def _mean(self) -> np.ndarray:
        """The mean over the shots that have a class, [K, C]."""
        means, counts = (
            np.stack([np.asarray(guide[name]) for guide in self._guides.values()])
            for name in ("mean", "count")
        )
        return (means * counts[..., None]).sum(0) / np.maximum(counts.sum(0), 1)[:, None]


def _highest(marks: np.ndarray) -> int:
    """The highest class that is marked."""
    return int(marks[marks != VOID].max(initial=0))


def _by(array: np.ndarray) -> str:
    return "x".join(map(str, array.shape[:2]))


def _compiled(trained: Any) -> dict[str, Any]:
    """The compiled parts of a network: encode, guide and segment, of one picture."""
    import jax
    import jax.numpy as jnp

    run = partial(trained.model.apply, trained.variables)
    normalize = trained.task.normalization.on_device

    @partial(jax.jit, static_argnames="support")
    def encode(image, *, support):
        return run(normalize(image[None]), support=support, method="encode")

    @partial(jax.jit, static_argnames="ways")
    def guide(features, marks, *, ways):
        masks = jax.nn.one_hot(marks, ways)[None, None]
        return jax.tree.map(lambda x: x[0], run(features[None], masks, method="guide"))

    @partial(jax.jit, static_argnames="size")
    def segment(features, mean, *, size):
        scores = run(features, jnp.asarray(mean, features.dtype)[None], size, method="segment")
        return jnp.argmax(scores[0], -1).astype(jnp.uint8)

    return {"encode": encode, "guide": guide, "segment": segment}


def load(workdir: str | Path, *, step: int | None = None) -> Guided:
    """The trained network of a run, to be guided.

    Args:
        workdir: the run's directory.
        step: which checkpoint; None for the one of the highest score.

    Raises:
        CheckpointError: there is no such run or checkpoint.
        GuideError: the run is no guided one, or of a form that marks cannot be added to.
    """
    from rfjax.training import runs

    trained = runs.load(workdir, step=step)
    try:
        return Guided(trained)
    except GuideError as error:
        raise GuideError(f"{workdir}: {error}") from error


def read_mask(path: str | Path) -> np.ndarray:
    """The mask in a file, uint8 [H, W]; of 0 and 255 alone, 255 is the object.

    Raises:
        PredictionError, GuideError: it is missing, no mask, or nothing is marked.
    """
    from rfjax.data import decoding

    path = Path(path)
    if not path.exists():
        raise predict.PredictionError(f"{path}: there is no such file")
    try:
        mask = decoding.decode_mask(decoding.read_bytes(path), str(path))
    except ValueError as error:
        raise GuideError(str(error)) from error
    if set(np.unique(mask)) == {0, VOID}:
        mask = np.where(mask == VOID, 1, 0).astype(np.uint8)
    marked = mask[mask != VOID]
    if not marked.any():
        raise GuideError(f"{path}: no object is marked, by 1 or more")
    return mask


def _click(text: str) -> Click:
    """The click that an argument is."""
    found = re.fullmatch(r"([+-])(\d+),(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"want +x,y or -x,y in whole pixels; got {text!r}")
    sign, x, y = found.groups()
    return Click(int(y), int(x), sign == "+")


def _support(text: str) -> tuple[str, str]:
    """The image and the mask that an argument names."""
    image, _, mask = text.rpartition(":")
    if not image or not mask:
        raise argparse.ArgumentTypeError(f"want IMAGE:MASK, two files; got {text!r}")
    return image, mask


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="rfjax.guide", description="Segments pictures by marks.")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="pictures of any size, folders of them, patterns"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="directory of the training run")
    parser.add_argument("--output", required=True, type=Path, help="directory for the results")
    parser.add_argument(
        "--support", action="append", default=[], type=_support, metavar="IMAGE:MASK"
    )
    parser.add_argument(
        "--click", action="append", default=[], type=_click, metavar="±x,y",
        help="a pixel of the first picture: + of the object, - of none",
    )  # fmt: skip
    parser.add_argument("--step", type=int, help="checkpoint to take (default: the best one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 1 if a picture could not be read."""
    options = _parser().parse_args(argv)
    return guarded("rfjax.guide", partial(_guide, options))


def _guide(options: argparse.Namespace) -> int:
    if not options.support and not options.click:
        raise GuideError("nothing is marked: want --support=IMAGE:MASK or --click=+x,y")
    folders.check(options.workdir, step=options.step)
    pictures = [path for argument in options.images for path in predict.find_pictures(argument)]
    supports = [(path, read_mask(mask), mask) for path, mask in options.support]
    first = predict.read_image(pictures[0]) if options.click else None
    predict.make_folder(options.output)
    guided = load(options.workdir, step=options.step)
    for path, mask, name in supports:
        try:
            guided.mark(str(Path(path).absolute()), predict.read_image(path), mask)
        except GuideError as error:
            raise GuideError(f"{name}: {error}") from error
    if first is not None:
        print(_clicked(guided, pictures[0], first, options.click))
    return _answered(guided, pictures, options.output)


def _clicked(guided: Guided, path: Path, image: np.ndarray, clicks: Sequence[Click]) -> str:
    """Adds the clicks one after the other; returns the time of the last one in words."""
    key, seconds = str(path.absolute()), 0.0
    for click in clicks:
        try:
            guided.click(key, image, (click.y, click.x), int(click.positive))
        except GuideError as error:
            raise GuideError(f"{click}: {path}: {error}") from error
    for _ in range(2):  # the first one compiles
        started = time.perf_counter()
        guided.click(key, image, clicks[-1][:2], int(clicks[-1].positive))
        guided.segment(key, image)
        seconds = time.perf_counter() - started
    return f"{len(clicks)} clicks in {path}; a further one takes {1e3 * seconds:.1f} ms"


def _answered(guided: Guided, paths: Sequence[Path], output: Path) -> int:
    """Segments and writes; returns 1 if a picture could not be read."""
    from PIL import Image

    from rfjax import visualize
    from rfjax.data.episodes import COLORS
    from rfjax.tasks import inference

    failures = 0
    names = inference.distinct([path.stem for path in paths])
    for name, path in zip(names, paths, strict=True):
        try:
            image = predict.read_image(path)
            started = time.perf_counter()
            classes = guided.segment(str(path.absolute()), image)
            seconds = time.perf_counter() - started
            pictures = {
                "mask": visualize.palette_image(classes, COLORS),
                "overlay": Image.fromarray(shown(guided, str(path.absolute()), image)),
            }
            written = predict.write_pictures(output, name, pictures)
        except predict.PredictionError as error:  # the other pictures are answered nevertheless
            tell(f"{called('rfjax.guide')}: error: {error}")
            failures = 1
            continue
        share = 100 * float(np.mean(classes > 0))
        said = f"{path}: object {share:.1f} % of the pixels, {1e3 * seconds:.0f} ms"
        print(", ".join([said, *written]))
    return failures


def shown(guided: Guided, key: Hashable, image: np.ndarray) -> np.ndarray:
    """A picture under the objects that are found in it, with its marks, uint8 RGB."""
    from rfjax import visualize
    from rfjax.data.episodes import COLORS

    classes = guided.segment(key, image)
    over = np.where((classes > 0)[..., None], visualize.overlay(image, classes, COLORS), image)
    return visualize.marked_image(over, guided.marks(key, image.shape), COLORS)


if __name__ == "__main__":
    sys.exit(main())
