"""Which classes the masks of a folder have: as a list of them says, or as the masks themselves do.

A mask holds values, one for each class, or colors. `Classes` makes labels 0..K-1 of either.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfjax.data import decoding
from rfjax.data.dataset import VOID
from rfjax.data.files import bits_palette

FILES = ("classes.json", "classes.txt")
_BINARY = ("background", "foreground")
_MOST = 254  # classes that a label of eight bits can tell apart, beside void and the mark of errors
_COLOR = re.compile(r"#[0-9a-fA-F]{6}$|\d+ +\d+ +\d+$")


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of masks.

    Attributes:
        names: K names.
        palette: K colors (R, G, B), for pictures.
        codes: K numbers, what a mask has for each class: its value, or its color as 0xRRGGBB.
        colored: whether masks are colors.
        ignored: the number, of the same kind, that stands for void; None for no such number.
    """

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    codes: tuple[int, ...]
    colored: bool
    ignored: int | None = VOID

    def label(self, mask: np.ndarray, name: str) -> np.ndarray:
        """The label uint8 [H, W] of a mask, 255 for void.

        Args:
            mask: from `read_mask`.
            name: of its file, for errors.

        Raises:
            ValueError: the mask is of the other kind, or has values of no class.
        """
        if self.colored != (mask.ndim == 3):
            kinds = ("values", "colors")
            raise ValueError(
                f"{name} is a mask of {kinds[mask.ndim == 3]}, while the classes are told by"
                f" {kinds[self.colored]}"
            )
        known = {code: index for index, code in enumerate(self.codes)}
        if self.ignored is not None:
            known[self.ignored] = VOID
        found, places = np.unique(codes(mask), return_inverse=True)
        wrong = [self._word(code) for code in found if code not in known]
        if wrong:
            raise ValueError(
                f"{name} has {', '.join(wrong[:5])}{', …' * (len(wrong) > 5)}, which are no"
                f" classes; known are {', '.join(map(self._word, sorted(known)))}"
            )
        table = np.array([known[code] for code in found.tolist()], np.uint8)
        return table[places].reshape(mask.shape[:2])

    def _word(self, code: int) -> str:
        return f"#{code:06x}" if self.colored else str(code)


def codes(mask: np.ndarray) -> np.ndarray:
    """One number for each pixel of a mask: its value, or its color as 0xRRGGBB.

    Example:
        >>> print(codes(np.array([[[1, 0, 2]]], np.uint8)))
        [[65538]]
    """
    if mask.ndim == 2:
        return mask
    return mask.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def read_mask(path: Path) -> np.ndarray:
    """The values uint8 [H, W] of a mask, or its colors uint8 [H, W, 3]."""
    encoded = decoding.read_bytes(path)
    if decoding.is_color(encoded, str(path)):
        return decoding.decode_image(encoded, str(path))
    return decoding.decode_mask(encoded, str(path))


def read(folder: Path, ignored: int | None, *, colored: bool) -> Classes | None:
    """The classes that `classes.json` or `classes.txt` of the folder lists, if it has one.

    The text has a class a line: its name, then, after commas, its color as #RRGGBB or R G B, and
    its value in the masks. JSON is a list of names, or of objects with "name", "color" and "index".
    A value that is not told is the number of the class in the list, from 0.

    Args:
        folder: with the list.
        ignored: what stands for void in the masks.
        colored: whether masks are colors; each class must then have one.

    Raises:
        ValueError: the list cannot be read, or two classes share a name, a value or a color.
    """
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        rows = _json_rows(path) if path.suffix == ".json" else _text_rows(path)
        return _listed(rows, ignored, colored)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _json_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a list in JSON."""
    found = json.loads(path.read_text())
    if not isinstance(found, list):
        raise ValueError(f"want a list of classes; got {type(found).__name__}")
    rows = [{"name": row} if isinstance(row, str) else row for row in found]
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise ValueError(f'want a name, or an object with "name", for each class; got {row!r}')
        unknown = sorted(row.keys() - {"name", "color", "index"})
        if unknown:
            raise ValueError(f"a class has name, color and index; got {', '.join(unknown)}")
    return rows


def _text_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a list in lines of text."""
    rows = []
    for line in filter(None, map(str.strip, path.read_text().splitlines())):
        name, *rest = (part.strip() for part in line.split(","))
        row: dict[str, Any] = {"name": name}
        for part in rest:
            if _COLOR.match(part):
                row["color"] = part
            elif part.isdecimal():
                row["index"] = int(part)
            else:
                raise ValueError(f"{line!r}: want NAME, #RRGGBB or R G B, VALUE; got {part!r}")
        rows.append(row)
    return rows


