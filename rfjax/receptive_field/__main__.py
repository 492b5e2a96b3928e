"""Prints the receptive field of a network by layer, and draws it.

    python -m rfjax.receptive_field --model=drn_c_26
    python -m rfjax.receptive_field --model=resnet_tiny --head=composition --head_option sigma=2
    python -m rfjax.receptive_field --workdir=runs/first --image=street.png --output=field.png
    python -m rfjax.receptive_field --table > docs/receptive_fields.md

The picture shows the box of the output in the middle, its effective receptive field (Luo et al.,
NIPS 2016) on the image or else on noise, and the learned Gaussians of the network's layers.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rfjax import _names
from rfjax._console import Parser, guarded, positive
from rfjax._faults import Fault
from rfjax._options import choose
from rfjax.training import folders

_DEFAULTS = {
    "step": None, "head": "score", "head_option": (), "backbone_option": (), "image": None,
    "size": None, "draws": 4, "seed": 0, "output": Path("receptive_field.png"),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    options = _parse(argv)
    return guarded("rfjax.receptive_field", partial(_run, options))


def _run(options: argparse.Namespace) -> int:
    """Checks what was given, and reports; JAX, which takes seconds, is imported in between."""
    _check(options)
    from rfjax.receptive_field import command

    try:
        command.run(options)
    except (ValueError, TypeError) as error:  # of an option that a layer does not take
        raise Fault(str(error)) from error
    return 0


def _check(options: argparse.Namespace) -> None:
    """Sees that what the arguments name is there."""
    try:
        if options.model is not None:
            choose("--model", options.model, (*_names.NETWORKS, *_names.PUBLISHED))
        if options.model in _names.NETWORKS:
            choose("--head", options.head, _names.HEADS)
        for pair in (*options.head_option, *options.backbone_option):
            name, separator, _ = pair.partition("=")
            if not (name and separator):
                raise ValueError(f"want NAME=VALUE, as sigma=2; got {pair!r}")
    except ValueError as error:
        raise Fault(str(error)) from error
    if options.workdir is not None:
        folders.check(options.workdir, step=options.step)
    if options.image is not None and not options.image.is_file():
        raise Fault(f"--image: {options.image} is not a file")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m rfjax.receptive_field",
        description="The receptive field of a network, by layer and as a picture.",
    )
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--model", help="a network of rfjax.models, or a published one: "
                        + ", ".join(_names.PUBLISHED))  # fmt: skip
    choice.add_argument("--workdir", type=Path, help="directory of a training run")
    choice.add_argument("--table", action="store_true", help="all networks, in Markdown")
    parser.add_argument("--step", type=int, help="checkpoint of the run (default: the best one)")
    parser.add_argument("--head", help="of the model (default: score)")
    for name in ("head_option", "backbone_option"):
        parser.add_argument(f"--{name}", action="append", metavar="NAME=VALUE")
    parser.add_argument("--image", type=Path, help="picture to measure and draw on")
    parser.add_argument(
        "--size", type=positive, help="pixels along each axis, of noise or the image"
    )
    parser.add_argument("--draws", type=positive, help="gradients to average (default: 4)")
    parser.add_argument("--seed", type=int, help="of weights and noise (default: 0)")
    parser.add_argument("--output", type=Path, help="picture (default: receptive_field.png)")
    return parser


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, of which none may be given where it would do nothing."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.table:
        asked, idle = "--table", [*_DEFAULTS]
    elif options.workdir:
        asked, idle = "--workdir", ["head", "head_option", "backbone_option"]
    else:
        asked = f"--model={options.model}"
        idle = [*_DEFAULTS] if options.model in _names.PUBLISHED else ["step"]
    given = [f"--{name}" for name in idle if getattr(options, name) is not None]
    if given:
        parser.error(f"{asked} does not take {', '.join(given)}")
    for name, value in _DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


if __name__ == "__main__":
    sys.exit(main())
