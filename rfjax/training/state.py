"""All that a run carries from step to step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, struct

from rfjax.training import optimizers


@struct.dataclass
class TrainState:
    """Step, variables, optimizer state and running mean; a pytree.

    Attributes:
        step: int32 scalar, the number of updates made.
        params: nested dictionary of all parameters, trained or frozen.
        collections: every other collection of variables by name: "batch_stats", the running
            statistics of batch normalisation, {} without any, and what layers of users keep.
        opt_state: optimizer state of the trained parameters only.
        average: the running mean of all variables, see `rfjax.training.average`; None without one.
    """

    step: jax.Array
    params: dict[str, Any]
    collections: dict[str, Any]
    opt_state: optax.OptState
    average: dict[str, Any] | None = None

    @property
    def variables(self) -> dict[str, Any]:
        """What `module.apply` takes, as training goes on with it."""
        return {"params": self.params, **self.collections}

    @property
    def result(self) -> dict[str, Any]:
        """The variables to evaluate and to use: their running mean, where there is one."""
        return self.variables if self.average is None else self.average


def initial_variables(model: linen.Module, key: jax.Array, *inputs: Any) -> dict:
    """Freshly drawn variables of `model`, which is called with arrays of these shapes.

    Args:
        model: a module of (*inputs, train).
        key: of the parameters.
        *inputs: pytrees of arrays or `jax.ShapeDtypeStruct`, of which only shapes and types count.
    """

    def init(key: jax.Array) -> dict:
        return model.init(key, *jax.tree.map(_zeros, inputs), train=False)

    return jax.jit(init)(key)


def _zeros(leaf: Any) -> jax.Array:
    return jnp.zeros(leaf.shape, leaf.dtype)


def create(
    variables: dict[str, Any],
    optimizer: optax.GradientTransformation,
    *,
    trainable: str = "all",
    is_structure: optimizers.IsStructure | None = None,
    averaged: bool = False,
) -> TrainState:
    """The state before the first step, as NumPy arrays on the host.

    On the host, because `steps.replicate` deals it to the devices from there, and because none of
    its arrays may be shared once it is donated.

    Args:
        variables: of the network.
        optimizer: acts on the trained parameters.
        trainable, is_structure: as in `optimizers.select`.
        averaged: whether it has a running mean of the variables, which begins with them.
    """
    collections = {name: tree for name, tree in variables.items() if name != "params"}
    trained, _ = optimizers.select(variables["params"], trainable, is_structure=is_structure)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        collections={"batch_stats": {}} | collections,
        opt_state=optimizer.init(trained),
    )
    state = jax.device_get(state)
    return state.replace(average=jax.tree.map(np.array, state.variables)) if averaged else state