def _color(value: Any) -> tuple[int, int, int]:
    """A color of a list as three levels."""
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        code = int(value[1:], 16)
        return code >> 16, code >> 8 & 255, code & 255
    levels = value.split() if isinstance(value, str) else value
    try:
        red, green, blue = map(int, levels)
    except (TypeError, ValueError):
        raise ValueError(f"a color is #RRGGBB or three levels; got {value!r}") from None
    if not all(0 <= level <= 255 for level in (red, green, blue)):
        raise ValueError(f"the levels of a color are 0 to 255; got {value!r}")
    return red, green, blue


def _listed(rows: Sequence[dict[str, Any]], ignored: int | None, colored: bool) -> Classes:
    """The classes of the rows of a list."""
    if not 1 <= len(rows) <= _MOST:
        raise ValueError(f"want 1 to {_MOST} classes; got {len(rows)}")
    names = [row["name"] for row in rows]
    default = bits_palette(len(rows)).tolist()
    colors = [_color(row["color"]) if "color" in row else None for row in rows]
    if colored:
        bare = [name for name, color in zip(names, colors, strict=True) if color is None]
        if bare:
            raise ValueError(f"the masks are colors, so each class needs one; {bare[0]} has none")
        numbers = [_code(color) for color in colors if color is not None]
    else:
        numbers = [row.get("index", number) for number, row in enumerate(rows)]
    for what, values in (("name", names), ("color" if colored else "index", numbers)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ValueError(f"two classes share the {what} {twice[0]!r}")
    palette = [tuple(color or other) for color, other in zip(colors, default, strict=True)]
    return Classes(tuple(names), tuple(palette), tuple(numbers), colored, ignored)


def _code(color: Sequence[int]) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def found(masks: Iterable[tuple[Path, np.ndarray]], ignored: int | None) -> Classes:
    """The classes that masks have, in the order of their values or colors.

    Values become names; the colors of a class are those of the palette of the first mask, where it
    has one. Masks of 0 and 255 alone are background and foreground, without void.

    Args:
        masks: files with what `read_mask` says of them.
        ignored: what stands for void.

    Raises:
        ValueError: some masks are colors and others values, or there are too many classes, as in
            pictures that are no masks.
    """
    seen: set[int] = set()
    first: tuple[Path, bool] | None = None
    for path, mask in masks:
        first = first or (path, mask.ndim == 3)
        if first[1] != (mask.ndim == 3):
            raise ValueError(f"of the masks {first[0]} and {path} one has colors, one values")
        seen.update(np.unique(codes(mask)).tolist())
        if len(seen) > _MOST + 1:
            raise ValueError(
                f"the masks up to {path} have more than {_MOST} values: they are no masks of"
                " classes, were saved with loss, or lie where the images should"
            )
    if first is None:
        raise ValueError("there are no masks")
    if not first[1] and seen == {0, 255} and ignored == VOID:
        return Classes(_BINARY, ((0, 0, 0), (255, 255, 255)), (0, 255), False, None)
    numbers = sorted(seen - {ignored})
    if first[1]:
        palette = [(code >> 16, code >> 8 & 255, code & 255) for code in numbers]
        names = [f"#{code:06x}" for code in numbers]
        return Classes(tuple(names), tuple(palette), tuple(numbers), True, ignored)
    stored = decoding.palette(first[0])
    colors = bits_palette(len(numbers)) if stored is None else stored[numbers]
    palette = [tuple(color) for color in colors.tolist()]
    return Classes(tuple(map(str, numbers)), tuple(palette), tuple(numbers), False, ignored)
