"""What machine this is: part of every record, and the device class that goldens belong to."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

VERSIONED = (
    *("torch", "torchvision", "gsplat", "numba", "numpy", "pycolmap", "trimesh", "embreex", "safetensors"),
    *("flip-evaluator", "lpips"),
)

READERS = ("fetch", "gates", "report", "plugin", "commands", "cli.py")
"""Parts of the package that no number of a record depends on (see the stages of dvc.yaml)."""


def device_class() -> str:
    """Goldens are kept per device class: ``cpu-x86-64``, ``cuda-sm90``."""
    import torch  # takes seconds, and most of this module does not need it

    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        return f"cuda-sm{major}{minor}"
    return f"cpu-{platform.machine().lower().replace('_', '-')}"


@lru_cache(maxsize=1)
def fingerprint() -> dict[str, Any]:
    """Hardware and library versions that can change a number; no host or user name."""
    import torch

    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "device_class": device_class(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "gpu": gpu.name if gpu else None,
        "gpu_bytes": gpu.total_memory if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }


@lru_cache(maxsize=1)
def commit() -> dict[str, Any]:
    """Commit of the checkout this package runs from, and whether tracked files differ from it; None outside git."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    return {"commit": head, "dirty": bool(git("status", "--porcelain", "-uno")) if head else None}


def uncommitted() -> tuple[str, ...] | None:
    """Files of this package that differ from the last commit or are not in it; None outside git."""
    package = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(package), "status", "--porcelain", "--untracked-files=all", "--", "."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return tuple(line[3:] for line in done.stdout.splitlines()) if done.returncode == 0 else None


@lru_cache(maxsize=1)
def source_hash() -> str:
    """Twelve hexadecimal digits over the sources that make numbers: a finished case may only be kept if they match.

    What brings data, and what reads records (`READERS`), is left out: a mended report calls for no new run.
    """
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if path.relative_to(package).parts[0] in READERS:
            continue
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
