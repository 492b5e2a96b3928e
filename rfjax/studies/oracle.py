"""How well segmentation can do at coarse resolution: labels reduced and enlarged again.

Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019,
  section 2.5.3.
"""

from collections.abc import Sequence

import numpy as np

from rfjax import data
from rfjax._markdown import table as markdown
from rfjax.studies.scales import Scale
from rfjax.studies.statistics import spread
from rfjax.tasks import metrics
from rfjax.tasks.losses import VOID
from rfjax.training import config as configs

# Mean IU in % on PASCAL VOC 2011, by factor.
PAPER = {128: 50.9, 64: 73.3, 32: 86.1, 16: 92.8, 8: 96.4, 4: 98.5}
FACTORS = (2, 4, 8, 16, 32, 64, 128)


def coarse(label: np.ndarray, factor: int) -> np.ndarray:
    """A label that is the same within cells of factor x factor pixels: that of their middle pixel.

    Cells that reach over the border have their middle in what lies within. Void is a label like any
    other.

    Args:
      label: [H, W] integers.
      factor: pixels, at least 1.

    Example:
      >>> print(coarse(np.arange(6).reshape(1, 6), 3))
      [[1 1 1 4 4 4]]
    """
    taken = [_middles(size, factor) for size in label.shape]
    return label[np.ix_(*taken)]


def _middles(size: int, factor: int) -> np.ndarray:
    """For each pixel along an axis, the middle one of its cell."""
    first = np.arange(size) // factor * factor
    return first + (np.minimum(factor, size - first) - 1) // 2


def mean_iu(labels: Sequence[np.ndarray], num_classes: int, factor: int) -> float:
    """The mean IU of labels at a coarse resolution; pixels whose prediction is void are wrong.

    Args:
      labels: [H, W] each, `VOID` where there is none.
      num_classes: K.
      factor: of the resolution.
    """
    counts = np.zeros((num_classes, num_classes + 1), np.int64)
    for label in labels:
        valid = label != VOID
        found = np.minimum(coarse(label, factor)[valid], num_classes)
        np.add.at(counts, (label[valid], found), 1)
    square = np.zeros((num_classes + 1,) * 2, np.int64)
    square[:num_classes] = counts
    return float(np.nanmean(metrics.summarize(square)["class_iu"][:num_classes]))


def table(scale: Scale, seeds: int, data_dir: str = "") -> str:
    """The table of the oracle's mean IU on a scale's validation data, as Markdown.

    Args:
      scale: whose data set takes a `seed`; each seed draws other scenes.
      seeds: how many.
      data_dir: where the data lie, "" for their default.
    """
    config = scale.config()
    options = configs.options(config.data.options) | {"train_scenes": 1}
    found: dict[int, list[float]] = {factor: [] for factor in FACTORS}
    for seed in range(seeds):
        scenes = data.load(
            config.data.name, "val", data_dir=data_dir or None, **{**options, "seed": seed}
        )
        labels = [scenes.source[index]["label"] for index in range(len(scenes))]
        for factor in FACTORS:
            found[factor].append(100.0 * mean_iu(labels, scenes.num_classes, factor))
    rows = [
        [str(factor), _text(values), str(PAPER.get(factor, ""))] for factor, values in found.items()
    ]
    height, width = labels[0].shape
    return (
        f"## Table oracle. Labels reduced and enlarged again\n\n{config.data.name}, scenes of "
        f"{height}×{width}: mean IU in %, mean ± standard deviation over {seeds} seeds of "
        "scenes.\n\n" + markdown(["factor", "mean IU", "paper"], rows)
    )


def _text(values: Sequence[float]) -> str:
    found = spread(values)
    return f"{found.mean:.1f} ± {found.deviation:.1f}"
