"""Segments pictures with a trained run.

    python -m rfjax.predict --workdir=runs/first street.png photos 'more/*.jpg' --output=out

Writes for each picture NAME.png: `NAME_classes.png` (class indices as a palette image),
`NAME_overlay.png`, and, for networks that choose scales by the input, `NAME_scales_LAYER.png`; and
once `legend.png`. No file is ever overwritten: where a name is taken, a number is added to it, and
what was written is told.

Takes the checkpoint of highest mean IU unless `--step` names another. Pictures may have any size;
each new size compiles the network anew. They are read as training reads them (see
`rfjax.data.decoding`), which does not turn them by their EXIF orientation.
"""

import argparse
import dataclasses
import glob
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import _extras

if fault := _extras.missing("rfjax.predict", "PIL"):
    raise fault

from PIL import Image

from rfjax._console import Parser, guarded, tell
from rfjax._faults import Fault
from rfjax.training import config as configs
from rfjax.training import folders

# Modules that need JAX, which takes seconds, are imported where they are used: a mistake on the
# command line is told before.


class PredictionError(Fault, ValueError):
    """A picture that cannot be read or a place that cannot be written; the message says which."""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained network, ready for pictures.

    Attributes:
        step: of the checkpoint.
        class_names, palette: of the data that it was trained on; palette is uint8 [K, 3].
        variables: of the network.
        segment: the compiled function of (variables, images); see `inference.make_segment`.
    """

    step: int
    class_names: tuple[str, ...]
    palette: np.ndarray
    variables: dict[str, Any]
    segment: Callable

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The classes [H, W] of a picture [H, W, 3] uint8, and the scale maps by layer."""
        import jax

        output = jax.device_get(self.segment(self.variables, np.asarray(image)[None]))
        return output["classes"][0], {name: maps[0] for name, maps in output["scale_maps"].items()}


def load(workdir: str | Path, *, step: int | None = None) -> Predictor:
    """The network of a training run.

    Args:
        workdir: the run's directory.
        step: which checkpoint; None for the one of highest mean IU.

    Raises:
        CheckpointError: if there is no such run or checkpoint.
    """
    from rfjax.training import checkpoints, inference, loop

    variables, meta, step = checkpoints.load(workdir, step=step)
    dataset = meta["dataset"]
    model = loop.build_model(configs.from_dict(meta["config"]), dataset["num_classes"])
    return Predictor(
        step=step,
        class_names=tuple(dataset["class_names"]),
        palette=np.asarray(dataset["palette"], np.uint8),
        variables=variables,
        segment=inference.make_segment(model, mean=dataset["mean"], std=dataset["std"]),
    )


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


def palette_image(classes: np.ndarray, palette: np.ndarray) -> Image.Image:
    """A picture whose values are the classes and whose palette is theirs."""
    classes = np.ascontiguousarray(classes, np.uint8)
    image = Image.frombytes("P", classes.shape[::-1], classes.tobytes())
    image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    return image


def write(folder: Path, name: str, image: np.ndarray, predictor: Predictor) -> list[Path]:
    """Segments one picture and writes all of its pictures; returns their paths.

    They get a number more where any file of this `name` exists. If one cannot be written, none
    of them stays.
    """
    from rfjax import visualize
    from rfjax.training import inference

    classes, scale_maps = predictor(image)
    pictures = {
        "classes": palette_image(classes, predictor.palette),
        "overlay": Image.fromarray(visualize.overlay(image, classes, predictor.palette)),
    }
    parts = inference.file_names(list(scale_maps))
    for layer, scale_map in scale_maps.items():
        panels = visualize.scale_panels([image], [scale_map])
        pictures[f"scales_{parts[layer]}"] = Image.fromarray(visualize.to_rgb(panels))
    for stem in _numbered(name):
        files = {folder / f"{stem}_{kind}.png": picture for kind, picture in pictures.items()}
        if not any(map(os.path.lexists, files)):
            break
    _write_new({path: _png(picture) for path, picture in files.items()})
    return list(files)


def write_legend(folder: Path, predictor: Predictor) -> Path:
    """Writes the colors of the classes, unless they lie there already; returns the path."""
    from rfjax import visualize

    legend = visualize.legend(predictor.class_names, predictor.palette)
    content = _png(Image.fromarray(visualize.to_rgb(legend)))
    paths = (folder / f"{stem}.png" for stem in _numbered("legend"))
    path = next(p for p in paths if not os.path.lexists(p) or _holds(p, content))
    if not os.path.lexists(path):
        _write_new({path: content})
    return path


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _numbered(name: str) -> Iterator[str]:
    """NAME, NAME_2, NAME_3, ..."""
    yield name
    for number in itertools.count(2):
        yield f"{name}_{number}"


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _write_new(contents: Mapping[Path, bytes]) -> None:
    """Writes files that do not exist, all or none of them."""
    begun = []
    try:
        for path, content in contents.items():
            with path.open("xb") as file:  # fails if another program has just made it
                begun.append(path)
                file.write(content)
    except OSError as error:
        for path in begun:
            path.unlink(missing_ok=True)
        raise PredictionError(f"{path}: cannot be written ({error.strerror})") from error


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="rfjax.predict", description="Segments pictures with a trained run.")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="pictures of any size, folders of them, patterns"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="directory of the training run")
    parser.add_argument("--output", required=True, type=Path, help="directory for the results")
    parser.add_argument("--step", type=int, help="checkpoint to take (default: the best one)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 1 if any picture could not be segmented."""
    options = _parser().parse_args(argv)
    return guarded("rfjax.predict", partial(_predict, options))


def _predict(options: argparse.Namespace) -> int:
    """Segments the pictures that the options name."""
    folders.check(options.workdir, step=options.step)
    pictures, failures = _all_pictures(options.images)
    if not pictures:
        return 1
    _make_folder(options.output)
    from rfjax.training import inference

    predictor = load(options.workdir, step=options.step)
    print(f"checkpoint of step {predictor.step} of {options.workdir}")
    write_legend(options.output, predictor)
    names = inference.distinct([path.stem for path in pictures])
    for name, path in zip(names, pictures, strict=True):
        try:
            written = _segment(path, options.output, name, predictor)
        except PredictionError as error:  # the other pictures are segmented nevertheless
            failures += _tell(error)
            continue
        print(f"{path}: {', '.join(str(file) for file in written)}")
    return 1 if failures else 0


def _all_pictures(arguments: Sequence[str]) -> tuple[list[Path], int]:
    """The pictures that the arguments name, each once, and how many arguments name none."""
    found: dict[Path, Path] = {}
    failures = 0
    for argument in arguments:
        try:
            for path in find_pictures(argument):
                found.setdefault(path.absolute(), path)
        except PredictionError as error:
            failures += _tell(error)
    return list(found.values()), failures


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise PredictionError(f"--output={folder}: a file of this name is in the way") from error


def _segment(path: Path, folder: Path, name: str, predictor: Predictor) -> list[Path]:
    """Reads one picture and writes what it becomes."""
    import jax

    from rfjax.data import decoding

    image = read_image(path)
    turned = decoding.orientation(path)
    if turned != 1:
        note = f"{path} is taken as stored, as in training; EXIF orientation {turned} would turn it"
        tell(f"rfjax.predict: note: {note}")
    try:
        return write(folder, name, image, predictor)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        height, width = image.shape[:2]
        reason = next(iter(str(error).splitlines()), "out of memory")
        raise PredictionError(f"{path}: {height}x{width} pixels are too many: {reason}") from error


def _tell(error: Exception) -> int:
    """Prints an error; returns 1, the exit status."""
    tell(f"rfjax.predict: error: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
