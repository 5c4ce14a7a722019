"""Where data that is not in the repository may lie: a mirror in the publishers' layouts, or ``data/``."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "EVALSUITE_MIRROR"

DATA = Path("data")
"""The data folder, which ``evalsuite fetch`` fills."""


def mirror() -> str | None:
    """``$EVALSUITE_MIRROR``: a folder, or the address of a web server (``http[s]://``); None if not set."""
    return os.environ.get(VARIABLE) or None


def is_web(place: str) -> bool:
    """Whether a mirror is the address of a web server: ``evalsuite fetch`` reads it, nothing else does."""
    return place.startswith(("http://", "https://"))


def places(relative: Path) -> tuple[Path, ...]:
    """Where to look for a file or folder, in order: ``$EVALSUITE_MIRROR`` if it is a folder, then ``data`` here."""
    place = mirror()
    roots = [Path(place)] if place and not is_web(place) else []
    return tuple(root / relative for root in (*roots, DATA))
