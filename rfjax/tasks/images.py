"""What the tasks of labelled images share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from flax import linen

from rfjax.tasks import metrics
from rfjax.tasks.task import Batch, Task


def seen(batch: Batch, of: str = "") -> Any:
    """What the network reads of each example: its image, or the maps that the network starts from.

    Args:
      batch: "image" [N, H, W, C], or "map/NAME" and, for their size, "label" [N, H, W].
      of: what comes before these names and a slash, as "support"; "" for the example itself.
    """
    from rfjax.models.stages import Start

    prefix = f"{of}/map/" if of else "map/"
    maps = {name.removeprefix(prefix): batch[name] for name in batch if name.startswith(prefix)}
    if not maps:
        return batch.get(of) if of else batch["image"]
    size = batch["label"].shape[1:]
    return Start({name: x.astype(jnp.float32) for name, x in maps.items()}, size)


class LabelledImages(Task):
    """Class scores of what an image shows, measured by a confusion matrix. A base class.

    Of the data set it wants to know `num_classes`, `class_names`, and how images are normalised:
    `mean`, `std` and, where it is not "rgb", `order`.
    """

    pictures: ClassVar[tuple[str, ...]] = ("image",)

    @property
    def normalization(self) -> Any:
        """How images are normalised, a `rfjax.data.Normalization`."""
        from rfjax.data.normalization import Normalization

        return Normalization.of(self.facts)

    def model(self, build: Callable[..., linen.Module]) -> linen.Module:
        """A network with one output for each class."""
        return build(self.facts["num_classes"])

    def inputs(self, batch: Batch) -> tuple:
        """The images."""
        return (batch["image"],)

    def measure(self, outputs: Any, batch: Batch) -> Any:
        """The confusion matrix of the highest scores, int32 [K, K]."""
        from rfjax.models.paths import fused

        outputs = fused(outputs, batch["label"])
        predictions = jnp.argmax(outputs, -1)
        return metrics.confusion_matrix(batch["label"], predictions, num_classes=outputs.shape[-1])

    def legend(self) -> Any:
        """The colors of the classes, where they have any."""
        from PIL import Image

        from rfjax import visualize

        if not self.facts.get("palette"):
            return None
        palette = np.asarray(self.facts["palette"], np.uint8)
        figure = visualize.legend(self.facts["class_names"], palette)
        return Image.fromarray(visualize.to_rgb(figure))

    def charts(self, totals: Any) -> dict[str, Callable[[], Any]]:
        """The confusion matrix."""
        from rfjax import visualize

        if totals is None:
            return {}
        return {"confusion": lambda: visualize.confusion(totals, self.facts["class_names"])}
