"""What a search returns: plain arrays, one row for each candidate."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax._files import replacing
from rfjax.search.population import Population, concatenate

_ARRAYS = (
    "losses",
    "covariances",
    "scores",
    "score_steps",
    "receptive_fields",
    "values",
    "diverged_at",
    "dropped_at",
    "gradient_steps",
    "seconds",
)


@dataclasses.dataclass(frozen=True)
class Result:
    """K candidates over T steps, NumPy; nan where nothing is known (any more).

    Attributes:
        population: what each started from.
        layers: L paths of the layers with a covariance.
        losses: [K, T], before the update of each step.
        covariances: [K, T + 1, L, 3], (Sigma_yy, Sigma_yx, Sigma_xx) in pixels^2 of the layer's
            map, before the first step and after each.
        scores: [K, E] at the steps `score_steps` [E].
        receptive_fields: [K, T + 1, 2] sizes (y, x) in pixels of the input, or None. These, losses
            and covariances are nan after `dropped_at`; after `diverged_at` only losses are, as the
            candidate stays as it is.
        values: [K] what was enumerated, or None.
        over: its name.
        diverged_at: [K] the step whose update was not finite and not made; -1 for none.
        dropped_at: [K] the step after which halving dropped the candidate; -1 for never.
        gradient_steps: [K] the number of steps that were computed.
        seconds: [K] share of each candidate in the time of training, data included, without
            compilation and scores.
        compile_seconds: of compiling the programs that train, if they were not compiled before.
        params, state: final variables, leaves [K, ...]; None for results read from a file.
    """

    population: Population
    layers: tuple[str, ...]
    losses: np.ndarray
    covariances: np.ndarray
    scores: np.ndarray
    score_steps: np.ndarray
    diverged_at: np.ndarray
    dropped_at: np.ndarray
    gradient_steps: np.ndarray
    seconds: np.ndarray
    compile_seconds: float
    receptive_fields: np.ndarray | None = None
    values: np.ndarray | None = None
    over: str = "sigma"
    params: Any = None
    state: Any = None

    def __len__(self) -> int:
        return len(self.population)

    @property
    def sigmas(self) -> np.ndarray:
        """[K, T + 1, L, 2] marginal standard deviations (y, x)."""
        return np.sqrt(self.covariances[..., [0, 2]])

    @property
    def final_receptive_fields(self) -> np.ndarray | None:
        """[K, 2] the last known sizes (y, x), or None."""
        if self.receptive_fields is None:
            return None
        return _last_finite(np.moveaxis(np.asarray(self.receptive_fields, float), 1, -1))

    @property
    def final_scores(self) -> np.ndarray:
        """[K] the last score of each candidate; nan if there is none."""
        return _last_finite(self.scores)

    @property
    def final_sigmas(self) -> np.ndarray:
        """[K, L, 2] where each candidate's standard deviations ended."""
        return np.moveaxis(_last_finite(np.moveaxis(self.sigmas, 1, -1)), -1, -1)

    @property
    def best(self) -> int:
        """The candidate of the highest final score; of the lowest last loss without scores.

        Of those that were trained to the end; one that halving dropped only if there is no other.

        Raises:
            ValueError: every candidate diverged, or none has a finite score.
        """
        found = self.best_of(np.arange(len(self)))
        if found is None:
            lost = int((self.diverged_at >= 0).sum())
            raise ValueError(
                f"no candidate has a finite score: {lost} of {len(self)} diverged; try smaller "
                "learning rates"
            )
        return found

    def best_of(self, rows: np.ndarray) -> int | None:
        """Of these candidates the one that `best` would take; None if all diverged."""
        merit = self.final_scores if self.scores.shape[1] else -_last_finite(self.losses)
        usable = np.isfinite(merit) & (self.diverged_at < 0)
        rows = np.asarray(rows, int)
        for group in (rows[self.dropped_at[rows] < 0], rows):
            group = group[usable[group]]
            if len(group):
                return int(group[np.argmax(merit[group])])
        return None

    def save(self, path: str | Path) -> None:
        """Writes everything but the variables to an .npz file, all at once."""
        arrays = {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}
        fields = dataclasses.asdict(self.population)
        for group in ("structured", "extra"):
            for name, leaf in fields.pop(group).items():
                arrays[f"population/{group}/{name}"] = np.asarray(leaf)
        arrays |= {f"population/{name}": leaf for name, leaf in fields.items()}
        facts = {"layers": self.layers, "over": self.over, "compile": self.compile_seconds}
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            np.savez(file, facts=np.asarray(json.dumps(facts)), **arrays)


