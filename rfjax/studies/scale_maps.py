"""Figure 7: what scales a dynamic layer infers, and how they follow the true ones.

Digit scenes know the scale of every object; the correlation of ranks between it and the inferred
scale inside the object says whether the network sees scale, with no supervision of it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from rfjax import data, predict, visualize
from rfjax.studies.runs import StudyError
from rfjax.training import config as configs
from rfjax.training import reporting
from rfjax.training.runs import Trained

EXAMPLES = 4


@dataclass(frozen=True)
class Scales:
    """Inferred against true scales.

    Attributes:
      layer: whose scales they are; of several, whose mean.
      true: scale of each object in pixels of the image, [M].
      inferred: the mean of the scale map inside it, in pixels of the layer's map, [M].
      correlation: Spearman's, of the two.
      p_value: the chance of one as large without a relation.
    """

    layer: str
    true: np.ndarray
    inferred: np.ndarray
    correlation: float
    p_value: float


def measure(predictor: Trained, dataset: data.Dataset) -> Scales:
    """The inferred and the true scales of all objects of a data set.

    Args:
      predictor: a trained run with dynamic layers, of which the mean is taken: a head that
        regresses a Gaussian, or layers that choose or regress a dilation.
      dataset: with "instances" and "scales", digit scenes.

    Raises:
      StudyError: the network has no dynamic layer, or the data no scales.
    """
    true, inferred, layer = [], [], ""
    for index in range(len(dataset.source)):
        example = dataset.source[index]
        if "instances" not in example:
            raise StudyError(f"{dataset.name} does not know the scales of its objects")
        layer, chosen = scale_map(predictor, example["image"])
        for number in np.unique(example["instances"]):
            if number:
                true.append(example["scales"][number - 1])
                inferred.append(chosen[example["instances"] == number].mean())
    found = stats.spearmanr(true, inferred)
    return Scales(
        layer, np.array(true), np.array(inferred), float(found.statistic), float(found.pvalue)
    )


def scale_map(predictor: Trained, image: np.ndarray) -> tuple[str, np.ndarray]:
    """The names of the dynamic layers and the mean of their maps at the image's resolution."""
    _, maps = predictor(image)
    if not maps:
        raise StudyError(
            "the run has no dynamic layer; train one with head dynamic, gauss_deform, pad or adadr"
        )
    enlarged = [_enlarged(scale_map, image.shape[:2]) for scale_map in maps.values()]
    return ", ".join(maps), np.mean(enlarged, 0)


def _enlarged(scale_map: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A map by copies of its pixels, [H, W]."""
    stride = -(-size[0] // scale_map.shape[0])
    enlarged = np.kron(scale_map, np.ones((stride, stride), scale_map.dtype))
    return enlarged[: size[0], : size[1]]


def panels(predictor: Trained, dataset: data.Dataset) -> Figure:
    """Inputs, truths, outputs and scales of a few images."""
    chosen = np.linspace(0, len(dataset.source) - 1, EXAMPLES).astype(int)
    examples = [dataset.source[int(index)] for index in chosen]
    images = [example["image"] for example in examples]
    columns = {
        "input": images,
        "truth": [visualize.colorize(example["label"], dataset.palette) for example in examples],
        "output": [visualize.colorize(predictor(image)[0], dataset.palette) for image in images],
        "scale": [scale_map(predictor, image)[1] for image in images],
    }
    return visualize.image_columns(columns)


def scatter(scales: Scales) -> Figure:
    """Inferred over true scales."""
    return visualize.scale_scatter(
        scales.true, scales.inferred, layer=scales.layer, correlation=scales.correlation
    )


def write(run: Path, folder: Path, *, data_dir: str = "") -> list[Path]:
    """Measures a trained run on the validation images of its data, and draws what it sees.

    Args:
      run: the run's directory.
      folder: where figure_7_*.png and scales.json go.
      data_dir: where the data lie, "" for their default.

    Returns:
      The paths of what was written.
    """
    predictor = predict.load(run)
    section = configs.from_json((run / "config.json").read_text()).data
    options = configs.options(section.options)
    dataset = data.load(section.name, "val", data_dir=data_dir or None, **options)
    scales = measure(predictor, dataset)
    paths = [folder / name for name in ("figure_7_maps.png", "figure_7_scales.png", "scales.json")]
    visualize.save(panels(predictor, dataset), paths[0])
    visualize.save(scatter(scales), paths[1])
    reporting.write_json(
        paths[2],
        {
            "run": str(run),
            "layer": scales.layer,
            "objects": len(scales.true),
            "rank_correlation": scales.correlation,
            "p_value": scales.p_value,
        },
    )
    return paths
