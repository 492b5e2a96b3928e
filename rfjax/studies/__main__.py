"""Runs a study.

    python -m rfjax.studies blurring --table=4 --data=digit_scenes --seeds=3 --workdir=studies
    python -m rfjax.studies figures --workdir=figures
    python -m rfjax.studies scales --run=RUN --workdir=figures

`blurring` writes table_N.md, .json and .png into `<workdir>/<data>-<scale>/`, and every training
into a folder of its own below it. Tables that share a training share it. Started again, a study
goes on where it was stopped, at any moment.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rfjax import data, training
from rfjax.studies import figures, report, runs, scale_maps, scales, tables


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rfjax.studies", description=__doc__.split("\n")[0])
    studies = parser.add_subparsers(dest="study", required=True)
    blurring = studies.add_parser("blurring", help="the tables of the paper, and two more")
    blurring.add_argument("--table", required=True, choices=[*tables.BLURRING, "all"])
    blurring.add_argument("--data", default="digit_scenes", choices=data.names())
    blurring.add_argument("--data_dir", default="", help="where the data lie")
    blurring.add_argument("--scale", default="cpu", choices=("cpu", "gpu", "paper"))
    blurring.add_argument("--seeds", type=_positive, default=3)
    blurring.add_argument("--steps", type=_positive, help="of a full training, not the scale's")
    blurring.add_argument("--jobs", type=_positive, default=1, help="trainings at once (on a CPU)")
    blurring.add_argument("--weights", type=Path, help="folder of <model>.npz to start from")
    drawn = studies.add_parser("figures", help="the figures of the paper that need no training")
    scaled = studies.add_parser("scales", help="the scales that a trained dynamic head infers")
    scaled.add_argument("--run", required=True, type=Path, help="directory of a training run")
    scaled.add_argument("--data_dir", default="", help="where the data lie")
    for each in (blurring, drawn, scaled):
        each.add_argument("--workdir", required=True, type=Path)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {number}")
    return number


def blurring(options: argparse.Namespace) -> None:
    """Trains what the tables need, and writes them."""
    scale = scales.find(options.data, options.scale)
    root = options.workdir / f"{options.data}-{options.scale}"
    names = list(tables.BLURRING) if options.table == "all" else [options.table]
    for name in names:
        table = tables.BLURRING[name]
        generations = runs.plan(
            table.specs,
            root=root,
            scale=scale,
            seeds=options.seeds,
            steps=options.steps,
            data_dir=options.data_dir,
            weights=options.weights,
        )
        prepare_data(scale, options.data_dir)
        runs.execute(generations, jobs=options.jobs)
        every = [run for generation in generations for run in generation]
        filled = report.Filled(name, table, every, data=options.data, scale=options.scale)
        print(filled.as_markdown())
        _tell(filled.write(root))


def _tell(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)


def prepare_data(scale: scales.Scale, data_dir: str) -> None:
    """Draws the scenes once, before several trainings would."""
    config = scale.config()
    chosen = training.config.options(config.data.options)
    for split in ("train", "val"):
        data.load(config.data.name, split, data_dir=data_dir or None, **chosen)


STUDIES = {
    "blurring": blurring,
    "figures": lambda options: _tell(figures.write(options.workdir)),
    "scales": lambda options: _tell(
        scale_maps.write(options.run, options.workdir, data_dir=options.data_dir)
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study that the arguments name; returns the exit status."""
    options = _parser().parse_args(argv)
    training.use_compilation_cache()
    try:
        STUDIES[options.study](options)
    except KeyboardInterrupt:
        print("rfjax.studies: stopped; the same command goes on", file=sys.stderr)
        return 130
    except training.Interrupted as stopped:
        print(f"rfjax.studies: {stopped}", file=sys.stderr)
        return 128 + stopped.signum
    except (runs.StudyError, training.CheckpointError, ValueError, OSError) as error:
        print(f"rfjax.studies: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
