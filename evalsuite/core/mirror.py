"""Where data that is not in the repository may lie: a mirror in the publishers' layouts, or ``data/``."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "EVALSUITE_MIRROR"


def places(relative: Path) -> tuple[Path, ...]:
    """Where to look for a file or folder, in order: under ``$EVALSUITE_MIRROR`` if set, then under ``data`` here."""
    mirror = os.environ.get(VARIABLE)
    roots = [Path(mirror)] if mirror else []
    return tuple(root / relative for root in (*roots, Path("data")))
