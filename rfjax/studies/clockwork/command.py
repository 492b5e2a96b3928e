"""The arguments of the study, and what they do.

    python -m rfjax.studies clockwork --table=3.5 --seeds=3 --workdir=studies
    python -m rfjax.studies clockwork --table=3.6 --data=davis --data_dir=DIR --weights=FOLDER ...
    python -m rfjax.studies clockwork --table=all --run=runs/fcn --run=runs/pool3 --workdir=studies

Without --run it trains networks first, small ones on the frames of digit clips, or VGG-16 from
`FOLDER/vgg_16.npz` on clips in the folders of DAVIS. Finished runs of your own are told apart by
their heads and seeds: fcn_8s is cut into stages; fcn_pool3, fcn_pool4 and fcn_32s are what it is
compared with, and what is not there is left out. Started again, a study goes on.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rfjax._console import positive
from rfjax._runs import read
from rfjax.studies import frozen, scales
from rfjax.studies.clockwork import schedules, tables
from rfjax.training import config as configs
from rfjax.training import folders


def add(studies: Any) -> argparse.ArgumentParser:
    """The arguments of the study."""
    parser = studies.add_parser("clockwork", help="schedules of networks on clocks, on video")
    parser.add_argument("--table", required=True, choices=(*tables.NAMES, "all"))
    parser.add_argument(
        "--run", type=Path, action="append", default=[], help="a finished run; may be repeated"
    )
    parser.add_argument(
        "--data", choices=tuple(SCALES), default="digit_clips", help="of the trainings"
    )
    parser.add_argument("--weights", type=Path, help="folder of vgg_16.npz, for davis")
    parser.add_argument("--data_dir", default="", help="where the data lie")
    parser.add_argument("--stills", type=positive, default=128, help="that slide, at most")
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--steps", type=positive, help="of a full training, not the scale's")
    parser.add_argument("--jobs", type=positive, default=1, help="trainings at once (on a CPU)")
    return parser


def check(options: argparse.Namespace) -> None:
    """Sees that the runs are there."""
    for run in options.run:
        folders.check(run)


def run(options: argparse.Namespace) -> list[Path]:
    """Measures what the tables need, and writes them; returns the paths."""
    from rfjax.studies.clockwork import report

    names = tables.NAMES if options.table == "all" else (options.table,)
    paths = []
    for name in names:
        heads = tables.heads(name)
        places, data = _given(options) if options.run else _trained(options, heads)
        if name == tables.CHANGES:
            filled: Any = report.Changes(places, data=data)
        else:
            filled = report.Filled(name, tables.TABLES[name], places, data=data)
        written = filled.write(places[0].folder.parent)
        print(written[0].read_text())
        paths += written
    return paths


def _digits() -> ConfigDict:
    """Of a training on the frames of digit clips.

    Digits are larger than what pool4 sees, 46 pixels: of smaller ones the deepest stage has nothing
    to add.
    """
    config = configs.base()
    config.steps = 2500
    config.eval_batch_size = 32
    config.data.name = "digit_clips"
    config.data.options.size = 96
    config.data.options.min_scale = 36.0
    config.data.options.max_scale = 64.0
    config.data.options.fastest = 6.0
    config.optimizer.learning_rate = 0.05
    config.optimizer.warmup_steps = 50
    return config


SCALES = {
    "digit_clips": scales.Scale({"vgg": ("vgg_tiny", {})}, _digits, 1.0, {}),
    "davis": frozen.CLIPS,
}


def _trained(options: argparse.Namespace, heads: Sequence[str]) -> tuple[list[Any], str]:
    """Networks with these heads, trained here, by seed, and the name of the data."""
    from rfjax.studies import runs

    root = options.workdir / f"{options.data}-cpu"
    generations = runs.plan(
        [schedules.NETWORKS[options.data][head] for head in heads],
        root=root,
        scale=SCALES[options.data],
        seeds=options.seeds,
        steps=options.steps,
        data_dir=options.data_dir,
        weights=options.weights,
    )
    runs.execute(generations, jobs=options.jobs)
    found = [(run.seed, run.spec.head, run.workdir) for each in generations for run in each]
    return _places(found, root, options), options.data


def _given(options: argparse.Namespace) -> tuple[list[Any], str]:
    """Networks that are there, by seed, and the name of their data."""
    found, names = [], set()
    for workdir in options.run:
        said = read(workdir / "config.json", runs_fault(), "its run is not whole")
        found.append((said["seed"], said["model"]["head"], workdir))
        names.add(said["data"]["name"])
    if len(names) != 1:
        raise runs_fault()(f"the runs learned from several data sets: {', '.join(sorted(names))}")
    (data,) = names
    return _places(found, options.workdir / f"{data}-given", options), data


def runs_fault() -> type[Exception]:
    """The error of a study, which is imported late."""
    from rfjax.studies.runs import StudyError

    return StudyError


def _places(
    found: Sequence[tuple[int, str, Path]], root: Path, options: argparse.Namespace
) -> list[Any]:
    """The networks of each seed."""
    from rfjax.studies.clockwork.measuring import Place

    by_seed: dict[int, dict[str, Path]] = {}
    for seed, head, workdir in found:
        by_seed.setdefault(seed, {})[head] = workdir
    lacking = [seed for seed, workdirs in by_seed.items() if schedules.CUT not in workdirs]
    if lacking:
        raise runs_fault()(f"seed {lacking[0]} has no run with the head {schedules.CUT}")
    kept = root / "clockwork"
    return [
        Place(kept / f"seed{seed}", workdirs, options.data_dir, options.stills)
        for seed, workdirs in sorted(by_seed.items())
    ]
