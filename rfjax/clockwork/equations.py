"""Networks with clocks by one pair of equations: recurrent, clockwork recurrent, and convolutional.

    y_H(t) = f_T(C_H f_H(y_H(t-1)) + C_I f_I(x(t)))
    y_O(t) = f_O(C_O f_H(y_H(t)))

with a clock C in {0, 1} for every module, 1 where it runs:

                             f_I     f_H        f_O       f_T        C_I   C_H     C_O
    simple recurrent         W_I     W_H        tanh      tanh       1     1       1
    clockwork recurrent      W_I     W_H        tanh      tanh       C     C       C
    clockwork convolutional  layers  identity   identity  identity   C     1 - C   1

Reference:
  Shelhamer, "Local Adaptive Visual Recognition", 2019, equations 3.1 and 3.2.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import _checks

Function = Callable[[jax.Array], jax.Array]
Clock = jax.Array | float
Clocks = Callable[[jax.Array], tuple[Clock, Clock, Clock]]


class Cell(NamedTuple):
    """What a network puts into the equations.

    Attributes:
      inputs, hidden, output, transition: f_I, f_H, f_O, f_T.
      clocks: C -> (C_I, C_H, C_O).
      persistent: whether y_H stays where C is 0, whatever the first equation says there.
    """

    inputs: Function
    hidden: Function
    output: Function
    transition: Function
    clocks: Clocks
    persistent: bool = False


def recurrent(w_in: jax.Array, w_hidden: jax.Array) -> Cell:
    """The simple recurrent network, whose modules run on every step; see `clocked`.

    Example:
      >>> import jax.numpy as jnp
      >>> cell = recurrent(jnp.eye(2), jnp.eye(2))
      >>> hidden, output = advance(cell, jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.ones(2))
      >>> print(hidden.round(2))
      [0.76 0.  ]
    """
    return _matrices(w_in, w_hidden, lambda clock: (1.0, 1.0, 1.0))


def clocked(w_in: jax.Array, w_hidden: jax.Array, *, persistent: bool = True) -> Cell:
    """The clockwork recurrent network.

    Args:
      w_in: [D, M], from the input to the M hidden numbers.
      w_hidden: [M, M], of which `slower` tells those that connect; the others are zero.
      persistent: whether a module keeps its state while its clock is 0. By the equation as printed
        it is tanh(0) = 0 then.
    """
    cell = _matrices(w_in, w_hidden, lambda clock: (clock, clock, clock))
    return cell._replace(persistent=persistent)


def convolutional(layers: Function) -> Cell:
    """The clockwork convolutional network: a stage, or what it computed last."""
    same = lambda value: value
    return Cell(layers, same, same, same, lambda clock: (clock, 1.0 - clock, 1.0))


def _matrices(w_in: jax.Array, w_hidden: jax.Array, clocks: Clocks) -> Cell:
    inputs, hidden = (lambda value, w=w: value @ w for w in (w_in, w_hidden))
    return Cell(inputs, hidden, jnp.tanh, jnp.tanh, clocks)


def advance(
    cell: Cell, hidden: jax.Array, x: jax.Array, clock: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One step of the two equations.

    Args:
      hidden: y_H(t-1).
      x: x(t).
      clock: C, 0 or 1, of a shape that broadcasts against `hidden`.

    Returns:
      y_H(t), y_O(t).
    """
    c_in, c_hidden, c_out = cell.clocks(clock)
    new = cell.transition(c_hidden * cell.hidden(hidden) + c_in * cell.inputs(x))
    new = jnp.where(clock > 0, new, hidden) if cell.persistent else new
    return new, cell.output(c_out * cell.hidden(new))


def slower(rates: Sequence[int], size: int = 1) -> np.ndarray:
    """Which hidden numbers connect: those of a module read themselves and slower modules.

    Args:
      rates: of the modules, one for each.
      size: hidden numbers of a module.

    Returns:
      bool [M, M] with M = len(rates) size, True where w_hidden[i, j] (from i to j) may be nonzero.

    Example:
      >>> slower((1, 2)).astype(int).tolist()
      [[1, 0], [1, 1]]
    """
    own = np.repeat(_checks.integers("rates", rates), _checks.integer("size", size))
    return own[:, None] >= own[None, :]
