"""What was fetched, by its hash: recorded the first time, enforced ever after."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from evalsuite.core.errors import SchemaError

SCHEMA = 1

FILE_NAME = "fetched.json"


@dataclass(frozen=True)
class Content:
    """What lies on disk for one item.

    Attributes:
        sha256: of a plain file; of a folder: of its files' lines ``<sha256>  <path>``, sorted by path, as `sha256sum`
            writes them.
        files, bytes: their number and their sizes' sum.
    """

    sha256: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Entry:
    """One item as it was fetched.

    Attributes:
        content: what is kept of it.
        source_sha256: of the publisher's file; None if the item came unpacked.
        source_bytes: of the publisher's file.
    """

    content: Content
    source_sha256: str | None
    source_bytes: int | None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(path: Path) -> Content:
    """Hash, number and size of a file, or of all files of a folder."""
    if path.is_file():
        return Content(file_sha256(path), 1, path.stat().st_size)
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{file_sha256(file)}  {name}\n" for name, file in files)
    return Content(
        hashlib.sha256(lines.encode()).hexdigest(), len(files), sum(file.stat().st_size for _, file in files)
    )


class Ledger:
    """``fetched.json`` in the data folder. Whoever writes it holds the folder's lock."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE_NAME

    def read(self) -> dict[str, Entry]:
        """All entries by item id; none if nothing was fetched yet.

        Raises:
            SchemaError: malformed, or written by a newer evalsuite.
        """
        if not self.path.is_file():
            return {}
        try:
            tree = json.loads(self.path.read_text(encoding="utf-8"))
            if tree["schema"] != SCHEMA:
                raise SchemaError(f"{self.path} is of schema {tree['schema']}, expected {SCHEMA}: update evalsuite")
            return {
                key: Entry(**{**entry, "content": Content(**entry["content"])}) for key, entry in tree["items"].items()
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise SchemaError(
                f"{self.path} cannot be read ({reason}); expected what `evalsuite fetch` writes: delete it, and the "
                "next fetch records anew"
            ) from error

    def record(self, item_id: str, entry: Entry) -> None:
        """Write or replace one entry; the file is whole at every moment."""
        entries = {**self.read(), item_id: entry}
        tree = {"schema": SCHEMA, "items": {key: asdict(value) for key, value in entries.items()}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".part")
        draft.write_text(json.dumps(tree, sort_keys=True, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, self.path)
