"""The tables of "Blurring the Line between Structure and Learning", and two of our own.

The paper's numbers are mean IU in % on the validation images of Cityscapes (those of its extended
version where the two differ). `support` and `stability` ask what the paper leaves open.
"""

import itertools
from dataclasses import replace

import numpy as np

from rfjax.studies.specs import Cell, Claim, Spec, Table, below

DRN, RESNET, DLA = Spec("drn"), Spec("resnet"), Spec("dla")
IU = "mean IU"
IDENTITY = 0.15  # a sigma that changes a map by less than 1e-8
SEARCH_COLUMNS = {1: "1× input", 2: "2× input"}  # by enlargement


def _head(network: Spec, head: str, **options) -> Spec:
    return replace(network, head=head, options=tuple(options.items()))


def _always(row: str, column: str):
    """The base of all differences."""
    return lambda *_: (row, column)


def _of_rows(column: str, low: str, high: str, *, paired: bool = False) -> Claim:
    return below(f"{column}: {low} < {high}", (low, column), (high, column), paired=paired)


def _architectures() -> Table:
    rows = {
        "DRN-A": (DRN, 72.4),
        "+3×3 Conv": (_head(DRN, "conv3"), 72.9),
        "+STN (static)": (_head(DRN, "stn"), 70.5),
        "+Deformable (static)": (_head(DRN, "static_deform"), 72.2),
        "+Composition": (_head(DRN, "composition"), 73.5),
        "+CCL": (_head(DRN, "ccl"), 73.1),
        "+DoG": (_head(DRN, "dog"), 74.1),
        "DLA-34": (DLA, 76.1),
        "DLA-34 +Composition": (replace(DLA, composed=()), 78.2),
    }
    return Table(
        "Composition improves strong architectures",
        {(row, IU): Cell(spec, paper) for row, (spec, paper) in rows.items()},
        lambda row, _: ("DLA-34" if row.startswith("DLA") else "DRN-A", IU),
        (
            below("a 3×3 head helps", ("DRN-A", IU), ("+3×3 Conv", IU)),
            below("composition beats it", ("+3×3 Conv", IU), ("+Composition", IU)),
            below(
                "composition beats the static transformer",
                ("+STN (static)", IU),
                ("+Composition", IU),
            ),
            below(
                "composition beats static deformation",
                ("+Deformable (static)", IU),
                ("+Composition", IU),
            ),
            below("DoG beats CCL", ("+CCL", IU), ("+DoG", IU)),
            below("composition helps DLA-34", ("DLA-34", IU), ("DLA-34 +Composition", IU)),
        ),
    )


def _how_to_compose() -> Table:
    columns = ("base", "+Blur", "+Blur-Resample", "+DoG Blur", "+DoG Blur-Resample")

    def specs(network: Spec) -> tuple[Spec, ...]:
        return (
            network,
            _head(network, "composition", resample=False),
            _head(network, "composition"),
            _head(network, "dog", resample=False),
            _head(network, "dog"),
        )

    printed = {
        "ResNet-34": (RESNET, (64.8, 66.3, 68.1, 70.3, 71.4)),
        "DRN-A": (DRN, (72.4, 72.2, 73.5)),
    }
    cells = {
        (row, column): Cell(spec, paper)
        for row, (network, papers) in printed.items()
        for column, spec, paper in zip(columns, specs(network), papers, strict=False)
    }
    order = ((0, 1), (1, 2), (2, 4), (3, 4))
    claims = [
        below(
            f"ResNet-34: {columns[a]} < {columns[b]}",
            ("ResNet-34", columns[a]),
            ("ResNet-34", columns[b]),
        )
        for a, b in order
    ]
    claims.append(
        below("DRN-A: +Blur < +Blur-Resample", ("DRN-A", columns[1]), ("DRN-A", columns[2]))
    )
    return Table(
        "Resampling improves on blurring alone", cells, lambda row, _: (row, "base"), (*claims,)
    )


