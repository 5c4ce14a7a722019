"""Where the weights of each network lie, and what a file of weights says of itself. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from evalsuite.core.errors import MissingDataError
from evalsuite.core.mirror import places
from evalsuite.models.lgm.config import CONFIGS

MINI_PATH = Path(__file__).with_name("lgm-mini.safetensors")

PUBLIC_FILES = {"lgm-big": "model_fp16_fixrot.safetensors"}
"""Public checkpoint of each model that has one; the hub's other files predate the rotation fix."""


def weights_path(name: str, explicit: Path | None = None) -> Path:
    """Where the weights of a registered model are on this machine.

    The explicit file; else the one in the package (``lgm-mini``); else ``weights/lgm`` of the mirror, then of ``data``.

    Raises:
        UnknownNameError: no such model.
        MissingDataError: no weights for it; the message says where to put them.
    """
    config = CONFIGS[name]
    if explicit is not None:
        if explicit.is_file():
            return explicit
        raise MissingDataError(f"no weights of {name} at {explicit}; expected a safetensors file: correct the path")
    if name == "lgm-mini":
        candidates: tuple[Path, ...] = (MINI_PATH,)
    elif name in PUBLIC_FILES:
        candidates = places(Path("weights/lgm") / PUBLIC_FILES[name])
    else:
        raise MissingDataError(f"{config.name} has no public weights; use lgm-mini or lgm-big, or name a file of yours")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    remedy = "train it with evalsuite train" if name == "lgm-mini" else "run: evalsuite fetch lgm"
    raise MissingDataError(
        f"no weights of {name} on this machine; expected them at {' or '.join(map(str, candidates))}: {remedy}"
    )


def weights_digest(path: Path) -> str:
    """SHA-256 of a file of weights, hexadecimal; records hold its first twelve digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def training_seconds(path: Path) -> float | None:
    """What training took, in seconds of processor time over all its processes.

    Args:
        path: file of weights; `evalsuite train --export` writes the number into it.

    Returns:
        None where the file does not say: published weights.
    """
    try:
        with safe_open(path, framework="np") as file:
            run = json.loads((file.metadata() or {}).get("run", "{}"))
        seconds = float(run["training_seconds"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
