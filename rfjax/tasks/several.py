"""Several classes at every pixel, one of each set of labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen

from rfjax.tasks import inference
from rfjax.tasks.segmentation import Segmentation
from rfjax.tasks.task import Augmentation, Batch, Example, Row


class Segmentations(Segmentation):
    """Segmentation by several sets of labels: a head for each over one trunk, losses summed.

    Of the data set it wants to know `label_sets`, by name the number of classes of each. The first
    is that of "label", which also decides on the score, the figures and what is predicted; the
    labels of the others are "label/NAME" of an example.

    Reference: Shelhamer, Long & Darrell, "Fully Convolutional Networks for Semantic Segmentation",
      PAMI 2017, section 5 (SIFT Flow).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.facts and len(self.facts.get("label_sets", ())) < 2:
            raise ValueError(
                f"segmentations wants data of several sets of labels; {self.facts.get('name')} has "
                "one"
            )
        if self.cross_entropy == "null_background":
            raise ValueError("segmentations has scores of all classes: softmax or sigmoid")
        if self.class_weights:
            raise ValueError("segmentations has several sets of classes: no class_weights")

    @property
    def _keys(self) -> dict[str, str]:
        """By set, the name of its labels in a row."""
        first, *others = self.facts["label_sets"]
        return {first: "label"} | {name: f"label/{name}" for name in others}

    @property
    def _first(self) -> str:
        return next(iter(self._keys))

    def model(self, build: Callable[..., linen.Module]) -> linen.Module:
        """A network with a head for each set."""
        return build(dict(self.facts["label_sets"]))

    def row(
        self,
        example: Example,
        rng: np.random.Generator | None = None,
        augmentation: Augmentation | None = None,
    ) -> Row:
        """As that of one set, with "label/NAME" of the others, varied in the same way."""
        row: Row = {}
        for key in reversed(self._keys.values()):
            same = copy.deepcopy(rng)  # so that all labels are varied alike
            made = super().row({**example, "label": example[key]}, same, augmentation)
            row = {**made, **row, key: made["label"]}
        return row

    def loss(self, outputs: Any, batch: Batch, key: jax.Array | None = None) -> tuple:
        """The sum of the losses of all sets, and the number of valid pixels of the first."""
        found = {
            name: super(Segmentations, self).loss(outputs[name], {"label": batch[own]}, key)
            for name, own in self._keys.items()
        }
        return sum(total for total, _ in found.values()), found[self._first][1]

    def measure(self, outputs: Any, batch: Batch) -> Any:
        """The confusion matrix of each set."""
        return {
            name: super(Segmentations, self).measure(outputs[name], {"label": batch[key]})
            for name, key in self._keys.items()
        }

    def summarize(self, totals: Any) -> dict[str, Any]:
        """The scores of the first set, and those of the others as "NAME_SCORE"."""
        first, *others = self._keys
        scores = super().summarize(totals and totals[first])
        for name in others:
            own = super().summarize(totals and totals[name])
            scores |= {f"{name}_{key}": value for key, value in own.items()}
        return scores

    def scores_of_classes(self, outputs: Any) -> Any:
        """Those of the first set."""
        return outputs[self._first]

    def predictor(self, model: linen.Module) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """As that of one set, of the first."""
        own = lambda images: (self.normalization.on_device(images),)
        apply = inference.make_apply(model, own)

        def predict(variables: Mapping[str, Any], examples: Sequence[Example]) -> tuple:
            images = np.stack([example["image"] for example in examples])
            outputs, scale_maps = jax.device_get(apply(variables, images))
            return np.argmax(self.scores_of_classes(outputs), -1).astype(np.int32), scale_maps

        return predict

    def table(self, scores: Mapping[str, Any], totals: Any) -> tuple[list[str], list[list[Any]]]:
        """That of the first set."""
        return super().table(scores, totals[self._first])

    def charts(self, totals: Any) -> dict[str, Callable[[], Any]]:
        """Those of the first set."""
        return super().charts(totals and totals[self._first])
