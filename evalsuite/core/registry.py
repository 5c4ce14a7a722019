"""One kind of name table for scenes, arms, suites and models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from evalsuite.core.errors import OptionError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to values; a collision or an unknown name is an error that lists what is known."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, value: T) -> T:
        """Register ``value``; returns it."""
        if name in self._items:
            raise OptionError(f"{self.kind} {name!r} is registered twice; give one of them another name")
        self._items[name] = value
        return value

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._items) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)
