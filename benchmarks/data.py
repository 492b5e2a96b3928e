"""How long the training program waits for its data: the quickstart's, on the machine's own cores.

Where training runs on the same cores as the data's threads, what matters is that a batch lies ready
when a step has been dispatched; what the threads take from the step shows in the step's time.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from benchmarks import train
from benchmarks.report import Row
from benchmarks.timing import quartiles
from rfjax import data
from rfjax.training import config as configs
from rfjax.training import steps

SUITE = "data"
SCENES = {"train_scenes": 256, "val_scenes": 16}
WARM = 10  # steps that are not counted: compilation, and the batches made ahead meanwhile
STEPS_PER_ROUND = 4
BATCHES_PER_PART = 5  # of the iterator alone


def run(*, rounds: int) -> Iterator[Row]:
    """The wait for data, and what the iterator could deliver."""
    config = train.quickstart("composition")
    with tempfile.TemporaryDirectory() as folder:
        dataset = data.load(config.data.name, "train", data_dir=folder, **SCENES)
        batches = _batches(config, dataset)
        laps = _training(config, batches, WARM + STEPS_PER_ROUND * rounds)[WARM:]
        rates = _alone(config, batches, rounds)
    yield _wait(config, laps)
    yield _supply(config, laps, rates)


def _batches(config: Any, dataset: data.Dataset) -> Iterator[dict]:
    """The stream that the training program makes of this config."""
    options = configs.options(config.data.augmentation)
    options["crop"] = options["crop"] if any(options["crop"]) else None
    augmentation = data.Augmentation(**options)
    return data.train_iterator(
        dataset, batch_size=config.batch_size, seed=config.seed, augmentation=augmentation
    )


@dataclasses.dataclass(frozen=True)
class Lap:
    """Seconds of one turn of the loop, and of those in which it waited for a batch."""

    whole: float
    waited: float


def _training(config: Any, batches: Iterator[dict], count: int) -> list[Lap]:
    """Training as the program does it: metrics are looked at when the next step is on its way."""
    _, train_step, state = train.program(config)
    pending, laps = None, []
    for _ in range(count):
        started = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - started
        state, metrics = train_step(state, steps.shard(batch, jax.local_device_count()))
        jax.device_get(pending)
        pending = metrics
        laps.append(Lap(time.perf_counter() - started, waited))
    jax.block_until_ready(state)
    return laps


def _alone(config: Any, batches: Iterator[dict], parts: int) -> list[float]:
    """Images in a second that the iterator delivers when nothing else runs."""
    rates = []
    for part in range(parts + 2):  # in the first ones come batches that lay ready
        started = time.perf_counter()
        for _ in range(BATCHES_PER_PART):
            next(batches)
        if part >= 2:
            images = BATCHES_PER_PART * config.batch_size
            rates.append(images / (time.perf_counter() - started))
    return rates


def _case(config: Any) -> str:
    return f"{config.model.name} {config.batch_size}x64x64x3"


def _wait(config: Any, laps: Sequence[Lap]) -> Row:
    """The share of the time of training in which it waits for data."""
    whole = sum(lap.whole for lap in laps)
    waited = sum(lap.waited for lap in laps)
    return Row(
        suite=SUITE,
        case=_case(config),
        what="wait for data",
        ours=1e3 * waited / len(laps),
        against="the step",
        theirs=1e3 * whole / len(laps),
        ratio=waited / whole,
        spread=quartiles([lap.waited / lap.whole for lap in laps]),
        aim=0.02,
    )


def _supply(config: Any, laps: Sequence[Lap], rates: Sequence[float]) -> Row:
    """What the iterator alone delivers, against what training takes."""
    taken = config.batch_size * len(laps) / sum(lap.whole for lap in laps)
    delivered = statistics.median(rates)
    return Row(
        suite=SUITE,
        case=_case(config),
        what="data alone",
        ours=delivered,
        against="what training takes",
        theirs=taken,
        ratio=delivered / taken,
        spread=quartiles([rate / taken for rate in rates]),
        unit="images/s",
    )
