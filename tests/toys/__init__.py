"""Small systems that are not part of the package, each a file that makes itself known to it.

Every toy has a function `register`; `registered` forgets what it has registered.
"""

import contextlib
from collections.abc import Iterator
from types import ModuleType

from rfjax import _names
from rfjax.data.registry import DATA_SETS
from rfjax.models.heads import HEADS
from rfjax.models.registry import ARCHITECTURES
from rfjax.tasks.registry import TASKS

_REGISTRIES = (
    (ARCHITECTURES, _names.NETWORKS),
    (HEADS, _names.HEADS),
    (DATA_SETS, _names.DATA_SETS),
    (TASKS, _names.TASKS),
)


@contextlib.contextmanager
def registered(*toys: ModuleType) -> Iterator[None]:
    """The toys are known within this context, and not after it."""
    tables = [table for known, options in _REGISTRIES for table in (known._entries, options)]
    before = [dict(table) for table in tables]
    try:
        for toy in toys:
            toy.register()
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
