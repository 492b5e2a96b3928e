"""Segments or classifies pictures with a trained run, or finds the flow of pairs of them.

    python -m rfjax.predict --workdir=runs/first street.png photos 'more/*.jpg' --output=out
    python -m rfjax.predict --workdir=runs/flow one.png:two.png two.png:three.png --output=out

Of a segmentation it writes for each picture NAME.png: `NAME_classes.png` (class indices as a
palette image), `NAME_overlay.png`, and, for networks that choose scales by the input,
`NAME_scales_LAYER.png`; and once `legend.png`. No file is ever overwritten: where a name is taken,
a number is added to it, and what was written is told. Of a classification it prints the likeliest
classes. Of a pair it writes by the name of the first picture `NAME_flow.flo`, `NAME_flow.png`, its
colors as long as the longest motion is fully colored, and once as `legend.png` their wheel.

A network of colors and depth reads the latter from pictures of the same names in the folder that
`--depth` names: grey ones, in levels as those of training, or with 16 bits in millimeters; or in
three channels. A network of depth alone is given pictures of depth.

`--window` cuts large pictures into windows that overlap, and averages what the network says of each
pixel; memory is then that of a band of windows. `--probabilities` writes `NAME_probabilities.npy`,
float16 [H, W, K]. With either there are no maps of scales. `--coco` writes all segmentations once
more as `coco.json`, annotations with the region of each class (see `rfjax.tasks.coco`).

Takes the checkpoint of the highest score unless `--step` names another. Pictures may have any size;
each new size compiles the network anew. They are read as training reads them (see
`rfjax.data.decoding`), which does not turn them by their EXIF orientation.
"""

import argparse
import contextlib
import glob
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import _extras

if fault := _extras.missing("rfjax.predict", "PIL"):
    raise fault

from PIL import Image

from rfjax._console import Parser, called, guarded, positive, tell
from rfjax._outputs import PredictionError as PredictionError
from rfjax._outputs import holds, new_array, png, write_new
from rfjax._outputs import numbered as numbered
from rfjax._outputs import write_pictures as write_pictures
from rfjax.training import folders

# Modules that need JAX, which takes seconds, are imported where they are used: a mistake on the
# command line is told before.


# What a task takes, by the number of its pictures.
_TAKEN = {1: "single pictures", 2: "pairs of pictures, FIRST:SECOND"}


def load(workdir: str | Path, *, step: int | None = None, pictures: int = 1) -> Any:
    """The trained network of a run; see `rfjax.training.runs.Trained`.

    Args:
        workdir: the run's directory.
        step: which checkpoint; None for the one of the highest score.
        pictures: that it will be given at a time: 1, or 2 for pairs.

    Raises:
        CheckpointError: if there is no such run or checkpoint.
        PredictionError: what it has learned takes another number of pictures.
    """
    from rfjax.training import runs

    trained = runs.load(workdir, step=step)
    wanted = len(trained.task.pictures)
    if wanted != pictures:
        task = trained.config.to_dict()["task"]["name"]
        what = _TAKEN.get(wanted, "more than pictures")
        raise PredictionError(f"{workdir}: the task {task!r} takes {what}; got {_TAKEN[pictures]}")
    return trained


def read_image(path: str | Path) -> np.ndarray:
    """The picture at `path`, uint8 RGB [H, W, 3], as training would read it.

    Raises:
        PredictionError: if it is missing or not a picture.
    """
    from rfjax.data import decoding

    path = Path(path)
    if not path.exists():
        raise PredictionError(f"{path}: there is no such file")
    try:
        return decoding.decode_image(decoding.read_bytes(path), str(path))
    except decoding.ImageError as error:
        raise PredictionError(f"{path}: not a picture that can be read ({error.reason})") from error
    except ValueError as error:
        raise PredictionError(str(error)) from error


