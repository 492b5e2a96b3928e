"""Training steps: what heads cost, how often programs are compiled, how long rfjax takes to start.

On a CPU, the steps of the quickstart, made as the training program makes them. On an accelerator,
those of whole networks at full size, their memory and their distance from the machine's limits, and
the same networks in PyTorch; that part needs nothing but JAX, Flax, optax and pytest.
"""

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import peers
from benchmarks.accelerator import cards
from benchmarks.report import Row, compared
from benchmarks.timing import Times, interleave, quartiles
from rfjax import models

SUITE = "train"

HEAD_AIMS = {"score": None, "composition": 1.15, "dog": None, "gauss_deform": 2.0, "deform": 2.0}
SCENE_CLASSES = 11
COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's event of a compiled program

NETWORKS = ("resnet_34", "drn_a_34", "drn_d_22")
NETWORK_AIMS = {"composition": 1.05, "dog": None, "gauss_deform": 1.25, "deform": None}
STREET_CLASSES = 19
TORCH_AIM = 1 / 1.3
GIB = 2.0**30


def run(*, rounds: int) -> Iterator[Row]:
    """All comparisons that this machine is meant for."""
    if jax.default_backend() != "cpu":
        yield from accelerator(rounds=rounds)
        return
    yield from _heads(rounds)
    yield from _programs()
    yield from _start_up(rounds)


def _batch(size: int, batch_size: int, num_classes: int) -> dict[str, np.ndarray]:
    """Random images and labels."""
    rng = np.random.default_rng(0)
    shape = (batch_size, size, size)
    return {
        "image": rng.normal(size=(*shape, 3)).astype(np.float32),
        "label": rng.integers(num_classes, size=shape, dtype=np.int32),
    }


def _stepping(train_step: Callable, state: Any, batch: Any) -> Callable[[], Any]:
    """The next step at each call, run to its end; `state` may be donated."""

    def step():
        nonlocal state
        state, metrics = train_step(state, batch)
        return jax.block_until_ready(metrics["loss"])

    return step


# The quickstart


def quickstart(head: str) -> Any:
    """The quickstart's config with this head."""
    from configs.quickstart import get_config

    return get_config(head)


def program(config: Any) -> tuple[Any, Callable, Any]:
    """Model, train step and first state on the devices, as the training program makes them.

    Imported here, because on an accelerator the data pipeline need not be installed.
    """
    from rfjax.training import composed, optimizers, steps
    from rfjax.training import state as states

    model = composed.build_model(config, SCENE_CLASSES, axis_name=steps.AXIS)
    structure = composed.declared(model)
    optimizer, _ = optimizers.from_config(config, structure.is_structure)
    chosen = {"trainable": config.trainable}
    train_step = steps.make_train_step(
        model, optimizer, seed=config.seed, structure=structure, **chosen
    )
    images = np.zeros((1, 64, 64, 3), np.float32)
    variables = states.initial_variables(model, jax.random.key(config.seed), images)
    state = states.create(variables, optimizer, is_structure=structure.is_structure, **chosen)
    return model, steps.data_parallel(train_step, donate=True), steps.replicate(state)


def _scenes(batch_size: int) -> dict[str, np.ndarray]:
    """A random batch of the digit scenes' shape, dealt to the devices."""
    from rfjax.training import steps

    return steps.shard(_batch(64, batch_size, SCENE_CLASSES), jax.local_device_count())


def _heads(rounds: int) -> Iterator[Row]:
    """A training step with every head against one with a plain 3x3 convolution."""
    functions = {}
    for head in ("conv3", *HEAD_AIMS):
        config = quickstart(head)
        _, train_step, state = program(config)
        functions[head] = _stepping(train_step, state, _scenes(config.batch_size))
    times = interleave(functions, rounds=rounds)
    case = f"{config.model.name} {config.batch_size}x64x64x3"
    for head, aim in HEAD_AIMS.items():
        what = f"step, {head}"
        yield compared(SUITE, case, what, times[head], "ours, conv3", times["conv3"], aim=aim)


