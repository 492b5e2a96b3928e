"""The figures of a run, drawn at each evaluation from what it has written so far."""

from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen
from PIL import Image

from rfjax import data, visualize
from rfjax.training import inference, reporting

EXAMPLES = 4


def draw(
    workdir: Path,
    model: linen.Module,
    variables: dict[str, Any],
    covariances: dict[str, Any],
    dataset: data.Dataset,
) -> dict[str, np.ndarray]:
    """Writes figures/*.png in `workdir` and returns them by name, as uint8 [H, W, 3].

    Args:
        workdir: the run's directory, whose metrics.jsonl is drawn.
        model, variables: the network; variables on the host.
        covariances: log-Cholesky parameters by layer.
        dataset: of which a few images are segmented.
    """
    records = reporting.read_records(workdir)
    figures = {"curves": visualize.training_curves(records)}
    if covariances:
        figures["sigmas"] = visualize.sigma_curves(records)
        figures["covariances"] = visualize.covariance_ellipses(covariances)
    figures |= _examples(model, variables, dataset)
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    drawn = {name: visualize.to_rgb(figure) for name, figure in figures.items()}
    for name, rgb in drawn.items():
        Image.fromarray(rgb).save(folder / f"{name}.png")
    return drawn


def _examples(
    model: linen.Module, variables: dict[str, Any], dataset: data.Dataset
) -> dict[str, Any]:
    """Input, truth and output of a few images of the commonest size, and their scale maps."""
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
        "examples": visualize.segmentation_panels(
            images,
            [example["label"] for example in examples],
            output["classes"],
            palette=dataset.palette,
            class_names=dataset.class_names,
        )
    }
    names = inference.file_names(list(output["scale_maps"]))
    for layer, maps in output["scale_maps"].items():
        figures[f"scales_{names[layer]}"] = visualize.scale_panels(images, maps)
    return figures
