"""One kind of name table for scenes, arms, suites and models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from evalsuite.core.errors import OptionError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class _Address:
    """Where a value lies that has not been asked for yet: ``module:name``."""

    target: str


def resolve(target: str) -> Any:
    """What is called ``name`` in a module, which is imported now.

    Args:
        target: ``module:name``.
    """
    module, name = target.split(":")
    return getattr(import_module(module), name)


class Registry(Generic[T]):
    """Names to values; a collision or an unknown name is an error that lists what is known."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T | _Address] = {}

    def add(self, name: str, value: T) -> T:
        """Register ``value``; returns it."""
        self._set(name, value)
        return value

    def add_target(self, name: str, target: str) -> None:
        """Register what lies at ``module:name``; it is imported when it is first asked for, not to know its name."""
        self._set(name, _Address(target))

    def require(self, name: str) -> None:
        """Refuse a name that is not registered; nothing is imported.

        Raises:
            UnknownNameError: no such name.
        """
        if name not in self._items:
            raise UnknownNameError(self.kind, name, self._items)

    def __getitem__(self, name: str) -> T:
        self.require(name)
        value = self._items[name]
        if isinstance(value, _Address):
            found: T = resolve(value.target)
            self._items[name] = found
            return found
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def _set(self, name: str, value: T | _Address) -> None:
        if name in self._items:
            raise OptionError(f"{self.kind} {name!r} is registered twice; give one of them another name")
        self._items[name] = value
