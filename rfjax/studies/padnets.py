"""The tables of "PAD-Nets", on a small ResNet without dilation.

Its three blocks of stride 4 stand for conv3, conv4 and conv5 of VGG-16, and classification of
pictures of one digit at two sizes for that of cars. The paper's numbers are mean IU of FCN-8s on
PASCAL VOC 2012 (tables 1, 2 and 3) and top-1 of ResNet-50 on Stanford Cars (table 7).

Reference: "PAD-Nets: Learning Dynamic Receptive Fields via Pixel-Wise Adaptive Dilation".
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rfjax.studies.specs import Cell, Claim, Place, Spec, Table, beats, below, one_column

DILATIONS = (1, 2, 4)
TOP = ("3",)
PLAIN, MARKOV = Spec("vgg", label="blocks"), "Markov"
MIXED = {"IU, mixed": "expected_iu"}
SPREAD = {"variance": "sampling_variance"}
SCALES = {"ρ to size": "scale_correlation", "scale": "scale_mean", "± inside": "scale_deviation"}


def adaptive(
    label: str, *, blocks: tuple[str, ...] = TOP, head: str = "score", **options: Any
) -> Spec:
    """The network with adaptive dilations in these of its blocks."""
    patterns = tuple(f"backbone/layer1_{int(block) - 1}/conv*" for block in blocks)
    given = {"dilations": DILATIONS} | options
    settings = {"model.composed.layer": "pad", "model.composed.patterns": patterns}
    settings |= {f"model.composed.{key}": value for key, value in given.items()}
    return Spec("vgg", head=head, settings=(*settings.items(),), label=label)


PAD = adaptive("pad")


def _options() -> Table:
    """Table 3: how many dilations there are to choose of."""
    rows = {
        "plain, {1}": (PLAIN, 64.7),
        "{1, 2}": (adaptive("pad-1-2", dilations=(1, 2)), 66.2),
        "{1, 2, 4}": (PAD, 66.5),
        "{1, 2, 4, 8}": (adaptive("pad-1-2-4-8", dilations=(1, 2, 4, 8)), None),
    }
    one, two, three, four = rows
    return Table(
        "How many dilations there are to choose of",
        one_column(rows),
        lambda _, column: (one, column),
        (beats(one, two), beats(one, three), beats(two, three), beats(three, four)),
        measures=MIXED,
        numbers=SPREAD,
        measured=("expected", "sampling"),
    )


def _layers() -> Table:
    """Table 1: in which blocks."""
    papers = {"1": 63.9, "2": 64.7, "3": 66.5, "12": 65.4, "23": 66.1, "123": 65.9}
    rows = {"plain": (PLAIN, 64.7)} | {
        f"block {' + '.join(blocks)}": (
            PAD if blocks == "3" else adaptive(f"pad-blocks-{blocks}", blocks=(*blocks,)),
            paper,
        )
        for blocks, paper in papers.items()
    }
    plain, low, middle, high, lower, higher, every = rows
    return Table(
        "Which blocks have adaptive dilations",
        one_column(rows),
        lambda _, column: (plain, column),
        (
            beats(plain, high),
            beats(low, middle),
            beats(middle, high),
            beats(low, high),
            beats(lower, high),
            beats(higher, high),
            beats(every, high),
        ),
        measures=MIXED,
        numbers=SPREAD,
        measured=("expected", "sampling"),
    )


def _priors() -> Table:
    """Table 2: how a layer's prior follows from that of the layer before."""
    rows = {
        "plain": (PLAIN, 64.7),
        MARKOV: (PAD, 66.5),
        "gated": (adaptive("pad-gated", prior="gated"), 65.5),
        "recurrent": (adaptive("pad-recurrent", prior="recurrent"), 65.3),
        "Gaussian head": (Spec("vgg", head="gauss_deform", label="gaussian"), None),
    }
    plain, markov, gated, recurrent, _ = rows
    correlated = [
        replace(beats(markov, other, f"ρ to size: {markov} < {other}"), of="scale_correlation")
        for other in (gated, recurrent)
    ]
    return Table(
        "How priors are aggregated",
        one_column(rows),
        lambda _, column: (plain, column),
        (
            beats(plain, recurrent),
            beats(recurrent, gated),
            beats(gated, markov),
            beats(plain, markov),
            *correlated,
        ),
        measures=MIXED,
        numbers=SCALES | SPREAD,
        measured=("expected", "scales", "sampling"),
        pictures=("scales",),
    )


# Digits as large in their picture at both sizes, as objects of crops of 224 and 448 pixels are.
SIZES = {"32 pixels": (32, 14.0, 26.0), "64 pixels": (64, 28.0, 52.0)}


def accuracy(scores: Mapping[str, Any]) -> float:
    """The share of pictures whose class is found."""
    return scores["accuracy"]


def _pictures(spec: Spec, size: int, least: float, most: float) -> Spec:
    """The same network, classifying pictures of one digit."""
    settings = {
        "task.name": "classification",
        "data.name": "digit_images",
        "data.options.train_scenes": None,
        "data.options.val_scenes": None,
        "data.options.size": size,
        "data.options.min_scale": least,
        "data.options.max_scale": most,
        "data.augmentation.crop": (0, 0),
    }
    label = f"{spec.label}-pictures-{size}"
    merged = (*spec.settings, *settings.items())
    return Spec("vgg", head="classify", settings=merged, label=label)


def _classification() -> Table:
    """Table 7: accuracy at two sizes of the crops."""
    papers = {"plain": (91.2, 92.3), "PAD": (91.6, 93.5)}
    cells: dict[Place, Cell] = {
        (row, column): Cell(_pictures(spec, *SIZES[column]), paper, read=accuracy)
        for row, spec in {"plain": PLAIN, "PAD": PAD}.items()
        for column, paper in zip(SIZES, papers[row], strict=True)
    }
    small, large = SIZES
    return Table(
        "Classification at two sizes",
        cells,
        lambda _, column: ("plain", column),
        (
            *(below(f"{c}: plain < PAD", ("plain", c), ("PAD", c)) for c in SIZES),
            Claim("the gain is larger at the larger size", _gain(small), _gain(large)),
        ),
        score="accuracy",
    )


def _gain(column: str) -> Any:
    return lambda iu, _: iu("PAD", column) - iu("plain", column)


TABLES = {
    "options": _options(),
    "priors": _priors(),
    "layers": _layers(),
    "classification": _classification(),
}
