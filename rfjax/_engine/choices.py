"""Which form serves maps of which size on a GPU or TPU: a table that a program writes.

    python -m benchmarks accelerator --choose=RESULT.json    by the times of a call on a card
    python -m benchmarks accelerator --choose=model          by predictions, for an H100

A map takes the row of its platform and kind whose sizes are nearest to its own, see
`rfjax._engine.plan.nearest`. The last column tells what chose a row: a model, or a measurement. A
CPU has no rows: what it does is in `tuning` and `plan`.
"""

from typing import NamedTuple


class Choice(NamedTuple):
    """The forms that serve maps of one size."""

    kind: str  # blur | reads
    platform: str  # gpu | tpu
    dtype: str  # in which is computed
    # Of a blur the numbers of the map and the pixels of the axis; of reads the samples, the
    # channels of the map and the numbers of a tap's weights.
    sizes: tuple[int, ...]
    # Of a blur the half sizes up to which each form serves, beyond the last of them the product.
    forms: tuple[tuple[str, int], ...]
    by: str


ROWS: tuple[Choice, ...] = (
    Choice("blur", "gpu", "float32", (786432, 512), (), "model: H100"),
    Choice("blur", "gpu", "float32", (1048576, 64), (), "model: H100"),
    Choice("blur", "gpu", "float32", (1048576, 128), (), "model: H100"),
    Choice("blur", "gpu", "float32", (10240000, 100), (), "model: H100"),
    Choice("blur", "gpu", "float32", (67108864, 128), (("shift_add", 2),), "model: H100"),
    Choice(
        "blur",
        "gpu",
        "float32",
        (134217728, 1024),
        (("shift_add", 4), ("banded", 128)),
        "model: H100",
    ),
    Choice(
        "blur",
        "gpu",
        "float32",
        (134217728, 2048),
        (("shift_add", 4), ("banded", 128)),
        "model: H100",
    ),
    Choice("reads", "gpu", "float32", (73728, 64, 4096), (("gather", 0),), "model: H100"),
    Choice("reads", "gpu", "float32", (90000, 256, 65536), (("gather", 0),), "model: H100"),
    Choice("reads", "gpu", "float32", (720000, 512, 262144), (("gather", 0),), "model: H100"),
    Choice("reads", "gpu", "float32", (18874368, 64, 4096), (("gather", 0),), "model: H100"),
)

BLURS = tuple(row for row in ROWS if row.kind == "blur")
READS = tuple(row for row in ROWS if row.kind == "reads")
