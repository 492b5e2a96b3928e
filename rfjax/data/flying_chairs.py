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

from rfjax.data import decoding, files
from rfjax.data.dataset import Dataset
from rfjax.data.flow_files import flow_size, read_flow

SPLITS = ("train", "val")
OPTIONS = ()
# What the ends of names are called: first image, second image, flow.
LAYOUTS = (("-img0.ppm", "-img1.ppm", "-gt.flo"), ("_img1.ppm", "_img2.ppm", "_flow.flo"))
FEW = 100


class _Pairs:
    """Random access to the pairs of a folder."""

    def __init__(self, rows: list[tuple[str, tuple[Path, ...]]]):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, (first, second, flow) = self._rows[index]
        images = [
            decoding.decode_image(decoding.read_bytes(path), str(path)) for path in (first, second)
        ]
        return {"id": name, "first": images[0], "second": images[1], "flow": read_flow(flow)}

    def shape(self, index: int) -> tuple[int, int]:
        return flow_size(self._rows[index][1][2])


def load(split: str, data_dir: str | None) -> Dataset:
    """A split of the pairs.

    Args:
        split: "train" or "val".
        data_dir: the folder.

    Raises:
        FileNotFoundError: it has no pairs, or a file of a pair is missing.
    """
    folder = files.root(data_dir, "FlyingChairs_release/data")
    own = folder / split
    rows = _rows(own if own.is_dir() else folder)
    if not own.is_dir() and len(rows) >= FEW:
        rows = [row for i, row in enumerate(rows) if (i % 10 == 9) == (split == "val")]
    # FlowNet's ports take off the mean of each pair; grey is near it.
    return Dataset("flying_chairs", split, _Pairs(rows), mean=(0.45,) * 3)


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
