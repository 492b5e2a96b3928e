"""Classes at every pixel of an image, of which is told by marks in others."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from rfjax import _names, _options
from rfjax.tasks import losses, metrics
from rfjax.tasks.images import LabelledImages, seen
from rfjax.tasks.task import Augmentation, Batch, Example, Row, Task

SUPPORT = "label/support"
_OF_SUPPORT = "support/map/"


@dataclasses.dataclass(frozen=True, eq=False)
class Guided(LabelledImages):
    """Episodes, see `rfjax.data.episodes`: cross-entropy on the query; IU of the objects.

    Attributes:
      fusion: how support and query come together, see `rfjax.models.guided`.
      shared: whether one encoder reads both.
      map: that features are taken from, "last" or the name of a stage.

    Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019,
      section 4.3.
    """

    fusion: str = "late_global"
    shared: bool = True
    map: str = "last"

    score: ClassVar[str] = "positive_iu"
    title: ClassVar[str] = "positive IU"
    followed: ClassVar[tuple[str, ...]] = ("positive_iu",)
    pictures: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.choose("fusion", self.fusion, _names.FUSIONS)
        _options.flag("shared", self.shared)

    def model(self, build: Callable[..., linen.Module]) -> linen.Module:
        """A guided network of the config's backbone and head."""
        from rfjax.models.guided import guided

        options = {"fusion": self.fusion, "shared": self.shared, "at": self.map}
        return guided(build, self.facts["num_classes"], **options)

    def row(
        self,
        example: Example,
        rng: np.random.Generator | None = None,
        augmentation: Augmentation | None = None,
    ) -> Row:
        """{"image": float32 [H, W, 3], "label": int32 [H, W], "label/support": int32 [S, H, W],
        "support": float32 [S, H, W, 3]}, the last one missing where the query supports itself.

        Every image of a support is varied by numbers of its own, the query and its marks alike. Of
        an example with maps the row has these in place of images.

        Raises:
          ValueError: nothing is marked in the example.
        """
        from rfjax.data import rows

        if SUPPORT not in example:
            raise ValueError(
                f"guided segmentation wants episodes, as those of digit_episodes; example "
                f"{example.get('id', '')} has no marks"
            )

        def vary(image: np.ndarray, label: np.ndarray, rng: Any) -> Row:
            pair = {**maps, "image": image, "label": label}
            return rows.segmentation_row(pair, self.normalization, rng, augmentation)

        maps = {name: array for name, array in example.items() if name.startswith("map/")}
        same = copy.deepcopy(rng)
        row, marks = vary(example["image"], example["label"], rng), example[SUPPORT]
        if maps:
            kept = {name: array for name, array in example.items() if name.startswith(_OF_SUPPORT)}
            return {**row, **kept, SUPPORT: marks.astype(np.int32)}
        if "support" not in example:
            return {**row, SUPPORT: vary(example["image"], marks[0], same)["label"][None]}
        pairs = zip(example["support"], marks, strict=True)
        shots = [vary(image, label, rng) for image, label in pairs]
        support = {"support": "image", SUPPORT: "label"}
        return row | {
            name: np.stack([shot[own] for shot in shots]) for name, own in support.items()
        }

    def frame(self, example: Example) -> Row:
        """{"image", "label"} of one image that episodes are drawn of."""
        from rfjax.data import rows

        return rows.segmentation_row(example, self.normalization)

    def inputs(self, batch: Batch) -> tuple:
        """(support, marks, query); a support of None is the query itself."""
        marks = jax.nn.one_hot(batch[SUPPORT], self.facts["num_classes"], dtype=jnp.float32)
        return seen(batch, "support"), marks, seen(batch)

    def loss(self, outputs: Any, batch: Batch, key: jax.Array | None = None) -> tuple:
        """The sum of the pixels' cross-entropies, and the number of valid pixels."""
        return losses.cross_entropy(outputs, batch["label"])

    def measure(self, outputs: Any, batch: Batch) -> Any:
        """The confusion matrix int32 [K, K], and of the episodes the sum of their IU and number."""
        counts = super().measure(outputs, batch)
        of_each = jax.vmap(partial(metrics.confusion_matrix, num_classes=outputs.shape[-1]))
        hits, union = _overlap(of_each(batch["label"], jnp.argmax(outputs, -1)))
        there = union > 0
        iu = jnp.where(there, hits / jnp.maximum(union, 1), 0.0)
        return {"confusion": counts, "iu": jnp.sum(iu), "episodes": jnp.sum(there)}

    def summarize(self, totals: Any) -> dict[str, Any]:
        """Of the objects, all classes but the first, and of all:

        positive_iu   sum_k>0 C_kk / sum_k>0 (sum_j C_kj + sum_j C_jk - C_kk), of all episodes
                      together: hits over the union of what is true and what is predicted
        episode_iu    the mean of that of each episode
        mean_iu, pixel_accuracy, class_iu      see `rfjax.tasks.metrics`
        """
        counts = np.zeros((1, 1)) if totals is None else np.asarray(totals["confusion"])
        found = metrics.summarize(counts)
        hits, union = map(np.asarray, _overlap(counts))
        episodes = np.asarray(0 if totals is None else totals["episodes"])
        mean = metrics.quotient(np.asarray(0 if totals is None else totals["iu"]), episodes)
        kept = ("mean_iu", "pixel_accuracy", "class_iu")
        return {
            "positive_iu": float(metrics.quotient(hits, union)),
            "episode_iu": float(mean),
            **{name: found[name] for name in kept},
        }

    def describe(self, scores: Mapping[str, Any]) -> str:
        """Both IU of the objects."""
        return f"{self.headline(scores)}  by episode {self._shown(scores['episode_iu'])}"

    def predictor(self, model: linen.Module) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """As `Task.predictor`; outputs are the classes int32 [N, H, W]."""
        scores = Task.predictor(self, model)

        def predict(variables: Mapping[str, Any], examples: Sequence[Example]) -> tuple:
            logits, scale_maps = scores(variables, examples)
            return np.argmax(logits, -1).astype(np.int32), scale_maps

        return predict

    def charts(self, totals: Any) -> dict[str, Callable[[], Any]]:
        """The confusion matrix."""
        return super().charts(totals and totals["confusion"])

    def draw(
        self, examples: Sequence[Example], outputs: Any, scale_maps: Mapping[str, np.ndarray]
    ) -> dict[str, Callable[[], Any]]:
        """The first image of each support with its marks, and query, truth and output."""
        from rfjax import visualize

        facts = {"palette": np.asarray(self.facts["palette"], np.uint8)}
        shots = [
            (one["support"][0] if "support" in one else one["image"], one[SUPPORT][0])
            for one in examples
        ]
        queries = [
            (one["image"], one["label"], out) for one, out in zip(examples, outputs, strict=True)
        ]
        return {"examples": partial(visualize.episode_panels, shots, queries, **facts)}


def _overlap(counts: Any) -> tuple[Any, Any]:
    """Of confusion matrices [..., K, K] the hits of all classes but the first, and the union."""
    every = counts.sum((-2, -1)) - counts[..., 0, 0]
    hits = counts.trace(axis1=-2, axis2=-1) - counts[..., 0, 0]
    confused = counts[..., 1:, 1:].sum((-2, -1)) - hits  # an object for another: in both unions
    return hits, every + confused