def read_channels(path: str | Path, channels: int, depth: Path | None = None) -> np.ndarray:
    """What a network of so many channels reads of a picture, uint8 [H, W, channels].

    Args:
        path: of a picture in colors; of a network of one channel, of a picture of depth, grey: its
            levels, or with 16 bits millimeters, which become the levels of `rfjax.data.depth`.
        channels: of the network.
        depth: the folder in which the channels after the colors lie, under the picture's name.

    Raises:
        PredictionError: a picture cannot be read, or does not fit.
    """
    path = Path(path)
    if channels == 1:
        return _read_levels(path)
    colors = read_image(path)
    if channels == 3:
        return colors
    if depth is None:
        raise PredictionError(
            f"{path}: the network reads {channels} channels; say by --depth where those after the "
            "colors lie"
        )
    more = read_channels(depth / path.name, channels - 3)
    _check_size(depth / path.name, more, path, colors)
    return np.dstack([colors, more])


def _check_size(path: Path, image: np.ndarray, other: Path, wanted: np.ndarray) -> None:
    """Raises unless a picture has the size of another one."""
    if image.shape[:2] != wanted.shape[:2]:
        sizes = [f"{height}x{width}" for height, width in (image.shape[:2], wanted.shape[:2])]
        raise PredictionError(f"{path} has {sizes[0]} pixels, {other} has {sizes[1]}")


def _read_levels(path: Path) -> np.ndarray:
    """The levels of a picture of depth, uint8 [H, W, 1]."""
    from rfjax.data.depth import log_levels
    from rfjax.data.nyud import read_depth

    image = read_image(path)
    if (image != image[..., :1]).any():
        raise PredictionError(f"{path} is in colors; want a picture of depth, of one channel")
    try:
        return log_levels(read_depth(path))[..., None]
    except ValueError:  # eight bits
        return image[..., :1]


def find_pictures(argument: str) -> list[Path]:
    """The pictures that an argument names: one file, those of a folder, or those of a pattern.

    Args:
        argument: a path, or a pattern with *, ? or [] (and ** for any folders), which shells
            resolve unless it is quoted. Of folders and patterns the pictures count, by their
            suffix; see `rfjax.data.decoding.picture_files`.

    Raises:
        PredictionError: if a folder or pattern has no pictures, or a folder cannot be read.
    """
    from rfjax.data import decoding

    path = Path(argument)
    if path.is_dir():
        try:
            found = decoding.picture_files(path)
        except OSError as error:
            raise PredictionError(f"{path}: {error.strerror}") from error
    elif glob.has_magic(argument) and not os.path.lexists(path):
        matches = map(Path, sorted(glob.glob(argument, recursive=True)))
        found = [match for match in matches if decoding.is_picture(match)]
    else:
        return [path]
    if not found:
        suffixes = ", ".join(decoding.IMAGE_SUFFIXES)
        raise PredictionError(f"{argument}: there are no pictures ({suffixes})")
    return found


def write(folder: Path, name: str, images: Sequence[np.ndarray], trained: Any) -> list[str]:
    """Writes all that the network makes of a picture or pair; returns it in words, and the paths.

    They get a number more where any file of this `name` exists. If one cannot be written, none
    of them stays.
    """
    from rfjax import visualize
    from rfjax.tasks import inference

    output, scale_maps = trained(*images)
    words, pictures = trained.task.answer(images[0], output)
    parts = inference.file_names(list(scale_maps))
    for layer, scale_map in scale_maps.items():
        panels = visualize.scale_panels([images[0]], [scale_map])
        pictures[f"scales_{parts[layer]}"] = Image.fromarray(visualize.to_rgb(panels))
    return [*words, *write_pictures(folder, name, pictures)]


