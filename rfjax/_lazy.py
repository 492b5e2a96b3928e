"""Packages whose public names are imported when they are first used.

`import rfjax` then takes no time, and a program can look at its command line before JAX, which
takes seconds, is imported. Nothing else changes: `from rfjax import gaussian_blur` works as ever.
"""

import importlib
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any


def install(package: str, exports: Mapping[str, Iterable[str]]) -> list[str]:
    """Gives `package` the names of its modules, imported at their first use.

    Args:
        package: its `__name__`.
        exports: by module of the package, the names that the package re-exports. The modules
            themselves are attributes as well. A module that begins with a dot is one beside the
            package, as in an import: ".studies.search" of "rfjax.search" is "rfjax.studies.search".

    Returns:
        The names, for `__all__`.
    """
    homes = {name: f".{module}" for module, names in exports.items() for name in names}
    own = {module for module in exports if not module.startswith(".")}

    class Package(ModuleType):
        """A package with lazy attributes."""

        def __getattr__(self, name: str) -> Any:
            if name in homes:
                value = getattr(importlib.import_module(homes[name], package), name)
            elif name in own:
                value = importlib.import_module(f".{name}", package)
            else:
                raise AttributeError(f"module {package!r} has no attribute {name!r}")
            self.__dict__[name] = value
            return value

        def __setattr__(self, name: str, value: Any) -> None:
            # The import of a module sets it as an attribute of its package. Where a function has
            # the name of its module, the attribute is the function.
            if not (name in homes and isinstance(value, ModuleType)):
                super().__setattr__(name, value)

        def __dir__(self) -> list[str]:
            return sorted({*self.__dict__, *homes, *own})

    sys.modules[package].__class__ = Package
    return list(homes)
