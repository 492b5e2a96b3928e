"""How long every form of a blur and of reads should take on a card: from bytes and operations.

A form is a few kernels after another. Each takes the longest of four times: of the card's memory,
of its level-2 cache, of its arithmetic, and of a launch. A map of E numbers that is filtered along
an axis of L pixels by 2 R + 1 taps costs, an axis and a direction,

    toeplitz   2 E L operations; one read, one write
    banded     2 E (B + 2 R) operations in blocks of B rows; what their windows share is copied
    shift_add  2 E (2 R + 1) operations; one read, one write; 2 R + 1 reads of the cache, R being
               the next of the static sizes; a switch, whose index the host waits for
    pallas     the same for R itself, its reads from the level-1 cache, without a switch

Forward and backward take three times of the forward pass: the adjoint filters once more, and so
does the gradient by sigma. Shares of the limits that programs reach are assumed, and stand below:
they are to be replaced by what a card measures.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.accelerator.cards import CARDS, Card
from rfjax._engine import tuning
from rfjax._markdown import table as lines_of

FORMS = ("toeplitz", "banded", "shift_add", "pallas")
SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
SHAPES = (
    (1, 128, 128, 64),
    (8, 64, 64, 32),
    (2, 100, 100, 512),
    (1, 512, 512, 3),
    (1, 1024, 2048, 64),
    (8, 128, 128, 512),
)
READ_FORMS = ("gather", "pallas")
# Maps and features of deformable convolutions: of the benchmarks, and of a whole network's head.
READ_SIZES = (
    ((2, 64, 64, 64), 64),
    ((1, 100, 100, 256), 256),
    ((8, 100, 100, 512), 512),
    ((1, 1024, 2048, 64), 64),
)
NUMBER = 4  # bytes of float32

# Assumed, not measured: shares of the limits, caches in bytes a second, seconds.
MEMORY_SHARE, ARITHMETIC_SHARE = 0.85, 0.7
LEVEL_2, LEVEL_1 = 5.5e12, 14e12
LAUNCH, SWITCH = 4e-6, 15e-6


class Cost(NamedTuple):
    """What a form takes, an axis and a direction."""

    bytes: float  # of the card's memory
    flops: float
    level_2: float = 0.0  # bytes of the caches
    level_1: float = 0.0
    kernels: int = 1
    switches: int = 0

    def seconds(self, card: Card) -> float:
        """The longest of its times, and what it takes to begin."""
        longest = max(
            self.bytes / (MEMORY_SHARE * card.memory),
            self.flops / (ARITHMETIC_SHARE * card.float32),
            self.level_2 / LEVEL_2,
            self.level_1 / LEVEL_1,
        )
        return longest + self.kernels * LAUNCH + self.switches * SWITCH


def cost(form: str, numbers: int, length: int, half: int) -> Cost | None:
    """Of a map of so many numbers along an axis of `length`; None where a form does not serve."""
    once = 2.0 * NUMBER * numbers
    if form == "toeplitz":
        # The matrix is formed, and read again.
        matrix = 2.0 * NUMBER * length**2
        return Cost(once + matrix, 2.0 * numbers * length, kernels=2)
    if form == "banded":
        size = next((size for size in tuning.BAND_SIZES if size >= half), None)
        if size is None or length < tuning.BAND_BLOCK + 2 * size:
            return None
        longer = 1.0 + 2.0 * size / tuning.BAND_BLOCK
        bytes = once + 2.0 * longer * NUMBER * numbers  # windows: written and read
        flops = 2.0 * numbers * tuning.BAND_BLOCK * longer
        return Cost(bytes, flops, kernels=3, switches=1)
    if form == "shift_add":
        size = next((size for size in tuning.SUM_SIZES if size >= half), None)
        if size is None or size > length // 2:
            return None
        taps = 2.0 * size + 1.0
        return Cost(once, 2.0 * numbers * taps, level_2=taps * NUMBER * numbers, switches=1)
    if half > tuning.KERNEL_SIZE:
        return None
    taps = 2.0 * min(half, length - 1) + 1.0
    return Cost(once, 2.0 * numbers * taps, level_1=taps * NUMBER * numbers)


def predict(
    form: str, shape: tuple[int, ...], sigma: float, card: Card, *, gradient: bool = False
) -> float | None:
    """Milliseconds of a blur of [N, H, W, C] by sigma; None where the form does not serve.

    Example:
        >>> from benchmarks.accelerator.cards import CARDS
        >>> h100 = CARDS["H100 80GB HBM3"]
        >>> times = {form: predict(form, (1, 1024, 2048, 64), 1.0, h100) for form in FORMS}
        >>> times["toeplitz"] > 10 * times["shift_add"]
        True
    """
    half, total = max(1, math.ceil(2 * sigma)), 0.0
    for length in shape[1:-1]:
        found = cost(form, math.prod(shape), length, half)
        if found is None:
            return None
        total += found.seconds(card)
    return 1e3 * total * (3 if gradient else 1)


def least(shape: tuple[int, ...], card: Card, *, gradient: bool = False) -> float:
    """Milliseconds in which the map is read and written once, and with gradients three times."""
    return 1e3 * (3 if gradient else 1) * 2.0 * NUMBER * math.prod(shape) / card.memory


def best(shape: tuple[int, ...], sigma: float, card: Card, forms: Sequence[str] = FORMS) -> str:
    """The form of the least predicted time.

    Example:
        >>> from benchmarks.accelerator.cards import CARDS
        >>> best((8, 64, 64, 32), 1.0, CARDS["H200"], ("toeplitz", "shift_add"))
        'toeplitz'
    """
    times = {form: predict(form, shape, sigma, card) for form in forms}
    return min((ms, form) for form, ms in times.items() if ms is not None)[1]


def memory(form: str, shape: tuple[int, ...], sigma: float) -> float:
    """Bytes of temporary arrays of a blur, besides its operand and its result.

    The map between the passes, and what a form lays out: matrices, windows, what is padded.
    """
    map_bytes, half = NUMBER * math.prod(shape), max(1, math.ceil(2 * sigma))
    if form == "toeplitz":
        return map_bytes + NUMBER * max(2 * length**2 for length in shape[1:-1])
    if form == "banded":
        # The largest branch of the switch counts, whichever is taken.
        return map_bytes * (2.0 + 2.0 * max(tuning.BAND_SIZES) / tuning.BAND_BLOCK)
    return map_bytes * (2.0 if form == "shift_add" else 1.0) + NUMBER * half


def read_costs(
    form: str, shape: tuple[int, ...], features: int, taps: int = 9
) -> tuple[Cost, Cost]:
    """Of a deformable convolution of [N, H, W, C], stride 1: forward, and backward alone."""
    outputs, channels = math.prod(shape[:-1]), shape[-1]
    rows, results = float(NUMBER * outputs * channels), float(NUMBER * outputs * features)
    product, cells = 2.0 * outputs * channels * features, 16.0 * outputs * taps
    once = 2 * rows + results + cells  # bordered, read, and what is written
    corners, atomics = 4 * rows * taps, 8 * rows * taps
    if form == "gather":
        # Samples and sums go through memory, a tap each.
        moved, kernels = taps * (2 * rows + 2 * results), 2 * taps
        forward = Cost(once + moved, taps * product, level_2=corners, kernels=kernels)
        moved = taps * (2 * rows + 6 * rows + 2 * results)
        return forward, Cost(
            once + moved, 2 * taps * product, level_2=corners + atomics, kernels=9 * taps
        )
    parts = -(-features // tuning.READ_TILE[2])
    forward = Cost(once, taps * product, level_2=parts * corners, kernels=2)
    level_2 = corners * (1 + parts) + atomics + taps * results
    return forward, Cost(3 * once, 2 * taps * product, level_2=level_2, kernels=5)


def predict_reads(
    form: str, shape: tuple[int, ...], features: int, card: Card, *, gradient: bool = False
) -> float:
    """Milliseconds of a deformable convolution of 3 x 3 taps.

    Example:
        >>> from benchmarks.accelerator.cards import CARDS
        >>> h100, size = CARDS["H100 80GB HBM3"], ((1, 100, 100, 256), 256)
        >>> predict_reads("pallas", *size, h100) < predict_reads("gather", *size, h100)
        True
    """
    forward, backward = read_costs(form, shape, features)
    return 1e3 * (forward.seconds(card) + (backward.seconds(card) if gradient else 0.0))


def least_reads(
    shape: tuple[int, ...], features: int, card: Card, *, gradient: bool = False
) -> float:
    """Milliseconds in which operands and result are read and written, and products taken, once."""
    outputs, channels = math.prod(shape[:-1]), shape[-1]
    numbers = outputs * (channels + features + 18) + 9 * channels * features
    flops = 18.0 * outputs * channels * features
    return 1e3 * (3 if gradient else 1) * card.seconds(bytes=NUMBER * numbers, flops=flops)


def table(card: Card) -> str:
    """Predicted milliseconds forward by shape and sigma, the least time, and the winner."""
    heading = ("map", "sigma", *FORMS, "read and written once", "best", "of the limit")
    rows = [_row(shape, sigma, card) for shape in SHAPES for sigma in SIGMAS]
    title = f"{card.name}: predicted milliseconds forward, no measurement"
    return f"{title}\n\n{lines_of(heading, rows)}\n{read_table(card)}"


def read_table(card: Card) -> str:
    """Predicted milliseconds of deformable convolutions, the least time, and the winner."""
    heading = ("deformable convolution", "what", *READ_FORMS, "least", "best", "of the limit")
    rows = []
    for (shape, features), gradient in itertools.product(READ_SIZES, (False, True)):
        times = {
            form: predict_reads(form, shape, features, card, gradient=gradient)
            for form in READ_FORMS
        }
        limit = least_reads(shape, features, card, gradient=gradient)
        best = min(times, key=times.__getitem__)
        numbers = [f"{ms:.3g}" for ms in (*times.values(), limit)]
        what = "forward + backward" if gradient else "forward"
        title = f"{'x'.join(map(str, shape))} to {features}"
        rows.append((title, what, *numbers, best, f"{times[best] / limit:.1f}"))
    return lines_of(heading, rows)


def _row(shape: tuple[int, ...], sigma: float, card: Card) -> list[str]:
    times = [predict(form, shape, sigma, card) for form in FORMS]
    shown = ["–" if ms is None else f"{ms:.3g}" for ms in times]
    limit, winner = least(shape, card), best(shape, sigma, card)
    ratio = times[FORMS.index(winner)] / limit
    size = "x".join(map(str, shape))
    return [size, f"{sigma:g}", *shown, f"{limit:.3g}", winner, f"{ratio:.1f}"]


def main() -> None:
    """Prints the tables of all cards."""
    print("\n".join(table(card) for card in CARDS.values()))


if __name__ == "__main__":
    main()
