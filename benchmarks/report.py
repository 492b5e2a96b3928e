"""The rows that are measured, their aims, and the files that they end in."""

import dataclasses
import json
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from benchmarks import peers
from benchmarks.timing import Times
from rfjax._engine import native
from rfjax._markdown import table


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison: our figure, the other's, and their ratio with its spread over the rounds.

    A figure by itself has nothing that it is measured against, and no ratio.
    """

    suite: str
    case: str
    what: str
    ours: float
    against: str = ""
    theirs: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    aim: float | None = None  # the largest ratio wanted
    error: float | None = None  # largest error of ours, relative to the largest value
    unit: str = "ms"
    of: dict[str, Any] | None = None  # what it is the time of, for programs that read the file

    @property
    def reached(self) -> bool | None:
        return None if self.aim is None or self.ratio is None else self.ratio <= self.aim


def compared(
    suite: str,
    case: str,
    what: str,
    ours: Times,
    against: str,
    theirs: Times,
    *,
    aim: float | None = None,
    error: float | None = None,
) -> Row:
    """The row of two functions that took turns."""
    return Row(
        suite=suite,
        case=case,
        what=what,
        ours=ours.median,
        against=against,
        theirs=theirs.median,
        ratio=ours.ratio(theirs),
        spread=ours.ratio_spread(theirs),
        aim=aim,
        error=error,
    )


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.device_count(),
        "machine": platform.machine(),
        "kernels": "C++" if native.is_loaded() else "none",
        "python": platform.python_version(),
        **peers.versions(),
    }


def line(row: Row) -> str:
    """A row as people read it while the program runs."""
    verdict = ""
    if row.aim is not None:
        verdict = f"  {'aim' if row.reached else 'MISSES'} {row.aim:g}"
    error = "" if row.error is None else f"  error {row.error:.1e}"
    ratio = (
        "" if row.ratio is None else f"  {row.ratio:6.2f}{_spread(row, ' ({})')} of {row.against}"
    )
    return f"{row.case:28} {row.what:22} {row.ours:9.3f} {row.unit}{ratio}{verdict}{error}"


def _spread(row: Row, form: str = "{}") -> str:
    """The quartiles, or nothing."""
    return "" if row.spread is None else form.format(f"{row.spread[0]:.2f}-{row.spread[1]:.2f}")


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a table for each suite."""
    suites: dict[str, list[Row]] = {}
    for row in rows:
        suites.setdefault(row.suite, []).append(row)
    parts = [f"## {suite}\n\n{rows_table(rows)}" for suite, rows in suites.items()]
    return "\n".join(["# Benchmarks", "", facts(), "", *parts])


def facts() -> str:
    """What the figures were measured on, in one line."""
    return ", ".join(f"{name} {value}" for name, value in machine().items())


def rows_table(rows: Iterable[Row]) -> str:
    """The rows as one table."""
    return table(_HEADING, [_columns(row) for row in rows])


_HEADING = ("case", "what", "ours", "against", "theirs", "ratio", "quartiles", "aim", "error")


def _columns(row: Row) -> list[str]:
    """A row as texts under `_HEADING`."""
    return [
        row.case,
        row.what,
        f"{row.ours:.3f} {row.unit}",
        row.against,
        "" if row.theirs is None else f"{row.theirs:.3f} {row.unit}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        _spread(row),
        "" if row.reached is None else f"{row.aim:g} {'yes' if row.reached else '**no**'}",
        "" if row.error is None else f"{row.error:.1e}",
    ]


def write(rows: list[Row], folder: Path) -> None:
    """benchmarks.json and benchmarks.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}
    (folder / "benchmarks.json").write_text(json.dumps(content, indent=1))
    (folder / "benchmarks.md").write_text(markdown(rows))
