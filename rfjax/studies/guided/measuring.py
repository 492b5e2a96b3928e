"""What trained networks are asked, and what they answer; kept on disk."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax import data
from rfjax._files import write_json
from rfjax._runs import read
from rfjax.data.dataset import Dataset
from rfjax.studies.guided import tuning, video
from rfjax.studies.guided.networks import DATA, OF_CLIPS
from rfjax.studies.guided.tables import Asked, Question
from rfjax.studies.runs import StudyError
from rfjax.tasks.guided import SUPPORT
from rfjax.training import config as configs
from rfjax.training import evaluation, runs

EPISODES = 256
ROWS = 16  # of a batch; fewer of large supports
RATE, BATCH = 0.02, 16  # of fine-tuning
_DAMAGED = "delete it, and it is measured anew"


def asked(workdir: Path, cell: Asked) -> float:
    """A number of the answer of a run, from the disk or measured; shares in %."""
    path = workdir / "guided" / f"{cell.question.name}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_json(path, _answer(workdir, cell))
    value = read(path, StudyError, _DAMAGED)[cell.read]
    return 100.0 * value if cell.read.endswith("iu") else value


def _answer(workdir: Path, cell: Asked) -> dict[str, Any]:
    """What a run answers."""
    if cell.network in OF_CLIPS:
        return video.opened(workdir).answer(cell.question)
    measure = tuned if cell.question.tuned else guided
    return measure(runs.load(workdir), cell.question)


def episodes(config: Any, question: Question, count: int = EPISODES) -> Dataset:
    """The episodes of a question, of scenes as those that a run has learned from."""
    options = configs.options(config.data.options) | {"val_episodes": count, "missing": "unknown"}
    own = ("ways", "shots", "points", "kind")
    return data.load(DATA, "val", **options | {name: getattr(question, name) for name in own})


def guided(trained: runs.Trained, question: Question) -> dict[str, Any]:
    """The scores of a network that is guided by the supports."""
    dataset = episodes(trained.config, question)
    facts = {**trained.task.facts, "num_classes": question.ways}
    own = dataclasses.replace(trained, task=dataclasses.replace(trained.task, facts=facts))
    rows = max(1, ROWS // (question.shots * (question.ways - 1)))
    scores, _ = evaluation.evaluate(own, dataset, batch_size=rows)
    return scores


def tuned(trained: runs.Trained, question: Question) -> dict[str, Any]:
    """The scores of a network without guidance that learns every support by gradients.

    Of few episodes, as each is a training of its own.
    """
    dataset = episodes(trained.config, question, count=24)
    totals, learner = None, tuning.Learner(trained, RATE)
    measure = jax.jit(trained.task.measure)
    for index in range(len(dataset)):
        row = trained.task.row(dataset.source[index])
        rng = np.random.default_rng(index)
        chosen = rng.integers(0, question.shots, (question.tuned, BATCH))
        params = learner.learn(row["support"], row[SUPPORT], chosen)
        batch = {name: x[None] for name, x in row.items()}
        found = jax.device_get(measure(learner.scores(params, batch["image"]), batch))
        totals = found if totals is None else jax.tree.map(np.add, totals, found)
    return trained.task.summarize(totals)
