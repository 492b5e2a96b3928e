"""What every task answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen

from rfjax import _names
from rfjax._options import choose
from rfjax.tasks import inference

Example = Mapping[str, Any]  # of a data set, as its source returns it
Row = dict[str, np.ndarray]  # of a batch, one example
Batch = Mapping[str, Any]  # rows, stacked
Augmentation = Callable[..., tuple[np.ndarray, np.ndarray]]  # of (rng, image, label)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What is learned: examples, network, loss, scores and figures. A base class.

    Attributes:
      facts: of the data set, see `rfjax.data.Dataset.facts`; JSON can hold them.
      normalize: by what the sum of a batch's losses is divided: "count", what `loss` returns
        beside it, or "none", so that each example pulls with its own weight whatever the batch.

    A class of its own says in `score` which entry of `summarize` decides between checkpoints,
    higher being better, how it is called for people in `title`, and in `followed` which entries are
    written down while training goes on. A score in 0..1 is shown in percent, unless `percent` is
    False.

    `row`, `model`, `inputs`, `loss`, `measure` and `summarize` have to be defined.
    """

    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    normalize: str = "count"

    score: ClassVar[str] = "score"
    title: ClassVar[str] = "score"
    percent: ClassVar[bool] = True
    followed: ClassVar[tuple[str, ...]] = ()
    pictures: ClassVar[tuple[str, ...]] = ()  # names of the pictures that are a whole example

    def __post_init__(self) -> None:
        choose("normalize", self.normalize, _names.NORMALIZATIONS)

    # -- on the host -------------------------------------------------------------------------------

    def check(self, dataset: Any) -> None:
        """Reads a few examples, so that what is wrong with the data is found before a run.

        Raises:
          ValueError: there are none. Whatever `row` raises for one that does not fit.
        """
        count = len(dataset)
        if not count:
            raise ValueError(f"the {dataset.split} split of {dataset.name} is empty")
        for index in {0, count // 2, count - 1}:
            self.row(dataset.source[index])

    def row(
        self,
        example: Example,
        rng: np.random.Generator | None = None,
        augmentation: Augmentation | None = None,
    ) -> Row:
        """The arrays of one example as a batch holds them.

        Args:
          example: of the data set.
          rng, augmentation: in training, how the example is varied; None in evaluation.
        """
        raise _undefined(self, "row")

    def frame(self, example: Example) -> Row:
        """The row of one image, for `rfjax.data.cache_features`: "image" is what an encoder reads.

        By default that of `row`.

        Args:
          example: of the data set, or of that whose images its examples are drawn of.
        """
        return self.row(example)

    def blank(self, row: Row) -> Row:
        """A row of the shapes of `row` that counts for nothing, which fills up a batch.

        By default zeros, and 255 (void) for what is called "label".
        """
        from rfjax.data import rows

        return rows.blank(row)

    def summarize(self, totals: Any) -> dict[str, Any]:
        """The scores, numbers or lists of them, of what `measure` gave in all batches together.

        `totals` is None where nothing was measured; then numbers are nan.
        """
        raise _undefined(self, "summarize")

    def headline(self, scores: Mapping[str, Any]) -> str:
        """The score that decides, with its name."""
        return f"{self.title} {self._shown(scores[self.score])}"

    def describe(self, scores: Mapping[str, Any]) -> str:
        """The scores in a few words, for a line; by default the headline."""
        return self.headline(scores)

    def brief(self, value: float) -> str:
        """The score in a word or two, beside the bar."""
        shown = f"{100 * value:.1f} %" if self.percent else f"{value:.4g}"
        return f"{self.title.split()[-1]} {shown}"

    def _shown(self, value: float) -> str:
        return f"{100 * value:.2f} %" if self.percent else f"{value:.4g}"

    def is_scored(self, scores: Mapping[str, Any]) -> bool:
        """Whether there was anything to score, so that the score is a number."""
        value = scores[self.score]
        return value is not None and bool(np.isfinite(value))

    def table(self, scores: Mapping[str, Any], totals: Any) -> tuple[list[str], list[list[Any]]]:
        """The heading and the rows of what is printed of an evaluation; by default all numbers.

        Args:
          scores: of `summarize`.
          totals: that they were made of.
        """
        numbers = [name for name, value in scores.items() if np.ndim(value) == 0]
        return ["score", "value"], [[name, f"{scores[name]:.4f}"] for name in numbers]

    def charts(self, totals: Any) -> dict[str, Callable[[], Any]]:
        """By name, the functions that draw figures of an evaluation; by default none."""
        return {}

    def draw(
        self, examples: Sequence[Example], outputs: Any, scale_maps: Mapping[str, np.ndarray]
    ) -> dict[str, Callable[[], Any]]:
        """By name, the functions that draw figures of a few examples; by default none.

        Args:
          examples: of the data set.
          outputs: what `predict` returned for them.
          scale_maps: by layer, float32 [N, H', W'] of layers whose field depends on the input.
        """
        return {}

    def answer(self, image: np.ndarray, output: Any) -> tuple[list[str], dict[str, Any]]:
        """What a person wants to know of one picture: words, and files by name.

        Files are PIL images, to be written as NAME.png, or bytes, of which the name has a suffix.

        Args:
          image: uint8 [H, W, 3]; of a pair the first one.
          output: of `predictor`, without the axis of examples.
        """
        return [], {}

    def legend(self) -> Any:
        """What the colors of `answer` mean, a PIL image; by default None."""
        return None

    # -- of the network ----------------------------------------------------------------------------

    def model(self, build: Callable[..., linen.Module]) -> linen.Module:
        """The network.

        Args:
          build: the function of (num_classes) that builds the network that the config names; its
            keyword arguments take the place of the config's, as `head`.
        """
        raise _undefined(self, "model")

    def inputs(self, batch: Batch) -> tuple:
        """What the network is called with."""
        raise _undefined(self, "inputs")

    def loss(self, outputs: Any, batch: Batch, key: jax.Array | None = None) -> tuple:
        """(the sum of the losses, by what it is divided where `normalize` is "count").

        Both are float32 scalars, which add up over devices.

        Args:
          outputs: of the network.
          batch: that it was called with the inputs of.
          key: for losses that draw what counts; None in evaluation.
        """
        raise _undefined(self, "loss")

    def measure(self, outputs: Any, batch: Batch) -> Any:
        """A pytree of arrays that add up over batches and devices, for `summarize`."""
        raise _undefined(self, "measure")

    def scores_of_classes(self, outputs: Any) -> Any:
        """Of the network's outputs those whose highest says what is predicted; by default all."""
        return outputs

    def predictor(self, model: linen.Module) -> Callable[..., tuple[Any, dict[str, Any]]]:
        """The function of (variables, examples) -> (outputs, scale maps by layer), NumPy arrays.

        By default the outputs are those of the network. Examples need what `row` reads of them.
        """
        apply = inference.make_apply(model, self.inputs)

        def predict(variables: Mapping[str, Any], examples: Sequence[Example]) -> tuple:
            rows = [self.row(example) for example in examples]
            batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            return jax.device_get(apply(variables, batch))

        return predict


def _undefined(task: Task, method: str) -> TypeError:
    return TypeError(f"the task {type(task).__name__} does not define {method}")
