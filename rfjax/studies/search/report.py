"""What a study found: a summary, a table and pictures.

An enumeration's *optimum* is the value of highest mean score over its seeds. Its *flat top* reaches
from the smallest to the largest value whose mean score is within the spread (largest minus smallest
over the seeds) of the optimum's. Where the smallest sigma of the grid belongs to it, it reaches
down to 0: as sigma shrinks the filter becomes the identity, and no smaller value was seen to fail.

A search *follows* where, with the mean over the seeds, its sigma is within 15 % of the optimum or
in the flat top, its score not below the optimum's by more than that spread, and its gradient steps
at most a fifth of the enumeration's.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rfjax import visualize
from rfjax._console import tell
from rfjax._files import plain, write_json, write_text
from rfjax._markdown import table
from rfjax.search.result import Result
from rfjax.studies.statistics import mean_sigma, spread

TOLERANCE = 0.15  # of sigma, relative
BUDGET = 0.2  # of the enumeration's compute


def summarize(
    found: Mapping[int, Mapping[str, Result]], *, config: Any, areas: Mapping[int, int]
) -> dict[str, Any]:
    """The numbers of a study, as JSON can hold them.

    Args:
        found: by enlargement, "search" and perhaps "enumeration".
        config: kept beside the numbers.
        areas: by enlargement, pixels of an image in training.

    Returns:
        {"config", "enlargements": for each factor "search" (`described`), "enumeration" (`grid`)
        and "comparison" (`compare`), "compute": totals}.
    """
    parts = {}
    for factor, kinds in found.items():
        part: dict[str, Any] = {"search": described(kinds["search"])}
        if "enumeration" in kinds:
            part["enumeration"] = grid(kinds["enumeration"])
            part["comparison"] = compare(kinds["search"], kinds["enumeration"])
        parts[str(factor)] = part
    return {"config": config, "enlargements": parts, "compute": _totals(found, areas)}


def described(result: Result) -> dict[str, Any]:
    """Each candidate's start and end, the best of them (None if all diverged), and the cost."""
    sigmas, people = result.final_sigmas, result.population
    fields = result.final_receptive_fields
    rows = []
    for k in range(len(result)):
        rows.append(
            {
                "sigma_start": people.sigma[k].tolist(),
                "seed": int(people.seed[k]),
                "learning_rate": float(people.learning_rate[k]),
                "covariance_multiplier": float(people.covariance_multiplier[k]),
                "sigmas": {
                    layer: plain(sigmas[k, place]) for place, layer in enumerate(result.layers)
                },
                "score": plain(result.final_scores[k]),
                "receptive_field": None if fields is None else plain(fields[k]),
                "diverged_at": int(result.diverged_at[k]),
                "dropped_at": int(result.dropped_at[k]),
            }
        )
    best = result.best_of(np.arange(len(result)))
    return {"candidates": rows, "best": best, **compute(result)}


def compute(result: Result) -> dict[str, Any]:
    """Gradient steps and seconds of all candidates together."""
    return {
        "gradient_steps": int(result.gradient_steps.sum()),
        "seconds": float(result.seconds.sum()),
        "compile_seconds": float(result.compile_seconds),
    }


def grid(result: Result) -> dict[str, Any]:
    """An enumeration by value: mean score, its range over the seeds, optimum and flat top.

    The last ones are None where every candidate diverged.
    """
    values, means, lows, highs = by_value(result)
    found = {
        "over": result.over,
        "values": values.tolist(),
        "mean": plain(means),
        "low": plain(lows),
        "high": plain(highs),
    }
    top = dict.fromkeys(("optimum", "score", "spread", "flat_top"))
    if np.any(np.isfinite(means)):
        best = int(np.nanargmax(means))
        width = highs[best] - lows[best]
        flat = values[means >= means[best] - width]
        open_end = result.over == "sigma" and flat.min() == values.min()
        top["optimum"], top["score"] = float(values[best]), float(means[best])
        top["spread"] = float(width)
        top["flat_top"] = [0.0 if open_end else float(flat.min()), float(flat.max())]
    return {**found, **top, **compute(result)}


