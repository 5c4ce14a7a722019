"""CPU splatting engine: gsplat's semantics in Numba kernels, deterministic, parallel over tiles.

Modules in the order data flows: `projection` (EWA, per Gaussian), `harmonics` (view-dependent colour),
`tiles` (depth-sorted list per 16x16 tile), `compositor` (front-to-back blending and its gradient), `photometric` (the
loss); `simd` is the vector type that the last two are written in.
Kernels see contiguous float32 arrays that the caller has checked; they raise nothing.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import numba
from numba.core.caching import CacheImpl
from numba.misc.appdirs import AppDirs

from evalsuite.splats.cpu.cache import LOCATORS


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _give_kernels_a_cache() -> None:
    """Make Numba ask `LOCATORS` first; where no folder can be written, keep compiled kernels until exit.

    Numba refuses to import cached kernels there. Workers inherit the folder through the environment.
    """
    names = [f"{locator.__module__}.{locator.__qualname__}" for locator in LOCATORS]
    others = numba.config.CACHE_LOCATOR_CLASSES or ",".join(found.__name__ for found in CacheImpl._locator_classes)
    numba.config.CACHE_LOCATOR_CLASSES = ",".join([*names, others])
    places = (Path(__file__).parent / "__pycache__", Path(AppDirs(appname="numba", appauthor=False).user_cache_dir))
    if numba.config.CACHE_DIR or any(map(_writable, places)):
        return
    folder = tempfile.mkdtemp(prefix="evalsuite-kernels-")
    os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = folder
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


_give_kernels_a_cache()
