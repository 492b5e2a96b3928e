"""Scores of a trained run on any split of its data, without training."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import _options, data, tasks
from rfjax._faults import ConfigError
from rfjax.tasks import inference
from rfjax.training import config as configs
from rfjax.training import scoring, steps
from rfjax.training.feed import Feed, faults
from rfjax.training.runs import Trained


@dataclasses.dataclass(frozen=True)
class Averaged:
    """A segmentation network whose probabilities are means over enlarged and mirrored images.

        log mean over s, m of  resize(softmax(model(mirror_m(resize(images, s)))))

    It stands where the network would: `apply` returns the logarithms as scores.

    Attributes:
        model: of (images, train) -> scores [N, H, W, K].
        scales: factors of the images' sides.
        flip: whether images are mirrored left to right as well.
    """

    model: Any
    scales: Sequence[float] = (1.0,)
    flip: bool = False

    def apply(
        self,
        variables: Mapping[str, Any],
        images: jax.Array,
        *,
        train: bool = False,
        **options: Any,
    ) -> Any:
        """The scores float32 [N, H, W, K], with `mutable` beside an empty dictionary."""
        mirrors = (False, True) if self.flip else (False,)
        parts = [
            self._probabilities(variables, images, scale, mirror)
            for scale in self.scales
            for mirror in mirrors
        ]
        scores = jnp.log(jnp.maximum(sum(parts) / len(parts), np.finfo(np.float32).tiny))
        return (scores, {}) if "mutable" in options else scores

    def _probabilities(
        self, variables: Mapping[str, Any], images: jax.Array, scale: float, mirror: bool
    ) -> jax.Array:
        height, width = images.shape[1:3]
        size = (max(1, round(scale * height)), max(1, round(scale * width)))
        seen = _resized(images, size)
        seen = seen[:, :, ::-1] if mirror else seen
        found = jax.nn.softmax(self.model.apply(variables, seen, train=False))
        found = found[:, :, ::-1] if mirror else found
        return _resized(found, (height, width))


def _resized(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[N, H, W, C] at another size, bilinear."""
    shape = (x.shape[0], *size, x.shape[-1])
    return x if x.shape == shape else jax.image.resize(x, shape, "bilinear")


def averaged(trained: Trained, *, scales: Sequence[float] = (1.0,), flip: bool = False) -> Any:
    """The network of a run, averaged over scales and mirror images if that is asked for.

    Raises:
        ConfigError: the run is no segmentation, for which alone averages are defined.
        ValueError: a scale is not a positive number.
    """
    scales = tuple(_options.number("scales", scale, above=0) for scale in scales)
    if scales == (1.0,) and not flip:
        return trained.model
    task = trained.task
    if not isinstance(task, tasks.Segmentation) or isinstance(task, tasks.Segmentations):
        raise ConfigError("scales and flip average segmentations by one set of labels alone")
    return Averaged(trained.model, scales, flip)


def load_data(trained: Trained, split: str, data_dir: str | None = None) -> data.Dataset:
    """A split of the data of a run.

    Raises:
        ConfigError: the data have no such split. DataError: they cannot be read.
    """
    section = trained.config.data
    options = configs.options(section.options)
    with faults("data"):
        try:
            return data.load(
                section.name, split, data_dir=data_dir or section.dir or None, **options
            )
        except ValueError as error:
            raise ConfigError(f"data: {error}") from error


def evaluate(
    trained: Trained, dataset: data.Dataset, *, model: Any = None, batch_size: int = 16
) -> tuple[dict[str, Any], Any]:
    """The scores of a trained network, and the sums that they are made of.

    Args:
        trained: a run.
        dataset: of its kind; images may have any size.
        model: in place of the run's, see `averaged`.
        batch_size: images at a time, over all devices.
    """
    task, model = trained.task, model or trained.model
    eval_step = steps.data_parallel(steps.make_eval_step(model, task=task))
    variables = steps.replicate(trained.variables)
    with Feed(_batches(task, dataset, batch_size), "data") as batches:
        totals = scoring.measured(eval_step, variables, batches)
    return scoring.scored(totals, task), totals["measures"]


def _batches(task: tasks.Task, dataset: data.Dataset, batch_size: int) -> Iterator[dict[str, Any]]:
    return data.eval_batches(
        dataset,
        batch_size=scoring.eval_rows(batch_size),
        row=task.row,
        blank=task.blank,
        devices=jax.local_device_count(),
    )


def predictions(
    trained: Trained, dataset: data.Dataset, *, model: Any = None, batch_size: int = 16
) -> Iterator[tuple[str, np.ndarray]]:
    """The name and the classes of every example, int32, [H, W] of a segmentation."""
    task = trained.task
    apply = inference.make_apply(model or trained.model, task.inputs)
    likeliest = jax.jit(lambda outputs: jnp.argmax(task.scores_of_classes(outputs), axis=-1))
    with Feed(_batches(task, dataset, batch_size), "data") as batches:
        for batch in batches:
            outputs, _ = apply(trained.variables, steps.arrays(batch))
            classes = np.asarray(likeliest(outputs), np.int32)
            named = zip(batch["id"], classes, strict=True)
            yield from ((name, found) for name, found in named if name)


def folder_of(workdir: Path, name: str) -> Path:
    """Where the scores of an evaluation go."""
    return Path(workdir) / "evaluation" / name
