"""Reads a whole data set, says what is in it and what is wrong, and draws examples.

    python -m rfjax.data DIR                          a folder of pictures and masks
    python -m rfjax.data --name=camvid DIR            another data set that lies in DIR
    python -m rfjax.data --name=tfds:NAME DIR         one that TensorFlow Datasets has prepared
    python -m rfjax.data DIR --images='{split}' --masks='{split}annot' --output=examples.png

The exit status is 1 if an example cannot be read.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rfjax import _names
from rfjax._checks import choose
from rfjax._console import Parser, called, guarded, tell
from rfjax._faults import Fault
from rfjax._markdown import table

if TYPE_CHECKING:
    from rfjax.data.survey import Survey

_OPTIONS = ("images", "masks", "holdout", "seed", "ignore")
_ROWS = 4  # examples of the picture
_FEW = 4  # sizes of images, which are listed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parser().parse_args(argv)
    return guarded("rfjax.data", partial(_run, options))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m rfjax.data",
        description="What a data set to be segmented has, and what is wrong with it.",
    )
    parser.add_argument("dir", metavar="DIR", help="where the data lie")
    parser.add_argument("--name", default="folder", type=_name,
                        help="of the data set (default: folder)")  # fmt: skip
    parser.add_argument("--images", help="pattern of the images, as 'images/{split}/*.jpg'")
    parser.add_argument("--masks", help="pattern of the masks, as 'masks/{split}/*.png'")
    parser.add_argument("--holdout", type=float, help="share for val, where it has no folder")
    parser.add_argument("--seed", type=int, help="of the choice of that share")
    parser.add_argument("--ignore", help="value, or color #RRGGBB, of pixels without a class")
    parser.add_argument("--output", type=Path, default=Path("examples.png"),
                        help="picture of examples (default: examples.png)")  # fmt: skip
    return parser


def _name(text: str) -> str:
    """The name of a data set, checked."""
    try:
        choose("the data set", _names.data_set(text)[0], tuple(_names.DATA_SETS))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _run(options: argparse.Namespace) -> int:
    """Reads the splits and reports; the libraries that this needs are imported here."""
    from rfjax import data
    from rfjax.data.survey import survey, tables, warnings

    given = {key: getattr(options, key) for key in _OPTIONS if getattr(options, key) is not None}
    try:
        splits = [
            data.load(options.name, split, data_dir=options.dir, **given)
            for split in ("train", "val")
        ]
    except ValueError as error:
        raise Fault(str(error)) from error
    if not splits[0].num_classes or not len(splits[0].palette):
        raise Fault(f"--name={options.name}: its examples have no classes of pixels")
    surveys = [survey(dataset) for dataset in splits]
    for part in surveys:
        print(f"{part.dataset.split}: {len(part.dataset)} images of {_sizes(part.sizes)}")
    mean, std = (
        ", ".join(f"{value:.3f}" for value in of) for of in (splits[0].mean, splits[0].std)
    )
    print(f"mean {mean}, deviation {std}\n")
    heading, rows = tables(surveys)
    print(table(heading, rows, right=range(1, len(heading))))
    _draw(options.output, surveys[0])
    print(f"examples: {options.output}")
    for line in warnings(surveys):
        tell(f"{called('rfjax.data')}: note: {line}")
    faults = [line for part in surveys for line in part.faults]
    for line in faults:
        tell(f"{called('rfjax.data')}: error: {line}")
    return 1 if faults else 0


def _sizes(sizes: Mapping[tuple[int, int], int]) -> str:
    """The sizes of images with their numbers, or their range where there are many."""
    if len(sizes) <= _FEW:
        return ", ".join(f"{height}x{width} ({count})" for (height, width), count in sizes.items())
    heights, widths = zip(*sizes, strict=True)
    return (
        f"{len(sizes)} sizes, {min(heights)} to {max(heights)} pixels high and {min(widths)} to"
        f" {max(widths)} wide"
    )


def _draw(path: Path, part: "Survey") -> None:
    """A few examples with their labels."""
    import numpy as np

    from rfjax import visualize

    dataset, examples = part.dataset, []
    for index in np.random.default_rng(0).permutation(len(dataset)):
        try:
            examples.append(dataset.source[int(index)])
        except (ValueError, OSError):
            continue
        if len(examples) == _ROWS:
            break
    if not examples:
        raise Fault(f"no example of {dataset.split} can be read: {part.faults[0]}")
    figure = visualize.segmentation_panels(
        [example["image"] for example in examples],
        [example["label"] for example in examples],
        palette=dataset.palette,
        class_names=dataset.class_names,
    )
    visualize.save(figure, path)


if __name__ == "__main__":
    sys.exit(main())
