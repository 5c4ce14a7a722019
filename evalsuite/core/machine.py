"""What machine this is: part of every record, and the device class that goldens belong to."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

VERSIONED = (
    *("torch", "torchvision", "gsplat", "numba", "llvmlite", "numpy", "scipy", "pillow", "pycolmap", "trimesh"),
    *("embreex", "safetensors", "lpips"),
)
"""Distributions that can move a number."""

READERS = ("fetch", "gates", "report", "plugin", "commands", "cli.py")
"""Parts of the package that no number of a record depends on (see the stages of dvc.yaml)."""

_MODULES = {"pillow": "PIL"}
_CODE = (".py", ".so", ".pyd", ".cu", ".cuh", ".cpp")
_WHOLE_BYTES, _END_BYTES = 1 << 22, 1 << 20


def device_class(device: str) -> str:
    """What goldens are kept per: ``cpu-x86-64``, ``cuda-sm90``. It says where a case ran, not what the machine has.

    Args:
        device: ``cpu``, or ``cuda`` with an index or without; of a GPU that is not there the architecture is unknown.
    """
    if device.split(":")[0] == "cuda":
        import torch  # takes seconds, and most of this module does not need it

        if not torch.cuda.is_available():
            return "cuda"
        major, minor = torch.cuda.get_device_capability(device)
        return f"cuda-sm{major}{minor}"
    return f"cpu-{platform.machine().lower().replace('_', '-')}"


@lru_cache(maxsize=2)
def fingerprint(device: str) -> dict[str, Any]:
    """Hardware that a case on this device ran on, and library versions; no host or user name."""
    gpu = cuda = None
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_properties(device) if torch.cuda.is_available() else None
        cuda = torch.version.cuda if gpu else None
    return {
        "device_class": device_class(device),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "gpu": gpu.name if gpu else None,
        "gpu_bytes": gpu.total_memory if gpu else None,
        "cuda": cuda,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONED},
    }


@lru_cache(maxsize=1)
def libraries() -> dict[str, str]:
    """Version and hash of the installed code of every library in `VERSIONED`, such as ``1.5.3 09f1ab32``.

    The hash tells a fork, a patch or another build from the release that it calls itself. Files above 4 MiB count by
    their size and both ends: a second in all.
    """
    return {name: f"{importlib.metadata.version(name)} {_installed_hash(name)}" for name in VERSIONED}


def _installed_hash(distribution: str) -> str:
    spec = importlib.util.find_spec(_MODULES.get(distribution, distribution))
    if spec is None:
        return "absent"
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    digest = hashlib.sha256()
    for root in folders or [Path(spec.origin or "").parent]:
        for path in sorted(root.rglob("*") if folders else [Path(spec.origin or "")]):
            if path.suffix in _CODE or ".so." in path.name:
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + _ends(path) + b"\0")
    return digest.hexdigest()[:8]


def _ends(path: Path) -> bytes:
    size = path.stat().st_size
    if size <= _WHOLE_BYTES:
        return path.read_bytes()
    with path.open("rb") as file:
        first = file.read(_END_BYTES)
        file.seek(-_END_BYTES, os.SEEK_END)
        return str(size).encode() + first + file.read()


@lru_cache(maxsize=1)
def commit() -> dict[str, Any]:
    """Where this package comes from: commit and whether tracked files differ from it, and a hash of its own files.

    Git is asked about the package's files only. An installed package that merely lies within somebody's repository, a
    machine without git, or no repository at all have no commit; the hash is always there.
    """
    package = _package()
    head = _git("rev-parse", "HEAD") if _tracked() else None
    dirty = bool(_git("status", "--porcelain", "--untracked-files=no")) if head else None
    return {"commit": head, "dirty": dirty, "package": _hash_of(package, sorted(package.rglob("*.py")))}


def uncommitted() -> tuple[str, ...] | None:
    """Files of this package that differ from the last commit or are not in it; None where git does not track it."""
    listed = _git("status", "--porcelain", "--untracked-files=all", "--", ".") if _tracked() else None
    return None if listed is None else tuple(line[2:].strip() for line in listed.splitlines())


def source_hash(*outside: object) -> str:
    """Twelve hexadecimal digits over the sources that make numbers: a finished case may only be kept if they match.

    What brings data, and what reads records (`READERS`), is left out: a mended report calls for no new run.

    Args:
        outside: what else makes the numbers, such as an arm; code that lies outside this package joins the hash: the
            whole top-level package of its module, or the module's file.
    """
    digests = [_own_sources()]
    for root in sorted({root for made in outside if (root := _home(made)) and root != _package()}):
        code = [path for path in sorted(root.rglob("*")) if path.suffix in _CODE]
        digests.append(_hash_of(root, code) if root.is_dir() else _hash_of(root.parent, [root]))
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()[:12]


@lru_cache(maxsize=1)
def _own_sources() -> str:
    package = _package()
    paths = [path for path in sorted(package.rglob("*.py")) if path.relative_to(package).parts[0] not in READERS]
    return _hash_of(package, paths)


def _home(made: object) -> Path | None:
    """Folder of the top-level package in which a function or an object's class was written, or its module's file."""
    while isinstance(made, partial):
        made = made.func
    name = getattr(made, "__module__", None) or type(made).__module__
    top = sys.modules.get(name.split(".")[0])
    if top is not None and hasattr(top, "__path__"):
        return Path(next(iter(top.__path__))).resolve()
    file = getattr(sys.modules.get(name), "__file__", None)
    return None if file is None else Path(file).resolve()


def _package() -> Path:
    return Path(__file__).resolve().parents[1]


def _hash_of(root: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + _ends(path) + b"\0")
    return digest.hexdigest()[:12]


def _tracked() -> bool:
    """Whether this very file is in a git repository's index."""
    return _git("ls-files", "--error-unmatch", "--", str(Path(__file__).resolve())) is not None


def _git(*arguments: str) -> str | None:
    """What git says of the package's folder; None where it fails or is not installed."""
    command = ["git", "-C", str(_package()), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip("\n") if done.returncode == 0 else None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
