"""Weights of another program as arrays with the names that networks here take, and where they go.

    python -m rfjax.models.convert IN OUT.npz                 for the network that fits best
    python -m rfjax.models.convert IN OUT.npz --model=resnet_50

IN is an .npz, .safetensors, .pth, .pt or .bin file; see `rfjax.models.weight_files`. Training takes
such files as they are, by --config.model.weights=IN; this program shows what it would make of them,
and writes a file that is small and plain: float32, no optimizer, no wrappers.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rfjax import _names
from rfjax._checks import choose
from rfjax._console import Parser, called, guarded, tell
from rfjax._faults import Fault


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 1 if the weights do not fit."""
    options = _parser().parse_args(argv)
    return guarded("rfjax.models.convert", partial(_run, options))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m rfjax.models.convert",
        description="Shows where weights go in a network, and writes them as an .npz.",
    )
    parser.add_argument("input", metavar="IN", type=Path, help="file of weights")
    parser.add_argument("output", metavar="OUT.npz", type=Path, help="file to be written")
    parser.add_argument("--model", help="the network (default: the one that fits best)")
    return parser


def _run(options: argparse.Namespace) -> int:
    """Reads, shows and writes."""
    if options.output.suffix != ".npz":
        raise Fault(f"want a name that ends in .npz; got {options.output}")
    import numpy as np

    from rfjax.models import matching, torch_import, weight_files

    try:
        if options.model is not None:
            choose("--model", options.model, tuple(_names.NETWORKS))
        arrays, notes = weight_files.read(options.input)
        model = options.model
        if weight_files.is_own(arrays):
            raise Fault(f"{options.input}: its names are those of rfjax already; train from it")
        fit = matching.nearest(arrays) if model is None else matching.match(model, arrays)
        given = torch_import.canonical(fit.name, arrays) if fit.found else {}
    except ValueError as error:
        raise Fault(str(error)) from error
    for note in notes:
        print(note)
    if not fit.found:
        raise Fault(f"{options.input}: none of its {len(arrays)} arrays fits a network here")
    print(f"{fit.name}: {fit.found} of {fit.wanted} arrays of the backbone")
    missing = _show(torch_import.expected(fit.name), given)
    plain = {name: np.asarray(array, np.float32) for name, array in given.items()}
    weight_files.write(options.output, plain, form="npz")
    print(f"written: {options.output}")
    if missing:
        lacking = f"{fit.name} lacks {missing} arrays and cannot start so"
        tell(f"{called('rfjax.models.convert')}: note: {lacking}")
    return 1 if missing else 0


def _show(expected: dict, given: dict) -> int:
    """One line for each array; returns how many are missing or of another shape."""
    missing = 0
    for name, (path, shape) in expected.items():
        found = given[name].shape if name in given else None
        fits = found == shape
        missing += not fits
        place = "/".join(path[1:])
        told = f"{name} {shape} -> {place}" if fits else f"{name}: want {shape}, got {found}"
        print(f"  {told}")
    for name in given:
        if name not in expected:
            print(f"  {name} {given[name].shape}: of a head, or left out")
    return missing


if __name__ == "__main__":
    sys.exit(main())
