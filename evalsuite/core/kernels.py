"""Where Numba keeps compiled kernels, and when it believes that they still fit.

Numba asks only whether the file of a kernel has changed. Ours inline intrinsics and other kernels of their folder,
whose machine code would live on in the cache after their sources had changed: here a kernel fits while no file of its
folder has changed. A folder of kernels inlines none of another folder, and calls `keep_kernels` in its ``__init__``.
Numba finds these classes by name (``NUMBA_CACHE_LOCATOR_CLASSES``) and asks them for every function of the process;
they answer for kernels of those folders only.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CacheImpl, InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator
from numba.misc.appdirs import AppDirs

KEPT_VERSIONS = 16
"""Of each folder's kernels in the user's cache; one takes some 10 MB."""

_config: Any = numba.config  # fills itself from the environment: no type checker sees its names
_folders: set[Path] = set()


def keep_kernels(package_file: str) -> None:
    """Keep the compiled kernels of a package: below ``NUMBA_CACHE_DIR``, in the user's cache, or beside the sources.

    Where none of them can be written, until exit: Numba refuses to import cached kernels there. Workers inherit that
    folder through the environment.

    Args:
        package_file: ``__file__`` of the package, whose folder holds its kernels.
    """
    folder = Path(package_file).resolve().parent
    _folders.add(folder)
    names = [f"{locator.__module__}.{locator.__qualname__}" for locator in LOCATORS]
    given = _config.CACHE_LOCATOR_CLASSES or ",".join(found.__name__ for found in CacheImpl._locator_classes)
    others = [name for name in given.split(",") if name not in names]
    _config.CACHE_LOCATOR_CLASSES = ",".join([*names, *others])
    if _config.CACHE_DIR or any(map(_writable, (_user_cache(folder), folder / "__pycache__"))):
        return
    until_exit = tempfile.mkdtemp(prefix="evalsuite-kernels-")
    os.environ["NUMBA_CACHE_DIR"] = _config.CACHE_DIR = until_exit
    atexit.register(shutil.rmtree, until_exit, ignore_errors=True)


@lru_cache(maxsize=8)
def kernel_stamp(folder: Path) -> str:
    """SHA-256 over the sources of all kernels of a folder and the versions of the compiler, hexadecimal."""
    digest = hashlib.sha256(f"{version('numba')} {version('llvmlite')}".encode())
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class _WholeFolder:
    """The part that differs from Numba's locators."""

    _py_file: str

    def get_source_stamp(self) -> str:
        return kernel_stamp(Path(self._py_file).resolve().parent)

    @classmethod
    def from_function(cls, py_func: Callable[..., object], py_file: str) -> Any:
        if Path(py_file).resolve().parent not in _folders:
            return None
        return super().from_function(py_func, py_file)  # type: ignore[misc]  # of Numba's locator, which comes next


class Given(_WholeFolder, UserProvidedCacheLocator):
    """Below ``NUMBA_CACHE_DIR``, if that is set."""


class OfUser(_WholeFolder, UserWideCacheLocator):
    """In the user's cache folder, by content: checkouts and installations with the same kernels compile them once."""

    def __init__(self, py_func: Callable[..., object], py_file: str) -> None:
        super().__init__(py_func, py_file)
        self._cache_path = str(_user_cache(Path(py_file).resolve().parent))

    def ensure_cache_path(self) -> None:
        super().ensure_cache_path()
        _leave_newest(Path(self._cache_path))


class BesideSources(_WholeFolder, InTreeCacheLocator):
    """In ``__pycache__``."""


LOCATORS = (Given, OfUser, BesideSources)
"""In the order in which they are tried."""


def _user_cache(folder: Path) -> Path:
    """Of the kernels that a folder holds now, wherever it lies."""
    place = Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)
    return place / f"evalsuite-{folder.parent.name}-{folder.name}" / kernel_stamp(folder)[:16]


@lru_cache(maxsize=8)
def _leave_newest(cache: Path) -> None:
    """Forget the kernels, among other versions of one folder, that no process has asked for the longest."""
    os.utime(cache)
    versions = sorted(cache.parent.iterdir(), key=lambda version: version.stat().st_mtime, reverse=True)
    for old in versions[KEPT_VERSIONS:]:
        shutil.rmtree(old, ignore_errors=True)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
