"""Where every pixel of an image has gone in the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from rfjax.tasks import losses
from rfjax.tasks.task import Augmentation, Batch, Example, Row, Task

# Of the levels of strides 4, 8, 16, 32 and 64.
WEIGHTS = (0.005, 0.01, 0.02, 0.08, 0.32)
UNIT = 20.0  # pixels in which networks count
FINEST = 4  # stride of the first level


class Flow(Task):
    """The mean distance in pixels between flows and true ones; multi-scale loss.

    loss = sum over levels of  w_level sum over its pixels of  |flow / 20 - truth / 20|

    with the true flow averaged over the pixels of a level, w = .005, .01, .02, .08, .32 from stride
    4 to 64, divided by the number of pairs. A network returns {"flow": [N, H, W, 2], "levels":
    flows in units of 20 pixels}, as `rfjax.models.flownet` does. Flows are (right, down).

    Of the data set it wants to know how images are normalized: `mean` and `std`. An example has
    "first" and "second" uint8 [H, W, 3], and "flow" float32 [H, W, 2]; where that is not finite,
    nothing is known.
    """

    score: ClassVar[str] = "closeness"
    title: ClassVar[str] = "end-point error"
    percent: ClassVar[bool] = False
    followed: ClassVar[tuple[str, ...]] = ("end_point_error",)
    pictures: ClassVar[tuple[str, ...]] = ("first", "second")

    def row(
        self,
        example: Example,
        rng: np.random.Generator | None = None,
        augmentation: Augmentation | None = None,
    ) -> Row:
        """{"first", "second": float32 [H, W, 3], "flow" [H, W, 2], "valid": float32 [H, W]}.

        Raises:
          ValueError: the images and the flow differ in size, or the pair is to be varied by more
            than a crop.
        """
        from rfjax.data import rows
        from rfjax.data.normalization import Normalization

        return rows.flow_row(example, Normalization.of(self.facts), rng, augmentation)

    def model(self, build: Callable[..., linen.Module]) -> linen.Module:
        """A network of two images."""
        return build(2)

    def inputs(self, batch: Batch) -> tuple:
        """The two images."""
        return batch["first"], batch["second"]

    def loss(self, outputs: Any, batch: Batch, key: jax.Array | None = None) -> tuple:
        """The weighted sum of end-point errors at all levels, and the number of pairs."""
        if len(outputs["levels"]) != len(WEIGHTS):
            raise ValueError(f"want flows at {len(WEIGHTS)} levels; got {len(outputs['levels'])}")
        total = jnp.zeros((), jnp.float32)
        for level, (weight, flow) in enumerate(zip(WEIGHTS, outputs["levels"], strict=True)):
            truth, valid = _averaged(batch, FINEST * 2**level, flow.shape[1:3])
            total += weight * jnp.sum(losses.end_point_error(flow, truth / UNIT) * valid)
        pairs = jnp.any(batch["valid"] > 0, (1, 2))
        return total, jnp.sum(pairs.astype(jnp.float32))

    def measure(self, outputs: Any, batch: Batch) -> Any:
        """Sums of errors and of pixels, at full size and at the finest level, and of zero flow."""
        fine = UNIT * outputs["levels"][0]
        truth, valid = _averaged(batch, FINEST, fine.shape[1:3])
        whole = losses.end_point_error(outputs["flow"], batch["flow"])
        still = losses.end_point_error(jnp.zeros_like(batch["flow"]), batch["flow"])
        return {
            "error": jnp.sum(whole * batch["valid"]),
            "still": jnp.sum(still * batch["valid"]),
            "count": jnp.sum(batch["valid"]),
            "fine_error": jnp.sum(losses.end_point_error(fine, truth) * valid),
            "fine_count": jnp.sum(valid),
        }

    def summarize(self, totals: Any) -> dict[str, Any]:
        """Mean end-point errors in pixels.

        end_point_error        of all pixels
        end_point_error_fine   at the finest level, of the true flow averaged to it
        motion                 that of zero flow: how far things move
        closeness              minus the first, which is higher for better networks
        """
        sums = dict.fromkeys(("error", "still", "fine_error"), np.nan) if totals is None else totals

        def mean(name: str, count: str) -> float:
            number = 0.0 if totals is None else float(totals[count])
            return float(sums[name]) / number if number else float("nan")

        error = mean("error", "count")
        return {
            "end_point_error": error,
            "end_point_error_fine": mean("fine_error", "fine_count"),
            "motion": mean("still", "count"),
            "closeness": -error,
        }

    def headline(self, scores: Mapping[str, Any]) -> str:
        """The mean end-point error."""
        return f"end-point error {scores['end_point_error']:.3f} px"

    def describe(self, scores: Mapping[str, Any]) -> str:
        """The error, and how far things move."""
        return f"{self.headline(scores)} of {scores['motion']:.3f} px"

    def brief(self, value: float) -> str:
        """The error beside the bar."""
        return f"error {-value:.3f} px"

    def predictor(self, model: linen.Module) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """As that of any task; the true flow of examples is not needed."""
        predict = super().predictor(model)

        def of_pairs(variables: Mapping[str, Any], examples: Sequence[Example]) -> tuple:
            return predict(variables, [_with_flow(example) for example in examples])

        return of_pairs

    def answer(self, image: np.ndarray, output: Any) -> tuple[list[str], dict[str, Any]]:
        """How far pixels move; the flow in colors, and as a .flo file."""
        from PIL import Image

        from rfjax import visualize
        from rfjax.data import flow_files

        flow = output["flow"]
        lengths = np.linalg.norm(flow, axis=-1)
        words = f"motion {lengths.mean():.2f} px, at most {lengths.max():.2f} px"
        colors = Image.fromarray(visualize.flow_colors(flow))
        return [words], {"flow": colors, "flow.flo": flow_files.encode_flow(flow)}

    def legend(self) -> Any:
        """The wheel of the colors of all directions."""
        from PIL import Image

        from rfjax import visualize

        return Image.fromarray(visualize.flow_wheel())

    def draw(
        self, examples: Sequence[Example], outputs: Any, scale_maps: Mapping[str, np.ndarray]
    ) -> dict[str, Callable[[], Any]]:
        """First images, true flows and those of the network, with the wheel of their colors."""
        from rfjax import visualize

        images, truths = ([example[key] for example in examples] for key in ("first", "flow"))
        return {"examples": lambda: visualize.flow_panels(images, truths, list(outputs["flow"]))}


def _with_flow(example: Example) -> Example:
    """The example; where its flow is not there, with one that is nowhere known."""
    unknown = np.full((*example["first"].shape[:2], 2), np.nan, np.float32)
    return {"flow": unknown, **example}


def _averaged(batch: Batch, cell: int, size: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """The true flow averaged over cells of so many pixels squared, and where it is known.

    The last cells may reach over the border.

    Raises:
      ValueError: there is another number of cells than `size`, of the flow that it is compared to.
    """
    valid = batch["valid"]
    height, width = valid.shape[1:3]
    window, margins = (1, cell, cell, 1), ((0, 0), (0, -height % cell), (0, -width % cell), (0, 0))

    def sums(values: jax.Array) -> jax.Array:
        zero = jnp.zeros((), values.dtype)
        return jax.lax.reduce_window(values, zero, jax.lax.add, window, window, margins)

    known = sums(valid[..., None])
    if known.shape[1:3] != tuple(size):
        raise ValueError(
            f"for images of {height}x{width} the flow of stride {cell} has "
            f"{known.shape[1]}x{known.shape[2]} pixels; got {size[0]}x{size[1]}"
        )
    truth = sums(batch["flow"] * valid[..., None]) / jnp.maximum(known, 1.0)
    return truth, (known[..., 0] > 0).astype(jnp.float32)
