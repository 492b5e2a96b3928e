"""What trained networks are asked, and what they answer; kept on disk."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import data, tasks
from rfjax._files import write_json
from rfjax._runs import read
from rfjax.data.dataset import Dataset
from rfjax.studies.guided.networks import DATA
from rfjax.studies.guided.tables import Question
from rfjax.studies.runs import StudyError
from rfjax.tasks.guided import SUPPORT
from rfjax.training import config as configs
from rfjax.training import evaluation, runs

EPISODES = 256
ROWS = 16  # of a batch; fewer of large supports
TUNING = {"steps": 100, "rate": 0.02, "momentum": 0.9, "batch": 16}
_DAMAGED = "delete it, and it is measured anew"


def asked(workdir: Path, question: Question) -> float:
    """The positive IU of a run in %, from the disk or measured."""
    path = workdir / "guided" / f"{question.name}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_json(path, (tuned if question.tuned else guided)(runs.load(workdir), question))
    return 100.0 * read(path, StudyError, _DAMAGED)["positive_iu"]


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
    import jax

    dataset = episodes(trained.config, question, count=24)
    totals = None
    learn, measure = _learner(trained)
    for index in range(len(dataset)):
        row = trained.task.row(dataset.source[index])
        rng = np.random.default_rng(index)
        chosen = rng.integers(0, question.shots, (TUNING["steps"], TUNING["batch"]))
        params = learn(row["support"], row[SUPPORT], chosen)
        found = jax.device_get(measure(params, {name: x[None] for name, x in row.items()}))
        totals = found if totals is None else jax.tree.map(np.add, totals, found)
    return trained.task.summarize(totals)


def _learner(trained: runs.Trained) -> tuple[Any, Any]:
    """Compiled: parameters after training on a support, and measures of a query."""
    import jax
    import optax

    task, model, variables = trained.task, trained.model, trained.variables
    collections = {name: tree for name, tree in variables.items() if name != "params"}
    optimizer = optax.sgd(TUNING["rate"], TUNING["momentum"])

    def scores(params, images):
        marks = jax.numpy.zeros((*images.shape[:1], 1, *images.shape[1:3], 2))
        return model.apply({"params": params, **collections}, None, marks, images, train=False)

    def loss(params, images, labels):
        total, count = tasks.losses.cross_entropy(scores(params, images), labels)
        return total / jax.numpy.maximum(count, 1.0)

    @jax.jit
    def learn(images, labels, chosen):
        def step(carry, rows):
            params, state = carry
            gradient = jax.grad(loss)(params, images[rows], labels[rows])
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), None

        start = (variables["params"], optimizer.init(variables["params"]))
        (params, _), _ = jax.lax.scan(step, start, chosen)
        return params

    measure = jax.jit(lambda params, row: task.measure(scores(params, row["image"]), row))
    return learn, measure
