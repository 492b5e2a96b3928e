"""What is known by name: networks, heads, data sets, tasks; here, and from outside the package."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Entries by name, in the order in which they were registered.

    Args:
      kind: of what is registered, for messages.
      entries: that the package has itself.
      options: by name those options that a config may set; a table of `rfjax._names`, which command
        lines are checked by. It learns what is registered later.

    Example:
      >>> shapes = Registry("shape", {"ring": 8}, {"ring": ()})
      >>> shapes.register("square", 4)
      >>> list(shapes), shapes["square"]
      (['ring', 'square'], 4)
    """

    def __init__(
        self,
        kind: str,
        entries: Mapping[str, Entry],
        options: MutableMapping[str, tuple[str, ...]],
    ):
        self._kind = kind
        self._entries = dict(entries)
        self._options = options

    def register(self, name: str, entry: Entry, options: Iterable[str] = ()) -> None:
        """Makes `entry` known as `name`.

        Args:
          name: a text that is not taken.
          entry: of the registry's kind.
          options: that a config may set, besides those that it sets for all.

        Raises:
          TypeError: the name is no text. ValueError: it is empty, or taken by another entry.
        """
        if not isinstance(name, str):
            raise TypeError(f"the name of a {self._kind} is a text; got {name!r}")
        if not name:
            raise ValueError(f"the name of a {self._kind} is a text that is not empty; got ''")
        if name in self._entries and self._entries[name] is not entry:
            raise ValueError(f"there is a {self._kind} {name!r} already")
        self._entries[name] = entry
        self._options[name] = tuple(options)

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
