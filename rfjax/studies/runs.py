"""The training runs of a study: planned, chained by checkpoints, resumed where they were stopped.

Every run has a directory of its own, of `rfjax.training`; a finished one is never trained again,
and an unfinished one goes on. So a study may be killed at any moment and started again.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rfjax import training
from rfjax._faults import Fault, reason
from rfjax._lock import held
from rfjax._progress import duration
from rfjax._runs import read, refuse
from rfjax.studies import scales
from rfjax.studies.specs import Spec
from rfjax.tasks.registry import TASKS
from rfjax.training import config as configs
from rfjax.training import reporting

RESULT, FAILURE, LOG = "result.json", "failure.json", "log.txt"
_DAMAGED = "delete it, and the run goes on from there"


class StudyError(Fault, RuntimeError):
    """A study that cannot go on; the message says why, and what to do."""


@dataclass(frozen=True)
class Run:
    """One training run, which another process may be handed.

    Attributes:
      spec, seed: what it is.
      workdir: its directory.
      config: of its training, as a nested dictionary.
    """

    spec: Spec
    seed: int
    workdir: Path
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.spec.name}, seed {self.seed}"

    @property
    def done(self) -> bool:
        """Whether it has an outcome."""
        return (self.workdir / RESULT).exists() or (self.workdir / FAILURE).exists()

    def outcome(self) -> dict[str, Any] | None:
        """The content of its result.json; None if the training diverged.

        Raises:
          StudyError: it has not been trained, or with another config.
        """
        if (self.workdir / FAILURE).exists():
            return None
        if not (self.workdir / RESULT).exists():
            raise StudyError(f"{self.workdir} has no result; run the study first")
        found = read(self.workdir / RESULT, StudyError, _DAMAGED)
        if found.get(self._task.score) is None:
            raise StudyError(
                f"nothing was scored in {self.workdir}, since every validation label is void"
            )
        return found

    @property
    def _task(self) -> Any:
        """The class of its task, which names the score."""
        return TASKS[self.config["task"]["name"]]

    def score(self) -> str:
        """Its score for people."""
        outcome, task = self.outcome(), self._task
        if outcome is None:
            return "diverged"
        value = outcome[task.score]
        return f"{task.title} {100 * value:.2f} %" if task.percent else f"{task.title} {value:.4f}"

    def check(self) -> None:
        """Raises a `StudyError` if what lies in its directory was trained otherwise."""
        path = self.workdir / "config.json"
        if not path.exists():
            return
        old = configs.from_dict(read(path, StudyError, _DAMAGED))
        found = configs.incompatible(old, configs.from_dict(self.config))
        refuse(f"the run in {self.workdir}", found, StudyError)


def plan(
    specs: Sequence[Spec],
    *,
    root: Path,
    scale: scales.Scale,
    seeds: int,
    steps: int | None = None,
    data_dir: str = "",
    weights: Path | None = None,
) -> list[list[Run]]:
    """The runs of `specs` in generations, of which each starts from the one before.

    Args:
      specs: what is trained, parents included.
      root: where the runs' directories lie.
      scale: of the study.
      seeds: how many, from 0.
      steps: of a full training, or None for the scale's.
      data_dir: where the data lie, "" for their default.
      weights: directory with pretrained weights, `<model>.npz` with torch's names, or None.

    Raises:
      StudyError: runs with another config lie there, or weights are missing.
    """
    generations: dict[int, list[Run]] = {}
    for seed in range(seeds):
        for spec in specs:
            config = scales.run_config(spec, scale, seed=seed, steps=steps, data_dir=data_dir)
            if spec.parents:
                folders = (str(_folder(root, each, seed)) for each in spec.parents)
                config.model.weights = ",".join(folders)
            elif weights is not None and spec.weights != "none":
                config.model.weights = str(weights.absolute() / f"{config.model.name}.npz")
            elif spec.weights == "wanted":
                name = f"{config.model.name}.npz"
                raise StudyError(f"{spec.name} starts from a trained trunk: --weights, with {name}")
            if config.data.cache.map:
                trunk = f"seed{seed}" if spec.lineage[0].weights == "none" else "trained"
                config.data.cache.dir = str(root.absolute() / "maps" / trunk)
            run = Run(spec, seed, _folder(root, spec, seed), config.to_dict())
            run.check()
            generations.setdefault(len(spec.lineage), []).append(run)
    return [generations[number] for number in sorted(generations)]


def _folder(root: Path, spec: Spec, seed: int) -> Path:
    return root.absolute() / "runs" / spec.name / f"seed{seed}"


def execute(
    generations: Sequence[Sequence[Run]], *, jobs: int = 1, say: Callable[[str], None] = print
) -> None:
    """Trains all runs that are not done.

    Args:
      generations: from `plan`.
      jobs: how many run at once, each in a process of its own; 1 runs them in this process.
      say: is told of each run that ends.

    Raises:
      StudyError: a run failed for another reason than that its training diverged.
    """
    left = sum(not run.done for runs in generations for run in runs)
    started, finished = time.monotonic(), 0
    for runs in generations:
        for run, seconds in _completed([run for run in runs if not run.done], jobs):
            finished += 1
            spent = time.monotonic() - started
            remaining = duration(spent / finished * (left - finished))
            said = f"[{finished}/{left}] {run.title}: {run.score()}, {seconds:.0f} s"
            say(f"{said}; about {remaining} left")


def _completed(runs: Sequence[Run], jobs: int) -> Iterator[tuple[Run, float]]:
    """Each run as it ends, and how long it took."""
    if jobs == 1:
        for run in runs:
            yield run, _train(run)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_enter, initargs=(os.getpid(),)) as pool:
        pending = {pool.submit(_train, run): run for run in runs}
        try:
            for future in as_completed(pending):
                yield pending[future], future.result()
        except BrokenProcessPool as error:
            raise StudyError("a worker was killed; the same command goes on") from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _enter(parent: int) -> None:
    """Sets up a worker, which must not outlive its study: a second one may train the same run."""
    training.use_compilation_cache()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train(run: Run) -> float:
    """Trains one run to its end, its words in a file; returns the seconds that it took."""
    started = time.monotonic()
    run.workdir.mkdir(parents=True, exist_ok=True)
    try:
        _check_parents(run)
        with (
            held(run.workdir),
            (run.workdir / LOG).open("a") as log,
            redirect_stdout(log),
            redirect_stderr(log),
        ):
            if not run.done:  # by another study, a moment ago
                training.train(configs.from_dict(run.config), run.workdir)
    except training.TrainingFailed as error:
        reporting.write_json(run.workdir / FAILURE, {"message": str(error)})
    except (Fault, OSError) as error:
        raise StudyError(f"{run.title}: {reason(error)}") from error
    return time.monotonic() - started


def _check_parents(run: Run) -> None:
    """What starts from a training that diverged has diverged."""
    folders = run.config["model"]["weights"].split(",") if run.spec.parents else []
    if any((Path(folder) / FAILURE).exists() for folder in folders):
        raise training.TrainingFailed("the run that it starts from diverged")
