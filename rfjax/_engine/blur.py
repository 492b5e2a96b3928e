"""The options that all blurs share: what they are, their defaults, their checks.

A function that blurs takes them as `blur` or as keywords:

    @spelled
    def smooth(x, params, *, blur: Blur | None = None, **options: Unpack[BlurOptions]):
        blur = blur_of(blur, options)
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar

from rfjax import _checks
from rfjax._engine.plan import PADDINGS
from rfjax._engine.profile import Window

Function = TypeVar("Function", bound=Callable)


class BlurOptions(TypedDict, total=False):
    """The options of a `Blur` as keywords."""

    truncate: float
    padding: str
    method: str
    support: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blur:
    """How a Gaussian filters a map: the static options that all blurs share.

    What blurs takes them as keywords, or all of them at once as `blur=Blur(...)`. It is checked
    when it is made, and can be hashed: a static argument under `jit`.

    Args:
      truncate: how many standard deviations the filter's support reaches, a positive number.
      padding: what lies outside the map: zero | edge | reflect | wrap | renormalized, see
        `rfjax.filtering`.
      method: how the Gaussian becomes taps: sampled | integrated | discrete, see `rfjax.gaussian`.
      support: hard | faded, likewise. A hard support's size carries no gradient.

    Raises:
      ValueError: an option is unknown, or `truncate` is not a positive number.

    Example:
      >>> import jax.numpy as jnp, rfjax
      >>> blur = Blur(padding="renormalized", support="faded")
      >>> y = rfjax.gaussian_blur(jnp.ones((1, 9, 9, 2)), jnp.zeros(1), blur=blur)
      >>> bool(jnp.allclose(y, 1.0))
      True

    Reference: "Blurring the Line between Structure and Learning", section 3.1.
    """

    truncate: float = 2.0
    padding: str = "zero"
    method: str = "sampled"
    support: str = "hard"

    def __post_init__(self) -> None:
        _checks.choose("padding", self.padding, PADDINGS)
        # A frozen dataclass sets a field, here to the checked number, in this way alone.
        object.__setattr__(self, "truncate", self.window.checked().truncate)

    @property
    def window(self) -> Window:
        """How the Gaussian becomes taps."""
        return Window(self.truncate, self.method, self.support)


def blur_of(blur: Blur | None, options: Mapping[str, Any], *, name: str = "blur") -> Blur:
    """The `Blur` that a function was given, as `blur` or as keywords.

    Args:
      blur: the function's argument called `name`.
      options: what it was given by keywords.

    Raises:
      ValueError: both were given, or an option is wrong.
      TypeError: there is no such option, or `blur` is something else.

    Example:
      >>> blur_of(None, {"padding": "edge"}).padding
      'edge'
    """
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise TypeError(
            f"got an unexpected keyword argument {unknown[0]!r}; the options of a blur are "
            f"{', '.join(OPTIONS)}"
        )
    if blur is None:
        given: dict[str, Any] = dict(options)
        return Blur(**given)
    if not isinstance(blur, Blur):
        raise _checks.WrongKind(f"{name} must be an rfjax.Blur or None; got {blur!r}")
    if options:
        raise ValueError(f"{name} holds {', '.join(options)} already: give one or the other")
    return blur


OPTIONS = {field.name: field.default for field in dataclasses.fields(Blur)}


def spelled(function: Function) -> Function:
    """`function`, whose signature shows the options of a blur that it takes as `**options`.

    Example:
      >>> import inspect, rfjax
      >>> inspect.signature(rfjax.gaussian_blur).parameters["support"].default
      'hard'
    """
    signature = inspect.signature(function)
    # The function's own arguments, then the options in place of `**options`.
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
        for field in dataclasses.fields(Blur)
    ]
    function.__signature__ = signature.replace(parameters=[*own, *options])
    return function
