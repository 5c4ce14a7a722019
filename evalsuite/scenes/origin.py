"""What a prepared scene was made from: enough to tell, without loading it or torch, whether it may serve."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evalsuite.core.errors import BadDataError
from evalsuite.core.protocol import Protocol

SCHEMA = 2
FACTS = "scene.json"
"""File of a prepared scene that holds all but its images and geometry."""

_LIBRARIES = ("embreex", "numpy", "pillow", "pycolmap", "scipy", "torch", "trimesh")
"""What can change a pixel without a change of this package."""

UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, IndexError)
"""What reading a damaged file may raise."""


@dataclass(frozen=True)
class Origin:
    """What a prepared scene was made from.

    Attributes:
        protocol: hash of the protocol.
        code: hash of the code that makes scenes, and of the libraries' versions.
        source: hash of the files it was read from; empty for procedural scenes and where they are not at hand.
    """

    protocol: str
    code: str
    source: str

    def matches(self, other: Origin) -> bool:
        """Whether both are of the same protocol and code, and of the same files where both know theirs."""
        sources = {self.source, other.source} - {""}
        return (self.protocol, self.code) == (other.protocol, other.code) and len(sources) < 2


def origin_of(protocol: Protocol, files: Iterable[tuple[str, Path]]) -> Origin:
    """What a scene made here and now would be made from.

    Args:
        protocol: of the scene.
        files: name and place of each file it is read from; the names count, the places do not.
    """
    digests = {name: file_hash(path) for name, path in files}
    source = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:12] if digests else ""
    return Origin(protocol.hash, _code_hash(), source)


@lru_cache(maxsize=1)
def _code_hash() -> str:
    package = Path(__file__).resolve().parents[1]
    sources = sorted([*(package / "scenes").rglob("*.py"), *(package / "core").glob("*.py")])
    state = {path.relative_to(package).as_posix(): file_hash(path) for path in sources}
    state |= {name: version(name) for name in _LIBRARIES}
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:12]


def read_origin(folder: Path) -> Origin | None:
    """What the prepared scene in a folder was made from; None if there is no folder, or a newer version wrote it.

    Raises:
        BadDataError: a folder without readable facts.
    """
    if not folder.is_dir():
        return None
    try:
        facts = read_json(folder / FACTS)
        return Origin(**facts["origin"]) if facts["schema"] == SCHEMA else None
    except UNREADABLE as error:
        raise damaged(folder, f"{FACTS}: {error!r}") from error


def damaged(folder: Path, reason: str) -> BadDataError:
    """The error that a prepared scene ends in which is not as it was written."""
    return BadDataError(f"prepared scene {folder} is damaged ({reason}); expected it as it was written")


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
