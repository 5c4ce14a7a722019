"""Where Numba keeps compiled kernels, and when it believes that they still fit.

Numba asks only whether the file of a kernel has changed. Ours inline intrinsics and other kernels of this folder, whose
machine code would live on in the cache after their sources had changed: here a kernel fits while no file of the folder
has changed. Numba finds these classes by name (``NUMBA_CACHE_LOCATOR_CLASSES``) and asks them for every function of the
process; they answer for kernels of this folder only.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from numba.core.caching import InTreeCacheLocator, UserProvidedCacheLocator, UserWideCacheLocator

FOLDER = Path(__file__).resolve().parent


@lru_cache(maxsize=1)
def kernel_stamp() -> str:
    """SHA-256 over the sources of all kernels and the versions of the compiler, hexadecimal."""
    digest = hashlib.sha256(f"{version('numba')} {version('llvmlite')}".encode())
    for path in sorted(FOLDER.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class _WholeFolder:
    """The part that differs from Numba's locators."""

    def get_source_stamp(self):
        return kernel_stamp()

    @classmethod
    def from_function(cls, py_func, py_file):
        return super().from_function(py_func, py_file) if Path(py_file).resolve().parent == FOLDER else None


class Given(_WholeFolder, UserProvidedCacheLocator):
    """Below ``NUMBA_CACHE_DIR``, if that is set."""


class BesideSources(_WholeFolder, InTreeCacheLocator):
    """In ``__pycache__``."""


class OfUser(_WholeFolder, UserWideCacheLocator):
    """In the user's cache folder."""


LOCATORS = (Given, BesideSources, OfUser)
"""In the order in which they are tried."""
