"""Training steps of whole networks, and many candidates of a search at once.

What is measured is that of `benchmarks.train` and `benchmarks.search`; this divides it into cases
that fit into the time.
"""

from collections.abc import Iterator

from benchmarks import search, train
from benchmarks.accelerator.program import Case, case
from benchmarks.report import Row

ROUNDS = 5
SMALL_NETWORK = {"networks": ("resnet_tiny",), "heads": ("composition",), "size": 32}
# A step with each head is compiled anew, which takes most of the time: the aims come first.
HEADS = (("composition", "gauss_deform"), ("dog", "deform"))


def steps(*, small: bool) -> list[Case]:
    """Training steps in bfloat16, the heads with aims first, then the others."""
    if small:
        return [case("resnet_tiny", _step, rounds=2, batch_size=2, **SMALL_NETWORK)]
    return [
        case(f"{name} {', '.join(heads)}", _step, rounds=ROUNDS, networks=(name,), heads=heads)
        for heads in HEADS
        for name in train.NETWORKS
    ]


def _step(**options) -> Iterator[Row]:
    yield from train.accelerator(**options)


def searches(*, small: bool) -> list[Case]:
    """Sixteen candidates at once against a loop over them."""
    if small:
        return [case("2 candidates", search.run, rounds=2, candidates=2, size=8)]
    count = search.CANDIDATES
    return [case(f"{count} candidates", search.run, rounds=ROUNDS, candidates=count)]
