"""What the parts of rfjax beyond the primitives need, told in one line where it is missing."""

import importlib.util


def missing(package: str, *modules: str) -> ModuleNotFoundError | None:
    """The error to raise where `package` cannot be used; None where all that it needs is there.

    Nothing is imported. A package asks in its first statement, before its own imports fail.

    Args:
        package: the `__name__` of the one that asks.
        modules: the top-level modules that it needs.

    Example:
        >>> missing("rfjax.nn", "json", "cubist")
        ModuleNotFoundError("rfjax.nn needs cubist: pip install 'rfjax[train]'")
    """
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if not absent:
        return None
    message = f"{package} needs {', '.join(absent)}: pip install 'rfjax[train]'"
    return ModuleNotFoundError(message, name=absent[0])
