"""FlyingChairs: 22,872 pairs of images of chairs that move over photographs, 384x512.

    FOLDER/NAME-img0.ppm, NAME-img1.ppm, NAME-gt.flo        (or NAME_img1.ppm, NAME_img2.ppm,
                                                             NAME_flow.flo, as first released)

Where the folder has `train` and `val` with such files, these are the splits. Else every tenth pair
is "val", and where there are fewer than 100, all of them are both splits. The default folder is
`downloads/manual/FlyingChairs_release/data` in that of the data.

Reference: Dosovitskiy et al., "FlowNet: Learning Optical Flow with Convolutional Networks", ICCV
  2015, section 4.1.
"""

from pathlib import Path
from typing import Any

import numpy as np

from rfjax import _checks
from rfjax.data import decoding, files
from rfjax.data.dataset import Dataset
from rfjax.data.flow_files import flow_size, read_flow

SPLITS = ("train", "val")
OPTIONS = ("reduction",)
# What the ends of names are called: first image, second image, flow.
LAYOUTS = (("-img0.ppm", "-img1.ppm", "-gt.flo"), ("_img1.ppm", "_img2.ppm", "_flow.flo"))
FEW = 100


class _Pairs:
    """Random access to the pairs of a folder, at 1/`factor` of their size."""

    def __init__(self, rows: list[tuple[str, tuple[Path, ...]]], factor: int):
        self._rows, self._factor = rows, factor

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, (first, second, flow) = self._rows[index]
        images = [
            decoding.decode_image(decoding.read_bytes(path), str(path)) for path in (first, second)
        ]
        first, second, truth = (_means(x, self._factor) for x in (*images, read_flow(flow)))
        return {"id": name, "first": first, "second": second, "flow": truth / self._factor}

    def shape(self, index: int) -> tuple[int, int]:
        height, width = flow_size(self._rows[index][1][2])
        return height // self._factor, width // self._factor


def _means(x: np.ndarray, factor: int) -> np.ndarray:
    """[H, W, C] as means over cells of factor x factor pixels, in its type; a rest is cut off."""
    if factor == 1:
        return x
    height, width = x.shape[0] // factor, x.shape[1] // factor
    cells = x[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    means = cells.mean((1, 3))
    return means.astype(x.dtype) if x.dtype.kind == "f" else np.rint(means).astype(x.dtype)


def load(split: str, data_dir: str | None, *, reduction: int = 1) -> Dataset:
    """A split of the pairs.

    Args:
        split: "train" or "val".
        data_dir: the folder.
        reduction: whole factor by which images are made smaller, and flows shorter with them.

    Raises:
        ValueError: the factor is no whole number above 0.
        FileNotFoundError: it has no pairs, or a file of a pair is missing.
    """
    factor = _checks.integer("reduction", reduction)
    folder = files.root(data_dir, "FlyingChairs_release/data")
    own = folder / split
    rows = _rows(own if own.is_dir() else folder)
    if not own.is_dir() and len(rows) >= FEW:
        rows = [row for i, row in enumerate(rows) if (i % 10 == 9) == (split == "val")]
    # FlowNet's ports take off the mean of each pair; grey is near it.
    return Dataset("flying_chairs", split, _Pairs(rows, factor), mean=(0.45,) * 3)


def _rows(folder: Path) -> list[tuple[str, tuple[Path, ...]]]:
    """The names of pairs with their three files."""
    for ends in LAYOUTS:
        found = sorted(folder.glob(f"*{ends[2]}"))
        if not found:
            continue
        names = [path.name.removesuffix(ends[2]) for path in found]
        rows = [(name, tuple(folder / f"{name}{end}" for end in ends)) for name in names]
        missing = [str(path) for _, paths in rows for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"{len(missing)} files are missing: {', '.join(missing[:3])}")
        return rows
    raise FileNotFoundError(
        f"{folder} holds no pairs: want NAME-img0.ppm, NAME-img1.ppm and NAME-gt.flo (or "
        "NAME_img1.ppm, NAME_img2.ppm and NAME_flow.flo), as FlyingChairs has them"
    )
