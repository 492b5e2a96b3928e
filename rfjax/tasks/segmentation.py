"""A class at every pixel of an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen

from rfjax import _names, _options
from rfjax.tasks import inference, losses, metrics
from rfjax.tasks.images import LabelledImages, seen
from rfjax.tasks.task import Augmentation, Batch, Example, Row


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation(LabelledImages):
    """Cross-entropy of class scores at every pixel; mean intersection over union.

    Of the data set it wants to know the `palette` besides, and perhaps `groups`, classes by the
    name of what they are together, whose F1 is a score as well.

    Attributes:
      cross_entropy: "softmax"; "sigmoid", one yes or no for each class; or "null_background", the
        latter without a score of the background, class 0, which is predicted where all other
        scores are below 0.
      sampling: probability with which a cell of the last layer takes part in the loss of a
        training step, see `rfjax.tasks.losses.sampled`.
      cell: its height and width in pixels.
      class_weights, focal, dice: of the softmax, see `rfjax.tasks.losses.balanced_cross_entropy`.
      hard_examples: likewise, the share of each picture's pixels that take part in the loss of a
        training step; evaluation tells the loss of all.

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks for Semantic Segmentation",
      section 4.
    """

    cross_entropy: str = "softmax"
    sampling: float = 1.0
    cell: int = 32
    class_weights: Sequence[float] = ()
    focal: float = 0.0
    dice: float = 0.0
    hard_examples: float = 1.0

    score: ClassVar[str] = "mean_iu"
    title: ClassVar[str] = "mean IU"
    followed: ClassVar[tuple[str, ...]] = ("mean_iu", "pixel_accuracy")

    def __post_init__(self) -> None:
        super().__post_init__()
        _options.choose("cross_entropy", self.cross_entropy, _names.CROSS_ENTROPIES)
        _options.number("sampling", self.sampling, above=0, most=1)
        _options.integer("cell", self.cell)
        _options.number("focal", self.focal, least=0)
        _options.number("dice", self.dice, least=0)
        _options.number("hard_examples", self.hard_examples, above=0, most=1)
        self._check_weights()
        balance = [key for key in _names.BALANCE if getattr(self, key)]
        balance += ["hard_examples"] if self.hard_examples < 1 else []
        if balance and self.cross_entropy != "softmax":
            raise ValueError(
                f"{', '.join(balance)} want cross_entropy softmax; got {self.cross_entropy!r}"
            )
        if self.hard_examples < 1 and self.sampling < 1:
            raise ValueError(
                f"sampling={self.sampling} and hard_examples={self.hard_examples} both choose what "
                "is learned from: give one of them"
            )

    def _check_weights(self) -> None:
        """There are no weights, or one of each class and not all 0."""
        weights = [_options.number("class_weights", each, least=0) for each in self.class_weights]
        classes = self.facts.get("num_classes", len(weights))
        if weights and (len(weights) != classes or not any(weights)):
            raise ValueError(
                f"class_weights wants {classes} numbers, one a class, not all 0; got "
                f"{self.class_weights!r}"
            )

    def model(self, build: Callable[..., linen.Module]) -> linen.Module:
        """A network with one output for each class; that of a null background is 0."""
        if self.cross_entropy != "null_background":
            return super().model(build)
        from rfjax.models.decoders import without_background

        return without_background(build(self.facts["num_classes"] - 1))

    def check(self, dataset: Any) -> None:
        """Reads a few examples, see `rfjax.data.check`."""
        from rfjax import data

        data.check(dataset)

    def row(
        self,
        example: Example,
        rng: np.random.Generator | None = None,
        augmentation: Augmentation | None = None,
    ) -> Row:
        """{"image": float32 [H, W, 3] normalised, "label": int32 [H, W], 255 for void}."""
        from rfjax.data import rows

        return rows.segmentation_row(example, self.normalization, rng, augmentation)

    def inputs(self, batch: Batch) -> tuple:
        """The images, or the maps that the network starts from."""
        return (seen(batch),)

    def loss(self, outputs: Any, batch: Batch, key: jax.Array | None = None) -> tuple:
        """The sum of the pixels' losses, and the number of valid pixels, or the sum of weights.

        With a key, that of a training step, cells are left out as `sampling` says, and pixels as
        `hard_examples` says.
        """
        from rfjax.models.paths import fused

        labels = batch["label"]
        outputs = fused(outputs, labels)
        if key is not None and self.sampling < 1:
            labels = losses.sampled(key, labels, self.sampling, cell=self.cell)
        balance = {key: value for key in _names.BALANCE if (value := getattr(self, key))}
        if key is not None and self.hard_examples < 1:
            balance["hard_examples"] = self.hard_examples
        if balance:
            return losses.balanced_cross_entropy(outputs, labels, **balance)
        if self.cross_entropy == "softmax":
            return losses.cross_entropy(outputs, labels)
        background = self.cross_entropy == "sigmoid"
        return losses.sigmoid_cross_entropy(outputs, labels, background=background)

    def summarize(self, totals: Any) -> dict[str, Any]:
        """See `metrics.summarize`; and where the data set has groups of classes, F1.

        class_f1   a list of K
        f1_GROUP   of the classes of a group together, see `metrics.f1`
        """
        counts = np.zeros((0, 0)) if totals is None else totals
        groups = self.facts.get("groups", {})
        if not groups:
            return metrics.summarize(counts)
        merged = zip(groups, metrics.f1(counts, list(groups.values())), strict=True)
        return {
            **metrics.summarize(counts),
            "class_f1": metrics.f1(counts, [[index] for index in range(len(counts))]),
            **{f"f1_{name}": value for name, value in merged},
        }

    def describe(self, scores: Mapping[str, Any]) -> str:
        """Mean IU and pixel accuracy, and F1 of all parts where the data set has groups."""
        accuracy = self._shown(scores["pixel_accuracy"])
        overall = scores.get("f1_overall")
        f1 = "" if overall is None else f"  F1 overall {self._shown(overall)}"
        return f"{self.headline(scores)}  pixel accuracy {accuracy}{f1}"

    def predictor(self, model: linen.Module) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """As `Task.predictor`; outputs are the classes int32 [N, H, W] of images of one size."""
        segment = inference.make_segment(model, self.normalization)

        def predict(variables: Mapping[str, Any], examples: Sequence[Example]) -> tuple:
            images = np.stack([example["image"] for example in examples])
            found = jax.device_get(segment(variables, images))
            return found["classes"], found["scale_maps"]

        return predict

    def answer(self, image: np.ndarray, output: Any) -> tuple[list[str], dict[str, Any]]:
        """Classes as a palette image, and over the picture."""
        from PIL import Image

        from rfjax import visualize

        palette = np.asarray(self.facts["palette"], np.uint8)
        return [], {
            "classes": visualize.palette_image(output, palette),
            "overlay": Image.fromarray(visualize.overlay(image, output, palette)),
        }

    def table(self, scores: Mapping[str, Any], totals: Any) -> tuple[list[str], list[list[Any]]]:
        """By class: IU, accuracy and share of the pixels, in percent; F1 of classes and groups."""
        heading = ["class", "IU %", "accuracy %", "pixels %"]
        rows = metrics.by_class(totals, self.facts["class_names"], scores["class_iu"])
        groups = self.facts.get("groups", {}) if rows else {}
        if not groups:
            return heading, rows
        alone = zip(rows, scores["class_f1"], strict=True)
        rows = [[*row, metrics.percent(value)] for row, value in alone]
        merged = [[name, "", "", "", metrics.percent(scores[f"f1_{name}"])] for name in groups]
        return [*heading, "F1 %"], [*rows, *merged]

    def draw(
        self, examples: Sequence[Example], outputs: Any, scale_maps: Mapping[str, np.ndarray]
    ) -> dict[str, Callable[[], Any]]:
        """Input, truth and output, and the scale maps over the images."""
        from rfjax import visualize

        images = [example["image"] for example in examples]
        figures = {
            "examples": lambda: visualize.segmentation_panels(
                images,
                [example["label"] for example in examples],
                outputs,
                palette=np.asarray(self.facts["palette"], np.uint8),
                class_names=self.facts["class_names"],
            )
        }
        names = inference.file_names(list(scale_maps))
        for layer, maps in scale_maps.items():
            figures[f"scales_{names[layer]}"] = partial(visualize.scale_panels, images, maps)
        return figures
