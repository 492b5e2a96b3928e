"""Measures rfjax against every peer that is installed, in one interleaved run.

    python -m benchmarks gaussian --output=runs/benchmarks
    python -m benchmarks --check
    python -m benchmarks tuning
    python -m benchmarks clockwork --rounds=5
    python -m benchmarks accelerator --output=runs/accelerator    (see benchmarks/accelerator)

Writes benchmarks.json and benchmarks.md; with --check, ends with 1 if an aim is not reached.
"""

import argparse
import importlib
import sys
from pathlib import Path

SUITES = ("gaussian", "deform", "resample", "adaptive", "search", "train", "data")
EXTRA = ("tuning", "clockwork", "guide")  # only where they are named


def main(arguments: list[str] | None = None) -> int:
    """Runs the suites that are named; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["accelerator"]:
        from benchmarks.accelerator import program

        return program.main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = f"of {', '.join(SUITES)}; these by default, or {', '.join(EXTRA)}"
    parser.add_argument("suites", nargs="*", metavar="suite", help=names)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each function (15)")
    parser.add_argument("--check", action="store_true", help="fail where an aim is not reached")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/benchmarks"), help="folder (%(default)s)"
    )
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.suites) - {*SUITES, *EXTRA})
    if unknown or options.rounds < 1:
        parser.error(f"no suite {unknown}" if unknown else "--rounds must be at least 1")
    from benchmarks import report

    rows = []
    for name in options.suites or SUITES:
        print(f"{name}:", flush=True)
        for row in importlib.import_module(f"benchmarks.{name}").run(rounds=options.rounds):
            print(report.line(row), flush=True)
            rows.append(row)
            report.write(rows, options.output)
    missed = [row for row in rows if row.reached is False]
    print(f"{len(rows)} rows, {len(missed)} short of their aim; see {options.output}/benchmarks.md")
    return int(options.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
