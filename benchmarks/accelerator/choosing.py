"""The table of `rfjax._engine.choices`, made of what a call measured or of what the model predicts.

    python -m benchmarks accelerator --choose=RESULT.json    the times of accelerator.json
    python -m benchmarks accelerator --choose=model          predictions, for an H100

The form of the least time is chosen, forward with backward, for every map and half size. Rows that
were measured take the place of all of the same platform and dtype. By the model, kernels in Pallas
are not chosen: that is for a card to decide.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.accelerator import cards, model
from rfjax._engine import choices
from rfjax._engine.choices import Choice

PLATFORMS = ("gpu", "tpu")
WORTH = 0.8  # of the product's time: a switch, which the host waits for, must save a fifth


class Timed(NamedTuple):
    """What was timed, of which platform, and by what: a measurement or a model."""

    platform: str
    dtype: str
    shape: tuple[int, ...]
    features: int | None  # of a deformable convolution; None for a blur
    half: int  # the half size of a blur's support
    form: str
    ms: float
    by: str


def choose(source: str, path: Path = Path(choices.__file__)) -> int:
    """Writes the table by a result's file, or by the model; returns the number of its new rows."""
    timed = list(predicted() if source == "model" else measured(Path(source)))
    new = [*_blurs(timed), *_reads(timed)]
    kept = [row for row in (*choices.BLURS, *choices.READS) if not _replaced(row, new)]
    path.write_text(_text(sorted([*kept, *new])))
    return len(new)


def measured(path: Path) -> Iterator[Timed]:
    """What a call of the program timed."""
    content = json.loads(path.read_text())
    platform, kind = content["machine"]["device"].split(": ", 1)
    if platform not in PLATFORMS:
        raise ValueError(f"{path} must be of one of {', '.join(PLATFORMS)}; got {platform}")
    rows = [row for part in content["parts"] for row in part["rows"] if row.get("of")]
    for row in rows:
        of = row["of"]
        half = math.ceil(2 * of.get("sigma", 0.0))
        # Where there are no kernels, those that are asked for are what is taken without them.
        if (
            of["gradient"]
            and of["form"] != "auto"
            and (platform == "gpu" or of["form"] != "pallas")
        ):
            yield Timed(
                platform, of["dtype"], tuple(of["shape"]), of.get("features"), half, of["form"],
                row["ours"], f"measured: {kind}",
            )  # fmt: skip


def predicted() -> Iterator[Timed]:
    """What the model says of an H100."""
    card = cards.CARDS["H100 80GB HBM3"]
    by = f"model: {card.name}"
    for shape in model.SHAPES:
        for sigma in model.SIGMAS:
            for form in model.FORMS:
                ms = model.predict(form, shape, sigma, card, gradient=True)
                if ms is not None and form != "pallas":
                    half = max(1, math.ceil(2 * sigma))
                    yield Timed("gpu", "float32", shape, None, half, form, ms, by)
    for shape, features in model.READ_SIZES:
        ms = model.predict_reads("gather", shape, features, card, gradient=True)
        yield Timed("gpu", "float32", shape, features, 0, "gather", ms, by)


def _blurs(timed: list[Timed]) -> set[Choice]:
    """A row for every length of an axis of every map."""
    found = set()
    for shape in {t.shape for t in timed if t.features is None}:
        own = [t for t in timed if t.shape == shape and t.features is None]
        for length in shape[1:-1]:
            first = own[0]
            sizes = math.prod(shape), length
            forms = tuple(_served(own))
            found.add(Choice("blur", first.platform, first.dtype, sizes, forms, first.by))
    return found


def _served(own: list[Timed]) -> Iterator[tuple[str, int]]:
    """The forms of one map, and the half size up to which each is the fastest.

    The product serves from the first half size on where nothing is worth a switch.
    """
    best: list[tuple[str, int]] = []
    for half in sorted({t.half for t in own}):
        times = {t.form: t.ms for t in own if t.half == half}
        form = min(times, key=times.__getitem__)
        if form == "toeplitz" or times[form] > WORTH * times.get("toeplitz", math.inf):
            break
        # A form goes on where it was the best before.
        best = [*(best[:-1] if best and best[-1][0] == form else best), (form, half)]
    yield from best


def _reads(timed: list[Timed]) -> Iterator[Choice]:
    """A row for every deformable convolution: the faster of gathers and kernels."""
    own: dict[tuple, list[Timed]] = {}
    for one in timed:
        if one.features is not None:
            own.setdefault((one.shape, one.features, one.dtype), []).append(one)
    for (shape, features, dtype), of_one in own.items():
        best = min(of_one, key=lambda one: one.ms)
        sizes = 9 * math.prod(shape[:3]), shape[-1], shape[-1] * features
        yield Choice("reads", best.platform, dtype, sizes, ((best.form, 0),), best.by)


def _replaced(row: Choice, new: list[Choice]) -> bool:
    """Whether there are new rows of the same kind."""
    return any(row[:3] == one[:3] for one in new)


def _text(rows: list[Choice]) -> str:
    """The module with these rows, as it is formatted in the project."""
    source = Path(choices.__file__).read_text()
    start, end = source.index("ROWS: "), source.index("\nBLURS")
    return f"{source[:start]}{_HEADING}\n{''.join(map(_lines, rows))})\n{source[end:]}"


_HEADING, WIDTH = "ROWS: tuple[Choice, ...] = (", 100


def _lines(row: Choice) -> str:
    """A row as Python writes it: in one line where it fits."""
    values = [_literal(value) for value in row]
    line = f"    Choice({', '.join(values)}),\n"
    if len(line) <= WIDTH + 1:
        return line
    inside = "".join(f"        {value},\n" for value in values)
    return f"    Choice(\n{inside}    ),\n"


def _literal(value: object) -> str:
    if isinstance(value, tuple):
        inside = ", ".join(map(_literal, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return json.dumps(value) if isinstance(value, str) else str(value)
