"""What a scene holds, as one hash: another object under a known name, or re-encoded images, must not pass for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

from evalsuite.core.types import Scene


def content_hash(scene: Scene) -> str:
    """Twelve hexadecimal digits over images, cameras, points, mesh and samples; the id and the notes are left out.

    Of the same code and files it is the same on the same processor; on another one, rays may round otherwise.
    """
    digest = hashlib.sha256()
    for name, values in _arrays(scene):
        array = np.ascontiguousarray(values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values)
        digest.update(f"{name} {array.dtype} {array.shape}\0".encode())
        digest.update(array.data)
    return digest.hexdigest()[:12]


def _arrays(scene: Scene) -> Iterator[tuple[str, torch.Tensor | np.ndarray]]:
    """Every number of a scene, by name; what a scene does not have is left out."""
    for part in ("inputs", "capture", "heldout"):
        views = getattr(scene, part)
        yield f"{part}.rgb", views.rgb
        if views.alpha is not None:
            yield f"{part}.alpha", views.alpha
        for name in ("cam_from_world", "focal_px", "centre_px"):
            yield f"{part}.{name}", getattr(views.cameras, name)
    yield "bounds", np.array([*scene.centre.tolist(), scene.radius, *scene.background.tolist()])
    for part, names in (
        ("points", ("xyz", "rgb")),
        ("mesh", ("vertices", "faces", "uv", "image", "vertex_rgb")),
        ("surface", ("points", "normals")),
    ):
        values = getattr(scene, part)
        yield from ((f"{part}.{name}", found) for name in names if (found := getattr(values, name, None)) is not None)