def _blurred_dilation() -> Table:
    rows = {"CCL": ("ccl", 73.1, 74.0), "ASPP": ("aspp", 74.1, 74.3)}
    cells = {("DRN-A", "plain"): Cell(DRN, 72.4)}
    for row, (head, plain, blurred) in rows.items():
        cells[row, "plain"] = Cell(_head(DRN, head), plain)
        cells[row, "+Blur (σ = d/2)"] = Cell(_head(DRN, head, blur=0.5), blurred)
        cells[row, "+Blur (σ = 2d/3)"] = Cell(_head(DRN, head, blur=2 / 3))
        cells[row, "+Blur (σ = d)"] = Cell(_head(DRN, head, blur=1.0))
    claims = [
        below(f"{row}: blurring its dilation helps", (row, "plain"), (row, "+Blur (σ = d/2)"))
        for row in rows
    ]
    claims += [
        below(f"{row} improves on DRN-A", ("DRN-A", "plain"), (row, "plain")) for row in rows
    ]
    return Table("Blurring helps dilation", cells, _always("DRN-A", "plain"), (*claims,))


def _search() -> Table:
    """The reduced receptive field and the enlarged input."""
    last = {
        "+3×3 Conv (last stage)": ("conv3", (65.8, 56.7)),
        "+Composition (last stage)": ("composition", (68.1, 57.8)),
        "+DoG (last stage)": ("dog", (68.9, 62.7)),
    }
    cells = {("DRN-A", "1× input"): Cell(DRN, 72.4)}

    def fill(row: str, spec, papers) -> None:
        for (enlargement, column), paper in zip(SEARCH_COLUMNS.items(), papers, strict=True):
            cells[row, column] = Cell(spec(enlargement), paper)

    fill("ResNet-34", lambda e: replace(RESNET, enlargement=e), (64.8, 56.2))
    for row, (head, papers) in last.items():
        fill(row, lambda e, head=head: _fine_tuned(head, e), papers)
    fill("+DoG, end to end", lambda e: replace(_head(RESNET, "dog"), enlargement=e), (71.4, 66.5))
    # Not in the paper's table: its text, and what the last stage does without its freezing.
    fill(
        "+Composition, end to end",
        lambda e: replace(_head(RESNET, "composition"), enlargement=e),
        (None, None),
    )
    fill("+Composition (structure alone)", _structure_alone, (None, None))
    return Table(
        "Receptive fields are found by optimisation",
        cells,
        _always("DRN-A", "1× input"),
        _search_claims(),
    )


def _fine_tuned(head: str, enlargement: int) -> Spec:
    """The last stage alone, from a head that computes what the score layer of its parent does."""
    parent = replace(RESNET, enlargement=enlargement)
    sigma = {"composition": "sigma", "dog": "sigma_center"}
    options = {sigma[head]: IDENTITY} if head in sigma else {}
    return replace(_head(parent, head, **options), trainable="last_stage", parent=parent)


def _structure_alone(enlargement: int) -> Spec:
    """Only the covariance is trained; the kernel is that of the score layer.

    At `IDENTITY` a covariance has no gradient unless its taps can spread: it starts from 0.5.
    """
    parent = replace(RESNET, enlargement=enlargement)
    options = {"kernel_size": 1, "resample": False}
    return replace(_head(parent, "composition", **options), trainable="structure", parent=parent)


def _search_claims() -> tuple[Claim, ...]:
    rows = ("ResNet-34", "+3×3 Conv (last stage)", "+Composition (last stage)", "+DoG (last stage)")
    end = "+DoG, end to end"

    def loss(row: str):
        return lambda iu, _: iu(row, "1× input") - iu(row, "2× input")

    composed = "+Composition, end to end"
    alone = "+Composition (structure alone)"
    return (
        *(
            _of_rows(column, *step, paired=True)
            for column in SEARCH_COLUMNS.values()
            for step in itertools.pairwise(rows)
        ),
        *(_of_rows(column, rows[-1], end) for column in SEARCH_COLUMNS.values()),
        below("a reduced receptive field costs", ("ResNet-34", "1× input"), ("DRN-A", "1× input")),
        below("enlarging costs", ("ResNet-34", "2× input"), ("ResNet-34", "1× input")),
        Claim("enlarging costs less with DoG", loss(end), loss("ResNet-34")),
        Claim("enlarging costs less with composition", loss(composed), loss("ResNet-34")),
        below(
            "learned σ is larger for the 2× input",
            (composed, "1× input"),
            (composed, "2× input"),
            measure="sigma",
        ),
        *(
            Claim(
                f"{column}: training the structure alone does no harm (≥ −0.5)",
                lambda iu, _, column=column: iu("ResNet-34", column) - 0.5,
                lambda iu, _, column=column: iu(alone, column),
                paired=True,
            )
            for column in SEARCH_COLUMNS.values()
        ),
    )


