"""What a schedule costs, from the shares of the stages."""

from collections.abc import Sequence

from rfjax import _checks
from rfjax.clockwork import schedules


def cost(schedule: str | Sequence[int], shares: Sequence[float], *, firing: float = 1.0) -> float:
    """The mean time of a frame, in units of the whole network.

    sum_i s_i / r_i with the rates r_i; with a clock of the data s_1 + ... + q s_n

    Args:
      schedule: a name or rates, see `make`.
      shares: of the whole time, one for each stage that computes, shallow to deep. What the fusing
        one takes is a share of all of them.
      firing: q in [0, 1], the share of frames on which a clock of the data fires.

    Returns:
      The mean over many frames. A pipeline costs as much as the whole network; its stages can run
      at the same time on machines of their own, and the longest of them is what one waits for.

    Example:
      >>> shares = 0.59, 0.18, 0.23
      >>> [round(cost(name, shares), 4) for name in ("skip", "alternating", "exponential")]
      [0.5, 0.885, 0.7375]
    """
    shares = [_checks.number("shares", share, least=0) for share in shares]
    if isinstance(schedule, str) and schedule.partition(":")[0] in schedules.THRESHOLDS:
        return sum(shares[:-1]) + _checks.number("firing", firing, least=0, most=1) * shares[-1]
    rates = schedules.rates(schedule, len(shares))
    return sum(share / rate for share, rate in zip(shares, rates, strict=True))