def write_probabilities(
    folder: Path,
    name: str,
    image: np.ndarray,
    trained: Any,
    *,
    window: int | None = None,
    overlap: float = 0.25,
    keep: bool = True,
) -> list[str]:
    """Writes what a segmentation makes of a picture by its probabilities; see `write`.

    Args:
        folder, name: where, and how it is called.
        image: uint8 [H, W, C].
        trained: the run.
        window, overlap: as in `rfjax.training.windows.bands`; None for the whole picture at once.
        keep: whether the probabilities are written as well.
    """
    from rfjax.training import windows

    size = max(image.shape[:2]) if window is None else window
    found = windows.bands(windows.probabilities(trained), image, window=size, overlap=overlap)
    kinds = ("classes.png", "overlay.png", "probabilities.npy")
    stem = next(
        stem
        for stem in numbered(name)
        if not any(os.path.lexists(folder / f"{stem}_{kind}") for kind in kinds)
    )
    path, classes = folder / f"{stem}_probabilities.npy", []
    with new_array(path, image.shape[:2]) if keep else contextlib.nullcontext() as write_rows:
        for band in found:
            kind = np.uint8 if band.shape[-1] <= 256 else np.int32
            classes.append(band.argmax(-1).astype(kind))
            if write_rows is not None:
                write_rows(band)
        words, pictures = trained.task.answer(image, np.concatenate(classes))
        paths = write_pictures(folder, stem, pictures)
    return [*words, *paths, *([str(path)] if keep else [])]


