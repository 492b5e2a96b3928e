"""A pmapped run that is saved, killed without warning, and goes on.

    python -m benchmarks.accelerator.resuming --workdir=DIR --steps=60

trains the quickstart's network with the library's steps and checkpoints on scenes drawn in memory,
so that the data pipeline need not be installed. The case starts it twice in one folder, kills the
first process once a checkpoint lies there, and compares what the second ends with to a process that
was left alone.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator.program import Case, case
from benchmarks.report import Row

SUITE = "resuming"
CLASSES, SIDE, ROWS = 11, 64, 16
PATIENCE = 120  # seconds until a process is given up
SAVES = 4  # checkpoints of a whole run


def cases(*, small: bool) -> list[Case]:
    """One run, killed after its first checkpoint."""
    return [case("save, kill, resume", killed_and_resumed, steps=12 if small else 200)]


def killed_and_resumed(steps: int) -> Iterator[Row]:
    """How far the run that was killed ends from the one that was not, and its speed."""
    with tempfile.TemporaryDirectory() as folder:
        alone, broken = Path(folder, "alone"), Path(folder, "broken")
        process = _start(alone, steps)
        try:
            killed_at = _kill(_start(broken, steps), broken)
            _finish(process)
        finally:
            process.kill()
        # Nothing else runs beside this one: its speed counts.
        _finish(_start(broken, steps))
        results = [json.loads((run / "result.json").read_text()) for run in (alone, broken)]
        error = _distance(alone, broken)
    first, second = results
    title = f"resnet_tiny {ROWS}x{SIDE}x{SIDE} on {jax.local_device_count()} devices"
    yield Row(SUITE, title, "killed after step", killed_at, unit="steps")
    yield Row(SUITE, title, "resumed at step", second["resumed_at"], unit="steps")
    yield Row(SUITE, title, "speed", second["images_per_second"], unit="images/s")
    yield Row(SUITE, title, "one checkpoint", 1e3 * second["seconds_to_save"], unit="ms")
    yield Row(SUITE, title, "loss at the end", second["loss"], "the run left alone", first["loss"],
              second["loss"] / first["loss"], unit="nats")  # fmt: skip
    yield Row(SUITE, title, "largest difference of a parameter", 1e6 * error, unit="e-6")


def _start(workdir: Path, steps: int) -> subprocess.Popen:
    command = [sys.executable, "-m", __name__, f"--workdir={workdir}", f"--steps={steps}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(process: subprocess.Popen) -> None:
    """Waits for a process, and raises with its last line where it failed."""
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if process.returncode:
        raise RuntimeError(f"the run ended with {process.returncode}: {said.splitlines()[-1]}")


def _kill(process: subprocess.Popen, workdir: Path) -> int:
    """Kills a process as soon as a step was saved, and returns the last step that it told."""
    told, until = workdir / "step", time.monotonic() + PATIENCE
    while not told.exists() or not int(told.read_text() or 0):
        if process.poll() is not None:
            _finish(process)
        if time.monotonic() > until:
            process.kill()
            raise RuntimeError(f"no checkpoint after {PATIENCE:g} seconds")
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return int(told.read_text())


def _distance(*workdirs: Path) -> float:
    """Between the parameters of the last checkpoints of two runs."""
    from rfjax.training.checkpoints import load

    one, other = (load(workdir)[0]["params"] for workdir in workdirs)
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


# What the processes run


def scenes(step: int) -> dict[str, np.ndarray]:
    """The batch of a step: squares of a class each, on noise; the same whenever it is asked for."""
    rng = np.random.default_rng(step)
    image = 0.3 * rng.standard_normal(size=(ROWS, SIDE, SIDE, 3), dtype=np.float32)
    label = np.zeros((ROWS, SIDE, SIDE), np.int32)
    for row in range(ROWS):
        size, kind = rng.integers(12, 32), rng.integers(1, CLASSES)
        y, x = rng.integers(0, SIDE - size, size=2)
        square = row, slice(y, y + size), slice(x, x + size)
        label[square] = kind
        # Colors tell the classes apart.
        image[square] += np.array([kind % 3, kind // 3 % 3, kind // 9], np.float32) - 1.0
    return {"image": image, "label": label}


def _program(steps: int) -> tuple[Any, Any]:
    """The parallel step of the quickstart's network, and the first state."""
    import optax

    from rfjax import models, nn
    from rfjax.training import state as states
    from rfjax.training import steps as stepping

    model = models.create(
        "resnet_tiny", num_classes=CLASSES, head="composition", axis_name=stepping.AXIS
    )
    optimizer = optax.sgd(optax.linear_schedule(0.1, 0.0, steps), momentum=0.9)
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32)
    variables = states.initial_variables(model, jax.random.key(0), images)
    structure = nn.structure(model, variables, images, train=False)
    step = stepping.make_train_step(model, optimizer, structure=structure)
    return stepping.data_parallel(step, donate=True), states.create(variables, optimizer)


def train(workdir: Path, steps: int) -> dict[str, float]:
    """Trains to the end from where `workdir` stands; tells each step that was saved."""
    from rfjax.training import steps as stepping
    from rfjax.training.checkpoints import Checkpoints

    step_function, state = _program(steps)
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(workdir) as checkpoints:
        if checkpoints.latest_step is not None:
            state = checkpoints.restore(state)
        resumed_at, saving, laps = int(state.step), 0.0, []
        state = stepping.replicate(state)
        for number in range(resumed_at, steps):
            started = time.perf_counter()
            batch = stepping.shard(scenes(number), jax.local_device_count())
            state, metrics = step_function(state, batch)
            loss = float(metrics["loss"])
            laps.append(time.perf_counter() - started)
            if (number + 1) % max(1, steps // SAVES) == 0 or number + 1 == steps:
                saving = _save(checkpoints, state, workdir)
    return {
        "resumed_at": resumed_at,
        "loss": loss,
        "images_per_second": ROWS / float(np.median(laps)),
        "seconds_to_save": saving,
    }


def _save(checkpoints: Any, state: Any, workdir: Path) -> float:
    """Saves the state, tells its step, and returns the seconds that it took."""
    started = time.perf_counter()
    checkpoints.save(state, meta={})
    checkpoints.wait()
    seconds = time.perf_counter() - started
    told = workdir / "step.new"
    told.write_text(str(int(state.step)))
    os.replace(told, workdir / "step")
    return seconds


def main() -> None:
    """One process: trains, and writes result.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    signal.alarm(PATIENCE)  # it ends by itself, even where the one that started it has ended
    result = train(options.workdir, options.steps)
    (options.workdir / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
