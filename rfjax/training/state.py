"""All that a run carries from step to step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, struct

from rfjax.training import optimizers


@struct.dataclass
class TrainState:
    """Step, variables and optimizer state; a pytree.

    Attributes:
        step: int32 scalar, the number of updates made.
        params: nested dictionary of all parameters, trained or frozen.
        batch_stats: running statistics of batch normalisation, {} without any.
        opt_state: optimizer state of the trained parameters only.
    """

    step: jax.Array
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: optax.OptState

    @property
    def variables(self) -> dict[str, Any]:
        """What `module.apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def initial_variables(model: linen.Module, key: jax.Array, image_shape: tuple[int, ...]) -> dict:
    """Freshly drawn variables of `model` for images [H, W, 3] of `image_shape`."""
    init = jax.jit(
        lambda key: model.init(key, jnp.zeros((1, *image_shape), jnp.float32), train=False)
    )
    return init(key)


def create(
    variables: dict[str, Any],
    optimizer: optax.GradientTransformation,
    *,
    trainable: str = "all",
    is_structure: optimizers.IsStructure | None = None,
) -> TrainState:
    """The state before the first step, as NumPy arrays on the host.

    On the host, because `steps.replicate` deals it to the devices from there, and because none of
    its arrays may be shared once it is donated.

    Args:
        variables: of the network.
        optimizer: acts on the trained parameters.
        trainable, is_structure: as in `optimizers.select`.
    """
    trained, _ = optimizers.select(variables["params"], trainable, is_structure=is_structure)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(trained),
    )
    return jax.device_get(state)
