"""Structures from motion that are kept: each is made once, whichever seeds, arms and later runs ask for it.

SIFT, matching and triangulation of 96 views take ten CPU-seconds, depend on no seed of a run, and would be done again
by every one of them. A structure is kept in one safetensors file, named after everything that decides it: the 8-bit
images that SIFT sees, the cameras, the source of `evalsuite.scenes.sfm` and the libraries it works with. Scene and
protocol decide the points through the views alone, so they need no part of their own. Budgets have different views and
never share: an arm gets no point that its own supervision does not show.

The seconds of the making are kept with it. They are what it costs to have it, whoever reads it.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from evalsuite.core.machine import libraries
from evalsuite.core.types import Points, Views
from evalsuite.scenes import sfm
from evalsuite.scenes.sfm import SfmResult, pictures, triangulate

LIBRARIES = ("numpy", "pillow", "pycolmap", "scipy", "torch")
"""What `triangulate` works with."""

_NUMBERS = ("mean_track_length", "reprojection_error_px", "seconds")
_DAMAGED = (SafetensorError, OSError, KeyError, TypeError, ValueError)


def structure_of(views: Views, background: Float[Tensor, "3"], folder: Path | None) -> SfmResult:
    """The structure of these views, read if it was made before.

    A file that cannot be read, or that is not what was written, is made anew, with a `UserWarning`.

    Args:
        background: sRGB colour behind views with alpha.
        folder: where structures are kept; made if needed. None: nothing is kept.
    """
    if folder is None:
        return triangulate(views, background)
    path = folder / f"{_key(views, background)}.safetensors"
    if path.exists():
        try:
            return _read(path)
        except _DAMAGED as error:
            warnings.warn(f"{path} holds no structure from motion ({error}); it is made anew", stacklevel=2)
    found = triangulate(views, background)
    _write(found, path)
    return found


def _key(views: Views, background: Float[Tensor, "3"]) -> str:
    """Twelve hexadecimal digits over all that decides a structure."""
    cameras = views.cameras
    digest = hashlib.sha256(_maker().encode())
    for array in (
        pictures(views, background),
        *(part.detach().cpu().numpy() for part in (cameras.cam_from_world, cameras.focal_px, cameras.centre_px)),
    ):
        digest.update(f"{array.dtype} {array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


@lru_cache(maxsize=1)
def _maker() -> str:
    """Hash of the code that makes structures, and its libraries."""
    code = hashlib.sha256(Path(sfm.__file__).read_bytes()).hexdigest()
    return " ".join([code, *(f"{name} {libraries()[name]}" for name in LIBRARIES)])


def _write(found: SfmResult, path: Path) -> None:
    """Write a structure; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"xyz": found.points.xyz.contiguous(), "rgb": found.points.rgb.contiguous()}
    said = {name: repr(float(getattr(found, name))) for name in _NUMBERS}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={**said, "sha256": _content(tensors)})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> SfmResult:
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
        tensors = {name: file.get_tensor(name) for name in ("xyz", "rgb")}
    if said["sha256"] != _content(tensors):
        raise ValueError("its points are not those that were written")
    numbers = {name: float(said[name]) for name in _NUMBERS}
    return SfmResult(Points(tensors["xyz"], tensors["rgb"]), **numbers)


def _content(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