def by_value(result: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The values in order, and mean, lowest and highest final score of each.

    Of pairs (y, x) the geometric mean. Scores are nan where all seeds diverged.
    """
    values, scores = np.asarray(result.values, float), result.final_scores
    values = mean_sigma(values) if values.ndim == 2 else values
    usable = (result.diverged_at < 0) & np.isfinite(scores)
    ordered = np.unique(values)
    over_seeds = [spread(scores[usable & (values == value)]) for value in ordered]
    means, lows, highs, _, _ = map(np.array, zip(*over_seeds, strict=True))
    return ordered, means, lows, highs


def chosen(result: Result) -> np.ndarray:
    """Of each seed the best candidate (see `Result.best`): their indices.

    A seed whose candidates all diverged has none.
    """
    seeds = np.asarray(result.population.seed)
    found = [result.best_of(np.flatnonzero(seeds == s)) for s in np.unique(seeds)]
    return np.array([row for row in found if row is not None], int)


def compare(searched: Result, enumerated: Result) -> dict[str, Any]:
    """The searched sigma and score against the enumeration's, and the parts of its compute.

    Sigma is the geometric mean of (y, x) of the first layer, the mean over the seeds' best
    candidates. Without a candidate that did not diverge, numbers are None and verdicts false.
    """
    rows, best = chosen(searched), grid(enumerated)
    sigma, score, reach = None, None, None
    if len(rows):
        sigmas, scores = _ends(searched)
        sigma, score = float(np.mean(sigmas)), float(np.mean(scores))
        reach = [float(sigmas.min()), float(sigmas.max())]
    follows, fine = False, False
    if len(rows) and best["optimum"] is not None:
        low, high = best["flat_top"]
        follows = abs(sigma / best["optimum"] - 1.0) <= TOLERANCE or low <= sigma <= high
        fine = score >= best["score"] - best["spread"]
    costs, theirs = compute(searched), compute(enumerated)
    steps = costs["gradient_steps"] / theirs["gradient_steps"]
    return {
        "sigma": sigma,
        "sigma_range": reach,
        "optimum": best["optimum"],
        "flat_top": best["flat_top"],
        "sigma_follows": bool(follows),
        "score": score,
        "score_enumerated": best["score"],
        "score_within_spread": bool(fine),
        "compute_ratio_steps": steps,
        "compute_ratio_seconds": costs["seconds"] / max(theirs["seconds"], 1e-9),
        "within_budget": bool(steps <= BUDGET),
    }


def _totals(found: Mapping[int, Mapping[str, Result]], areas: Mapping[int, int]) -> dict[str, Any]:
    """Compute over all enlargements; pixel steps weigh a step by the area of an image."""
    totals: dict[str, Any] = {}
    for factor, kinds in found.items():
        for kind, result in kinds.items():
            total = totals.setdefault(
                kind,
                {"gradient_steps": 0, "pixel_steps": 0, "seconds": 0.0, "compile_seconds": 0.0},
            )
            costs = compute(result)
            for name, value in costs.items():
                total[name] += value
            total["pixel_steps"] += costs["gradient_steps"] * areas[factor]
    return totals


def _percent(value: float | None, unit: str = " %") -> str:
    return "-" if value is None else f"{100 * value:.1f}{unit}"


def _pixels(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _range(ends: list[float] | None) -> str:
    """Two sigmas; one end alone where the other is open."""
    if ends is None:
        return "-"
    return f"{ends[0]:.2f}-{ends[1]:.2f}" if ends[0] > 0 else f"up to {ends[1]:.2f}"


def markdown(summary: Mapping[str, Any]) -> str:
    """The tables of a study."""
    parts = summary["enlargements"]
    sections = {}
    if compared := [factor for factor, part in parts.items() if "comparison" in part]:
        rows = (_comparison_row(factor, parts[factor]["comparison"]) for factor in compared)
        sections["Against enumeration"] = [table(_COMPARISON, rows)]
    for factor, part in parts.items():
        section = [table(_CANDIDATES, map(_candidate_row, part["search"]["candidates"]))]
        if "enumeration" in part:
            section.append(_grid_table(part["enumeration"]))
        sections[f"Enlarged {factor} times"] = section
    rows = (
        [kind, *(total[name] for name in ("gradient_steps", "pixel_steps")),
         *(f"{total[name]:.1f}" for name in ("seconds", "compile_seconds"))]
        for kind, total in summary["compute"].items()
    )  # fmt: skip
    sections["Compute"] = [table(_COMPUTE, rows)]
    texts = ["\n".join([f"## {title}\n", *section]) for title, section in sections.items()]
    return "\n".join(["# Search of receptive fields\n", *texts])


_COMPARISON = ("enlargement", "searched sigma (range)", "enumerated optimum", "flat top")
_COMPARISON += ("score", "enumerated", "steps", "seconds", "verdict")
_CANDIDATES = ("start", "seed", "rate", "multiplier", "sigma (y, x)", "receptive field")
_CANDIDATES += ("score", "ended")
_COMPUTE = ("", "gradient steps", "times pixels of an image", "seconds", "compiling")


def _comparison_row(factor: str, c: Mapping[str, Any]) -> list[str]:
    fine = c["sigma_follows"] and c["score_within_spread"] and c["within_budget"]
    return [
        factor,
        f"{_pixels(c['sigma'])} ({_range(c['sigma_range'])})",
        _pixels(c["optimum"]),
        _range(c["flat_top"]),
        _percent(c["score"]),
        _percent(c["score_enumerated"]),
        f"{c['compute_ratio_steps']:.2f}",
        f"{c['compute_ratio_seconds']:.2f}",
        "follows" if fine else "**does not follow**",
    ]


def _candidate_row(row: Mapping[str, Any]) -> list[Any]:
    field = row["receptive_field"]
    ended = f"diverged at {row['diverged_at']}" if row["diverged_at"] >= 0 else ""
    return [
        f"{row['sigma_start'][0]:g}",
        row["seed"],
        f"{row['learning_rate']:g}",
        f"{row['covariance_multiplier']:g}",
        "; ".join(f"{_pixels(y)}, {_pixels(x)}" for y, x in row["sigmas"].values()),
        "" if field is None or None in field else f"{field[0]:.0f} x {field[1]:.0f}",
        _percent(row["score"]),
        f"dropped at {row['dropped_at']}" if row["dropped_at"] >= 0 else ended,
    ]


def _grid_table(part: Mapping[str, Any]) -> str:
    columns = zip(*(part[name] for name in ("values", "mean", "low", "high")), strict=True)
    rows = []
    for value, mean, low, high in columns:
        bold = "**" if value == part["optimum"] else ""
        rows.append(
            [f"{bold}{value:g}{bold}", _percent(mean), f"{_percent(low, '')}-{_percent(high)}"]
        )
    return table([f"fixed {part['over']}", "mean score", "range over seeds"], rows)


def write(
    summary: Mapping[str, Any],
    found: Mapping[int, Mapping[str, Result]],
    folder: str | Path,
    *,
    say: Callable[[str], None] = tell,
) -> None:
    """result.json, report.md and figures/ in `folder`; `say` is told what could not be drawn."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", summary)
    write_text(folder / "report.md", markdown(summary))
    failed = visualize.Failures()
    for name, make in figures(found).items():
        with failed.of(name):
            visualize.save(make(), folder / "figures" / f"{name}.png")
    failed.tell(say)


def figures(found: Mapping[int, Mapping[str, Result]]) -> dict[str, Callable[[], Figure]]:
    """What draws the figures of a study, by name."""
    enumerated = {f: kinds["enumeration"] for f, kinds in found.items() if "enumeration" in kinds}
    tables = {factor: grid(result) for factor, result in enumerated.items()}
    searched = {factor: kinds["search"] for factor, kinds in found.items()}
    paths = {factor: _paths(result) for factor, result in searched.items()}
    makers = {"trajectories": partial(visualize.trajectories, paths, tables)}
    if tables:
        ends = {factor: _ends(result) for factor, result in searched.items()}
        makers["scores"] = partial(visualize.scores_against_sigma, ends, tables)
    return makers


def _paths(result: Result) -> visualize.Paths:
    """How the candidates moved, for a figure."""
    ended = (result.diverged_at >= 0) | (result.dropped_at >= 0)
    return visualize.Paths(mean_sigma(result.sigmas), np.asarray(result.population.seed), ended)


def _ends(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """Sigma of the first layer and score where each seed's best candidate ended."""
    rows = chosen(result)
    return mean_sigma(result.final_sigmas[rows, 0]), result.final_scores[rows]
