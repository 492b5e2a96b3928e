"""What layers tell of their structure: which of their parameters it is, and what it means.

Only a layer knows: the name of a parameter or of a module says nothing. So optimizers, search, the
import of weights and drawing ask the layers of a network, which are found by tracing it once.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util

from rfjax import covariance

Path = tuple[str, ...]

ROLES = ("covariance", "difference", "regressor", "other")


class Structured:
    """What a Linen module inherits to declare structure: parameters that are no free-form weights.

    The layers of `rfjax.nn` with a kernel inherit it already, and so do those derived from them.

    Covariances, offsets and what controls them learn at a rate of their own and without weight
    decay, are what `trainable="structure"` trains, and have no counterpart in imported weights.

    Attributes:
      STRUCTURE: the role of each of the module's own parameters and child modules that are
        structure, by name; names that an instance does not have do no harm, and those of parent
        classes count as well. Roles are

        covariance   log-Cholesky parameters [..., F] of Gaussians, F = 1, 2 or 3, the same at every
                     pixel
        difference   such parameters of what one Gaussian is wider by than another
        regressor    what makes covariances or offsets of the input, anew at every pixel
        other        all else: offsets, affinities, weights of a mixture

    Example:
      >>> from flax import linen
      >>> from rfjax import gaussian_blur, nn
      >>> class Smooth(nn.Structured, linen.Module):
      ...   STRUCTURE = {"spread": "covariance"}
      ...   @linen.compact
      ...   def __call__(self, x):
      ...     params = self.param("spread", lambda key: jnp.log(jnp.array([1.5])))
      ...     return linen.Conv(4, (3, 3), name="offset_head")(gaussian_blur(x, params))
      >>> model = linen.Sequential([Smooth(), nn.ComposedConv(2, sigma=0.5)])
      >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.ones([1, 9, 9, 3]))
      >>> {path: jnp.exp(p).tolist() for path, p in nn.covariances(model, variables).items()}
      {'layers_0': [1.5], 'layers_1': [0.5]}
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {}

    def covariances(self, params: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The log-Cholesky parameters of the Gaussians that the module computes with, by part.

        A module overrides this where its parameters are not yet these, or have other names.

        Args:
          params: the module's own parameters; with more leading axes where it is lifted, by
            `flax.linen.scan` for instance.

        Returns:
          Arrays [..., F] in pixels of the map that the module reads. A single Gaussian is the part
          "", several parts have names; by default those of the parameters of role "covariance".
        """
        found = {
            name: params[name]
            for name, role in declared(type(self)).items()
            if role == "covariance" and name in params
        }
        return found if len(found) != 1 else dict(zip(("",), found.values(), strict=True))


def declared(layer: type) -> dict[str, str]:
    """The roles by name that a class and its parents declare.

    Example:
      >>> declared(Structured)
      {}

    Raises:
      ValueError: there is no such role.
    """
    roles: dict[str, str] = {}
    for parent in reversed(layer.__mro__):
        roles |= vars(parent).get("STRUCTURE", {})
    for name, role in roles.items():
        if role not in ROLES:
            raise ValueError(
                f"{layer.__name__}.STRUCTURE[{name!r}] is one of {', '.join(ROLES)}; got {role!r}"
            )
    return roles


class _Layer(NamedTuple):
    """A module that declares structure, unbound, its roles, and the shapes of its parameters."""

    module: linen.Module
    roles: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """What the layers of a network declare; made by `structure`.

    Paths of parameters are tuples of names below "params".
    """

    _layers: dict[Path, _Layer] = dataclasses.field(default_factory=dict)

    def role(self, path: Path) -> str | None:
        """The role of the parameter at `path`, see `Structured`; None for free-form weights."""
        for depth in reversed(range(len(path))):
            layer = self._layers.get(path[:depth])
            if layer is not None and path[depth] in layer.roles:
                return layer.roles[path[depth]]
        return None

    def is_structure(self, path: Path) -> bool:
        """Whether the parameter at `path` is structure."""
        return self.role(path) is not None

    def is_covariance(self, path: Path) -> bool:
        """Whether the parameter at `path` holds log-Cholesky parameters."""
        return self.role(path) in ("covariance", "difference")

    @property
    def per_pixel(self) -> tuple[str, ...]:
        """The paths of the layers whose structure is regressed at every pixel.

        It is no parameter. The layers of `rfjax.nn` sow the spread of their taps as
        ("intermediates", "scale_map").
        """
        return tuple(
            "/".join(path)
            for path, layer in sorted(self._layers.items())
            if any(layer.roles.get(name) == "regressor" for name in layer.shapes)
        )

    def by_layer(self, params: Mapping[str, Any]) -> dict[str, dict[str, jax.Array]]:
        """The static covariances of every layer that has some, by the layer's path and by part.

        Args:
          params: nested dictionary of all parameters; traced or not.

        Returns:
          Log-Cholesky parameters [..., F] with which the layer computes, in pixels of the map that
          it reads: {"": ...} of a layer with one Gaussian for all filters or one for each,
          {"center": ..., "surround": ...} of a difference of Gaussians, {"0": ..., "1": ...} of a
          mixture. Axes in front are channels, and before them those of lifted layers.

        Raises:
          ValueError: a layer declares something else than log-Cholesky parameters.
        """
        found = {}
        for path, layer in sorted(self._layers.items()):
            own = params
            for name in path:
                own = own[name]
            own = {name: _lifted_first(own[name], shape) for name, shape in layer.shapes.items()}
            parts = layer.module.covariances(own)
            for part, leaf in parts.items():
                _check_parameters("/".join((*path, part)), leaf)
            if parts:
                found["/".join(path)] = parts
        return found

    def covariances(self, params: Mapping[str, Any]) -> dict[str, jax.Array]:
        """`by_layer` in one dictionary: by "<layer>/<part>", or by "<layer>" for the part ""."""
        return {
            "/".join(filter(None, (layer, part))): leaf
            for layer, parts in self.by_layer(params).items()
            for part, leaf in parts.items()
        }


def structure(
    model: linen.Module,
    variables: Mapping[str, Any],
    *inputs: Any,
    method: str | Callable | None = None,
    **options: Any,
) -> Structure:
    """What the layers of a network declare, wherever in it they are.

    Initialisation is traced, without computing anything, to see which module has which parameters.

    Args:
      model: a module, in the compact style or not; layers may be nested, shared and lifted
        (`flax.linen.scan`, `vmap`, `remat`).
      variables: of the model, arrays or `jax.ShapeDtypeStruct`.
      *inputs: what the model is initialised with, arrays or `jax.ShapeDtypeStruct`. Without any, a
        map [1, 64, 64, C] whose channels fit the variables.
      method: of the model that makes all parameters; None for calling it.
      **options: keyword arguments of the call.

    Returns:
      A `Structure`. It holds for all variables of the model.

    Raises:
      ValueError: the model does not have these parameters when it is called with the inputs, or a
        declaration names no role.

    Example:
      >>> from rfjax import nn
      >>> model = linen.Sequential([linen.Conv(4, (3, 3), name="offset_head"), nn.DoGConv(2)])
      >>> variables = jax.jit(model.init)(jax.random.key(0), jnp.ones([1, 9, 9, 3]))
      >>> found = structure(model, variables)
      >>> found.is_structure(("offset_head", "kernel"))
      False
      >>> found.role(("layers_1", "covariance_delta")), list(found.by_layer(variables["params"]))
      ('difference', ['layers_1'])
    """
    params = linen.meta.unbox(variables).get("params", {})
    wanted = _shapes(params)
    if inputs or options or method is not None:
        layers, shapes = _trace(model, inputs, options, method)
        _check_same(model, shapes, wanted)
        return Structure(layers)
    fault = None
    for images, options in _guesses(model, wanted):
        try:
            layers, shapes = _trace(model, (images,), options, None)
        except Exception as error:  # whatever a model raises for a map that it does not take
            fault = fault or error
            continue
        if shapes == wanted:
            return Structure(layers)
    raise ValueError(
        f"no map [1, 64, 64, C] gives {type(model).__name__} these variables: say what it is "
        "called with, as structure(model, variables, images)"
    ) from fault


def covariances(
    model: linen.Module,
    variables: Mapping[str, Any],
    *inputs: Any,
    method: str | Callable | None = None,
    **options: Any,
) -> dict[str, jax.Array]:
    """The covariances with which the layers of a network compute, by the paths of the layers.

    Args:
      model, variables, *inputs, method, **options: as in `structure`.

    Returns:
      Log-Cholesky parameters [..., F] in pixels of the map that the layer reads, as
      `Structure.covariances` has them: those of "<layer>/center" and "<layer>/surround" for a
      difference of Gaussians, "<layer>/0", "<layer>/1" ... for a mixture, [channels, F] where each
      channel has its own. What is regressed at every pixel is not among them, see
      `Structure.per_pixel`.

    Raises:
      ValueError: as in `structure`.

    Example:
      >>> from rfjax import nn
      >>> layer = nn.DoGConv(4, sigma_center=1.0, sigma_surround=2.0)
      >>> variables = jax.jit(layer.init)(jax.random.key(0), jnp.ones([1, 9, 9, 7]))
      >>> {part: jnp.exp(p).round(3).tolist() for part, p in covariances(layer, variables).items()}
      {'center': [1.0], 'surround': [2.0]}
    """
    found = structure(model, variables, *inputs, method=method, **options)
    return found.covariances(linen.meta.unbox(variables).get("params", {}))


def _trace(
    model: linen.Module, inputs: tuple, options: Mapping[str, Any], method: str | Callable | None
) -> tuple[dict[Path, _Layer], dict[Path, tuple[int, ...]]]:
    """The structured layers of a model by their paths, and the shapes of all its parameters."""
    leaves, tree = jax.tree.flatten((inputs, dict(options)))
    places = [n for n, leaf in enumerate(leaves) if hasattr(leaf, "dtype")]
    found: dict[Path, tuple[linen.Module, dict]] = {}

    def record(call, args, kwargs, context: linen.module.InterceptorContext):
        result = call(*args, **kwargs)
        module = context.module
        if not isinstance(module, Structured) or module.scope is None:
            return result
        if own := linen.meta.unbox(module.variables).get("params", {}):
            _, shapes = found.setdefault(module.path, (module, {}))
            for name, leaf in own.items():
                # Inside of a lifted layer, which is left first, shapes are those it computes with.
                shapes.setdefault(name, None if isinstance(leaf, Mapping) else np.shape(leaf))
        return result

    def init(key: jax.Array, arrays: list) -> Any:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        inputs, options = jax.tree.unflatten(tree, filled)
        return model.init(key, *inputs, method=method, **options)

    shapes = [jax.ShapeDtypeStruct(leaves[n].shape, leaves[n].dtype) for n in places]
    with linen.intercept_methods(record):
        made = jax.eval_shape(init, jax.random.key(0), shapes)
    layers = {
        path: _Layer(module.copy(parent=None), roles, own)
        for path, (module, own) in found.items()
        if (roles := declared(type(module)))
    }
    return layers, _shapes(linen.meta.unbox(made).get("params", {}))


def _shapes(params: Mapping[str, Any]) -> dict[Path, tuple[int, ...]]:
    leaves: dict[Path, Any] = traverse_util.flatten_dict(params)
    return {path: np.shape(leaf) for path, leaf in leaves.items()}


def _guesses(model: linen.Module, wanted: dict[Path, tuple]) -> Iterator[tuple[Any, dict]]:
    """Maps with as many channels as images have, or as any of the parameters reads."""
    read = [shape[-2] for shape in wanted.values() if len(shape) > 1]
    takes = inspect.signature(model.__call__).parameters
    options = {"train": False} if "train" in takes else {}
    for channels in dict.fromkeys([3, 1, *read]):
        yield jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32), options


def _check_same(model: linen.Module, made: dict[Path, tuple], wanted: dict[Path, tuple]) -> None:
    """Raises unless a trace made the parameters that are wanted."""
    different = [
        f"{'/'.join(path)} {made.get(path, 'missing')} for {wanted.get(path, 'none')}"
        for path in sorted(made.keys() | wanted.keys())
        if made.get(path) != wanted.get(path)
    ]
    if different:
        listed = ", ".join(different[:4]) + ", …" * (len(different) > 4)
        raise ValueError(
            f"called with these inputs {type(model).__name__} has other parameters than the "
            f"variables: {listed}"
        )


def _lifted_first(leaf: Any, shape: tuple[int, ...] | None) -> Any:
    """A parameter with the axes in front that lifting added to the `shape` within the layer."""
    if shape is None or np.shape(leaf) == shape:
        return leaf
    added = leaf.ndim - len(shape)
    for axes in itertools.combinations(range(leaf.ndim), max(added, 0)):
        if tuple(n for axis, n in enumerate(leaf.shape) if axis not in axes) == shape:
            return jnp.moveaxis(leaf, axes, tuple(range(added)))
    raise ValueError(f"a parameter must have shape [..., {shape}]; got {leaf.shape}")


def _check_parameters(name: str, leaf: Any) -> None:
    """Raises unless `leaf` can be log-Cholesky parameters."""
    if np.shape(leaf)[-1:] not in {(size,) for size in covariance.FAMILIES.values()}:
        raise ValueError(
            f"covariances of {name!r} must be log-Cholesky parameters [..., 1 | 2 | 3]; got "
            f"{np.shape(leaf) if hasattr(leaf, 'shape') else type(leaf).__name__}"
        )
