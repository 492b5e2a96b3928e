"""Runs a study.

    python -m rfjax.studies blurring --table=4 --data=digit_scenes --seeds=3 --workdir=studies
    python -m rfjax.studies clockwork --table=3.5 --workdir=studies
    python -m rfjax.studies guided --table=forms --workdir=studies
    python -m rfjax.studies figures --workdir=figures
    python -m rfjax.studies scales --run=RUN --workdir=figures

`blurring` writes table_N.md, .json and .png into `<workdir>/<data>-<scale>/`, and every training
into a folder of its own below it. Tables that share a training share it. Started again, a study
goes on where it was stopped, at any moment.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rfjax import _names
from rfjax._console import Parser, guarded, positive
from rfjax._faults import Fault
from rfjax._files import write_text
from rfjax.studies import scales
from rfjax.studies.clockwork import command as clockwork
from rfjax.studies.guided import command as guided
from rfjax.studies.registry import STUDIES, Study
from rfjax.training import config as configs
from rfjax.training import folders


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="rfjax.studies", description=__doc__.split("\n")[0])
    studies = parser.add_subparsers(dest="study", required=True)
    tabled = [_add_tabled(studies, name, study) for name, study in STUDIES.items()]
    clocked = clockwork.add(studies)
    drawn = studies.add_parser("figures", help="the figures of the paper that need no training")
    scaled = studies.add_parser("scales", help="the scales that a trained dynamic head infers")
    scaled.add_argument("--run", required=True, type=Path, help="directory of a training run")
    scaled.add_argument("--data_dir", default="", help="where the data lie")
    asked = guided.add(studies)
    for each in (*tabled, clocked, asked, drawn, scaled):
        each.add_argument("--workdir", required=True, type=Path)
    return parser


def _add_tabled(studies: Any, name: str, study: Study) -> argparse.ArgumentParser:
    """The arguments of a study whose tables are training runs."""
    parser = studies.add_parser(name, help=study.help)
    alone = len(study.names) == 1
    own = {"default": study.names[0]} if alone else {"required": True}
    parser.add_argument("--table", choices=[*study.names, "all"], **own)
    data, scale = next(iter(study.scales))
    parser.add_argument("--data", default=data, choices=tuple(_names.DATA_SETS))
    parser.add_argument("--data_dir", default="", help="where the data lie")
    parser.add_argument("--scale", default=scale, choices=("quick", "cpu", "gpu", "paper"))
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, help="of a full training, not the scale's")
    parser.add_argument("--jobs", type=positive, default=1, help="trainings at once (on a CPU)")
    parser.add_argument("--weights", type=Path, help="folder of <model>.npz to start from")
    return parser


def _check(options: argparse.Namespace) -> None:
    """Sees that what the arguments name is there, before JAX, which takes seconds, is imported."""
    if options.study == "scales":
        folders.check(options.run)
    if options.study == "clockwork":
        clockwork.check(options)
    if options.study in STUDIES:
        try:
            scales.find(options.data, options.scale, STUDIES[options.study].scales)
        except ValueError as error:
            raise Fault(str(error)) from error
    weights = getattr(options, "weights", None)
    if weights is not None and not weights.is_dir():
        raise Fault(f"--weights: {weights} is not a directory")
    options.workdir.mkdir(parents=True, exist_ok=True)


def tabled(options: argparse.Namespace) -> None:
    """Trains what the tables need, and writes them."""
    from rfjax.studies import costs, evaluations, measures, pictures, report, runs

    study = STUDIES[options.study]
    scale = scales.find(options.data, options.scale, study.scales)
    root = options.workdir / f"{options.data}-{options.scale}"
    names = study.names if options.table == "all" else (options.table,)
    for name in names:
        if name in study.computed:
            _compute(study, name, scale, options, root)
            continue
        table = study.tables[name]
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
        evaluations.evaluate(table, every)
        measures.measure(table, every)
        paid = costs.measure(table, every, root / f"costs_{name}.json") if table.costs else {}
        filled = report.Filled(
            name, table, every, data=options.data, scale=options.scale, costs=paid
        )
        print(filled.as_markdown())
        _tell(filled.write(root))
        _tell(pictures.draw(filled, root))


def _compute(
    study: Study, name: str, scale: scales.Scale, options: argparse.Namespace, root: Path
) -> None:
    """Writes a table that needs no training."""
    text = study.computed[name](scale, options.seeds, options.data_dir)
    print(text)
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / f"table_{name}.md", text)
    _tell([root / f"table_{name}.md"])


def _tell(paths: Sequence[Path]) -> None:
    for path in paths:
        print(path)


def prepare_data(scale: scales.Scale, data_dir: str) -> None:
    """Draws the scenes once, before several trainings would."""
    from rfjax import data

    config = scale.config()
    chosen = configs.options(config.data.options)
    for split in ("train", "val"):
        data.load(config.data.name, split, data_dir=data_dir or None, **chosen)


def _figures(options: argparse.Namespace) -> None:
    from rfjax.studies import figures

    _tell(figures.write(options.workdir))


def _scales(options: argparse.Namespace) -> None:
    from rfjax.studies import scale_maps

    _tell(scale_maps.write(options.run, options.workdir, data_dir=options.data_dir))


def _clockwork(options: argparse.Namespace) -> None:
    _tell(clockwork.run(options))


def _guided(options: argparse.Namespace) -> None:
    _tell(guided.run(options))


COMMANDS = {
    **dict.fromkeys(STUDIES, tabled),
    "clockwork": _clockwork,
    "guided": _guided,
    "figures": _figures,
    "scales": _scales,
}


def _study(options: argparse.Namespace) -> int:
    _check(options)
    from rfjax import training

    training.use_compilation_cache()
    COMMANDS[options.study](options)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study that the arguments name; returns the exit status."""
    options = _parser().parse_args(argv)
    return guarded("rfjax.studies", partial(_study, options))


if __name__ == "__main__":
    sys.exit(main())
