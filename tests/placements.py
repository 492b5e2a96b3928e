"""Functions of a batch on several devices, in every way that JAX offers, beside one device.

A function's operands either belong to the examples, with the batch axis first, or are shared
by all. Under `jit` operands carry shardings and XLA partitions; `shard_map`, `pmap` and `vmap` show
the function a part of the batch.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DEVICES = 4

# How maps [N, H, W, C] are sharded under `jit`.
SHARDINGS = {
    "N": P("a"),
    "H": P(None, "a"),
    "C": P(None, None, None, "a"),
    "N, H": P("a", "b"),
}
EXPLICIT = ("N", "H", "C")  # those tried on a mesh with explicit axes
PLACES = (*SHARDINGS, "shard_map", "shard_map unchecked", "pmap", "vmap")

# What moves parts of a map between devices.
MOVES = ("all-gather", "all-to-all", "collective-permute", "collective-broadcast")


def values_and_gradients(function: Callable) -> Callable:
    """(cotangent, *operands) -> (value, the operands' cotangents)."""

    def both(cotangent, *operands):
        value, pull = jax.vjp(function, *operands)
        return value, *pull(cotangent)

    return both


def cotangent_for(function: Callable, operands: Sequence[Any]) -> jax.Array:
    """Random numbers like the function's value, of length one in all.

    So gradients are of the size of one, where a sum over all numbers would drown in its rounding.
    """
    value = jax.eval_shape(function, *operands)
    numbers = np.random.default_rng(7).normal(size=value.shape)
    return jnp.asarray(numbers / np.linalg.norm(numbers), value.dtype)


def run(place: str, function: Callable, of_each: Sequence[bool], operands: Sequence[Any]) -> Any:
    """The value and gradients of `function` at a place.

    `of_each` tells which operands belong to the examples; each is an array or a tree of them.
    """
    if place in SHARDINGS:
        program, placed = sharded(place, function, of_each, operands)
        if place == "N":
            assert moves(program.as_text()) == [], "parts of maps leave their device"
        return program(*placed)
    arrays = [cotangent_for(function, operands), *operands]
    both, of_each = values_and_gradients(function), [True, *of_each]
    if place in ("pmap", "vmap"):
        return (_pmap if place == "pmap" else _vmap)(both, of_each, arrays)
    return _shard_map(both, of_each, arrays, check_vma=place == "shard_map")


def splits(place: str, of_each: Sequence[bool], operands: Sequence[jax.Array]) -> bool:
    """Whether a place splits any of the operands: where none is a map, some shardings do not."""
    if place not in SHARDINGS:
        return True
    pairs = zip(operands, of_each, strict=True)
    return any(_spec(place, array, each) != P() for array, each in pairs)


def sharded(place: str, function: Callable, of_each: Sequence[bool], operands: Sequence[Any]):
    """The compiled function of values and gradients, and its operands where they belong."""
    arrays = [cotangent_for(function, operands), *operands]
    mesh = _mesh((2, 2) if place == "N, H" else (DEVICES, 1))
    placed = _placed(mesh, place, [True, *of_each], arrays)
    return jax.jit(values_and_gradients(function)).lower(*placed).compile(), placed


def assert_same(place: str, function: Callable, of_each: Sequence[bool], operands, wanted) -> None:
    """Checks the values and all gradients at a place against those of one device.

    With the batch sharded, only sums of gradients may cross devices.
    """
    assert_near(run(place, function, of_each, operands), wanted)


def assert_near(got: Any, wanted: Any) -> None:
    """Checks numbers against those of one device, up to rounding."""
    for actual, expected in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        scale = max(1.0, float(jnp.abs(expected).max()))
        np.testing.assert_allclose(actual, expected, atol=2e-5 * scale, rtol=0)


def explicit_type(place: str, function: Callable, of_each: Sequence[bool], operands: Sequence[Any]):
    """The type of the value, its sharding in it, on a mesh with explicit axes.

    Gradients are traced as well, whose types must be those of the operands.
    """
    placed = _placed(explicit_mesh(), place, of_each, operands)
    value = jax.eval_shape(function, *placed)
    jax.eval_shape(
        values_and_gradients(function), _cotangent_like(value, function, operands), *placed
    )
    return value


def run_explicit(place: str, function: Callable, of_each: Sequence[bool], operands: Sequence[Any]):
    """The value and gradients on a mesh with explicit axes."""
    placed = _placed(explicit_mesh(), place, of_each, operands)
    cotangent = _cotangent_like(jax.eval_shape(function, *placed), function, operands)
    program = jax.jit(values_and_gradients(function)).lower(cotangent, *placed).compile()
    if place == "N":
        assert moves(program.as_text()) == [], "parts of maps leave their device"
    return program(cotangent, *placed)


def explicit_mesh() -> Mesh:
    """A mesh as `jax.make_mesh` makes it by default."""
    devices = jax.devices()[:DEVICES]
    return jax.make_mesh((DEVICES,), ("a",), axis_types=(AxisType.Explicit,), devices=devices)


def on_one_device(function: Callable, operands: Sequence[Any]) -> Any:
    """The value and gradients as they should be."""
    cotangent = cotangent_for(function, operands)
    return jax.jit(values_and_gradients(function))(cotangent, *operands)


def moves(text: str) -> list[str]:
    """The instructions of a compiled program that move parts of maps between devices."""
    return re.findall(rf"(?:{'|'.join(MOVES)})(?:-start)?\(", text)


@functools.cache
def _mesh(shape: tuple[int, int]) -> Mesh:
    return Mesh(np.array(jax.devices()[:DEVICES]).reshape(shape), ("a", "b"))


def _placed(mesh: Mesh, place: str, of_each: Sequence[bool], operands: Sequence[Any]) -> list[Any]:
    """The operands where they belong."""
    return [
        jax.tree.map(lambda a: jax.device_put(a, NamedSharding(mesh, _spec(place, a, each))), array)
        for array, each in zip(operands, of_each, strict=True)
    ]


def _cotangent_like(value: Any, function: Callable, operands: Sequence[Any]) -> jax.Array:
    """Random numbers of the value's type."""
    sharding = NamedSharding(explicit_mesh(), value.sharding.spec)
    return jax.device_put(cotangent_for(function, operands), sharding)


def _spec(place: str, array: jax.Array, each: bool) -> P:
    """Maps as `place` tells; other operands of the examples by the batch, if maps are."""
    if not each:
        return P()
    if array.ndim == 4:
        spec = SHARDINGS[place]
        fits = all(
            name is None or size % (2 if place == "N, H" else DEVICES) == 0
            for name, size in zip(spec, array.shape, strict=False)
        )
        return spec if fits else P()
    return P("a") if place.startswith("N") else P()


def _shard_map(both: Callable, of_each, arrays, *, check_vma: bool) -> Any:
    specs = tuple(P("a") if each else P() for each in of_each)

    def summed(*arrays):
        value, *gradients = both(*arrays)
        if not check_vma:  # with the check, the gradients of what is shared are sums already
            gradients = [
                g if each else jax.lax.psum(g, "a")
                for g, each in zip(gradients, of_each[1:], strict=True)
            ]
        return value, *gradients

    mesh = Mesh(np.array(jax.devices()[:DEVICES]), ("a",))
    mapped = jax.shard_map(
        summed, mesh=mesh, in_specs=specs, out_specs=(P("a"), *specs[1:]), check_vma=check_vma
    )
    return jax.jit(mapped)(*arrays)


def _parts(mapping: Callable, both: Callable, of_each, arrays) -> Any:
    """By a mapping over an axis of parts, with the sums of what is shared taken afterwards."""
    split = [
        jax.tree.map(lambda a: a.reshape(DEVICES, -1, *a.shape[1:]), array) if each else array
        for array, each in zip(arrays, of_each, strict=True)
    ]
    value, *gradients = mapping(both, tuple(0 if each else None for each in of_each))(*split)
    joined = [
        jax.tree.map(lambda g: g.reshape(-1, *g.shape[2:]) if each else g.sum(0), gradient)
        for gradient, each in zip(gradients, of_each[1:], strict=True)
    ]
    return value.reshape(-1, *value.shape[2:]), *joined


def _pmap(both: Callable, of_each, arrays) -> Any:
    return _parts(lambda f, axes: jax.pmap(f, in_axes=axes), both, of_each, arrays)


def _vmap(both: Callable, of_each, arrays) -> Any:
    return _parts(lambda f, axes: jax.jit(jax.vmap(f, axes)), both, of_each, arrays)
