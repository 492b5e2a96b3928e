"""What a study runs over clips, and the clips."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rfjax.studies import frozen
from rfjax.studies.specs import Spec

# Of the longer side a frame, by which stills slide; see `rfjax.data.video.translated`.
SLOW, FAST = 0.03, 0.06

# By data set; a network that ends at a map learns less, and sooner.
NETWORKS = {
    "digit_clips": {
        "fcn_8s": Spec("vgg", "fcn_8s"),
        "fcn_pool3": Spec("vgg", "fcn_pool3", share=0.5),
        "fcn_pool4": Spec("vgg", "fcn_pool4", share=0.5),
        "fcn_32s": Spec("vgg", "fcn_32s"),
    },
    "davis": {
        "fcn_8s": frozen.AT_ONCE,
        "fcn_pool3": frozen.truncated("fcn_pool3", share=0.5, label="pool3"),
        "fcn_pool4": frozen.truncated("fcn_pool4", share=0.5, label="pool4"),
        "fcn_32s": frozen.spec("fcn_32s", label="32s"),
    },
}
HEADS = tuple(NETWORKS["digit_clips"])
CUT = "fcn_8s"  # the network that has stages
SHARES = (10, 25, 50, 75, 90)  # % of the frames on which a clock of the data is to fire
CLOCKS = ("adaptive", "pixels", "confidence")
FILL = 2  # frames at the beginning of a clip that are not scored: a pipeline fills


@dataclass(frozen=True)
class Way:
    """A network, by its head, and the schedule that it runs under."""

    head: str
    schedule: str

    @property
    def name(self) -> str:
        """Tells it from all others."""
        return f"{self.head}-{self.schedule}".replace(":", "=").replace("%", "")


ORACLE = Way(CUT, "oracle")


def sweep() -> dict[str, Way]:
    """Clocks of the data at several shares of frames, by name."""
    pairs = [(clock, share) for clock in CLOCKS for share in SHARES]
    return {f"{clock} {share} %": Way(CUT, f"{clock}:{share}%") for clock, share in pairs}


@dataclass(frozen=True)
class Clips:
    """Clips that a table is about.

    Attributes:
      title: for people.
      of: what makes them of the frames of a data set, all of which have labels or are void, given
        how many stills there may be.
    """

    title: str
    of: Callable[[Any, int], Any]


def _slid(dataset: Any, stills: int, shift: float) -> Any:
    """Clips of some stills."""
    from rfjax.data import video  # which imports JAX, that a command line does without

    return video.translations(dataset, shift, every=-(-len(dataset) // stills))


CLIPS = {
    "video": Clips("video", lambda dataset, stills: dataset),
    "slow": Clips(f"stills, {100 * SLOW:.0f} % a frame", partial(_slid, shift=SLOW)),
    "fast": Clips(f"stills, {100 * FAST:.0f} % a frame", partial(_slid, shift=FAST)),
}
