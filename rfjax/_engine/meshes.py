"""Maps on meshes with explicit axes, where an array's sharding is a part of its type.

There JAX wants to know of each gather and each reshape how its result is sharded. A function of
maps leaves that to XLA, as under `jit` with the usual meshes, and says how its own results are.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def partitioned(
    leading: str | None = "x", *, channels: str | None = None, spatial: bool = True
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Lets XLA partition what a function does with arrays on a mesh with explicit axes.

    Without such arrays the function is called as it is. With them its results have the sharding of
    an operand, axis by axis; an axis that its devices can't share alike is whole on each of them.

    Args:
      leading: the operand whose axes before the last one are those of the results. Of a result of
        another rank it gives the batch axes, which lie before the operand's last three. None for
        results that belong to no example, and are whole on each device.
      channels: the operand whose last axis is the last one of the results; `leading` if None.
      spatial: whether results are sharded along height and width: not where their sizes are others
        than the operand's.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        signature = inspect.signature(function)
        body: Callable[..., Any] = function

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            leaves, tree = jax.tree.flatten((args, kwargs))
            places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
            arrays = [leaves[i] for i in places]
            mesh = _explicit(arrays)
            if mesh is None:
                return body(*args, **kwargs)

            def of_arrays(*arrays: jax.Array) -> Any:
                filled = list(leaves)
                for i, array in zip(places, arrays, strict=True):
                    filled[i] = array
                args, kwargs = tree.unflatten(filled)
                return body(*args, **kwargs)

            def automatic(shardings: Any) -> Any:
                return jax.sharding.auto_axes(of_arrays, axes=_axes(mesh), out_sharding=shardings)

            # The shapes first: they tell which of the results' axes can be sharded.
            shapes = jax.eval_shape(automatic(NamedSharding(mesh, P())), *arrays)
            operands = signature.bind(*args, **kwargs).arguments
            first = operands[leading] if leading else None
            last = operands[channels] if channels else first
            shardings = jax.tree.map(
                lambda of: NamedSharding(mesh, _kept(of.shape, first, last, spatial, mesh)), shapes
            )
            with _entered(arrays, mesh):
                return automatic(shardings)(*arrays)

        return call

    return decorate


def _explicit(arrays: list[jax.Array]) -> AbstractMesh | None:
    """The mesh of the first array on one with explicit axes."""
    for array in arrays:
        mesh = jax.typeof(array).sharding.mesh
        if AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def _entered(arrays: list[jax.Array], mesh: AbstractMesh) -> contextlib.AbstractContextManager:
    """Sets the mesh of arrays outside of any program, whose results may depend on none of them."""
    traced = any(isinstance(array, Tracer) for array in arrays)
    if traced or not jax.sharding.get_abstract_mesh().empty:
        return contextlib.nullcontext()
    placed = [array.sharding for array in arrays]
    meshes = [getattr(of, "mesh", None) for of in placed]
    own = next(one for one in meshes if isinstance(one, Mesh) and one.abstract_mesh == mesh)
    return jax.set_mesh(own)


def _axes(mesh: AbstractMesh) -> tuple[str, ...]:
    """The explicit axes of a mesh."""
    pairs = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in pairs if kind is AxisType.Explicit)


def _kept(
    shape: tuple[int, ...], leading: Any, channels: Any, spatial: bool, mesh: AbstractMesh
) -> P:
    """The sharding of a result: that of its operands where it can be."""
    of_leading, of_channels = _spec(leading), _spec(channels)
    batch = of_leading[:-3]
    between = of_leading[len(batch) : -1] if spatial else [None, None]
    same_rank = len(shape) == len(of_leading)
    wanted = [*batch, *between, *of_channels[-1:]] if same_rank else batch[: len(shape) - 1]
    used, kept = set(), []
    for size, names in zip(shape, wanted, strict=False):
        names = names if isinstance(names, tuple) else (names,) if names else ()
        fits = size % math.prod(mesh.shape[name] for name in names) == 0 and not used & {*names}
        kept.append(names if fits and names else None)
        used |= {*names} if fits else set()
    return P(*kept)


def _spec(operand: Any) -> list[Any]:
    """How each axis of an operand is sharded; arrays of NumPy are not, and None has no axes."""
    if not isinstance(operand, jax.Array):
        return [] if operand is None else [None] * jnp.ndim(operand)
    spec = jax.typeof(operand).sharding.spec
    return [*spec, *[None] * (operand.ndim - len(spec))]
