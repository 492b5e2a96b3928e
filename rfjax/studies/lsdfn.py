"""The tables of "Dynamic Filtering with Large Sampling Field for ConvNets", on segmentation.

The paper's ablations are of detection (mAP on PASCAL VOC 2007, R-FCN on ResNet-50, tables 2 to 4);
here the outputs of the filters go to the score layer beside the map that they are made of.

Reference: Wu et al., "Dynamic Filtering with Large Sampling Field for ConvNets", ECCV 2018.
"""

from rfjax.studies.specs import IU, Cell, Claim, Place, Spec, Table, below

PLAIN = Spec("resnet", label="filters-none")
BASE = ("plain", IU)
FIELD = {"field, σ": "field_sigma"}
OUTPUTS = (16, 32)
Papers = tuple[float | None, ...]


def filtered(
    outputs: int,
    *,
    samples: int = 3,
    stride: int = 2,
    attention: bool = True,
    residual: bool = True,
) -> Spec:
    """The network with filters of every pixel beside its last map."""
    options = {
        "outputs": outputs,
        "samples": samples,
        "sample_stride": stride,
        "attention": attention,
        "residual": residual,
    }
    marks = ["" if attention else "-flat", "" if residual else "-bare"]
    label = f"filters-{outputs}-s{samples}-g{stride}{''.join(marks)}"
    return Spec("resnet", head="lsdfn_concat", options=tuple(options.items()), label=label)


def _table(title: str, cells: dict[Place, Cell], *claims: Claim) -> Table:
    cells = {BASE: Cell(PLAIN, 77.0)} | cells
    return Table(title, cells, lambda *_: BASE, claims, numbers=FIELD, measured=("field",))


def _each(text: str, low: str, high: str) -> list[Claim]:
    """For each number of outputs the claim that one column is below another."""
    rows = [f"C' = {outputs}" for outputs in OUTPUTS]
    return [below(f"{row}: {text}", (row, low), (row, high)) for row in rows]


def _samples() -> Table:
    """Table 2: samples along each axis; one is a plain dynamic filter."""
    papers: dict[int, Papers] = {16: (72.1, 78.2, 78.1), 32: (72.9, 78.6, 78.5)}
    numbers = (1, 3, 5)
    cells = {
        (f"C' = {outputs}", f"s = {samples}"): Cell(filtered(outputs, samples=samples), paper)
        for outputs in OUTPUTS
        for samples, paper in zip(numbers, papers[outputs], strict=True)
    }
    one, three, five = (f"s = {samples}" for samples in numbers)
    claims = [below(f"C' = {n}: plain < s = 3", BASE, (f"C' = {n}", three)) for n in OUTPUTS]
    claims += [below(f"C' = {n}: s = 1 < plain", (f"C' = {n}", one), BASE) for n in OUTPUTS]
    claims += _each("s = 1 < s = 3", one, three) + _each("s = 3 < s = 5", three, five)
    return _table("Samples along each axis", cells, *claims)


def _strides() -> Table:
    """Table 3: the distance of the samples, with attention and without."""
    papers: dict[int, Papers] = {16: (77.8, 77.4, 78.2, 77.4), 32: (78.6, 77.6, 78.0, 77.3)}
    columns = [(stride, attention) for stride in (1, 2) for attention in (True, False)]
    names = [f"γ = {stride}, {'attention' if on else 'none'}" for stride, on in columns]
    cells = {
        (f"C' = {outputs}", name): Cell(filtered(outputs, stride=stride, attention=on), paper)
        for outputs in OUTPUTS
        for (stride, on), name, paper in zip(columns, names, papers[outputs], strict=True)
    }
    near, near_flat, far, far_flat = names
    claims = _each("γ = 1: attention helps", near_flat, near)
    claims += _each("γ = 2: attention helps", far_flat, far)
    claims += _each("γ = 1 < γ = 2", near, far)
    return _table("Distance of the samples, and attention", cells, *claims)


def _residual() -> Table:
    """Table 4: filters that start from the mean of the channels, or from nothing."""
    papers: dict[int, Papers] = {32: (78.6, 77.6, 68.7, None)}
    columns = [(residual, attention) for residual in (True, False) for attention in (True, False)]
    names = [f"{'residual' if r else 'none'}, {'attention' if a else 'none'}" for r, a in columns]
    cells = {
        (f"C' = {outputs}", name): Cell(
            filtered(outputs, residual=residual, attention=attention), paper
        )
        for outputs, printed in papers.items()
        for (residual, attention), name, paper in zip(columns, names, printed, strict=True)
    }
    (row,) = {row for row, _ in cells}
    both, flat, bare, neither = ((row, name) for name in names)
    return _table(
        "Residual and attention",
        cells,
        below("with attention the residual helps", bare, both),
        below("without attention the residual helps", neither, flat),
        below("without the residual it is worse than none", bare, BASE),
    )


TABLES = {"samples": _samples(), "stride": _strides(), "residual": _residual()}
