"""Other layers at chosen places of a network, named by their paths in the tree of parameters."""

import dataclasses
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from flax import linen

from rfjax.nn.convolution import Conv

Layer = Callable[..., linen.Module]


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which layer a convolution is, by its path; made by `select`.

    Attributes:
      patterns: of the paths at which there is `layer`.
      layer: layer class, or a partial of one, with the constructor of `rfjax.nn`.
      otherwise: that of the other paths; a selection in its turn, perhaps.
    """

    patterns: tuple[str, ...]
    layer: Layer
    otherwise: "Layer | Selection" = Conv

    def at(self, path: str, fixed: Layer | None = None) -> Layer:
        """The layer at a path; `fixed` in place of `otherwise` where nothing matches."""
        if any(fnmatchcase(path, pattern) for pattern in self.patterns):
            return self.layer
        if isinstance(self.otherwise, Selection):
            return self.otherwise.at(path, fixed)
        return fixed or self.otherwise

    def every_pattern(self) -> tuple[str, ...]:
        """The patterns of this selection and of those within it."""
        inner = self.otherwise
        return self.patterns + (inner.every_pattern() if isinstance(inner, Selection) else ())


@dataclasses.dataclass(frozen=True)
class Recording(Selection):
    """A selection that notes in `seen` at which paths it was asked."""

    seen: dict[str, None] = dataclasses.field(default_factory=dict, compare=False)

    def at(self, path: str, fixed: Layer | None = None) -> Layer:
        self.seen[path] = None
        return super().at(path, fixed)

    def check(self) -> None:
        """Raises if a pattern matches none of the paths."""
        for pattern in self.every_pattern():
            if not any(fnmatchcase(path, pattern) for path in self.seen):
                raise ValueError(
                    f"no convolution lies at {pattern!r}; there are {', '.join(self.seen)}"
                )


def select(
    patterns: str | Iterable[str], layer: Layer, *, otherwise: "Layer | Selection" = Conv
) -> Selection:
    """A choice of layers by their paths, to be given to a network in place of one layer.

    The convolution at a path is `layer` where a pattern matches the whole path, and `otherwise`
    where none does. Any convolution of a network can be named, those of the stem and the 1x1 ones
    included; `otherwise` is for the 3x3 ones after the stem, and the rest stays plain. Parameters
    keep their paths, so weights of the plain network fit.

    Args:
      patterns: of paths such as "backbone/layer4_0/conv2" in the tree of parameters: one, or
        several; `*` is any text, slashes included, `?` any character, `[ab]` one of these.
      layer: layer class, or a partial of one, with the constructor of `rfjax.nn`.
      otherwise: likewise, or another selection, which decides where this one does not.

    Returns:
      What `rfjax.models.create` takes as `conv`. Patterns that match nothing are an error there.

    Raises:
      ValueError: there is no pattern, or one is empty.
      TypeError: a pattern is not a text, or a layer cannot be called.

    Example:
      >>> from functools import partial
      >>> from rfjax import nn
      >>> chosen = select("*/conv2", partial(nn.ComposedConv, sigma=0.3))
      >>> chosen.at("backbone/layer1_0/conv2").func.__name__
      'ComposedConv'
      >>> chosen.at("backbone/layer1_0/conv1").__name__
      'Conv'

    Reference: "Blurring the Line between Structure and Learning", section 4 (where to compose).
    """
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"patterns must be texts; got {patterns!r}")
    if not patterns or "" in patterns:
        raise ValueError(f"patterns must be texts that are not empty; got {patterns!r}")
    for name, value in (("layer", layer), ("otherwise", otherwise)):
        if not callable(value) and not (name == "otherwise" and isinstance(value, Selection)):
            raise TypeError(f"{name} must be a layer class or a partial of one; got {value!r}")
    return Selection(patterns, layer, otherwise)


def layer_at(
    conv: Layer | Selection, module: linen.Module, name: str, *, fixed: Layer | None = None
) -> Layer:
    """The layer class of the child `name` of a module whose convolutions are `conv`.

    Args:
      conv: a layer class, or a selection of several.
      module: the parent, which must be bound: called within one of its methods.
      name: of the child.
      fixed: what the child is unless a selection names it; None for what `conv` says.

    Returns:
      A layer class with the constructor of `rfjax.nn`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from rfjax import nn
      >>> class Block(linen.Module):
      ...   @linen.compact
      ...   def __call__(self, x):
      ...     conv = select("second", nn.ComposedConv)
      ...     for name in ("first", "second"):
      ...       x = layer_at(conv, self, name)(4, name=name)(x)
      ...     return x
      >>> variables = Block().init(jax.random.key(0), jnp.ones([1, 9, 9, 3]))
      >>> {name: sorted(leaves) for name, leaves in variables["params"].items()}
      {'first': ['kernel'], 'second': ['covariance', 'kernel']}
    """
    if isinstance(conv, Selection):
        return conv.at("/".join((*module.path, name)), fixed)
    return fixed or conv
