"""What the layers of a network share within one forward pass: a flag, and a carry.

A layer asks for them by the names of the arguments of its `__call__`:

    def __call__(self, x): ...                         -> y           as most do
    def __call__(self, x, train): ...                  -> y           told whether it trains
    def __call__(self, x, carry): ...                  -> (y, carry)  told what came before

and for random numbers by `self.make_rng("dilation")`, a stream of Linen of any name, which differs
from layer to layer; the caller of the network gives its key, as `rngs={"dropout": key}`.

The carry is what a layer hands on, any pytree of arrays. It is () where a forward pass begins, goes
from one layer that asks for it to the next, in the order in which they are computed, and ends with
the pass: no variable keeps it.
"""

import dataclasses
import inspect
from functools import cache, partial
from typing import Any

import jax
from flax import linen


@partial(jax.tree_util.register_dataclass, data_fields=["carry"], meta_fields=["train"])
@dataclasses.dataclass(frozen=True)
class Forward:
    """One forward pass, as far as it has come; a pytree whose only leaves are the carry's.

    Attributes:
      train: whether the network trains. Static, so that it can go through `flax.linen.remat`.
      carry: of the last layer that returned one; () where there was none.
    """

    train: bool = False
    carry: Any = ()


def call(layer: linen.Module, x: Any, forward: Forward, **more: Any) -> tuple[Any, Forward]:
    """What a layer makes of x, and the forward pass after it.

    Args:
      layer: a module of x and of any of `train`, `carry` and what else is given, by these names.
      x: what it reads.
      forward: the pass so far.
      **more: what else the layer may ask for.

    Returns:
      (y, forward); the pass is the same unless the layer returned a carry.

    Raises:
      TypeError: a layer that asks for the carry does not return (y, carry).

    Example:
      >>> import jax.numpy as jnp
      >>> class Count(linen.Module):
      ...   def __call__(self, x, carry):
      ...     return x, (carry or 0) + 1
      >>> x, forward = jnp.zeros([1, 4, 4, 2]), Forward()
      >>> for layer in (Count(), linen.Dropout(0.5, deterministic=True), Count()):
      ...   x, forward = call(layer.bind({}), x, forward)
      >>> forward
      Forward(train=False, carry=2)
    """
    offered = {"train": forward.train, "carry": forward.carry, **more}
    asked = asks(type(layer))
    result = layer(x, **{name: value for name, value in offered.items() if name in asked})
    if "carry" not in asked:
        return result, forward
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"{type(layer).__name__} asks for the carry, so it must return (y, carry); got "
            f"{type(result).__name__}"
        )
    y, carry = result
    return y, dataclasses.replace(forward, carry=carry)


@cache
def asks(layer: type[linen.Module]) -> frozenset[str]:
    """The names of the arguments that layers of a class are called with.

    Example:
      >>> from rfjax import nn
      >>> "train" in asks(nn.CCL), "train" in asks(nn.Conv)
      (True, False)
    """
    return frozenset(inspect.signature(layer.__call__).parameters)
