"""What a study found: a summary, a table and pictures.

An enumeration's *optimum* is the value of highest mean score over its seeds; its *flat top* are the
values whose mean score is within the spread (largest minus smallest over the seeds) of the optimum.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import visualize
from rfjax.search import figures
from rfjax.search.result import Result

TOLERANCE = 0.15  # of sigma, relative
BUDGET = 0.2  # of the enumeration's compute


def summarize(found: Mapping[int, Mapping[str, Result]], *, config: Any) -> dict[str, Any]:
    """The numbers of a study, as JSON can hold them.

    Args:
        found: by enlargement, "search" and perhaps "enumeration".
        config: kept beside the numbers.

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
    return {"config": config, "enlargements": parts, "compute": _totals(found)}


def described(result: Result) -> dict[str, Any]:
    """Each candidate's start and end, and what all cost."""
    sigmas, people = result.final_sigmas, result.population
    fields = result.receptive_fields
    rows = []
    for k in range(len(result)):
        rows.append(
            {
                "sigma_start": people.sigma[k].tolist(),
                "seed": int(people.seed[k]),
                "learning_rate": float(people.learning_rate[k]),
                "covariance_multiplier": float(people.covariance_multiplier[k]),
                "sigmas": {
                    layer: sigmas[k, place].tolist() for place, layer in enumerate(result.layers)
                },
                "score": _number(result.final_scores[k]),
                "receptive_field": None if fields is None else fields[k, -1].tolist(),
                "diverged_at": int(result.diverged_at[k]),
                "dropped_at": int(result.dropped_at[k]),
            }
        )
    return {"candidates": rows, "best": result.best, **compute(result)}


def compute(result: Result) -> dict[str, Any]:
    """Gradient steps and seconds of all candidates together."""
    return {
        "gradient_steps": int(result.gradient_steps.sum()),
        "seconds": float(result.seconds.sum()),
        "compile_seconds": float(result.compile_seconds),
    }


def grid(result: Result) -> dict[str, Any]:
    """An enumeration by value: mean score, its range over the seeds, optimum and flat top."""
    values, means, lows, highs = by_value(result)
    best = int(np.nanargmax(means))
    spread = highs[best] - lows[best]
    flat = values[means >= means[best] - spread]
    return {
        "over": result.over,
        "values": values.tolist(),
        "mean": means.tolist(),
        "low": lows.tolist(),
        "high": highs.tolist(),
        "optimum": float(values[best]),
        "score": float(means[best]),
        "spread": float(spread),
        "flat_top": [float(flat.min()), float(flat.max())],
        **compute(result),
    }


