"""What can be fetched: the items of ``manifest.toml``, each with source, licence, hash and what is kept of it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from evalsuite.core.errors import SchemaError, UnknownNameError

MANIFEST = Path(__file__).with_name("manifest.toml")

SCHEMA = 1


@dataclass(frozen=True)
class Item:
    """One file of a publisher: a zip that is unpacked, or a plain file. The keys are explained in ``manifest.toml``.

    Attributes:
        id: ``<group>/<name>``.
        bytes: size of the publisher's file; None: not known yet.
        sha256: of the publisher's file, 64 hexadecimal digits; None: not known yet.
    """

    id: str
    about: str
    licence: str
    citation: str
    to: PurePosixPath
    max_bytes: int
    url: str | None = None
    archive: PurePosixPath | None = None
    keep: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    loose: bool = False
    bytes: int | None = None
    sha256: str | None = None
    max_files: int = 1

    @property
    def in_mirror(self) -> PurePosixPath:
        """Path of the publisher's file in a mirror."""
        return self.archive or self.to


@dataclass(frozen=True)
class Manifest:
    """All items by id, and the sets: a suite's name to the groups it needs."""

    items: dict[str, Item]
    sets: dict[str, tuple[str, ...]]

    def select(self, names: Iterable[str]) -> tuple[Item, ...]:
        """Items by suite, group or own id, each once, in the manifest's order.

        Raises:
            UnknownNameError: none of the three.
        """
        wanted: set[str] = set()
        for name in names:
            groups = self.sets.get(name, (name,))
            found = {key for key in self.items if key == name or key.split("/")[0] in groups}
            if not found and name not in self.sets:
                known = {*self.sets, *(key.split("/")[0] for key in self.items)}
                raise UnknownNameError("data", name, known if "/" not in name else self.items)
            wanted |= found
        return tuple(item for key, item in self.items.items() if key in wanted)


def load_manifest(path: Path = MANIFEST) -> Manifest:
    """Read a manifest.

    Raises:
        SchemaError: not TOML, of a newer schema, or an item lacks a key or has one too many.
    """
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
        if tree["schema"] != SCHEMA:
            raise SchemaError(f"{path} is of schema {tree['schema']}, expected {SCHEMA}: update evalsuite")
        items = [_item(group, name, keys) for group, name, keys in _entries(tree["groups"])]
        sets = {name: tuple(groups) for name, groups in tree["sets"].items()}
    except (tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise SchemaError(f"{path} is no manifest ({reason}); expected its own comments' keys: correct it") from error
    return Manifest({item.id: item for item in items}, sets)


def _entries(groups: dict[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for group, keys in groups.items():
        shared = {key: value for key, value in keys.items() if key != "items"}
        for name, own in keys["items"].items():
            yield group, name, shared | own


def _item(group: str, name: str, keys: dict[str, Any]) -> Item:
    filled = {key: value.format(name=name) if key in ("url", "archive", "to") else value for key, value in keys.items()}
    for key in ("archive", "to"):
        if key in filled:
            filled[key] = PurePosixPath(filled[key])
    for key in ("keep", "needs"):
        filled[key] = tuple(filled.get(key, ()))
    return Item(id=f"{group}/{name}", **filled)
