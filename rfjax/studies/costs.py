"""What a training step of each row of a table costs: time, and memory.

All rows are measured in one go, a step of each in turn, since the speed of a machine drifts: of
times the ratios within a turn count. On a CPU they are times of the processor, all threads
together, which other programs hardly change. Memory is what the compiled step allocates besides its
state and its batch, as the compiler plans it.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from rfjax import nn
from rfjax._files import write_json
from rfjax._runs import read
from rfjax.studies.runs import Run, StudyError
from rfjax.studies.specs import Table
from rfjax.training import config as configs
from rfjax.training import loop, optimizers, steps
from rfjax.training import state as states
from rfjax.training.composed import build, create_task, facts

ROUNDS = 15
MEGABYTE = 2**20


def measure(table: Table, runs: Sequence[Run], path: Path) -> dict[str, dict[str, float]]:
    """Time and memory of a step of every run of a table, by its name.

    Args:
      table: whose rows are compared with one of them.
      runs: of the table; of each name the first counts.
      path: where they are kept, and found again.

    Returns:
      By name of the run step_ms, the median; step_ratio, the median over rounds of the time by that
      of the row that it is compared with; and step_mb, in 2^20 bytes.
    """
    if path.exists():
        return read(path, StudyError, "delete it, and the study measures again")
    bases = {
        cell.spec.name: table.cells[table.base(*place)].spec.name
        for place, cell in table.cells.items()
    }
    first = {run.spec.name: run for run in reversed(runs) if run.spec.name in bases}
    made = {name: step_of(first[name]) for name in bases}
    times = interleave({name: step for name, (step, _) in made.items()}, rounds=ROUNDS)
    found = {
        name: {
            "step_ms": 1e3 * statistics.median(times[name]),
            "step_ratio": ratio(times[name], times[base]),
            "step_mb": made[name][1] / MEGABYTE,
        }
        for name, base in bases.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of times that were measured in turns.

    Example:
      >>> ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
      2.0
    """
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def interleave(functions: dict[str, Callable[[], Any]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of functions that take turns, each [rounds]; every turn begins with another one.

    In its turn a function runs twice and is timed once: the first time it finds in the caches what
    the one before it has left there.
    """
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    names, times = list(functions), {name: [] for name in functions}
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            functions[name]()
            started = clock()
            functions[name]()
            times[name].append(clock() - started)
    return {name: measured[1:] for name, measured in times.items()}


def step_of(run: Run) -> tuple[Callable[[], Any], int]:
    """A function that makes the next step of a run that begins anew, and the bytes that it takes.

    It is the program that training runs, so that one which was compiled already is found again.

    Args:
      run: planned; what lies in its folder is not touched.
    """
    config = configs.from_dict(run.config)
    with config.unlocked():
        config.model.weights = ""  # which have no part in its cost
    dataset, _ = loop.datasets(config)
    task = create_task(config, facts(config, dataset))
    model = build(config, task, axis_name=steps.AXIS)
    inputs = loop.shapes(task, dataset)
    variables = states.initial_variables(model, jax.random.key(config.seed), *inputs)
    structure = nn.structure(model, variables, *inputs, train=False)
    optimizer, _ = optimizers.from_config(config, structure.is_structure)
    own = {"trainable": config.trainable}
    step = steps.make_train_step(model, optimizer, task=task, structure=structure, **own)
    state = states.create(variables, optimizer, is_structure=structure.is_structure, **own)
    with loop.train_batches(config, dataset, task) as batches:
        batch = steps.shard(next(batches), jax.local_device_count())
    batch = steps.seeded(batch, config.seed, jax.local_device_count())
    state, parallel = steps.replicate(state), steps.data_parallel(step, donate=True)
    program: Any = parallel
    compiled = program.lower(state, batch).compile()
    return _stepping(compiled, state, batch), _bytes(compiled)


def _stepping(step: Callable, state: Any, batch: Any) -> Callable[[], Any]:
    """The next step at each call, run to its end; the memory of the state is used again."""

    def advance() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics["loss"])

    return advance


def _bytes(compiled: Any) -> int:
    """What a compiled program allocates while it runs; 0 where that is not told."""
    planned = compiled.memory_analysis()
    return 0 if planned is None else planned.temp_size_in_bytes
