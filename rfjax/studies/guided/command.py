"""The arguments of the study, and what they do.

    python -m rfjax.studies guided --table=forms --seeds=3 --workdir=studies

It trains what the table needs, and asks the trained networks; both are kept, so that a study goes
on where it was stopped, at any moment.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rfjax._console import positive
from rfjax.studies.guided import networks, tables

CHOICES = (*tables.TABLES, "pictures")


def add(studies: Any) -> argparse.ArgumentParser:
    """The arguments of the study."""
    parser = studies.add_parser("guided", help="networks that are guided by marks, on new digits")
    parser.add_argument("--table", required=True, choices=(*CHOICES, "all"))
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, help="of a full training, not the scale's")
    parser.add_argument("--jobs", type=positive, default=1, help="trainings at once (on a CPU)")
    return parser


def run(options: argparse.Namespace) -> list[Path]:
    """Trains and asks what the tables need, and writes them; returns the paths."""
    from rfjax.studies.guided import pictures, report

    root = options.workdir / f"{networks.DATA}-cpu"
    paths: list[Path] = []
    for name in CHOICES if options.table == "all" else (options.table,):
        if name == "pictures":
            paths += pictures.write(_trained(options, root, pictures.NEEDED), root)
            continue
        table = tables.TABLES[name]
        needed = dict.fromkeys(cell.network for cell in table.cells.values())
        filled = report.Filled(name, table, _trained(options, root, tuple(needed)))
        print(filled.as_markdown())
        paths += filled.write(root)
    return paths


def _trained(
    options: argparse.Namespace, root: Path, names: Sequence[str]
) -> dict[str, list[Path]]:
    """The runs of these networks, one for each seed."""
    from rfjax.studies import runs

    wanted = [spec for name in names for spec in networks.SPECS[name].lineage]
    generations = runs.plan(
        tuple(dict.fromkeys(wanted)),
        root=root,
        scale=networks.SCALE,
        seeds=options.seeds,
        steps=options.steps,
    )
    runs.execute(generations, jobs=options.jobs)
    every = [run for generation in generations for run in generation]
    return {
        name: [run.workdir for run in every if run.spec == networks.SPECS[name]] for name in names
    }
