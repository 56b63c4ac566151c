"""A table of named things that others may add to: by a call of ``register``, or by an entry point of their package."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Our own entries, those that were registered, and those that installed packages declare.

    Entry points are read when a name is asked for that is not known otherwise, or all names are. One that cannot be
    loaded is warned of when names are listed, and its name raises what its import raised.
    """

    def __init__(self, group: str, own: Mapping[str, T], check: Callable[[str, object], T]) -> None:
        """Start a table.

        Args:
            group: the entry points' group, such as ``lipcompare.methods``; an entry point's name is the entry's.
            own: the entries that come with the package; their names cannot be taken.
            check: the entry itself if it is of the right kind, else it raises.
        """
        self.group, self._check = group, check
        self._own = dict(own)
        self._registered: dict[str, T] = {}
        self._loaded: dict[str, T] = {}
        self._declared: dict[str, metadata.EntryPoint] | None = None

    def register(self, name: str, entry: T) -> T:
        """Add an entry, or replace one that was registered before under this name.

        Raises:
            ValueError: the name belongs to the package.
        """
        if name in self._own:
            raise ValueError(f"{name!r} is a name of this package: take another one.")
        self._registered[name] = self._check(name, entry)
        return entry

    def unregister(self, name: str) -> None:
        """Take back what was registered under a name."""
        self._registered.pop(name, None)

    def __getitem__(self, name: str) -> T:
        for known in (self._own, self._registered, self._loaded):
            if name in known:
                return known[name]
        point = self._entry_points()[name]  # a KeyError where nobody declares it
        self._loaded[name] = self._check(name, point.load())
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._registered or name in self._entry_points()

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in self._registered if name not in self._own)
        for name, point in self._entry_points().items():
            if name in self._registered:
                continue
            try:
                self[name]
            except Exception as error:  # noqa: BLE001  # somebody else's package; ours go on working
                warnings.warn(f"{point.value} of {self.group} does not load: {error}", RuntimeWarning, stacklevel=2)
                continue
            yield name

    def __repr__(self) -> str:
        return f"<{self.group}: {', '.join(self)}>"

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        if self._declared is None:
            found = metadata.entry_points(group=self.group)
            self._declared = {point.name: point for point in found if point.name not in self._own}
        return self._declared
