"""Scores a trained run on a split of its data, without training.

    python -m rfjax.evaluate --workdir=runs/first
    python -m rfjax.evaluate --workdir=runs/first --split=test --data.dir=/data/camvid
    python -m rfjax.evaluate --workdir=runs/first --scales=0.75,1,1.25 --flip --labels=out

Prints the scores and a table by class, and writes both, with a picture of the confusion matrix, to
`evaluation/SPLIT` in the run's directory, or to `--output`: scores.json, report.md, confusion.png.
Images may have any size, and are scored at their own. `--scales` and `--flip` average a
segmentation's probabilities over enlarged and mirrored images. `--labels` writes the classes of
every image as a palette picture NAME.png to a new or empty directory.

Takes the checkpoint of the highest score unless `--step` names another.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import _markdown
from rfjax._console import Parser, guarded, positive
from rfjax._faults import Fault
from rfjax._files import naming, write_json, write_text
from rfjax.training import folders

# Modules that need JAX, which takes seconds, are imported where they are used: a mistake on the
# command line is told before.

SPLITS = ("val", "test", "train")
_NO_CLASSES = "--labels: the run does not give a class to every pixel"


class EvaluationError(Fault, ValueError):
    """A place that cannot be written; the message says which."""


def _scales(text: str) -> tuple[float, ...]:
    """The positive numbers that an argument lists."""
    try:
        scales = tuple(map(float, text.split(",")))
    except ValueError:
        scales = ()
    if not scales or not all(0.05 <= scale <= 20 for scale in scales):
        raise argparse.ArgumentTypeError(
            f"want numbers from 0.05 to 20 with commas between, as 0.75,1,1.25; got {text!r}"
        )
    return scales


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="rfjax.evaluate", description="Scores a trained run.")
    parser.add_argument("--workdir", required=True, type=Path, help="directory of the training run")
    parser.add_argument("--split", choices=SPLITS, default="val", help="of the data (default: val)")
    parser.add_argument(
        "--data.dir", dest="data_dir", help="where the data lie (default: where the run found them)"
    )
    parser.add_argument("--step", type=int, help="checkpoint to take (default: the best one)")
    parser.add_argument("--batch_size", type=positive, default=16, help="images at a time")
    parser.add_argument(
        "--scales", type=_scales, default=(1.0,), help="of the images, to average over: 0.75,1,1.25"
    )
    parser.add_argument("--flip", action="store_true", help="average over mirrored images as well")
    parser.add_argument("--labels", type=Path, help="directory for the classes of every image")
    parser.add_argument("--output", type=Path, help="directory for the scores")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 1 if nothing could be scored."""
    options = _parser().parse_args(argv)
    return guarded("rfjax.evaluate", partial(_evaluate, options))


def _evaluate(options: argparse.Namespace) -> int:
    """Scores what the options name."""
    folders.check(options.workdir, step=options.step)
    if options.labels:
        _check_empty(options.labels)
    from rfjax.training import evaluation, runs

    trained = runs.load(options.workdir, step=options.step)
    model = evaluation.averaged(trained, scales=options.scales, flip=options.flip)
    dataset = evaluation.load_data(trained, options.split, options.data_dir)
    print(
        f"checkpoint of step {trained.step} of {options.workdir} on {len(dataset)} examples of "
        f"{dataset.name} {options.split}"
    )
    known = {"model": model, "batch_size": options.batch_size}
    scores, totals = evaluation.evaluate(trained, dataset, **known)
    folder = options.output or evaluation.folder_of(options.workdir, options.split)
    facts = {
        "step": trained.step,
        "split": options.split,
        "examples": len(dataset),
        "scales": list(options.scales),
        "flip": options.flip,
    }
    _write(folder, facts, scores, trained.task, totals)
    if options.labels:
        _write_labels(options.labels, trained, evaluation.predictions(trained, dataset, **known))
    if not trained.task.is_scored(scores):
        raise EvaluationError(f"nothing was scored, since every label of {options.split} is void")
    print(f"{trained.task.describe(scores)}  loss {scores['loss']:.4f}; see {folder}")
    return 0


def _write(
    folder: Path, facts: Mapping[str, Any], scores: Mapping[str, Any], task: Any, totals: Any
) -> None:
    """Prints the table, and writes it with the scores and figures."""
    from rfjax import visualize

    heading, rows = task.table(scores, totals)
    table = _markdown.table(heading, rows, right=range(1, len(heading)))
    print(table, end="")
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "scores.json", {**facts, **scores})
    title = f"Step {facts['step']} on {facts['examples']} examples of the split {facts['split']}"
    write_text(folder / "report.md", f"{title}: {task.describe(scores)}\n\n{table}")
    for name, make in task.charts(totals).items():
        visualize.save(make(), folder / f"{name}.png")


def _check_empty(folder: Path) -> None:
    """Raises unless a directory is new or empty, so that nothing is overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EvaluationError(f"--labels={folder}: want a new or empty directory")


def _write_labels(folder: Path, trained: Any, predictions: Any) -> None:
    """Writes the classes of every image as a palette picture."""
    from rfjax import visualize

    palette = np.asarray(trained.task.facts["palette"], np.uint8)
    if not palette.size:
        raise EvaluationError(_NO_CLASSES)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, classes in predictions:
        if classes.ndim != 2:
            raise EvaluationError(_NO_CLASSES)
        stem = name.replace("/", "_").removesuffix(".png")
        with naming(folder):
            visualize.palette_image(classes, palette).save(folder / f"{stem}.png")
        count += 1
    print(f"{count} label pictures in {folder}")


if __name__ == "__main__":
    sys.exit(main())
