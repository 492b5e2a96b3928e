"""Segments pictures with a trained run.

    python -m rfjax.predict --workdir=runs/first street.png park.jpg --output=out

Writes for each picture NAME.png: `NAME_classes.png` (class indices as a palette image),
`NAME_overlay.png`, and, for networks that choose scales by the input, `NAME_scales_LAYER.png`; and
once `legend.png`. Takes the checkpoint of highest mean IU unless `--step` names another. Pictures
may have any size; each new size compiles the network anew.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from rfjax._console import Parser, guarded
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

        output = jax.device_get(self.segment(self.variables, np.asarray(image, np.uint8)[None]))
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
    """The picture at `path`, uint8 RGB [H, W, 3].

    Raises:
        PredictionError: if it is missing or not a picture.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise PredictionError(f"{path}: there is no such file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PredictionError(f"{path}: not a picture that can be read ({error})") from error


def palette_image(classes: np.ndarray, palette: np.ndarray) -> Image.Image:
    """A picture whose values are the classes and whose palette is theirs."""
    classes = np.ascontiguousarray(classes, np.uint8)
    image = Image.frombytes("P", classes.shape[::-1], classes.tobytes())
    image.putpalette(np.asarray(palette, np.uint8).ravel().tolist())
    return image


def write(folder: Path, name: str, image: np.ndarray, predictor: Predictor) -> list[Path]:
    """Segments one picture and writes all of its pictures; returns their paths."""
    from rfjax import visualize

    classes, scale_maps = predictor(image)
    paths = [folder / f"{name}_classes.png", folder / f"{name}_overlay.png"]
    palette_image(classes, predictor.palette).save(paths[0])
    Image.fromarray(visualize.overlay(image, classes, predictor.palette)).save(paths[1])
    for layer, scale_map in scale_maps.items():
        paths.append(folder / f"{name}_scales_{layer.replace('/', '_')}.png")
        visualize.save(visualize.scale_panels([image], [scale_map]), paths[-1])
    return paths


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for the output of each picture; pictures of equal names are numbered."""
    stems = [path.stem for path in paths]
    return [f"{stem}_{i + 1}" if stems.count(stem) > 1 else stem for i, stem in enumerate(stems)]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="rfjax.predict", description="Segments pictures with a trained run.")
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="pictures of any size"
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
    options.output.mkdir(parents=True, exist_ok=True)
    from rfjax import visualize

    predictor = load(options.workdir, step=options.step)
    print(f"checkpoint of step {predictor.step} of {options.workdir}")
    visualize.save(
        visualize.legend(predictor.class_names, predictor.palette), options.output / "legend.png"
    )
    failures = 0
    for name, path in zip(_names(options.images), options.images, strict=True):
        try:
            written = write(options.output, name, read_image(path), predictor)
        except PredictionError as error:  # the other pictures are segmented nevertheless
            failures += 1
            print(f"rfjax.predict: error: {error}", file=sys.stderr)
            continue
        print(f"{path}: {', '.join(str(file) for file in written)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
