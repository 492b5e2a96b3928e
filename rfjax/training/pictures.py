"""The figures of a run, drawn at each evaluation from what it has written so far."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen

from rfjax import data, tasks, visualize
from rfjax._console import tell
from rfjax.training import reporting

EXAMPLES = 4


class Pictures:
    """Draws the figures of a run.

    Args:
        workdir: the run's directory, whose metrics.jsonl is drawn, and where figures/*.png go.
        task: which draws the examples.
        model: the network.
        dataset: of which a few examples are shown.
    """

    def __init__(self, workdir: Path, task: tasks.Task, model: linen.Module, dataset: data.Dataset):
        self._workdir, self._task, self._dataset = workdir, task, dataset
        self._predict = task.predictor(model)  # made once, so that it is compiled once
        self._chosen = _choose(dataset)

    def draw(
        self,
        variables: dict[str, Any],
        covariances: dict[str, Any],
        *,
        say: Callable[[str], None] = tell,
    ) -> dict[str, np.ndarray]:
        """Writes the figures and returns them by name, as uint8 [H, W, 3].

        Args:
            variables: of the network, on the host.
            covariances: log-Cholesky parameters by layer.
            say: is told, in one line, of what could not be drawn; that ends nothing.
        """
        records, task = reporting.read_records(self._workdir), self._task
        curve = {"score": task.score, "title": task.title, "percent": task.percent}
        figures: dict[str, Callable] = {
            "curves": lambda: visualize.training_curves(records, **curve)
        }
        if covariances:
            figures["sigmas"] = lambda: visualize.sigma_curves(records)
            figures["covariances"] = lambda: visualize.covariance_ellipses(covariances)
        failed = visualize.Failures()
        with failed.of("examples"):
            figures |= self._examples(variables)
        drawn = {}
        for name, make in figures.items():
            with failed.of(name):
                drawn[name] = visualize.to_rgb(make())
                folder = self._workdir / "figures"
                folder.mkdir(exist_ok=True)
                visualize.write_png(drawn[name], folder / f"{name}.png")
        failed.tell(say)
        return drawn

    def _examples(self, variables: dict[str, Any]) -> dict[str, Callable]:
        """What draws a few examples and what the network makes of them."""
        if not self._chosen:
            return {}
        examples = [self._dataset.source[index] for index in self._chosen]
        outputs, scale_maps = self._predict(variables, examples)
        return self._task.draw(examples, outputs, scale_maps)


def _choose(dataset: data.Dataset) -> list[int]:
    """A few examples of the commonest size, spread over the data set."""
    if not len(dataset):
        return []
    ((commonest, _),) = Counter(dataset.shapes).most_common(1)
    alike = [index for index, shape in enumerate(dataset.shapes) if shape == commonest]
    numbers = np.linspace(0, len(alike) - 1, min(EXAMPLES, len(alike))).astype(int)
    return [alike[number] for number in numbers]
