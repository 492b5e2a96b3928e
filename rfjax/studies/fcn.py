"""The tables of "Fully Convolutional Networks", chapter 2 of the thesis cited below.

A small VGG learns to classify pictures of one digit, once for each seed. Its dense layers are
convolutions already; what every table compares starts from it, learns scenes of digits with a score
layer that starts at zero, and is told from the others by one thing alone. The paper's numbers are
those of PASCAL VOC 2011 (tables 2.1, 2.2, 2.3, 2.8), NYUDv2 (2.5) and SIFT Flow (2.6).

Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019, chapter 2.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rfjax.studies.specs import (
    IU,
    Cell,
    Claim,
    Place,
    Spec,
    Table,
    beats,
    below,
    near,
    no_worse,
    one_column,
    with_settings,
)

MEASURES = {
    "pixel acc.": "pixel_accuracy",
    "mean acc.": "mean_accuracy",
    "f.w. IU": "frequency_weighted_iu",
}
NUMBERS = {"seconds": "seconds"}
Settings = dict[str, Any]

# Plain momentum does not leave the loss of chance, at any of the rates .02, .05, .1 and .3, within
# the steps in which Adam has learned the pictures.
_PICTURES: Settings = {
    "task.name": "classification",
    "task.normalize": "count",
    "data.name": "digit_images",
    "data.options.train_scenes": None,
    "data.options.val_scenes": None,
    "data.options.val_images": 256,
    "batch_size": 32,
    "optimizer.learning_rate": 1e-3,
    "optimizer.rule": "adam",
    "optimizer.rate_in_momentum": False,
    "optimizer.momentum": 0.9,
    "optimizer.poly_power": 0.9,
    "optimizer.weight_decay": 0.0,
    "optimizer.rates": (),
    "optimizer.decays": (),
}
CLASSIFIER = Spec(
    "vgg", head="classify", settings=(*_PICTURES.items(),), share=1 / 6, label="classifier"
)
# c_16 and c_8 that equalize the norms of this classifier's features, where VGG-16 has .01, .0001.
EQUALIZED = (1.65, 3.2)
# The rate drops with each skip: a hundredfold in the paper, where features differ as much.
DROPPED = 0.3
TUNING = 0.25  # of the steps, for a skip that is added


def _from_classifier(label: str, head: str = "fcn_32s", **fields: Any) -> Spec:
    """A network that goes on from the classifier for all steps."""
    fields = {"parent": CLASSIFIER, "share": 1.0} | fields
    return Spec("vgg", head=head, label=label, **fields)


COARSE = _from_classifier("32s")
MIDDLE = replace(
    COARSE, head="fcn_16s", parent=COARSE, learning_rate=DROPPED, share=TUNING, label="16s"
)
FINE = replace(MIDDLE, head="fcn_8s", parent=MIDDLE, learning_rate=DROPPED**2, label="8s")
CONTROL = replace(MIDDLE, head="fcn_32s", label="32s-dropped")
AT_ONCE = _from_classifier("8s-at-once", "fcn_8s", options=(("at_once", EQUALIZED),))


def _table(title: str, cells: Mapping[Place, Cell], base: str, *claims: Claim) -> Table:
    """A table whose rows are compared with one of them, with the columns of the paper."""
    return Table(title, cells, lambda _, column: (base, column), claims, MEASURES, NUMBERS)


# -- how networks learn ----------------------------------------------------------------------------


def _optimization() -> Table:
    """Table 2.2: all rows see one sequence of images, and take as many gradients."""
    light = {"optimizer__momentum": 0.9}
    online = with_settings(COARSE, "online", **light)
    sums = {"optimizer__accumulate": 20, "optimizer__accumulation": "sum"}
    accumulated = with_settings(online, "accumulated", **sums)
    specs = {"accumulated (20, p .9)": accumulated, "online (1, p .9)": online}
    papers = (51.9, 60.7)
    cells: dict[Place, Cell] = {}
    for (row, spec), paper in zip(specs.items(), papers, strict=True):
        cells[row, "same rate"] = Cell(spec, paper)
        tenfold = replace(spec, learning_rate=10.0, label=f"{spec.label}-x10")
        cells[row, "rate × 10"] = Cell(tenfold)
    accumulate, one, heavy = *specs, "heavy (1, p .99)"
    cells[heavy, "same rate"] = Cell(COARSE, 63.6)
    claims = [
        below("same rate: accumulated < online", (accumulate, "same rate"), (one, "same rate")),
        below("same rate: online < heavy", (one, "same rate"), (heavy, "same rate")),
        below("rate × 10: accumulated < online", (accumulate, "rate × 10"), (one, "rate × 10")),
        below("online at rate × 10 < heavy", (one, "rate × 10"), (heavy, "same rate")),
    ]
    return Table(
        "Accumulated, online and heavy learning: as many gradients, rates that weigh each alike "
        "at × 10",
        cells,
        lambda *_: (heavy, "same rate"),
        (*claims,),
        MEASURES,
        NUMBERS,
    )


def _skips() -> Table:
    """Table 2.3, with the control of its text, and a network that was never a classifier."""
    truncated = {
        f"{name} alone": (_from_classifier(name, f"fcn_{name}"), paper)
        for name, paper in (("pool5", 50.0), ("pool4", 22.4), ("pool3", 9.2))
    }
    rows = {
        "32s": (COARSE, 63.6),
        "32s, rate dropped": (CONTROL, None),
        "16s": (MIDDLE, 65.0),
        "8s at once": (AT_ONCE, 65.4),
        "8s staged": (FINE, 65.5),
        "32s fixed": (_from_classifier("32s-fixed", trainable="last_stage"), 46.6),
        **truncated,
        "32s from scratch": (_from_classifier("32s-scratch", parent=None), None),
    }
    return _table(
        "Skips, what they add to, and what comes before",
        one_column(rows),
        "32s",
        beats("32s", "16s", paired=True),
        no_worse("16s", "8s staged"),
        beats("16s", "8s staged", paired=True),
        near("dropping the rate alone does nothing", "32s", "32s, rate dropped"),
        beats("32s, rate dropped", "16s", paired=True),
        near("at once is as good as staged", "8s at once", "8s staged", 2.0),
        beats("32s fixed", "32s", "whole network > classifier only"),
        beats("32s from scratch", "32s fixed", "classifier only > scratch"),
        beats("32s from scratch", "32s", "transfer > scratch"),
        beats("pool5 alone", "32s"),
        beats("pool4 alone", "pool5 alone"),
        beats("pool3 alone", "pool4 alone"),
    )


def _composed() -> Table:
    """Score layers that also learn how far they look; no table of the paper."""

    def composed(spec: Spec, sigma: float) -> Spec:
        options = (*spec.options, ("sigma", sigma))
        return replace(spec, options=options, label=f"{spec.label}-sigma{sigma:g}")

    rows: dict[str, tuple[Spec, float | None]] = {"8s at once": (AT_ONCE, None)}
    rows |= {
        f"8s at once, composed (σ₀ {sigma:g})": (composed(AT_ONCE, sigma), None)
        for sigma in (0.5, 1.0)
    }
    rows["8s staged"] = (FINE, None)
    rows["8s staged, composed (σ₀ 0.5)"] = (composed(FINE, 0.5), None)
    plain, *own, staged, staged_own = rows
    return _table(
        "Score layers composed with learned Gaussians",
        one_column(rows),
        plain,
        *(beats(plain, row) for row in own),
        beats(staged, staged_own, paired=True),
    )


def _sampling() -> Table:
    """Section 2.3.4: cells of the last layer drawn, of as many more images."""

    def sampled(p: float) -> Spec:
        return with_settings(COARSE, f"sampled{p:g}", task__sampling=p, batch_size=round(1 / p))

    rows = {"whole images": (COARSE, None)}
    rows |= {f"p = {p:g}, {round(1 / p)} images": (sampled(p), None) for p in (0.5, 0.25)}
    whole, *sampled_rows = rows
    return _table(
        "Sampling the loss: as many cells an update, from more images",
        one_column(rows),
        whole,
        *(near(f"{row} is as accurate", whole, row, 3.0) for row in sampled_rows),
    )


def _losses() -> Table:
    """Section 2.3.4 and 2.5.1: losses, and no model of the background."""
    rows = {
        "softmax": (COARSE, None),
        "sigmoid": (with_settings(COARSE, "sigmoid", task__cross_entropy="sigmoid"), None),
        "sigmoid, null background": (
            with_settings(COARSE, "null-background", task__cross_entropy="null_background"),
            None,
        ),
    }
    return _table(
        "Losses, and a background without a score",
        one_column(rows),
        "softmax",
        near("sigmoid is as good as softmax", "softmax", "sigmoid", 2.0),
        near("null background costs a point", "sigmoid", "sigmoid, null background", 2.0),
    )


def _more_data() -> Table:
    """Section 2.3.4: 1,112 images of VOC 2011, and 8,498 with SBD."""

    def of(scenes: int) -> Spec:
        return with_settings(COARSE, f"{scenes}scenes", data__options__train_scenes=scenes)

    rows = {
        "64 scenes": (of(64), None),
        "512 scenes": (of(512), 57.7),
        "all scenes": (COARSE, 63.6),
    }
    few, some, every = rows
    return _table(
        "More training data", one_column(rows), every, beats(few, some), beats(some, every)
    )


# -- what networks see -----------------------------------------------------------------------------


def foreground_iu(scores: Mapping[str, Any]) -> float:
    """The mean IU of all classes but the background."""
    found = np.array(scores["class_iu"][1:], float)
    return float(np.nanmean(found)) if np.isfinite(found).any() else np.nan


def _masking() -> Table:
    """Table 2.8: what is hidden in training and in evaluation."""

    def cell(spec: Spec, paper: float, hidden: str | None = None) -> Cell:
        data = (("mask", hidden),) if hidden else ()
        return Cell(spec, paper, read=foreground_iu, data=data)

    def without(hidden: str) -> Spec:
        return with_settings(COARSE, f"32s-without-{hidden}", data__options__mask=hidden)

    rows = {
        "reference": cell(COARSE, 84.8),
        "reference, foreground alone": cell(COARSE, 81.0, "background"),
        "reference, background alone": cell(COARSE, 19.8, "foreground"),
        "foreground alone": cell(without("background"), 76.1),
        "background alone": cell(without("foreground"), 37.8),
        "shape": cell(without("both"), 29.1),
    }
    whole, foreground, background, learned, context, shape = rows
    table = _table(
        "Foreground, background and shape",
        {(row, IU): cell for row, cell in rows.items()},
        whole,
        beats(foreground, whole, "hiding the background costs", paired=True),
        beats(background, foreground, "hiding the foreground is catastrophic", paired=True),
        beats(background, context, "learned without it, the background tells classes", paired=True),
        beats(shape, context, "shape < background alone"),
        beats(context, learned, "background alone < foreground alone"),
    )
    return replace(table, score="mean IU without background")


# -- several inputs and several outputs ------------------------------------------------------------


def _fusion() -> Table:
    """Table 2.5: color and depth, at the input, or by the mean of scores that learn on jointly."""

    def of(label: str, modality: str) -> Spec:
        return with_settings(COARSE, label, data__options__modality=modality)

    depth, both = of("depth", "depth"), of("early", "rgbd")
    joined = replace(both, parent=COARSE, partner=depth, learning_rate=DROPPED, share=TUNING)
    late = with_settings(joined, "late", model__late_fusion=(3, 1))
    rows = {
        "color": (COARSE, 31.6),
        "depth": (depth, 25.2),
        "early fusion": (both, 31.7),
        "late fusion": (late, 33.3),
    }
    color, alone, early, latest = rows
    return _table(
        "Color and depth",
        one_column(rows),
        color,
        beats(alone, color),
        beats(color, early),
        beats(early, latest),
        beats(color, latest, paired=True),
    )


def geometric_iu(scores: Mapping[str, Any]) -> float:
    """The mean IU of the second set of labels."""
    return scores["geometric_mean_iu"]


def _heads() -> Table:
    """Table 2.6: one trunk with a head for each of two sets of labels, and a network for each."""
    several = {"data__options__labels": "both", "task__name": "segmentations"}
    two = with_settings(AT_ONCE, "two-heads", **several)
    second = with_settings(AT_ONCE, "geometric", data__options__labels="geometric")
    cells = {
        ("two heads", "semantic"): Cell(two, 41.2),
        ("two heads", "geometric"): Cell(two, read=geometric_iu),
        ("two networks", "semantic"): Cell(AT_ONCE),
        ("two networks", "geometric"): Cell(second),
    }
    claims = (
        Claim(
            f"{column}: two heads are as good as two networks (within 2)",
            lambda iu, _, column=column: np.abs(
                iu("two heads", column) - iu("two networks", column)
            ),
            lambda iu, _, column=column: np.full(len(iu("two heads", column)), 2.0),
            paired=True,
        )
        for column in ("semantic", "geometric")
    )
    base = lambda _, column: ("two networks", column)
    return Table("Two heads and two networks", cells, base, (*claims,), {}, NUMBERS)


# -- networks --------------------------------------------------------------------------------------


def _networks() -> Table:
    """Table 2.1, of the small networks that the library has: all train as many images as one."""
    batched = {
        "batch_size": 16,
        "task__normalize": "count",
        "optimizer__learning_rate": 0.05,
        "optimizer__momentum": 0.9,
        "optimizer__grad_clip": 1.0,
    }

    def of(network: str, head: str) -> Spec:
        own = replace(CLASSIFIER, network=network, label=f"classifier-{network}")
        parent = CLASSIFIER if network == "vgg" else own
        spec = replace(COARSE, network=network, head=head, parent=parent, share=TUNING)
        return with_settings(spec, f"batched-{network}", **batched)

    rows = {
        "VGG, stride 32": (of("vgg", "fcn_32s"), 56.0),
        "ResNet, stride 8": (of("resnet", "fcn_8s"), None),
        "DRN, stride 4": (of("drn", "score"), None),
    }
    coarse, *others = rows
    return _table(
        "Three classifiers as fully convolutional networks",
        one_column(rows),
        coarse,
        *(beats(coarse, other) for other in others),
    )


FCN = {
    "2.3": _skips(),
    "2.2": _optimization(),
    "composed": _composed(),
    "2.5": _fusion(),
    "2.6": _heads(),
    "2.8": _masking(),
    "sampling": _sampling(),
    "loss": _losses(),
    "data": _more_data(),
    "2.1": _networks(),
}
