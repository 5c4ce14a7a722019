"""Even samples of the part of a mesh that can be seen from outside.

Scans have inner sheets that no camera ever saw, and so may any extracted mesh: only what a ray from afar reaches is
part of the surface that geometry is measured on.
"""

from __future__ import annotations

import math

import numpy as np
import trimesh
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Bool, Float

from evalsuite.core.errors import NonFiniteError, ShapeError
from evalsuite.core.protocol import GeometryRule
from evalsuite.core.types import Mesh, SurfaceSamples

_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
_LIFT = 1e-4
"""How far from the surface rays start, in units of the diagonal: farther than float32 rounds."""

_STREAMS = {"true": 0, "predicted": 1}
_MAX_DRAWS = 64


def sphere_directions(count: int) -> Float[np.ndarray, "D 3"]:
    """Unit vectors evenly spread over the sphere: a Fibonacci spiral from +y to -y."""
    k = np.arange(count)
    y = 1 - (2 * k + 1) / count
    ring = np.sqrt(1 - y**2)
    return np.stack([ring * np.sin(k * _GOLDEN_ANGLE), y, ring * np.cos(k * _GOLDEN_ANGLE)], axis=1)


def visible_samples(mesh: Mesh, rule: GeometryRule, stream: str) -> SurfaceSamples | None:
    """``rule.samples`` points, evenly by area over the visible part of a mesh; None if no part of it is visible.

    A point is visible if, for one of ``rule.directions``, no triangle lies between it and infinity. Both sides of a
    triangle are seen: the winding of scans is not to be relied on.

    Args:
        mesh: any triangles; those without area get no samples.
        rule: counts and seed.
        stream: ``true`` or ``predicted``: the same seed draws other points for either, so that a surface measured
            against itself shows how far apart two samplings of it are.

    Raises:
        NonFiniteError: a vertex of a triangle is NaN or infinite.
        ShapeError: a triangle names a vertex that is not there.
    """
    if mesh.faces.size and not (mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)):
        raise ShapeError(
            f"faces name vertices {mesh.faces.min()} to {mesh.faces.max()}, the mesh has {len(mesh.vertices)}; "
            "expected them to be there: export the mesh again"
        )
    if not np.isfinite(mesh.vertices[mesh.faces.ravel()]).all():
        raise NonFiniteError("the mesh holds NaN or infinite vertices, expected finite ones: look at what made it")
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    if len(mesh.faces) == 0 or solid.area_faces.sum() == 0:
        return None
    sight = _Sight(mesh, rule.directions)
    points: list[Float[np.ndarray, "P 3"]] = []
    normals: list[Float[np.ndarray, "P 3"]] = []
    found = drawn = 0
    for draw in range(_MAX_DRAWS):
        # what is missing, by the share that was visible so far
        wanted = rule.samples if draw == 0 else math.ceil(1.1 * (rule.samples - found) * drawn / max(found, 1)) + 16
        wanted = min(wanted, 4 * rule.samples)
        random = [rule.seed, _STREAMS[stream], draw]
        batch, face = trimesh.sample.sample_surface(solid, wanted, seed=np.random.default_rng(random))
        seen = sight.of(batch)
        points.append(batch[seen])
        normals.append(solid.face_normals[face[seen]])
        found, drawn = found + int(seen.sum()), drawn + wanted
        if found >= rule.samples:
            break
    if found < rule.samples:
        return None
    return SurfaceSamples(
        np.concatenate(points)[: rule.samples].astype(np.float32),
        np.concatenate(normals)[: rule.samples].astype(np.float32),
    )


class _Sight:
    """A mesh among directions, from which parallel rays come."""

    def __init__(self, mesh: Mesh, directions: int) -> None:
        self.scene = EmbreeScene(robust=True)
        TriangleMesh(self.scene, mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))
        self.lift = _LIFT * mesh.diagonal
        # a long stride first: directions that lie far apart see different parts
        stride = next(k for k in range(max(int(0.382 * directions), 1), directions + 1) if math.gcd(k, directions) == 1)
        self.directions = sphere_directions(directions)[np.arange(directions) * stride % directions]

    def of(self, points: Float[np.ndarray, "P 3"]) -> Bool[np.ndarray, "P"]:
        """Which points can be seen."""
        seen = np.zeros(len(points), dtype=bool)
        for direction in self.directions:
            hidden = np.flatnonzero(~seen)
            if len(hidden) == 0:
                break
            origins = (points[hidden] + self.lift * direction).astype(np.float32)
            rays = np.broadcast_to(direction.astype(np.float32), origins.shape)
            seen[hidden] = self.scene.run(origins, np.ascontiguousarray(rays), query="OCCLUDED") < 0
        return seen