def load(path: str | Path) -> Result:
    """The result that `Result.save` wrote to an .npz file."""
    with np.load(path) as file:
        arrays = dict(file)
    facts = json.loads(str(arrays.pop("facts")))
    fields: dict[str, Any] = {"structured": {}, "extra": {}}
    for name in [name for name in arrays if name.startswith("population/")]:
        _, *groups, leaf = name.split("/", 2 if name.split("/")[1] in fields else 1)
        (fields[groups[0]] if groups else fields)[leaf] = arrays.pop(name)
    return Result(
        population=Population(**fields),
        layers=tuple(facts["layers"]),
        over=facts["over"],
        compile_seconds=facts["compile"],
        **arrays,
    )


def join(results: Sequence[Result], *, over: str, values: Sequence[float]) -> Result:
    """One result of several searches of equal length, each with the value that it was made for.

    Their layers may differ; those of the first that all share are kept.
    """
    layers = tuple(n for n in results[0].layers if all(n in r.layers for r in results))
    arrays: dict[str, Any] = {}
    for name in _ARRAYS:
        parts = [getattr(result, name) for result in results]
        arrays[name] = None if parts[0] is None else parts
    arrays["covariances"] = [r.covariances[:, :, _places(r.layers, layers)] for r in results]
    arrays["score_steps"] = [results[0].score_steps]
    arrays["values"] = [
        np.full(len(result), value) for result, value in zip(results, values, strict=True)
    ]
    whole: dict[str, Any] = {
        name: None if parts is None else np.concatenate(parts) for name, parts in arrays.items()
    }
    return Result(
        population=concatenate([result.population for result in results]),
        layers=layers,
        over=over,
        compile_seconds=sum(result.compile_seconds for result in results),
        **whole,
    )


def _places(layers: tuple[str, ...], wanted: tuple[str, ...]) -> list[int]:
    return [layers.index(name) for name in wanted]


def _last_finite(values: np.ndarray) -> np.ndarray:
    """The last number along the last axis that is not nan; nan if all are, or if it is empty."""
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan, np.float32)
    known = ~np.isnan(values)
    last = values.shape[-1] - 1 - np.argmax(known[..., ::-1], -1)
    return np.take_along_axis(values, last[..., None], -1)[..., 0]


class Records:
    """The arrays of a `Result` while they fill up."""

    def __init__(self, count: int, steps: int, score_steps: Sequence[int], entries: dict):
        self.layers = tuple(sorted(entries))
        size = len(self.layers)
        nan = lambda *shape: np.full(shape, np.nan, np.float32)
        self.arrays = {
            "losses": nan(count, steps),
            "covariances": nan(count, steps + 1, size, 3),
            "scores": nan(count, len(score_steps)),
            "diverged_at": np.full(count, -1, np.int32),
            "dropped_at": np.full(count, -1, np.int32),
            "gradient_steps": np.zeros(count, np.int32),
            "seconds": np.zeros(count),
        }
        self.score_steps = np.asarray(score_steps, np.int32)
        self.compile_seconds = 0.0
        self.write_covariances(np.arange(count), 0, {n: v[:, None] for n, v in entries.items()})

    def write_covariances(self, rows: np.ndarray, first: int, entries: dict) -> None:
        """Entries [rows, S, 3] by layer, from the column `first` on."""
        for place, layer in enumerate(self.layers):
            values = np.asarray(entries[layer])
            columns = slice(first, first + values.shape[1])
            self.arrays["covariances"][rows, columns, place] = values

    def write_steps(self, rows: np.ndarray, first: int, records: dict) -> None:
        """Losses and covariances of the steps from `first` on."""
        losses = np.asarray(records["loss"])
        self.arrays["losses"][rows, first : first + losses.shape[1]] = losses
        self.arrays["gradient_steps"][rows] += losses.shape[1]
        self.write_covariances(rows, first + 1, records["covariances"])

    def finish(
        self, population: Population, receptive_field: Any, *, copy: bool, **facts: Any
    ) -> Result:
        """The result, with the sizes of receptive fields from the covariances."""
        arrays = {n: a.copy() if copy else a for n, a in self.arrays.items()}
        sigmas = np.sqrt(self.arrays["covariances"][..., [0, 2]])
        fields = None if receptive_field is None else np.asarray(receptive_field(sigmas))
        return Result(
            population=jax.tree.map(np.asarray, population),
            layers=self.layers,
            score_steps=self.score_steps,
            compile_seconds=self.compile_seconds,
            receptive_fields=fields,
            **arrays,
            **facts,
        )
