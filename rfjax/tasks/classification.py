"""A class for an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen

from rfjax.tasks import losses, metrics
from rfjax.tasks.images import LabelledImages
from rfjax.tasks.losses import VOID
from rfjax.tasks.task import Augmentation, Batch, Example, Row


class Classification(LabelledImages):
    """Cross-entropy of the class scores of an image; accuracy."""

    score: ClassVar[str] = "accuracy"
    title: ClassVar[str] = "accuracy"
    followed: ClassVar[tuple[str, ...]] = ("accuracy",)

    def row(
        self,
        example: Example,
        rng: np.random.Generator | None = None,
        augmentation: Augmentation | None = None,
    ) -> Row:
        """{"image": float32 [H, W, 3] normalised, "label": int32 []}."""
        from rfjax.data import rows

        return rows.classification_row(
            example, self.normalization, self.facts["num_classes"], rng, augmentation
        )

    def loss(self, outputs: Any, batch: Batch, key: jax.Array | None = None) -> tuple:
        """The sum of the images' cross-entropies, and the number of images with a class."""
        if outputs.ndim != 2:
            raise ValueError(
                f"classification wants scores [N, K], as model.head=classify makes them; got "
                f"{outputs.shape}"
            )
        return losses.cross_entropy(outputs, batch["label"])

    def summarize(self, totals: Any) -> dict[str, Any]:
        """Accuracy over all images, its mean over the classes, and that of each class.

        accuracy        sum_i C_ii / sum_ij C_ij
        mean_accuracy   the mean of C_ii / sum_j C_ij over the classes that occur
        class_accuracy  C_ii / sum_j C_ij, nan for a class that does not occur
        """
        counts = np.zeros((0, 0)) if totals is None else np.asarray(totals, np.float64)
        found = metrics.summarize(counts)
        return {
            "accuracy": found["pixel_accuracy"],
            "mean_accuracy": found["mean_accuracy"],
            "class_accuracy": metrics.quotient(np.diag(counts), counts.sum(1)).tolist(),
        }

    def predictor(self, model: linen.Module) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """As `Task.predictor`; outputs are the probabilities of the classes, float32 [N, K]."""
        scores = super().predictor(model)

        def predict(variables: Mapping[str, Any], examples: Sequence[Example]) -> tuple:
            # No label is needed to classify.
            logits, scale_maps = scores(variables, [{"label": VOID, **one} for one in examples])
            return np.asarray(jax.nn.softmax(logits)), scale_maps

        return predict

    def answer(self, image: np.ndarray, output: Any) -> tuple[list[str], dict[str, Any]]:
        """The three likeliest classes."""
        likeliest = np.argsort(-output, kind="stable")[:3]
        names = self.facts["class_names"]
        return [f"{names[index]} {100 * output[index]:.1f} %" for index in likeliest], {}

    def table(self, scores: Mapping[str, Any], totals: Any) -> tuple[list[str], list[list[Any]]]:
        """By class: accuracy and share of the images, in percent."""
        return ["class", "accuracy %", "images %"], metrics.by_class(
            totals, self.facts["class_names"]
        )

    def draw(
        self, examples: Sequence[Example], outputs: Any, scale_maps: Mapping[str, np.ndarray]
    ) -> dict[str, Callable[[], Any]]:
        """The images with their true and predicted classes."""
        from rfjax import visualize

        names = self.facts["class_names"]
        captions = [
            f"{names[int(label)]}: {names[found]}"
            for label, found in zip(
                (example["label"] for example in examples), np.argmax(outputs, -1), strict=True
            )
        ]
        images = [example["image"] for example in examples]
        return {"examples": lambda: visualize.captioned_images(images, captions)}
