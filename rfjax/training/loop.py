"""The training program: set up, resume, step, evaluate, save, report.

`train` reads as a list of these phases. Everything that is computed on devices is in `steps`; the
loop only feeds it, and looks at its metrics one step late.
"""

import dataclasses
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen
from ml_collections import ConfigDict

from rfjax import data, nn, tasks
from rfjax._faults import Fault
from rfjax._lock import held
from rfjax.training import config as configs
from rfjax.training import maps, optimizers, pictures, reporting, scoring, sigmas, steps, weights
from rfjax.training import state as states
from rfjax.training.average import averaged
from rfjax.training.checkpoints import Checkpoints, NonFiniteState
from rfjax.training.composed import build, create_task, facts
from rfjax.training.feed import Feed, faults
from rfjax.training.interruption import Interrupted, Interruption
from rfjax.training.preparation import EVAL_SPLIT as EVAL_SPLIT
from rfjax.training.preparation import datasets as datasets
from rfjax.training.preparation import first_process
from rfjax.training.preparation import shapes as shapes
from rfjax.training.preparation import train_batches as train_batches
from rfjax.training.state import TrainState


class TrainingFailed(Fault, RuntimeError):
    """A run that cannot go on; the message says why, and what to do."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What does not change while a run goes on."""

    config: ConfigDict
    workdir: Path
    task: tasks.Task
    train_data: data.Dataset
    eval_data: data.Dataset
    model: linen.Module
    train_step: Callable
    eval_step: Callable
    schedule: Callable
    structure: nn.Structure
    pictures: pictures.Pictures
    anew: tuple[str, ...]  # the layers that `model.weights` has nothing for

    def meta(self, batches: Any, waited: int) -> dict[str, Any]:
        """What a checkpoint holds besides arrays, to go on and to do without the data set.

        The position of `batches` is a count that is the same in every process, and for every number
        of processes, so a run may be resumed by more or fewer of them. `waited` is how many
        evaluations in a row had no better score than the one before them.
        """
        return {
            "config": self.config.to_dict(),
            "batches": batches.get_state(),
            "dataset": dict(self.task.facts),
            "waited": waited,
        }

    def is_over(self, waited: int) -> bool:
        """Whether so many evaluations without a better score end it."""
        return 0 < self.config.stop_after <= waited


