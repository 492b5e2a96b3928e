"""FCN on street scenes at half resolution, on two cores: skips, trunks, composed scores.

VGG-16 with fc6 and fc7 of 512 channels on a frozen trunk, see `rfjax.studies.frozen`. FCN-32s
learns for 40 epochs, FCN-16s from it and FCN-8s from that for 10 each, and FCN-8s at once for 40.
The paper's numbers are those of PASCAL VOC, full images and a whole trunk of ImageNet.

The trained networks are where other studies start: `WORKDIR/camvid-cpu/runs/8s/seed0` and so on.
"""

import itertools
from dataclasses import replace

from ml_collections import ConfigDict

from rfjax.studies import frozen
from rfjax.studies.scales import Scale
from rfjax.studies.specs import Cell, Spec, Table, below

IU, SIGMA = "mean IU", 0.5
EPOCHS, IMAGES, BATCH = 40, 367, 4


def _staged() -> dict[str, Spec]:
    """FCN-32s, and what starts from it."""
    coarse = frozen.spec("fcn_32s", evaluations=4, label="32s")
    middle = replace(
        coarse, head="fcn_16s", parent=coarse, settings=(), label="16s", learning_rate=1 / 3
    )
    fine = replace(middle, head="fcn_8s", parent=middle, label="8s")
    at_once = replace(frozen.AT_ONCE, evaluations=4)
    return {"FCN-32s": coarse, "FCN-16s": middle, "FCN-8s": fine, "FCN-8s at once": at_once}


def _random(spec: Spec) -> Spec:
    """The same, from a trunk that has learned nothing."""
    parent = spec.parent and _random(spec.parent)
    label = f"random-{spec.label}"
    return replace(spec, weights="none", settings=(), parent=parent, label=label)


STAGED = _staged()
_PAPER = dict(zip(STAGED, (63.6, 65.0, 65.5, 65.4), strict=True))


def _skips() -> Table:
    cells = {(row, IU): Cell(spec, _PAPER[row]) for row, spec in STAGED.items()}
    claims = (
        below("finer than 32s is 16s", ("FCN-32s", IU), ("FCN-16s", IU), paired=True),
        below("finer than 16s is 8s", ("FCN-16s", IU), ("FCN-8s", IU), paired=True),
    )
    return Table("Skips refine", cells, lambda row, column: ("FCN-32s", column), claims)


def _trunks() -> Table:
    known, blank = "trained trunk", "random trunk"
    cells = {(row, known): Cell(spec, _PAPER[row]) for row, spec in STAGED.items()}
    cells |= {(row, blank): Cell(_random(spec)) for row, spec in STAGED.items()}
    claims = tuple(
        below(f"{row}: a trained trunk helps", (row, blank), (row, known)) for row in STAGED
    )
    return Table("What the trunk knows", cells, lambda row, column: (row, known), claims)


def _composed() -> Table:
    """Each score layer composed with a learned Gaussian; nothing that the paper tried."""
    plain, blurred = "FCN-8s", "FCN-8s, composed scores"
    fine = STAGED[plain]
    composed = replace(fine, options=(("sigma", SIGMA),), label="8s-composed")
    cells = {(plain, IU): Cell(fine, _PAPER[plain]), (blurred, IU): Cell(composed)}
    claims = (below("composed scores help", (plain, IU), (blurred, IU), paired=True),)
    return Table(
        "Scores composed with Gaussians", cells, lambda row, column: (plain, column), claims
    )


def _unfrozen() -> Table:
    """conv4 learns as well."""
    fixed, free = "conv1 to conv4 frozen", "conv1 to conv3 frozen"
    at_once = STAGED["FCN-8s at once"]
    settings = (*frozen.NEW, ("data.cache.map", "pool3"))
    learns = f"backbone/conv4_*, {frozen.LEARNS}"
    wider = replace(at_once, trainable=learns, settings=settings, label="8s-at-once-conv4")
    cells = {(fixed, IU): Cell(at_once), (free, IU): Cell(wider)}
    claims = (below("training conv4 helps", (fixed, IU), (free, IU)),)
    return Table("How much of the trunk learns", cells, lambda row, column: (fixed, column), claims)


def _truncated() -> Table:
    """Networks that end early, of which nothing learns but the scores."""
    whole = STAGED["FCN-8s at once"]
    rows = {
        "FCN-pool3": Cell(frozen.truncated("fcn_pool3", share=0.25, label="pool3"), 9.2),
        "FCN-pool4": Cell(frozen.truncated("fcn_pool4", share=0.25, label="pool4"), 22.4),
        "FCN-8s at once": Cell(whole, _PAPER["FCN-8s at once"]),
    }
    cells = {(row, IU): cell for row, cell in rows.items()}
    claims = tuple(
        below(f"{low} < {high}", (low, IU), (high, IU)) for low, high in itertools.pairwise(rows)
    )
    return Table(
        "Networks that end early", cells, lambda row, column: ("FCN-8s at once", column), claims
    )


TABLES = {
    "skips": _skips(),
    "trunks": _trunks(),
    "composed": _composed(),
    "unfrozen": _unfrozen(),
    "truncated": _truncated(),
}


def _half(epochs: int) -> ConfigDict:
    """Whole images of 240x180, as the network of Caffe wants them."""
    config = frozen.config("camvid", batch=BATCH, steps=epochs * IMAGES // BATCH)
    config.data.options.reduction = 2
    return config


_VGG = frozen.network(512)
SCALES = {
    ("camvid", "cpu"): Scale(_VGG, lambda: _half(EPOCHS), 0.25, {}),
    ("camvid", "quick"): Scale(_VGG, lambda: _half(2), 0.25, {}),
}
