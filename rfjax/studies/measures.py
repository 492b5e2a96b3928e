"""What is measured of trained runs besides their scores.

scales     how the scale that is chosen at every pixel follows that of the objects
expected   the mean IU where dilations are mixed as expected, not the likeliest chosen
sampling   how much the dilations that are drawn at a pixel differ from draw to draw
factor     of an inflation
field      the effective receptive field of an output

Each is a function of (run, validation data) that returns numbers by name, which tables can show.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from rfjax import data, receptive_field
from rfjax._files import write_json
from rfjax._runs import read as read_json
from rfjax.studies import scale_maps
from rfjax.studies.runs import Run, StudyError
from rfjax.studies.specs import Table
from rfjax.training import composed, evaluation, steps
from rfjax.training import runs as trained_runs
from rfjax.training.runs import Trained

SPLIT = "val"
FOLDER = "measured"
DRAWS = 16  # of dilations at a pixel, and of gradients
IMAGES = 32  # on which draws differ


def chosen_by(trained: Trained, evaluation: str) -> Trained:
    """A run whose adaptive dilations are expected, or sampled, in place of what it evaluates with.

    Args:
      trained: a run, which comes back as it is without such layers.
      evaluation: as of `rfjax.nn.AdaptiveDilationConv`.
    """
    config = trained.config.copy_and_resolve_references()
    model = config.model
    with config.unlocked(), config.ignore_type():
        if model.head == "pad":
            model.head_options.evaluation = evaluation
        if model.composed.layer == "pad":
            model.composed.evaluation = evaluation
    return dataclasses.replace(trained, model=composed.build(config, trained.task))


def _check_chooses(trained: Trained) -> None:
    """Raises unless a run has adaptive dilations."""
    model = trained.config.model
    if model.head != "pad" and not (model.composed.patterns and model.composed.layer == "pad"):
        raise StudyError("the run has no adaptive dilation; want model.composed.layer=pad")


def scales(trained: Trained, dataset: data.Dataset) -> dict[str, float]:
    """The rank correlation of chosen scales with those of objects, and the mean scale."""
    found = scale_maps.measure(chosen_by(trained, "expected"), dataset)
    return {
        "scale_correlation": found.correlation,
        "scale_mean": float(found.inferred.mean()),
        "scale_deviation": float(found.inferred.std()),
    }


def expected(trained: Trained, dataset: data.Dataset) -> dict[str, float]:
    """The mean IU of adaptive dilations that are mixed by their probabilities."""
    _check_chooses(trained)
    mixed = chosen_by(trained, "expected")
    batch_size = trained.config.eval_batch_size
    scores, _ = evaluation.evaluate(mixed, dataset, batch_size=batch_size)
    return {"expected_iu": scores["mean_iu"]}


def sampling(trained: Trained, dataset: data.Dataset) -> dict[str, float]:
    """The variance of the shares of dilations over draws, mean over pixels and dilations."""
    _check_chooses(trained)
    sampled = chosen_by(trained, "sampled")
    inputs = trained.task.inputs(_batch(trained, dataset, IMAGES))

    @jax.jit
    def draw(variables: dict, key: jax.Array) -> list[jax.Array]:
        _, sown = sampled.model.apply(
            variables, *inputs, train=False, mutable=["intermediates"], rngs={"dilation": key}
        )
        flat = traverse_util.flatten_dict(sown.get("intermediates", {}))
        return [maps[-1] for path, maps in flat.items() if path[-1] == "dilation_weights"]

    keys = jax.random.split(jax.random.key(0), DRAWS)
    drawn = [draw(trained.variables, key) for key in keys]
    variances = [np.var(np.stack(maps), 0, ddof=1).mean() for maps in zip(*drawn, strict=True)]
    return {"sampling_variance": float(np.mean(variances))}


def factor(trained: Trained, dataset: data.Dataset) -> dict[str, float]:
    """The factor of an inflation, and the dilation that it makes of the layer's."""
    del dataset
    flat = traverse_util.flatten_dict(trained.variables["params"])
    found = [float(leaf) for path, leaf in flat.items() if path[-1] == "factor"]
    if not found:
        return {}
    dilation = trained.config.model.head_options.dilation or 1
    return {"factor": found[0], "reached_dilation": dilation / found[0]}


def field(trained: Trained, dataset: data.Dataset) -> dict[str, float]:
    """Sigma of the effective field of the scores in the middle, in pixels of the image."""
    images = trained.task.inputs(_batch(trained, dataset, DRAWS))[0]
    found = receptive_field.effective(
        lambda x, variables: trained.model.apply(variables, x, train=False),
        images.shape[1:],
        trained.variables,
        images=images,
        draws=DRAWS,
    )
    return {"field_sigma": found.sigma}


MEASURES: dict[str, Callable[[Trained, data.Dataset], dict[str, float]]] = {
    "scales": scales,
    "expected": expected,
    "sampling": sampling,
    "factor": factor,
    "field": field,
}


def _batch(trained: Trained, dataset: data.Dataset, count: int) -> dict[str, jax.Array]:
    """The first examples of a data set, as the network's task wants them."""
    indices = range(min(count, len(dataset.source)))
    rows = [trained.task.row(dataset.source[index]) for index in indices]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {name: jnp.asarray(array) for name, array in steps.arrays(batch).items()}


def measure(table: Table, runs: Iterable[Run]) -> None:
    """Measures what a table shows of its runs, where that is not done.

    Args:
      table: of these runs.
      runs: all done.
    """
    wanted = {cell.spec for cell in table.cells.values()}
    for run in runs:
        missing = [name for name in table.measured if not _path(run, name).exists()]
        if run.spec in wanted and missing and run.outcome():
            _measure(run, missing)


def _measure(run: Run, names: Iterable[str]) -> None:
    trained = trained_runs.load(run.workdir)
    dataset = evaluation.load_data(trained, SPLIT)
    for name in names:
        path = _path(run, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, _measured(name, trained, dataset))


def _measured(name: str, trained: Trained, dataset: data.Dataset) -> dict[str, float]:
    """The numbers; none of a network without what is measured."""
    try:
        return MEASURES[name](trained, dataset)
    except StudyError:
        return {}


def read(run: Run) -> dict[str, float]:
    """All numbers that were measured of a run."""
    found = {}
    for path in sorted((run.workdir / FOLDER).glob("*.json")):
        found |= read_json(path, StudyError, "delete it, and the study makes it again")
    return found


def _path(run: Run, name: str) -> Path:
    return run.workdir / FOLDER / f"{name}.json"
