"""Trained runs of a table, evaluated on data that they were not trained for."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rfjax._files import write_json
from rfjax._runs import read as read_json
from rfjax.studies.runs import Run, StudyError
from rfjax.studies.specs import Table
from rfjax.training import evaluation
from rfjax.training import runs as trained_runs

SPLIT = "val"
Options = tuple[tuple[str, Any], ...]


def evaluate(table: Table, runs: Iterable[Run]) -> None:
    """Evaluates what cells with `data` of their own show, where that is not done.

    Args:
      table: of these runs.
      runs: all done.
    """
    wanted = {(cell.spec, cell.data) for cell in table.cells.values() if cell.data}
    for run in runs:
        for spec, data in wanted:
            if spec == run.spec and run.outcome() and not _path(run, data).exists():
                _evaluate(run, data)


def read(run: Run, data: Options) -> dict[str, Any]:
    """The scores of a run on data with these options."""
    return read_json(_path(run, data), StudyError, "delete it, and the study makes it again")


def _path(run: Run, data: Options) -> Path:
    name = "-".join(f"{key}={value}" for key, value in data)
    return evaluation.folder_of(run.workdir, name) / "scores.json"


def _evaluate(run: Run, data: Options) -> None:
    trained = trained_runs.load(run.workdir)
    config = trained.config.copy_and_resolve_references()
    with config.ignore_type():
        config.data.options.update(dict(data))
    dataset = evaluation.load_data(dataclasses.replace(trained, config=config), SPLIT)
    scores, _ = evaluation.evaluate(trained, dataset, batch_size=config.eval_batch_size)
    path = _path(run, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, scores)