@contextlib.contextmanager
def _compiled() -> Iterator[list[str]]:
    """A list to which the name of every program is added that is compiled inside."""
    names: list[str] = []

    def listen(event: str, seconds: float, **facts: Any) -> None:
        if event == COMPILED:
            names.append(facts.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def _programs() -> Iterator[Row]:
    """How many programs several steps, and then an evaluation, have to be compiled to."""
    from rfjax.training import scoring, steps

    config = quickstart("composition")
    model, train_step, state = program(config)
    eval_step = steps.data_parallel(steps.make_eval_step(model))
    batch = _scenes(config.batch_size)
    with _compiled() as of_steps:
        for _ in range(4):
            state, metrics = train_step(state, batch)
        jax.block_until_ready(metrics)
    images = _batch(64, config.eval_batch_size, SCENE_CLASSES)
    with _compiled() as of_evaluation:
        scoring.evaluate(eval_step, state.variables, [images] * 3)
    for what, names in (("four steps", of_steps), ("evaluation, 3 batches", of_evaluation)):
        count = len(names)
        yield Row(
            suite=SUITE,
            case=f"{config.model.name} composition",
            what=what,
            ours=count,
            against="one",
            theirs=1,
            ratio=count,
            spread=(count, count),
            aim=1,
            unit="programs",
        )


def _start_up(rounds: int) -> Iterator[Row]:
    """What rfjax adds to the import of JAX, in fresh processes."""

    def importing(name: str) -> Callable[[], object]:
        return partial(subprocess.run, [sys.executable, "-c", f"import {name}"], check=True)

    functions = {name: importing(name) for name in ("rfjax", "jax")}
    times = interleave(functions, rounds=rounds, least=0.0)
    yield compared(
        SUITE, "start-up", "import rfjax", times["rfjax"], "import jax", times["jax"], aim=1.3
    )


# Whole networks on an accelerator


@dataclasses.dataclass(frozen=True)
class Program:
    """A training step that is compiled and runs, and what XLA says that it takes."""

    step: Callable[[], Any]
    flops: float
    bytes: float  # read and written
    memory: float  # bytes that arguments, results and intermediate values need at once


def accelerator(
    *,
    rounds: int,
    networks: tuple[str, ...] = NETWORKS,
    heads: tuple[str, ...] = tuple(NETWORK_AIMS),
    size: int = 800,
    batch_size: int = 4,
    torch_device: str = "cuda",
) -> Iterator[Row]:
    """Training steps of whole networks in bfloat16, against each other, the machine, and PyTorch.

    JAX takes three quarters of the memory for itself, which leaves PyTorch the rest:
    XLA_PYTHON_CLIENT_PREALLOCATE=false lets them share it.
    """
    batch = _batch(size, batch_size, STREET_CLASSES)
    for name in networks:
        case = f"{name} {batch_size}x{size}x{size}"
        programs = _network_programs(name, ("score", *heads), batch)
        functions = {head: made.step for head, made in programs.items()}
        torch_steps = _torch_steps(name, batch, torch_device)
        times = interleave(functions | torch_steps, rounds=rounds)
        yield from _network_heads(case, times)
        for head, made in programs.items():
            yield _rate(case, head, batch_size, times[head])
            yield from _limits(case, head, made, times[head])
        yield from _memory(case, programs)
        for other in torch_steps:
            head = other.removeprefix("torch ")
            if head not in times:
                continue
            what = f"step, {head}"
            yield compared(SUITE, case, what, times[head], other, times[other], aim=TORCH_AIM)


def _network_programs(name: str, heads: tuple[str, ...], batch: Any) -> dict[str, Program]:
    """The steps of a network with every head, compiled side by side where there are cores."""
    with ThreadPoolExecutor(min(len(heads), os.cpu_count() or 1)) as pool:
        made = pool.map(lambda head: _network_program(name, head, batch), heads)
        return dict(zip(heads, made, strict=True))


def _network_program(name: str, head: str, batch: Mapping[str, np.ndarray]) -> Program:
    """One update by plain momentum, which is what the peer makes, too."""
    model = models.create(name, num_classes=STREET_CLASSES, head=head, dtype=jnp.bfloat16)
    optimizer = optax.sgd(1e-3, momentum=0.9)

    def loss_function(params, batch_stats, batch):
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updates = model.apply(
            variables, batch["image"], train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return jnp.mean(losses), updates["batch_stats"]

    def train_step(state, batch):
        params, batch_stats, momentum = state
        gradient = jax.value_and_grad(loss_function, has_aux=True)
        (loss, batch_stats), grads = gradient(params, batch_stats, batch)
        updates, momentum = optimizer.update(grads, momentum, params)
        return (optax.apply_updates(params, updates), batch_stats, momentum), {"loss": loss}

    batch = jax.device_put(dict(batch))
    variables = jax.jit(model.init)(jax.random.key(0), batch["image"][:1])
    params = variables["params"]
    state = params, variables["batch_stats"], optimizer.init(params)
    lowered = jax.jit(train_step, donate_argnums=0).lower(state, batch)
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Program(
        step=_stepping(compiled, state, batch),
        # Before it is compiled: later, convolutions may be calls that XLA counts as nothing.
        flops=lowered.cost_analysis()["flops"],
        bytes=compiled.cost_analysis()["bytes accessed"],
        memory=memory.argument_size_in_bytes + results + memory.temp_size_in_bytes,
    )


def _network_heads(case: str, times: Mapping[str, Times]) -> Iterator[Row]:
    """Every head against the plain score."""
    for head, aim in NETWORK_AIMS.items():
        if head in times:
            what = f"step, {head}"
            yield compared(SUITE, case, what, times[head], "ours, score", times["score"], aim=aim)


def _rate(case: str, head: str, batch_size: int, times: Times) -> Row:
    """Images in a second."""
    rate = batch_size / (1e-3 * times.median)
    return Row(SUITE, case, f"speed, {head}", rate, unit="images/s")


def _limits(case: str, head: str, made: Program, times: Times) -> Iterator[Row]:
    """How much of the arithmetic and of the bandwidth of the machine a step uses."""
    card = cards.find(jax.devices()[0].device_kind)
    if card is None:
        return
    for what, amount, limit, unit in (
        ("compute", made.flops / 1e12, card.bfloat16 / 1e12, "TFLOP/s"),
        ("traffic", made.bytes / 1e9, card.memory / 1e9, "GB/s"),
    ):
        rate = amount / (1e-3 * times.median)
        spread = tuple(sorted(amount / (1e-3 * ms) / limit for ms in quartiles(times.rounds)))
        against = f"limit of the {card.name}"
        yield _figure(case, f"{what}, {head}", rate, against, limit, unit=unit, spread=spread)


def _memory(case: str, programs: Mapping[str, Program]) -> Iterator[Row]:
    """The memory of every program, and the most that was ever taken on the device.

    The device's peak is that of all programs so far, which shows whether their figures are right.
    """
    least = programs["score"].memory
    for head, made in programs.items():
        taken = made.memory
        yield _figure(case, f"memory, {head}", taken / GIB, "ours, score", least / GIB, unit="GiB")
    statistics = jax.local_devices()[0].memory_stats()
    if statistics:
        peak, most = statistics["peak_bytes_in_use"], max(p.memory for p in programs.values())
        yield _figure(
            case, "peak of the device", peak / GIB, "the largest program", most / GIB, unit="GiB"
        )


def _figure(
    case: str,
    what: str,
    ours: float,
    against: str,
    theirs: float,
    *,
    unit: str,
    spread: tuple[float, float] | None = None,
) -> Row:
    """The row of two figures that are no times."""
    ratio = ours / theirs
    return Row(
        suite=SUITE,
        case=case,
        what=what,
        ours=ours,
        against=against,
        theirs=theirs,
        ratio=ratio,
        spread=spread or (ratio, ratio),
        unit=unit,
    )


# The same in PyTorch


def _torch_steps(
    name: str, batch: Mapping[str, np.ndarray], device: str
) -> dict[str, Callable[[], float]]:
    """PyTorch's training steps by "torch <head>", as far as it and the device are there."""
    torch = peers.find("torch")
    if torch is None or (device == "cuda" and not torch.cuda.is_available()):
        return {}
    from tests.models import torch_networks

    networks = torch_networks.NETWORKS | {
        "resnet_34": lambda: torch_networks.resnet((3, 4, 6, 3), expansion=1)
    }
    if name not in networks:
        return {}
    stride = models.create(name, num_classes=STREET_CLASSES).stride
    heads = {"score": lambda features: torch.nn.Conv2d(features, STREET_CLASSES, 1)}
    if peers.find("torchvision") is not None:
        heads["deform"] = _torch_deform
    torch.backends.cudnn.benchmark = True
    return {
        f"torch {head}": _torch_step(networks[name](), make, stride, batch, device)
        for head, make in heads.items()
    }


def _torch_deform(features: int) -> Any:
    """A 3x3 convolution whose taps are displaced by a regressor that starts at zero."""
    from torch import nn
    from torchvision.ops import deform_conv2d

    class Deform(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Conv2d(features, 2 * 3 * 3, 3, padding=1)
            self.conv = nn.Conv2d(features, STREET_CLASSES, 3, padding=1)
            nn.init.zeros_(self.offset.weight)
            nn.init.zeros_(self.offset.bias)

        def forward(self, x):
            weight, bias = self.conv.weight, self.conv.bias
            return deform_conv2d(x, self.offset(x), weight, bias, padding=1)

    return Deform()


def _torch_step(
    backbone: Any,
    make_head: Callable,
    stride: int,
    batch: Mapping[str, np.ndarray],
    device: str,
    features: int = 512,  # of all networks that are measured
) -> Callable[[], float]:
    """The next step at each call, run to its end: compiled, channels last, in bfloat16."""
    import torch
    from torch.nn import functional

    layout = torch.channels_last
    network = torch.nn.Sequential(backbone, make_head(features))
    network = network.to(device, memory_format=layout).train()
    images = torch.from_numpy(batch["image"]).permute(0, 3, 1, 2)  # channels stay last in memory
    images, labels = images.to(device), torch.from_numpy(batch["label"]).long().to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, fused=True)

    @torch.compile
    def loss_function(images, labels):
        scores = network(images).float()
        logits = functional.interpolate(scores, scale_factor=stride, mode="bilinear")
        return functional.cross_entropy(logits, labels)

    def step():
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = loss_function(images, labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
