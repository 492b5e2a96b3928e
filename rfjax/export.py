"""Writes the network of a trained run for programs without rfjax.

    python -m rfjax.export --workdir=runs/first --format=stablehlo --output=first.stablehlo
    python -m rfjax.export --workdir=runs/first --format=stablehlo --size=480x640 --output=first.hlo
    python -m rfjax.export --workdir=runs/first --format=safetensors --output=first.safetensors
    python -m rfjax.export --workdir=runs/first --format=onnx --size=480x640 --output=first.onnx

`stablehlo` is the network with its weights as one program, which JAX alone runs, on CPU, GPU and
TPU: of pictures uint8 [N, H, W, C], whose levels it normalizes as training did, it returns the
scores, of a segmentation float32 [N, H, W, K]; the highest one is the class. N, H and W are any
numbers, unless `--size` names height and width.

    from jax import export
    program = export.deserialize(bytearray(open("first.stablehlo", "rb").read()))
    scores = program.call(images)

`npz` and `safetensors` hold all arrays of the network, by their places: `params/head/kernel`,
`batch_stats/backbone/bn1/mean`. Training starts from such a file by --config.model.weights=FILE.

`onnx` is the same for one picture of the size that `--size` names, uint8 [1, H, W, C]. It wants the
library jax2onnx (`pip install 'rfjax[onnx]'`), which knows most operations of JAX; where it lacks
one, the error names it.

Takes the checkpoint of the highest score unless `--step` names another. No file is overwritten.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rfjax._console import Parser, guarded
from rfjax._faults import Fault, reason
from rfjax._files import replacing
from rfjax.training import folders

# Modules that need JAX, which takes seconds, are imported where they are used: a mistake on the
# command line is told before.

FORMATS = ("stablehlo", "npz", "safetensors", "onnx")
_PROGRAMS = ("stablehlo", "onnx")  # formats that hold what the network does
PLATFORMS = ("cpu", "cuda", "tpu")


class ExportError(Fault, ValueError):
    """A run that cannot be exported so, or a place that cannot be written; the message says why."""


def arrays(trained: Any) -> dict[str, Any]:
    """All arrays of the network of a run, by their places, as `params/head/kernel`.

    Args:
        trained: the run, see `rfjax.training.runs.load`.
    """
    from flax import traverse_util

    return traverse_util.flatten_dict(trained.variables, sep="/")


def program(trained: Any, *, size: tuple[int, int] | None = None) -> Any:
    """The network of a run with its weights, a `jax.export.Exported` of pictures.

        scores = network((x / 255 - mean) / std)

    Args:
        trained: the run of a task of labelled images, see `rfjax.training.runs.load`.
        size: height and width of the pictures in pixels; None for any.

    Returns:
        The program of uint8 [N, H, W, C], with any N, that returns what the network does: float32
        [N, H, W, K] of a segmentation, [N, K] of a classification.

    Raises:
        ExportError: the task takes more than a picture, or the network wants to know the size.
    """
    import jax
    import jax.core
    from jax import export

    scores, channels = _scores(trained, "stablehlo")
    height, width = ("h", "w") if size is None else size
    layout = export.symbolic_shape(f"n, {height}, {width}, {channels}")
    images = jax.ShapeDtypeStruct(layout, "uint8")
    try:
        return export.export(jax.jit(scores), platforms=PLATFORMS)(images)
    except (TypeError, ValueError, jax.core.InconclusiveDimensionOperation) as error:
        hint = "; try --size=HxW" if size is None else ""
        raise ExportError(f"the network does not take {layout}{hint}: {reason(error)}") from error


def _scores(trained: Any, form: str) -> tuple[Callable[[Any], Any], int]:
    """The function of pictures uint8 [N, H, W, C] that the network is, and C."""
    from rfjax.tasks.images import LabelledImages

    task = trained.task
    if not isinstance(task, LabelledImages) or task.pictures != ("image",):
        name = trained.config.task.name
        raise ExportError(f"{form} is of tasks of labelled pictures; the run's task is {name!r}")
    normalization = task.normalization

    def scores(images: Any) -> Any:
        return trained.model.apply(trained.variables, normalization.on_device(images), train=False)

    return scores, normalization.channels


def onnx_program(trained: Any, *, size: tuple[int, int]) -> Any:
    """The network of a run with its weights as a model of ONNX, an `onnx.ModelProto`.

    Args:
        trained: the run of a task of labelled images.
        size: height and width of the picture in pixels.

    Returns:
        The model of one picture, uint8 [1, H, W, C]; see `program` for what it returns.

    Raises:
        ExportError: jax2onnx is not installed, or knows no form of an operation of the network.
    """
    import jax

    from rfjax._engine.devices import written_out

    try:
        from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ExportError("onnx wants jax2onnx: pip install 'rfjax[onnx]'") from error
    scores, channels = _scores(trained, "onnx")
    picture = jax.ShapeDtypeStruct((1, *size, channels), "uint8")
    with written_out():
        try:
            return to_onnx(scores, [picture])
        except Exception as error:  # of any kind: the library does not say which
            raise ExportError(f"jax2onnx cannot write this network: {reason(error)}") from error


def _format(text: str) -> str:
    """The format that an argument names."""
    if text not in FORMATS:
        raise argparse.ArgumentTypeError(f"want one of {', '.join(FORMATS)}; got {text!r}")
    return text


def _size(text: str) -> tuple[int, int]:
    """Height and width of an argument."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"want height and width in pixels, as 480x640; got {text!r}"
        )
    return int(found[1]), int(found[2])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="rfjax.export", description="Writes the network of a trained run.")
    parser.add_argument("--workdir", required=True, type=Path, help="directory of the training run")
    parser.add_argument("--format", required=True, type=_format, help=", ".join(FORMATS))
    parser.add_argument("--output", required=True, type=Path, help="file to be written")
    parser.add_argument("--step", type=int, help="checkpoint to take (default: the best one)")
    parser.add_argument("--size", type=_size, help="of the pictures, as 480x640 (stablehlo: any)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 1 if nothing could be written."""
    options = _parser().parse_args(argv)
    return guarded("rfjax.export", partial(_export, options))


def _export(options: argparse.Namespace) -> int:
    """Writes what the options name."""
    if options.size and options.format not in _PROGRAMS:
        raise ExportError(f"--size is of --format=stablehlo or onnx; got --format={options.format}")
    if not options.size and options.format == "onnx":
        raise ExportError("--format=onnx wants --size, height and width in pixels, as 480x640")
    folders.check(options.workdir, step=options.step)
    if options.output.exists():
        raise ExportError(f"--output={options.output} is there already; want a new file")
    if not options.output.parent.is_dir():
        raise ExportError(f"--output={options.output}: there is no {options.output.parent}")
    from rfjax.training import runs

    trained = runs.load(options.workdir, step=options.step)
    print(f"checkpoint of step {trained.step} of {options.workdir}")
    if options.format == "stablehlo":
        told = _write_program(options.output, program(trained, size=options.size))
    elif options.format == "onnx":
        told = _write_onnx(options.output, onnx_program(trained, size=options.size))
    else:
        told = _write_arrays(options.output, arrays(trained), options.format)
    print(f"{options.output}: {told}")
    return 0


def _write_program(path: Path, exported: Any) -> str:
    """Writes a program; returns in words what it takes and returns."""
    content = exported.serialize()
    with replacing(path) as file:
        file.write(content)
    given, made = (", ".join(map(str, avals)) for avals in (exported.in_avals, exported.out_avals))
    return f"{given} -> {made}, on {', '.join(exported.platforms)}"


def _write_onnx(path: Path, model: Any) -> str:
    """Writes a model of ONNX; returns in words how many operations it has."""
    with replacing(path) as file:
        file.write(model.SerializeToString())
    return f"{len(model.graph.node)} operations of ONNX"


def _write_arrays(path: Path, found: dict[str, Any], form: str) -> str:
    """Writes arrays by their names; returns in words how many."""
    from rfjax.models import weight_files

    weight_files.write(path, found, form=form)
    return f"{len(found)} arrays, {sum(array.size for array in found.values()):,} numbers"


if __name__ == "__main__":
    sys.exit(main())
