"""The files of a call: accelerator.json and accelerator.md."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks import report
from benchmarks.accelerator import cards, model
from benchmarks.accelerator.program import Part


def outcome(part: Part) -> str:
    """How a part went, in one line, and a line more for each case that failed."""
    lines = [f"{part.name}: {part.state}, {part.seconds:.0f} s of {part.budget:.0f} s"]
    if part.left_out:
        lines[0] += f"; the time did not suffice for {', '.join(part.left_out)}"
    lines += [f"failed: {name}: {error}" for name, error in part.failed.items()]
    return "\n".join(lines)


def write(parts: Sequence[Part], folder: Path) -> None:
    """Both files, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": report.machine(), "parts": [_content(part) for part in parts]}
    (folder / "accelerator.json").write_text(json.dumps(content, indent=1))
    (folder / "accelerator.md").write_text(markdown(parts))


def _content(part: Part) -> dict:
    return {
        "name": part.name,
        "state": part.state,
        "budget": part.budget,
        "seconds": part.seconds,
        "left_out": part.left_out,
        "failed": part.failed,
        "rows": [dataclasses.asdict(row) for row in part.rows],
    }


def markdown(parts: Sequence[Part]) -> str:
    """The page."""
    kind = jax.devices()[0].device_kind
    card = cards.find(kind)
    limits = (
        f"The limits of a device of the kind {kind!r} are not known: there are no ratios to them."
        if card is None
        else f"Limits of the {card.name}: {card.memory / 1e12:g} TB/s, {card.float32 / 1e12:g} "
        f"TFLOP/s in float32, {card.bfloat16 / 1e12:g} TFLOP/s in bfloat16."
    )
    lines = ["# On an accelerator", "", report.facts(), "", limits, ""]
    for part in parts:
        lines += [f"## {part.name}", "", *outcome(part).splitlines(), ""]
        lines += [report.rows_table(part.rows)] if part.rows else []
    predictions = [model.table(known) for known in ([card] if card else cards.CARDS.values())]
    return "\n".join([*lines, "## What the model predicts", "", *predictions])