def _dynamic() -> Table:
    heads = {
        "backbone": ("score", {}, (72.4, 64.8)),
        "+Static Composition": ("composition", {}, (73.5, 68.1)),
        "+Gauss. Deformation": ("gauss_deform", {}, (76.6, 74.2)),
        "+Dynamic Composition (σ)": ("dynamic", {"mean": False}, (None, None)),
        "+Dynamic Composition (μ, σ)": ("dynamic", {}, (None, None)),
        "+Free-form Deformation": ("deform", {}, (76.6, 75.1)),
    }
    networks = {"DRN-A": DRN, "ResNet-34": RESNET}
    cells = {
        (row, column): Cell(_head(network, head, **options), paper)
        for row, (head, options, papers) in heads.items()
        for (column, network), paper in zip(networks.items(), papers, strict=True)
    }
    claims = []
    *_, free = heads
    for column, row in itertools.product(networks, list(heads)[2:-1]):
        static, gauss = ("+Static Composition", column), (row, column)
        claims.append(below(f"{column}: static < {row}", static, gauss))
        claims.append(_within(f"{column}: {row} within 2 of free-form", gauss, (free, column)))
    return Table("Dynamic structure", cells, lambda _, column: ("backbone", column), (*claims,))


def _within(text: str, cell: tuple[str, str], of: tuple[str, str], points: float = 2.0) -> Claim:
    return Claim(
        text,
        lambda iu, _: iu(*of) - iu(*cell),
        lambda iu, _: np.full(len(iu(*cell)), points),
    )


def _support() -> Table:
    """Kernels and supports, from three initial sigmas: how fast and how well each learns."""
    cells = {}
    for sigma in (0.1, 0.3, 1.0):
        for method in ("sampled", "discrete"):
            for support in ("hard", "faded"):
                head = {"sigma": sigma, "method": method, "support": support}
                spec = replace(_head(DRN, "composition", **head), evaluations=4)
                row = f"σ₀ {sigma}: {method}, {support}"
                cells[row, "quarter"] = Cell(spec, at=0.25)
                cells[row, "end"] = Cell(spec)
    pairs = (
        ("sampled, hard", "sampled, faded"),
        ("discrete, hard", "discrete, faded"),
        ("sampled, hard", "discrete, hard"),
        ("sampled, faded", "discrete, faded"),
    )
    claims = [
        _of_rows(column, f"σ₀ {sigma}: {low}", f"σ₀ {sigma}: {high}")
        for sigma, column in itertools.product((0.1, 0.3, 1.0), ("quarter", "end"))
        for low, high in pairs
    ]
    return Table(
        "Kernels and supports",
        cells,
        lambda _, column: ("σ₀ 0.3: sampled, hard", column),
        (*claims,),
    )


def _stability() -> Table:
    """Dynamic structure over learning rates that differ tenfold."""
    rates = {0.3: "lr × 0.3", 1.0: "lr × 1", 3.0: "lr × 3"}
    heads = {
        "+Static Composition": "composition",
        "+Gauss. Deformation": "gauss_deform",
        "+Dynamic Composition (μ, σ)": "dynamic",
        "+Free-form Deformation": "deform",
    }
    cells = {
        (row, column): Cell(replace(_head(DRN, head), learning_rate=rate))
        for row, head in heads.items()
        for rate, column in rates.items()
    }
    static, _, dynamic, free = heads
    claims = []
    for column in rates.values():
        here = (dynamic, column)
        claims.append(below(f"{column}: static < {dynamic}", (static, column), here))
        claims.append(_within(f"{column}: {dynamic} within 2 of free-form", here, (free, column)))
    return Table(
        "Dynamic structure is stable", cells, lambda _, column: (static, column), (*claims,)
    )


BLURRING = {
    "1": _architectures(),
    "2": _how_to_compose(),
    "3": _blurred_dilation(),
    "4": _search(),
    "5": _dynamic(),
    "support": _support(),
    "stability": _stability(),
}
