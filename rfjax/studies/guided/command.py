"""The arguments of the study, and what they do.

    python -m rfjax.studies guided --table=forms --seeds=3 --workdir=studies

It trains what the table needs, and asks the trained networks; both are kept, so that a study goes
on where it was stopped, at any moment.
"""

import argparse
from pathlib import Path
from typing import Any

from rfjax._console import positive
from rfjax.studies.guided import networks, tables


def add(studies: Any) -> argparse.ArgumentParser:
    """The arguments of the study."""
    parser = studies.add_parser("guided", help="networks that are guided by marks, on new digits")
    parser.add_argument("--table", required=True, choices=(*tables.TABLES, "all"))
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, help="of a full training, not the scale's")
    parser.add_argument("--jobs", type=positive, default=1, help="trainings at once (on a CPU)")
    return parser


def run(options: argparse.Namespace) -> list[Path]:
    """Trains and asks what the tables need, and writes them; returns the paths."""
    from rfjax.studies.guided import report

    root = options.workdir / f"{networks.DATA}-cpu"
    paths = []
    for name in tables.TABLES if options.table == "all" else (options.table,):
        table = tables.TABLES[name]
        filled = report.Filled(name, table, _trained(options, root, table))
        print(filled.as_markdown())
        paths += filled.write(root)
    return paths


def _trained(options: argparse.Namespace, root: Path, table: tables.Table) -> dict[str, list[Path]]:
    """The networks that a table asks, each once for a seed."""
    from rfjax.studies import runs

    names = tuple(dict.fromkeys(cell.network for cell in table.cells.values()))
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
