"""Values and gradients of every primitive, layer and head: the device against float64 on the host.

The cases are those which the tests run on several devices. An error above the bound is measured
once more with products in full precision: where that cures it, reduced products (TF32) leaked.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.program import Case, case
from benchmarks.report import Row
from rfjax._engine import tuning

BOUND = 2e-6  # of an error, relative to the largest number of its array
SUITE = "correctness"
SMALL = 3  # primitives; two layers, and two heads


def cases(*, small: bool) -> list[Case]:
    """One for every primitive, layer and head."""
    from rfjax.models.heads import HEADS
    from tests.models import head_cases
    from tests.nn import layer_cases
    from tests.primitive_cases import CASES

    kinds = {
        "primitive": (list(CASES), CASES.__getitem__),
        "layer": (list(layer_cases.LAYERS), layer_cases.case),
        "head": (list(HEADS), head_cases.case),
    }
    return [
        case(f"{kind} {name}", _compare, f"{kind} {name}", made, name)
        for kind, (names, made) in kinds.items()
        for name in (names[: SMALL if kind == "primitive" else 2] if small else names)
    ]


def _compare(title: str, made: Callable, name: str) -> Iterator[Row]:
    """The largest error of value and gradients, and where it is too large its cause."""
    function, _, operands = made(name)
    wanted = _reference(function, operands)
    error = _largest(_on_device(function, operands), wanted)
    yield _row(title, "as the library sets it", error)
    if error > BOUND:
        with jax.default_matmul_precision("highest"):
            yield _row(title, "all products in full precision", _largest(
                _on_device(function, operands), wanted))  # fmt: skip


def _row(title: str, what: str, error: float) -> Row:
    ratio = error / BOUND
    return Row(
        SUITE, title, what, 1e6 * error, "the bound", 1e6 * BOUND, ratio, aim=1.0, unit="e-6"
    )


def _both(function: Callable) -> Callable:
    """(cotangent, *operands) -> the value and the operands' cotangents."""
    from tests.placements import values_and_gradients

    # A function of its own, so that programs of another precision are not taken from the cache.
    def both(cotangent, *operands):
        # Networks give scores in float32, whatever they compute in.
        dtype = jax.eval_shape(function, *operands).dtype
        return values_and_gradients(function)(cotangent.astype(dtype), *operands)

    return jax.jit(both)


def _on_device(function: Callable, operands: Sequence[Any]) -> Any:
    arrays = _numbers(function, operands)
    return jax.device_get(_both(function)(*jax.device_put(arrays)))


def _reference(function: Callable, operands: Sequence[Any]) -> Any:
    """The same in float64 on a CPU of the host."""
    arrays, host = _numbers(function, operands), jax.local_devices(backend="cpu")[0]
    # A sigma of float32 lies within the rounding of float32 of a whole number, and no nearer: both
    # must find the same support.
    slack = tuning.REACH_SLACK * float(np.finfo(np.float32).eps / np.finfo(np.float64).eps)
    with (
        jax.enable_x64(True),
        jax.default_device(host),
        mock.patch.object(tuning, "REACH_SLACK", slack),
    ):
        wide = jax.tree.map(_widened, arrays)
        return jax.device_get(_both(function)(*jax.device_put(wide, host)))


def _numbers(function: Callable, operands: Sequence[Any]) -> tuple:
    """The cotangent and the operands, as NumPy arrays."""
    from tests.placements import cotangent_for

    return jax.device_get((cotangent_for(function, operands), *operands))


def _widened(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _largest(got: Any, wanted: Any) -> float:
    """max |got - wanted| relative to the largest number of each array, or to 1 below it."""
    errors = []
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        if np.size(b):
            scale = max(1.0, float(np.abs(b).max()))
            errors.append(float(np.abs(np.asarray(a, np.float64) - b).max()) / scale)
    return max(errors)