def train(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains the network of `config`, going on where `workdir` stands, and returns its result.

    Args:
        config: a config made from `rfjax.training.config.base`.
        workdir: the run's directory, which all processes share.

    Returns:
        The content of `result.json`: `step`, the scores of the last evaluation, `best` (the step
        and the score of the best checkpoint, {} if none was scored), `sigmas` (learned standard
        deviations [y, x] by layer), `images_per_second` and `seconds`, the time that all steps
        take at this speed.

    Raises:
        ConfigError: for a config that cannot be run, or that is not the one of the run in
        `workdir`. InUse: another run works in `workdir`. DataError: an example cannot be read.
        CheckpointError: no checkpoint in `workdir` is sound, or the state cannot be saved.
        TrainingFailed: if the loss or the parameters stop being finite. OSError: another file
        cannot be written. Interrupted: after SIGTERM or SIGINT, with the state saved.
    """
    configs.validate(config, devices=jax.device_count())
    workdir = Path(workdir).absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    with (
        held(workdir) if jax.process_index() == 0 else nullcontext(),
        Interruption() as stop,
        _checkpoints(config, workdir) as checkpoints,
    ):
        latest = checkpoints.latest_step
        stored = None if latest is None else checkpoints.meta(latest)
        if stored:
            configs.check_compatible(configs.from_dict(stored["config"]), config, workdir)
        run, state = _set_up(config, workdir, stored)
        if stored:
            state = checkpoints.restore(state)
        run = _from_maps(run, state)
        with train_batches(config, run.train_data, run.task) as batches:
            if stored:
                batches.set_state(stored["batches"])
            state = steps.replicate(state, parallel=config.parallel)
            with _reporter(run, start=int(state.step)) as reporter:
                reporter.say(_introduction(run, int(state.step)))
                if stored and (line := _lengthened(run, stored["config"], int(state.step))):
                    reporter.say(line)
                waited = stored.get("waited", 0) if stored else 0
                try:
                    return _run(run, state, batches, checkpoints, reporter, stop, waited)
                except (reporting.NonFiniteLoss, NonFiniteState) as error:
                    checkpoints.wait()
                    raise TrainingFailed(_advice(error, checkpoints.latest_step)) from error


def _checkpoints(config: ConfigDict, workdir: Path) -> Checkpoints:
    """The run's checkpoints; process 0 sees to the damaged ones before others look."""
    with first_process("checkpoints"):
        return Checkpoints(workdir, keep_latest=config.keep_latest)


def _advice(error: Exception, saved: int | None) -> str:
    """What a person can do about a run that diverged."""
    kept = (
        "No checkpoint was saved yet."
        if saved is None
        else f"The checkpoint of step {saved} is kept."
    )
    return (
        f"{error}. {kept} Use a new --workdir with a smaller optimizer.learning_rate, "
        "optimizer.warmup_steps, or optimizer.grad_clip."
    )


# -- set up ----------------------------------------------------------------------------------------


def _set_up(
    config: ConfigDict, workdir: Path, stored: dict[str, Any] | None
) -> tuple[Run, TrainState]:
    """Data, network, steps and the state before the first step; `stored`: of a run that goes on."""
    train_data, eval_data = datasets(config)
    task, inputs = _task(config, train_data, eval_data, stored)
    model = build(config, task, axis_name=steps.AXIS)
    try:  # the head's layers check their options as they are built
        variables = states.initial_variables(model, jax.random.key(config.seed), *inputs)
    except (TypeError, ValueError) as error:
        raise configs.ConfigError(f"model: {error}") from error
    structure = nn.structure(model, variables, *inputs, train=False)
    drawn, anew = variables, ()
    if not stored and config.model.weights:
        known = {"num_classes": train_data.num_classes, "channels": len(train_data.mean)}
        variables = weights.load(config, variables, **known)
        anew = weights.anew(drawn, variables)
    optimizers.check_patterns(config, variables["params"])
    optimizer, schedule = optimizers.from_config(config, structure.is_structure)
    average = averaged(config)
    train_step = steps.make_train_step(
        model,
        optimizer,
        task=task,
        trainable=config.trainable,
        structure=structure,
        average=average,
    )
    try:
        state = states.create(
            variables,
            optimizer,
            trainable=config.trainable,
            is_structure=structure.is_structure,
            averaged=average is not None,
        )
    except ValueError as error:
        raise configs.ConfigError(str(error)) from error
    if config.steps_per_call > 1:
        train_step = steps.repeated(train_step)
    run = Run(
        config=config,
        workdir=workdir,
        task=task,
        train_data=train_data,
        eval_data=eval_data,
        model=model,
        train_step=steps.data_parallel(train_step, donate=True, parallel=config.parallel),
        eval_step=steps.data_parallel(
            steps.make_eval_step(model, task=task), parallel=config.parallel
        ),
        schedule=schedule,
        structure=structure,
        pictures=pictures.Pictures(workdir, task, model, eval_data),
        anew=anew,
    )
    if jax.process_index() == 0:
        reporting.write_json(workdir / "config.json", config.to_dict())
    return run, state


def _task(
    config: ConfigDict,
    train_data: data.Dataset,
    eval_data: data.Dataset,
    stored: dict[str, Any] | None,
) -> tuple[tasks.Task, tuple]:
    """The task, which the data fit, and what its network reads, as shapes and types."""
    with faults("data"):
        known = facts(config, train_data, stored=stored and stored["dataset"])
    task = create_task(config, known)
    with faults("data"):
        for dataset in (train_data, eval_data):
            task.check(dataset)
        return task, shapes(task, train_data)


def _from_maps(run: Run, state: TrainState) -> Run:
    """The run whose steps start from cached maps, where its config says so."""
    if not run.config.data.cache.map:
        return run
    both = (run.train_data, run.eval_data)
    of = (run.config, run.workdir, run.model, state.variables, run.task)
    with first_process("maps"):
        train_data, eval_data = maps.cached(*of, both, run.structure.is_structure)
    return dataclasses.replace(run, train_data=train_data, eval_data=eval_data)


def _reporter(run: Run, *, start: int) -> reporting.Reporter:
    config = run.config
    return reporting.Reporter(
        run.workdir,
        run.task,
        start=start,
        steps=config.steps,
        batch_size=config.batch_size,
        steps_per_call=config.steps_per_call,
        log_every=config.log_every,
        schedule=run.schedule,
        writes=jax.process_index() == 0,
    )


def _introduction(run: Run, start: int) -> str:
    """What is about to happen, in one line."""
    config = run.config
    verb = f"resuming at step {start}:" if start else "training"
    return (
        f"{verb} {config.model.name} with head {config.model.head} on {config.data.name} "
        f"({len(run.train_data.source)} images), {config.steps} steps of {config.batch_size} "
        f"on {jax.device_count()} {jax.devices()[0].platform} device(s); files in {run.workdir}"
    ) + (f"; drawn anew: {', '.join(run.anew)}" if run.anew else "")


def _lengthened(run: Run, before: dict[str, Any], step: int) -> str:
    """What more steps change in the learning rate of a run that goes on, "" if nothing."""
    old = configs.from_dict(before)
    if not configs.lengthened(old, run.config):
        return ""
    _, former = optimizers.from_config(old, run.structure.is_structure)
    return (
        f"{run.config.steps} steps, where {old.steps} were planned: from here on the learning rate "
        f"is that of {run.config.steps} steps by {run.config.optimizer.schedule}, "
        f"{float(run.schedule(step)):.3g} and not {float(former(step)):.3g}"
    )


# -- the loop --------------------------------------------------------------------------------------


def _run(
    run: Run,
    state: TrainState,
    batches: Any,
    checkpoints: Checkpoints,
    reporter: reporting.Reporter,
    stop: Interruption,
    waited: int,
) -> dict[str, Any]:
    """Steps to the end, with evaluations and checkpoints between; returns the result."""
    config, scores = run.config, None
    calls, over = config.steps_per_call, run.is_over(waited)
    for step in range(int(state.step) + calls, 1 if over else config.steps + 1, calls):
        state = _call(run, state, batches, reporter, step)
        last, signum = step == config.steps, stop.reached(step)
        evaluates = last or step % config.eval_every == 0
        saves = evaluates or signum or step % config.checkpoint_every == 0
        if saves:
            reporter.flush()
        scores = _evaluation(run, state, step, reporter) if evaluates else None
        if scores and run.task.is_scored(scores):
            best = checkpoints.best_score
            waited = waited + 1 if best is not None and scores[run.task.score] <= best else 0
        if saves:
            score = scores and scores[run.task.score]
            checkpoints.save(state, meta=run.meta(batches, waited), score=score)
        over = run.is_over(waited)
        if signum and not last and not over:
            checkpoints.wait()
            raise Interrupted(signum, step)
        if over:
            break
    checkpoints.wait()
    best = _best(run, checkpoints)
    if over and int(state.step) < config.steps:
        reporter.say(
            f"stopped at step {int(state.step)}: the last {waited} evaluations were not above "
            f"{run.task.headline(best)} of step {best['step']} (stop_after={config.stop_after})"
        )
    return _result(run, state, scores, best, reporter)


def _best(run: Run, checkpoints: Checkpoints) -> dict[str, Any]:
    """The step and the score of the checkpoint that is used, {} where none was scored."""
    score = checkpoints.best_score
    return {} if score is None else {"step": checkpoints.best_step, run.task.score: score}


def _call(
    run: Run, state: TrainState, batches: Any, reporter: reporting.Reporter, last: int
) -> TrainState:
    """The state after the steps of one call of the devices, of which `last` is the last."""
    count, devices = run.config.steps_per_call, jax.local_device_count()
    asked = time.perf_counter()
    taken = [next(batches) for _ in range(count)]
    waited = time.perf_counter() - asked
    batch = steps.shard(taken[0], devices) if count == 1 else steps.stack(taken, devices)
    batch = steps.seeded(batch, run.config.seed, devices, count)
    state, metrics = run.train_step(state, batch)
    reporter.push(last, metrics, waited=waited)
    return state


def _result(
    run: Run,
    state: TrainState,
    scores: dict[str, Any] | None,
    best: dict[str, Any],
    reporter: reporting.Reporter,
) -> dict[str, Any]:
    """Writes and returns the result; its scores may be those of an earlier session."""
    step = int(state.step)
    records = reporting.read_records(run.workdir)
    scores = scores or _recorded(records, step) or _evaluation(run, state, step, reporter)
    speeds = [r["images_per_second"] for r in records if r.get("images_per_second")]
    speed = float(np.median(speeds)) if speeds else None
    covariances = run.structure.covariances(jax.device_get(state.result["params"]))
    learned = jax.device_get(sigmas.standard_deviations(covariances))
    result = {
        "step": step,
        **scores,
        "best": best,
        "sigmas": {layer: value.tolist() for layer, value in learned.items()},
        "images_per_second": speed,
        "seconds": run.config.batch_size * step / speed if speed else None,
    }
    if jax.process_index() == 0:
        reporting.write_json(run.workdir / "result.json", result)
    return result


def _recorded(records: list[dict[str, Any]], step: int) -> dict[str, Any] | None:
    """The scores of an evaluation at `step` that was made before, or None."""
    for record in reversed(records):
        if record["step"] == step and record["split"] == EVAL_SPLIT:
            return {key: record[key] for key in record if key not in ("step", "split", "seconds")}
    return None


def _evaluation(
    run: Run, state: TrainState, step: int, reporter: reporting.Reporter
) -> dict[str, Any]:
    """Evaluates on full images, tells the scores and draws the figures."""
    started = time.perf_counter()
    batches = data.eval_batches(
        run.eval_data,
        batch_size=scoring.eval_rows(run.config.eval_batch_size),
        row=run.task.row,
        blank=run.task.blank,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        devices=jax.local_device_count(),
    )
    with Feed(batches, "data") as feed:
        scores = scoring.evaluate(run.eval_step, state.result, feed, task=run.task)
    seconds = time.perf_counter() - started
    reporter.evaluation(step, scores, split=EVAL_SPLIT, seconds=seconds)
    if jax.process_index() == 0:
        variables = jax.device_get(state.result)
        covariances = run.structure.covariances(variables["params"])
        drawn = run.pictures.draw(variables, covariances, say=reporter.say)
        for name, rgb in drawn.items():
            reporter.picture(step, name, rgb)
    return scores
