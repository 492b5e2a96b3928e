"""The figures of a run, drawn at each evaluation from what it has written so far."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen

from rfjax import data, visualize
from rfjax._console import tell
from rfjax.training import inference, reporting

EXAMPLES = 4


def draw(
    workdir: Path,
    model: linen.Module,
    variables: dict[str, Any],
    covariances: dict[str, Any],
    dataset: data.Dataset,
    *,
    say: Callable[[str], None] = tell,
) -> dict[str, np.ndarray]:
    """Writes figures/*.png in `workdir` and returns them by name, as uint8 [H, W, 3].

    Args:
        workdir: the run's directory, whose metrics.jsonl is drawn.
        model, variables: the network; variables on the host.
        covariances: log-Cholesky parameters by layer.
        dataset: of which a few images are segmented.
        say: is told, in one line, of what could not be drawn; that ends nothing.
    """
    records = reporting.read_records(workdir)
    figures: dict[str, Callable] = {"curves": lambda: visualize.training_curves(records)}
    if covariances:
        figures["sigmas"] = lambda: visualize.sigma_curves(records)
        figures["covariances"] = lambda: visualize.covariance_ellipses(covariances)
    failed = visualize.Failures()
    with failed.of("examples"):
        figures |= _examples(model, variables, dataset)
    drawn = {}
    for name, make in figures.items():
        with failed.of(name):
            drawn[name] = visualize.to_rgb(make())
            folder = workdir / "figures"
            folder.mkdir(exist_ok=True)
            visualize.write_png(drawn[name], folder / f"{name}.png")
    failed.tell(say)
    return drawn


def _examples(
    model: linen.Module, variables: dict[str, Any], dataset: data.Dataset
) -> dict[str, Callable]:
    """What draws input, truth, output and scale maps of a few images of the commonest size."""
    if not len(dataset):
        return {}
    ((commonest, _),) = Counter(dataset.shapes).most_common(1)
    alike = [index for index, shape in enumerate(dataset.shapes) if shape == commonest]
    chosen = np.linspace(0, len(alike) - 1, min(EXAMPLES, len(alike))).astype(int)
    examples = [dataset.source[alike[number]] for number in chosen]
    images = np.stack([example["image"] for example in examples])
    segment = inference.make_segment(model, mean=dataset.mean, std=dataset.std)
    output = jax.device_get(segment(variables, images))
    figures = {
        "examples": lambda: visualize.segmentation_panels(
            images,
            [example["label"] for example in examples],
            output["classes"],
            palette=dataset.palette,
            class_names=dataset.class_names,
        )
    }
    names = inference.file_names(list(output["scale_maps"]))
    for layer, maps in output["scale_maps"].items():
        figures[f"scales_{names[layer]}"] = partial(visualize.scale_panels, images, maps)
    return figures
