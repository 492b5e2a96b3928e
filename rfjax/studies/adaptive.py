"""All answers to one question on one network: how far should a filter see, and where?

The 3x3 convolution that makes the scores is plain, dilated, or one that adapts: composed with a
learned Gaussian, which is the same everywhere or regressed at every pixel; deformed freely; of a
dilation that is chosen of a few (PAD), is a real number, or is learned for the whole layer
(inflation); or filters that the network makes at every pixel (LS-DFN). Same data, steps and seeds.
"""

from typing import Any

from rfjax.studies.specs import Spec, Table, beats, one_column

COSTS = {"step, ms": "step_ms", "× plain": "step_ratio", "memory, MB": "step_mb"}
PLAIN = "plain 3×3"


def _head(head: str, **options: Any) -> tuple[Spec, None]:
    return Spec("drn", head=head, options=tuple(options.items())), None


def _comparison() -> Table:
    fixed = {
        PLAIN: _head("conv3"),
        "dilated, 2": _head("conv3", dilation=2),
        "dilated, 4": _head("conv3", dilation=4),
    }
    adapting = {
        "composition": _head("composition"),
        "dynamic composition": _head("dynamic"),
        "free-form deformation": _head("deform"),
        "PAD": _head("pad", dilations=(1, 2, 4)),
        "continuous dilation": _head("adadr"),
        "inflation": _head("inflated_conv", dilation=2),
        "LS-DFN": _head("lsdfn"),
    }
    claims = [beats(PLAIN, row) for row in (*list(fixed)[1:], *adapting)]
    claims += [beats("dilated, 2", row) for row in adapting]
    claims += [
        beats("composition", "dynamic composition"),
        beats("PAD", "continuous dilation"),
        beats("PAD", "dynamic composition"),
        beats("continuous dilation", "free-form deformation"),
    ]
    return Table(
        "Receptive fields that adapt, on one network",
        one_column(fixed | adapting),
        lambda _, column: (PLAIN, column),
        (*claims,),
        numbers=COSTS,
        costs=True,
        pictures=("comparison",),
    )


TABLES = {"comparison": _comparison()}