def by_value(result: Result) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The values in order, and mean, lowest and highest final score of each."""
    values, scores = np.asarray(result.values, float), result.final_scores
    scores = np.where(result.diverged_at >= 0, np.nan, scores)
    ordered = np.unique(values)
    rows = [scores[values == value] for value in ordered]
    return (
        ordered,
        np.array([np.nanmean(row) for row in rows]),
        np.array([np.nanmin(row) for row in rows]),
        np.array([np.nanmax(row) for row in rows]),
    )


def chosen(result: Result) -> np.ndarray:
    """Of each seed the candidate with the highest score: their indices."""
    merit = np.where(result.diverged_at >= 0, np.nan, result.final_scores)
    merit = np.where(np.isnan(merit), -np.inf, merit)
    seeds = np.asarray(result.population.seed)
    return np.array(
        [np.flatnonzero(seeds == s)[np.argmax(merit[seeds == s])] for s in np.unique(seeds)]
    )


def compare(searched: Result, enumerated: Result) -> dict[str, Any]:
    """The searched sigma and score against the enumeration's, and the parts of its compute.

    Sigma is the geometric mean of (y, x) of the first layer, the mean over the seeds' best
    candidates.
    """
    rows, table = chosen(searched), grid(enumerated)
    sigmas = np.sqrt(np.prod(searched.final_sigmas[rows, 0], -1))
    sigma, score = float(np.mean(sigmas)), float(np.mean(searched.final_scores[rows]))
    low, high = table["flat_top"]
    within = abs(sigma / table["optimum"] - 1.0) <= TOLERANCE
    costs, theirs = compute(searched), compute(enumerated)
    steps = costs["gradient_steps"] / theirs["gradient_steps"]
    return {
        "sigma": sigma,
        "sigma_range": [float(sigmas.min()), float(sigmas.max())],
        "optimum": table["optimum"],
        "flat_top": table["flat_top"],
        "sigma_follows": bool(within or low <= sigma <= high),
        "score": score,
        "score_enumerated": table["score"],
        "score_within_spread": bool(score >= table["score"] - table["spread"]),
        "compute_ratio_steps": steps,
        "compute_ratio_seconds": costs["seconds"] / max(theirs["seconds"], 1e-9),
        "within_budget": bool(steps <= BUDGET),
    }


def _totals(found: Mapping[int, Mapping[str, Result]]) -> dict[str, Any]:
    """Compute over all enlargements; pixel steps weigh a step by the area of its images."""
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
            total["pixel_steps"] += costs["gradient_steps"] * factor**2
    return totals


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def markdown(summary: Mapping[str, Any]) -> str:
    """The tables of a study."""
    lines = ["# Search of receptive fields", ""]
    head = "| enlargement | searched sigma (range) | enumerated optimum | flat top | score | "
    head += "enumerated | steps | seconds | verdict |"
    rows = []
    for factor, part in summary["enlargements"].items():
        if "comparison" in part:
            rows.append(_comparison_row(factor, part["comparison"]))
    if rows:
        lines += ["## Against enumeration", "", head, "|" + "---|" * 9, *rows, ""]
    for factor, part in summary["enlargements"].items():
        lines += [f"## Enlarged {factor} times", "", *_candidate_rows(part["search"]), ""]
        if "enumeration" in part:
            lines += [*_grid_rows(part["enumeration"]), ""]
    lines += ["## Compute", "", "| | gradient steps | weighed by pixels | seconds | compiling |"]
    lines += ["|" + "---|" * 5]
    for kind, total in summary["compute"].items():
        lines.append(
            f"| {kind} | {total['gradient_steps']} | {total['pixel_steps']} "
            f"| {total['seconds']:.1f} | {total['compile_seconds']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def _comparison_row(factor: str, c: Mapping[str, Any]) -> str:
    fine = c["sigma_follows"] and c["score_within_spread"] and c["within_budget"]
    return (
        f"| {factor} | {c['sigma']:.2f} ({c['sigma_range'][0]:.2f}-{c['sigma_range'][1]:.2f}) "
        f"| {c['optimum']:.2f} | {c['flat_top'][0]:.2f}-{c['flat_top'][1]:.2f} "
        f"| {100 * c['score']:.1f} % | {100 * c['score_enumerated']:.1f} % "
        f"| {c['compute_ratio_steps']:.2f} | {c['compute_ratio_seconds']:.2f} "
        f"| {'follows' if fine else '**does not follow**'} |"
    )


def _candidate_rows(part: Mapping[str, Any]) -> list[str]:
    lines = [
        "| start | seed | rate | multiplier | sigma (y, x) | receptive field | score | ended |"
    ]
    lines.append("|" + "---|" * 8)
    for row in part["candidates"]:
        sigmas = "; ".join(f"{y:.2f}, {x:.2f}" for y, x in row["sigmas"].values())
        field = row["receptive_field"]
        ended = f"diverged at {row['diverged_at']}" if row["diverged_at"] >= 0 else ""
        ended = f"dropped at {row['dropped_at']}" if row["dropped_at"] >= 0 else ended
        size = "" if field is None or np.isnan(field[0]) else f"{field[0]:.0f} x {field[1]:.0f}"
        score = "" if row["score"] is None else f"{100 * row['score']:.1f} %"
        lines.append(
            f"| {row['sigma_start'][0]:g} | {row['seed']} | {row['learning_rate']:g} "
            f"| {row['covariance_multiplier']:g} | {sigmas} | {size} | {score} | {ended} |"
        )
    return lines


def _grid_rows(part: Mapping[str, Any]) -> list[str]:
    lines = [f"| fixed {part['over']} | mean score | range over seeds |", "|---|---|---|"]
    for value, mean, low, high in zip(
        *(part[name] for name in ("values", "mean", "low", "high")), strict=True
    ):
        bold = "**" if value == part["optimum"] else ""
        lines.append(
            f"| {bold}{value:g}{bold} | {100 * mean:.1f} % | {100 * low:.1f}-{100 * high:.1f} % |"
        )
    return lines


def write(
    summary: Mapping[str, Any], found: Mapping[int, Mapping[str, Result]], folder: str | Path
) -> None:
    """result.json, report.md and figures/ in `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(summary, indent=1))
    (folder / "report.md").write_text(markdown(summary))
    visualize.save(figures.trajectories(found), folder / "figures" / "trajectories.png")
    if any("enumeration" in kinds for kinds in found.values()):
        visualize.save(figures.scores_against_sigma(found), folder / "figures" / "scores.png")
