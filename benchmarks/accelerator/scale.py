"""What many devices and large networks cost besides arithmetic: docs/scale.md is made of this.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m benchmarks.accelerator.scale

Bytes that a step sends are read off its program, which fake devices are enough for. Times of an
interconnect are predicted from its rate; those of checkpoints, of augmentation, and of sums over
fake devices and over two processes are measured on this machine.
"""

import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

NETWORKS = ("resnet_34", "drn_a_34", "drn_d_22")
DEVICES = (8, 64, 256)
PARAMETERS = 100_000_000
SUMMED = 21_400_000  # about those of ResNet-34
# Bytes a second that a card sends: within a host (NVLink of an H100), and between hosts (400 Gbit/s
# for each card).
WITHIN, BETWEEN, PER_HOST = 450e9, 50e9, 8
HOP = 10e-6  # seconds from one device to the next, assumed
NUMBER_SIZES = {"f32": 4, "bf16": 2, "i32": 4, "f64": 8}


def communicated(name: str, size: int = 64, classes: int = 19) -> tuple[int, int, int]:
    """What a training step adds up over devices: bytes, operations, and parameters."""
    import optax

    from rfjax import models, nn
    from rfjax.training import state as states
    from rfjax.training import steps

    model = models.create(
        name, num_classes=classes, head="composition", axis_name=steps.AXIS, dtype=jnp.bfloat16
    )
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    variables = states.initial_variables(model, jax.random.key(0), image)
    optimizer = optax.sgd(0.1, momentum=0.9)
    structure = nn.structure(model, variables, image, train=False)
    step = steps.data_parallel(steps.make_train_step(model, optimizer, structure=structure))
    state = states.create(variables, optimizer)
    devices = jax.local_device_count()
    batch = {
        "image": np.zeros((devices, 1, size, size, 3), np.float32),
        "label": np.zeros((devices, 1, size, size), np.int32),
    }
    found = added(step.lower(state, batch).as_text())
    parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(state.params))
    return sum(found), len(found), parameters


def added(text: str) -> list[int]:
    """The bytes of every sum over devices in the text of a program that is lowered."""
    types = re.findall(r"stablehlo\.all_reduce.*?\}\) : \(([^)]*)\)", text, re.DOTALL)
    return [sum(map(_bytes, re.findall(r"tensor<([^>]*)>", one))) for one in types]


def _bytes(kind: str) -> int:
    """Of "8x3xf32"."""
    *sizes, dtype = kind.split("x")
    return math.prod(map(int, sizes)) * NUMBER_SIZES[dtype]


def seconds_to_add(bytes: float, devices: int) -> float:
    """Of a ring: each device sends 2 (n - 1) / n of the bytes, over the slowest of its links.

    Example:
        >>> round(1e3 * seconds_to_add(90e6, 8), 2)  # milliseconds
        0.49
    """
    rate = WITHIN if devices <= PER_HOST else BETWEEN
    return 2 * (devices - 1) / devices * bytes / rate + 2 * (devices - 1) * HOP


def checkpoint(parameters: int) -> tuple[float, float, float]:
    """Seconds to hand a state over, to have it on disk, and its gigabytes.

    The state is that of as many parameters in float32, and of their momentum.
    """
    from rfjax.training.checkpoints import Checkpoints
    from rfjax.training.state import TrainState

    rng = np.random.default_rng(0)
    params = {"layer": rng.standard_normal(parameters, dtype=np.float32)}
    state = TrainState(np.int32(1), params, {"batch_stats": {}}, {"momentum": params})
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoints(Path(folder)) as checkpoints:
            started = time.perf_counter()
            checkpoints.save(state, meta={})
            handed = time.perf_counter() - started
            checkpoints.wait()
            stored = time.perf_counter() - started
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return handed, stored, size / 1e9


def summing(bytes: int, rounds: int = 5) -> float:
    """Seconds of one sum of so many bytes over the devices of all processes, the median."""
    numbers = np.ones((jax.local_device_count(), bytes // 4), np.float32)
    add = jax.pmap(lambda part: jax.lax.psum(part, "devices"), axis_name="devices")
    placed = jax.block_until_ready(add(numbers))
    laps = []
    for _ in range(rounds):
        started = time.perf_counter()
        jax.block_until_ready(add(placed))
        laps.append(time.perf_counter() - started)
    return float(np.median(laps))


def summing_of_two(bytes: int, patience: float = 120.0) -> float:
    """The same over two processes of this machine with a device each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OF_TWO, address, str(process), str(bytes)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    try:
        told = [process.communicate(timeout=patience)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return max(float(text.split()[-1]) for text in told)


_OF_TWO = """
import sys, jax
address, process, bytes = sys.argv[1], *map(int, sys.argv[2:])
jax.distributed.initialize(address, 2, process)
from benchmarks.accelerator.scale import summing
print(summing(bytes))
"""


def augmented(images: int, size: tuple[int, int] = (1024, 2048), crop: int = 800) -> float:
    """Seconds of a thread for an image: scaled, mirrored and cropped, and made a row."""
    from rfjax import data
    from rfjax.data import rows

    rng = np.random.default_rng(0)
    example = {
        "image": rng.integers(0, 256, size=(*size, 3), dtype=np.uint8),
        "label": rng.integers(0, 19, size=size, dtype=np.uint8),
    }
    augmentation = data.Augmentation(scale=(0.5, 2.0), crop=(crop, crop), flip=True)
    normalization = data.Normalization()
    started = time.perf_counter()
    for _ in range(images):
        rows.segmentation_row(example, normalization, rng, augmentation)
    return (time.perf_counter() - started) / images


def main() -> None:
    """Prints all figures."""
    for name in NETWORKS:
        bytes, count, parameters = communicated(name)
        times = ", ".join(f"{1e3 * seconds_to_add(bytes, n):.2f} ms on {n}" for n in DEVICES)
        print(f"{name}: {parameters / 1e6:.1f} M parameters, {bytes / 1e6:.1f} MB in {count} sums")
        print(f"    predicted: {times}", flush=True)
    size, count = 4 * SUMMED, jax.local_device_count()
    alone, two = summing(size), summing_of_two(size)
    print(f"sum of {size / 1e6:.1f} MB: {1e3 * alone:.0f} ms over {count} devices of a process")
    print(f"    {1e3 * two:.0f} ms over two processes")
    handed, stored, size = checkpoint(PARAMETERS)
    print(f"checkpoint: handed over in {handed:.1f} s, stored in {stored:.1f} s, {size:.2f} GB")
    each = augmented(8)
    print(
        f"augmentation: {1e3 * each:.0f} ms an image, {1000 * each:.0f} threads for 1,000 a second"
    )


if __name__ == "__main__":
    main()