def write_legend(folder: Path, trained: Any) -> None:
    """Writes what the colors mean, where they mean anything, unless it lies there already."""
    legend = trained.task.legend()
    if legend is None:
        return
    content = png(legend)
    paths = (folder / f"{stem}.png" for stem in numbered("legend"))
    path = next(p for p in paths if not os.path.lexists(p) or holds(p, content))
    if not os.path.lexists(path):
        write_new({path: content})


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rfjax.predict", description="Segments or classifies pictures, or finds flow."
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE",
        help="pictures of any size, folders of them, patterns; of flow pairs, FIRST:SECOND",
    )  # fmt: skip
    parser.add_argument("--workdir", required=True, type=Path, help="directory of the training run")
    parser.add_argument("--output", required=True, type=Path, help="directory for the results")
    parser.add_argument(
        "--depth", type=Path, help="folder of the channels after the colors, by the pictures' names"
    )
    parser.add_argument("--window", type=positive, help="pixels along each axis of the windows")
    parser.add_argument(
        "--overlap", type=float, help="least share of a window that its neighbor has (default: .25)"
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="write those of all classes as well"
    )
    parser.add_argument(
        "--coco", action="store_true", help="write all as one file of COCO annotations as well"
    )
    parser.add_argument("--step", type=int, help="checkpoint to take (default: the best one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 1 if a picture could not be read."""
    options = _parser().parse_args(argv)
    return guarded("rfjax.predict", partial(_predict, options))


def _predict(options: argparse.Namespace) -> int:
    """Answers for the pictures that the options name."""
    if options.overlap is not None and (options.window is None or not 0 <= options.overlap < 1):
        raise PredictionError(f"--overlap is of --window, from 0 to below 1; got {options.overlap}")
    folders.check(options.workdir, step=options.step)
    pictures, failures = _all_pictures(options.images)
    if not pictures:
        return 1
    if len({len(paths) for paths in pictures}) > 1:
        raise PredictionError("want either single pictures or pairs FIRST:SECOND; got both")
    make_folder(options.output)
    from rfjax.tasks import inference

    trained = load(options.workdir, step=options.step, pictures=len(pictures[0]))
    document = _document(trained, options)
    print(f"checkpoint of step {trained.step} of {options.workdir}")
    write_legend(options.output, trained)
    names = inference.distinct([paths[0].stem for paths in pictures])
    for name, paths in zip(names, pictures, strict=True):
        try:
            answers = _answer(paths, options, name, trained)
        except PredictionError as error:  # the other pictures are answered nevertheless
            failures += _tell(error)
            continue
        if document is not None:  # the file has the classes without loss
            found = next(path for path in answers if path.endswith("_classes.png"))
            document.add(paths[0].as_posix(), np.asarray(Image.open(found)))
        print(f"{_said(paths)}: {', '.join(answers)}")
    if document is not None:
        print(f"annotations of COCO: {_write_document(options.output, document)}")
    return 1 if failures else 0


def _document(trained: Any, options: argparse.Namespace) -> Any:
    """What `--coco` collects, or None.

    Raises:
        PredictionError: the run is no segmentation.
    """
    from rfjax.tasks import coco
    from rfjax.tasks.segmentation import Segmentation

    if not options.coco:
        return None
    if not isinstance(trained.task, Segmentation):
        raise PredictionError(f"--coco is of segmentations; {options.workdir} has learned none")
    return coco.Document(trained.task.facts["class_names"])


def _write_document(folder: Path, document: Any) -> Path:
    """Writes annotations to a new file."""
    paths = (folder / f"{stem}.json" for stem in numbered("coco"))
    path = next(path for path in paths if not os.path.lexists(path))
    write_new({path: json.dumps(document.content).encode()})
    return path


def _all_pictures(arguments: Sequence[str]) -> tuple[list[tuple[Path, ...]], int]:
    """The pictures and pairs that the arguments name, and how many arguments name none.

    Each is there once.
    """
    found: dict[tuple[Path, ...], tuple[Path, ...]] = {}
    failures = 0
    for argument in arguments:
        try:
            for paths in _pair(argument) or [(path,) for path in find_pictures(argument)]:
                found.setdefault(tuple(path.absolute() for path in paths), paths)
        except PredictionError as error:
            failures += _tell(error)
    return list(found.values()), failures


def _pair(argument: str) -> list[tuple[Path, ...]]:
    """The pair FIRST:SECOND that an argument names; none where it names a file or a pattern."""
    first, colon, second = argument.rpartition(":")
    if not colon or os.path.lexists(argument):
        return []
    if glob.has_magic(argument) and not os.path.lexists(first):
        return []
    if not first or not second:
        raise PredictionError(f"want FIRST:SECOND, two pictures; got {argument!r}")
    return [(Path(first), Path(second))]


def _said(paths: Sequence[Path]) -> str:
    """As the argument named them."""
    return ":".join(map(str, paths))


def make_folder(folder: Path) -> None:
    """Makes the folder of the results, where it is not there.

    Raises:
        PredictionError: a file is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise PredictionError(f"--output={folder}: a file of this name is in the way") from error


def _answer(
    paths: Sequence[Path], options: argparse.Namespace, name: str, trained: Any
) -> list[str]:
    """Reads a picture or a pair and writes what it becomes."""
    import jax

    images = _read_all(paths, options, trained)
    try:
        if options.window is None and not options.probabilities:
            return write(options.output, name, images, trained)
        return write_probabilities(
            options.output,
            name,
            images[0],
            trained,
            window=options.window,
            overlap=0.25 if options.overlap is None else options.overlap,
            keep=options.probabilities,
        )
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        height, width = images[0].shape[:2]
        reason = next(iter(str(error).splitlines()), "out of memory")
        cuts = "; --window cuts them" if len(paths) == 1 else ""
        raise PredictionError(
            f"{_said(paths)}: {height}x{width} pixels are too many: {reason}{cuts}"
        ) from error


def _read_all(paths: Sequence[Path], options: argparse.Namespace, trained: Any) -> list[np.ndarray]:
    """A picture, or two of one size."""
    from rfjax.data import decoding

    channels = len(trained.task.facts.get("mean", "rgb"))
    images = [read_channels(path, channels, options.depth) for path in paths]
    for path, image in zip(paths, images, strict=True):
        _check_size(path, image, paths[0], images[0])
        turned = decoding.orientation(path)
        if turned != 1:
            stored = f"note: {path} is taken as stored, as in training"
            turning = f"EXIF orientation {turned} would turn it"
            tell(f"{called('rfjax.predict')}: {stored}; {turning}")
    return images


def _tell(error: Exception) -> int:
    """Prints an error; returns 1, the exit status."""
    tell(f"{called('rfjax.predict')}: error: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
