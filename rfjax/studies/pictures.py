"""Pictures of tables besides that of their seeds.

comparison  score over the time of a training step, and what outputs depend on
scales      images and the scales that each network chooses at every pixel
factors     the factor of every inflation over the training
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from rfjax import data, receptive_field, visualize
from rfjax._console import tell
from rfjax.studies import measures, scale_maps
from rfjax.studies.report import Filled
from rfjax.studies.runs import Run
from rfjax.studies.statistics import spread
from rfjax.training import evaluation, reporting
from rfjax.training import runs as trained_runs
from rfjax.training.runs import Trained

Example = Mapping[str, Any]

EXAMPLES, SEARCHED = 3, 64
DRAWS = 8  # of gradients, of which a field is the mean


def comparison(filled: Filled) -> Figure:
    """The mean score of each row over the time of its step; what its outputs depend on."""
    marks = {}
    for row, column in filled.table.cells:
        scores = spread(filled.iu(row, column))
        times = filled.number(row, column, "step_ratio")
        marks[row] = (float(times[0]), scores.mean, scores.low, scores.high)
    trained = dict(_trained(filled))
    dataset = evaluation.load_data(next(iter(trained.values())), measures.SPLIT)
    examples, units = zip(*_objects(dataset), strict=True)
    fields = {name: _fields(each, examples, units) for name, each in trained.items()}
    return visualize.comparison(
        marks,
        [example["image"] for example in examples],
        units,
        fields,
        cost="time of a training step, × that of the plain network",
        score=f"{filled.table.score}, %",
    )


def _objects(dataset: data.Dataset) -> Iterator[tuple[Example, tuple[int, int]]]:
    """Examples with objects near their middle, from the smallest to the largest; where they lie."""
    middles = []
    for index in range(min(len(dataset.source), SEARCHED)):
        example = dataset.source[index]
        center = np.array(example["image"].shape[:2]) / 2
        for number in np.unique(example["instances"])[1:]:
            inside = np.argwhere(example["instances"] == number)
            down, right = np.rint(inside.mean(0)).astype(int).tolist()
            if np.abs(np.array([down, right]) - center).max() < center.min() / 3:
                middles.append((float(example["scales"][number - 1]), index, (down, right)))
    middles.sort()
    for place in np.linspace(0, len(middles) - 1, EXAMPLES).astype(int):
        _, index, middle = middles[place]
        yield dataset.source[index], middle


def _fields(
    trained: Trained, examples: Sequence[Example], units: Sequence[tuple[int, int]]
) -> list[np.ndarray]:
    """The effective fields of outputs of these examples, [H, W] each."""

    def scores(x: jax.Array, variables: dict) -> jax.Array:
        return trained.model.apply(variables, x, train=False)

    fields = []
    for example, unit in zip(examples, units, strict=True):
        (x,) = trained.task.inputs({"image": trained.task.row(example)["image"][None]})
        found = receptive_field.effective(
            scores, x.shape[1:], trained.variables, images=x, draws=DRAWS, unit=unit
        )
        fields.append(found.map)
    return fields


def scales(filled: Filled) -> Figure:
    """Images, and the dilation or the spread that each network expects at every pixel."""
    trained = {n: measures.chosen_by(t, "expected") for n, t in _trained(filled)}
    dataset = evaluation.load_data(next(iter(trained.values())), measures.SPLIT)
    chosen = np.linspace(0, len(dataset.source) - 1, EXAMPLES).astype(int)
    images = [dataset.source[int(index)]["image"] for index in chosen]
    columns = {
        name: [scale_maps.scale_map(each, image)[1] for image in images]
        for name, each in trained.items()
        if each(images[0])[1]
    }
    return visualize.maps_beside_images(images, columns)


def factors(filled: Filled) -> Figure:
    """The factors of all inflations, by their rows, over the steps."""
    curves = {}
    for row, column in filled.table.cells:
        found = [_factors(run) for run in filled.runs(row, column)]
        if all(len(steps) for steps, _ in found):
            curves[f"{row}, {column}"] = found
    return visualize.number_curves(curves, number="factor of the inflation")


def _factors(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Steps, and the factor after each that was told."""
    records = [
        (record["step"], value)
        for record in reporting.read_records(run.workdir)
        if record["split"] == "train"
        for key, value in record.items()
        if key.endswith("/factor")
    ]
    steps, values = np.array(records or np.zeros((0, 2))).T
    return steps, values


def _trained(filled: Filled) -> Iterator[tuple[str, Trained]]:
    """By row the first network that was trained."""
    for row, column in filled.table.cells:
        run, *_ = filled.runs(row, column)
        if run.outcome():
            yield row, trained_runs.load(run.workdir)


PICTURES: dict[str, Callable[[Filled], Figure]] = {
    "comparison": comparison,
    "scales": scales,
    "factors": factors,
}


def draw(filled: Filled, folder: Path) -> list[Path]:
    """Draws the pictures of a table; returns their paths. What cannot be drawn is told."""
    failed, paths = visualize.Failures(), []
    for name in filled.table.pictures:
        path = folder / f"table_{filled.name}_{name}.png"
        with failed.of(path.name):
            visualize.save(PICTURES[name](filled), path)
            paths.append(path)
    failed.tell(tell)
    return paths
