"""What an operation must know of the devices that its program is compiled for.

One program may run on one device, or on many: each device with its own part of every array, which
`shard_map` and `pmap` hand to a function that sees that part alone; or under `jit` with arrays that
carry a sharding, where the function sees whole arrays and XLA partitions its operations afterwards.
Then a loop over examples or channels would gather the map on every device, since all devices take
each step together. Which of the two it is, is known when the program is lowered, like the platform.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

_written_out = contextvars.ContextVar("written_out", default=False)


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Programs that are traced within hold JAX's own operations alone, for other compilers.

    They have the form that XLA could partition, whatever the device. What was traced before is
    forgotten, and behind it what was traced within: both would be taken for the same functions.
    """
    jax.clear_caches()
    before = _written_out.set(True)
    try:
        yield
    finally:
        _written_out.reset(before)
        jax.clear_caches()


def by_device(
    *operands: Any,
    cpu: Callable,
    default: Callable,
    gpu: Callable | None = None,
    native: Callable | None = None,
    partitioned: Callable | None = None,
    like: Callable | None = None,
) -> Any:
    """The result of the function for the devices that the program is compiled for.

    Only that function is ever traced. The result has no derivative: give it one by
    `rfjax._engine.derivatives.operator`.

    Args:
      operands: arrays, or trees of them; no function may close over a traced value.
      cpu: for a CPU that holds all that the function sees.
      default: for any other device that does.
      gpu: for a GPU that does; `default` if None.
      native: for a CPU that does, where the program stays on this machine and may call kernels that
        were built here: not where it is exported; `cpu` if None.
      partitioned: for a program whose operations XLA partitions among several devices of any kind:
        it must not loop over examples or channels; `default` if None.
      like: a short function with results of the same shapes; `default` if None.
    """
    if _written_out.get():
        return (partitioned or default)(*operands)
    flat, tree = jax.tree.flatten(operands)

    def flattened(function):
        return lambda *flat: jax.tree.leaves(function(*tree.unflatten(flat)))

    functions = {"cpu": cpu, "default": default, "gpu": gpu or default, "native": native or cpu}
    functions |= {"partitioned": partitioned or default, "like": like or default}
    # Shapes and types of the results, without tracing what computes them.
    traced, result = jax.make_jaxpr(functions["like"], return_shape=True)(*operands)
    functions = {name: flattened(function) for name, function in functions.items()}
    # The functions travel as parameters, and are traced when the program is lowered.
    results = _by_device.bind(*flat, avals=tuple(traced.out_avals), **functions)
    return jax.tree.structure(result).unflatten(results)


_by_device = Primitive("by_device")
_by_device.multiple_results = True


@_by_device.def_abstract_eval
def _abstract(*_, avals, **__):
    return avals


@_by_device.def_impl
def _evaluate(*operands, **parameters):
    return jax.jit(partial(_by_device.bind, **parameters))(*operands)


def _lower(ctx: mlir.LoweringRuleContext, *operands, cpu, native, gpu, default, partitioned, **_):
    platforms = ctx.module_context.platforms
    stays = not ctx.module_context.lowering_parameters.for_export
    by_platform = {"cpu": native if stays else cpu, "cuda": gpu, "rocm": gpu}
    # Several platforms: the program itself chooses where it runs.
    function = partial(jax.lax.platform_dependent, **by_platform, default=default)
    if _partitions(ctx.module_context.axis_context):
        function = partitioned
    elif len(platforms) == 1:  # an exported program may be for several
        function = by_platform.get(platforms[0], default)
    return mlir.lower_fun(function, multiple_results=True)(ctx, *operands)


def _partitions(context: Any) -> bool:
    """Whether XLA partitions a program that is lowered in this context."""
    count = getattr(context, "num_devices", None)
    if count is not None:  # of `jit`
        return count > 1
    # Of `shard_map`, whose mesh may have axes that it leaves to XLA; or of a device by itself.
    mesh = getattr(context, "mesh", None)
    return mesh is not None and not set(mesh.axis_names) <= set(context.manual_axes)


def _batch(operands, axes, *, avals, **functions):
    # Each function under vmap: which of them is lowered is still open.
    mapped = {name: jax.vmap(function, axes, 0) for name, function in functions.items()}
    avals = tuple(jax.make_jaxpr(mapped["like"])(*operands).out_avals)
    return _by_device.bind(*operands, avals=avals, **mapped), [0] * len(avals)


mlir.register_lowering(_by_device, _lower)
batching.primitive_batchers[_by_device] = _batch


def alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The arrays, all of them varying over every axis of a mesh that one of them varies over.

    Inside of `shard_map`, the carry of a loop, the branches of a switch and the cotangents of a
    function must agree in the axes that they vary over. Elsewhere this does nothing. Cotangents of
    arrays that vary over fewer axes are summed over the others.
    """
    axes = [_varying(array) for array in arrays]
    # Every array is cast to vary over the axes of all.
    wanted = frozenset().union(*axes)
    return tuple(
        jax.lax.pcast(array, tuple(sorted(wanted - own, key=str)), to="varying")
        if wanted - own
        else array
        for array, own in zip(arrays, axes, strict=True)
    )


def _varying(array: jax.Array) -> frozenset:
    """The axes of a mesh that an array varies over, by either name that JAX has given them."""
    kind = getattr(jax.typeof(array), "manual_axis_type", None)
    return getattr(jax.typeof(array), "vma", frozenset()) if kind is None else kind.varying


def zeros_for(shape: tuple[int, ...], dtype: Any, other: jax.Array) -> jax.Array:
    """Zeros that vary over the axes of a mesh that `other` varies over: to start a loop with."""
    return alike(jnp.zeros(shape, dtype), other)[0]


def shaped(shape: tuple[int, ...], other: jax.Array) -> jax.ShapeDtypeStruct:
    """What tells a call of Pallas of a result, which varies over the axes that `other` does."""
    kind = jax.typeof(other)
    names = ("manual_axis_type", "vma")  # of newer and of older versions of JAX
    options: dict[str, Any] = {name: getattr(kind, name) for name in names if hasattr(kind, name)}
    name = next(iter(options))
    return jax.ShapeDtypeStruct(shape, other.dtype, **{name: options[name]})


def is_known(*sizes: Any) -> bool:
    """Whether all sizes are numbers, and none is a symbol of a program that is exported."""
    return not any(is_symbolic_dim(size) for size in sizes)
