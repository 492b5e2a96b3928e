"""The arguments of the study, and what they do.

    python -m rfjax.studies guided --table=forms --seeds=3 --workdir=studies
    python -m rfjax.studies guided --table=dots --data_dir=DAVIS --weights=FOLDER --workdir=studies

It trains what the table needs, and asks the trained networks; both are kept, so that a study goes
on where it was stopped, at any moment. Tables of clips start from `FOLDER/vgg_16.npz`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfjax._console import positive
from rfjax.studies.guided import networks, tables

# "all" is of digits, which need no files.
ALL = (*(name for name, table in tables.TABLES.items() if table.data == networks.DATA), "pictures")
OF_CLIPS = tuple(name for name in tables.TABLES if name not in ALL)


def add(studies: Any) -> argparse.ArgumentParser:
    """The arguments of the study."""
    parser = studies.add_parser("guided", help="networks that are guided by marks, on new digits")
    parser.add_argument("--table", required=True, choices=(*ALL, *OF_CLIPS, "all"))
    parser.add_argument("--data_dir", default="", help="where clips lie, in the folders of DAVIS")
    parser.add_argument("--weights", type=Path, help="folder of vgg_16.npz, for tables of clips")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, help="of a full training, not the scale's")
    parser.add_argument("--jobs", type=positive, default=1, help="trainings at once (on a CPU)")
    return parser


def run(options: argparse.Namespace) -> list[Path]:
    """Trains and asks what the tables need, and writes them; returns the paths."""
    from rfjax.studies.guided import pictures, report

    paths: list[Path] = []
    for name in ALL if options.table == "all" else (options.table,):
        if name == "pictures":
            root = _root(options, networks.DATA)
            paths += pictures.write(_trained(options, networks.DATA, pictures.NEEDED), root)
            continue
        table = tables.TABLES[name]
        needed = dict.fromkeys(cell.network for cell in table.cells.values())
        filled = report.Filled(name, table, _trained(options, table.data, tuple(needed)))
        print(filled.as_markdown())
        paths += filled.write(_root(options, table.data))
    return paths


def _root(options: argparse.Namespace, data: str) -> Path:
    """Where all that is of a data set lies."""
    return options.workdir / f"{data}-cpu"


def _trained(options: argparse.Namespace, data: str, names: Sequence[str]) -> dict[str, list[Path]]:
    """The runs of these networks, one for each seed."""
    from rfjax.studies import runs

    wanted = [spec for name in names for spec in networks.SPECS[name].lineage]
    generations = runs.plan(
        tuple(dict.fromkeys(wanted)),
        root=_root(options, data),
        scale=networks.SCALES[data],
        seeds=options.seeds,
        steps=options.steps,
        data_dir=options.data_dir,
        weights=options.weights,
    )
    runs.execute(generations, jobs=options.jobs)
    every = [run for generation in generations for run in generation]
    return {
        name: [run.workdir for run in every if run.spec == networks.SPECS[name]] for name in names
    }
