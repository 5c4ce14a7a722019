"""A surface from any `Renderable`, the same way for all: depth from fixed cameras, fused, then marching cubes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from skimage.measure import marching_cubes
from torch import Tensor

from evalsuite.core.conventions import look_at
from evalsuite.core.errors import NonFiniteError
from evalsuite.core.protocol import GeometryRule
from evalsuite.core.types import Cameras, Mesh, Renderable
from evalsuite.scenes.visibility import sphere_directions
from evalsuite.splats.cpu import fusion


@dataclass(frozen=True)
class Ball:
    """Where the surface is looked for, world units."""

    centre: Float[Tensor, "3"]
    radius: float


def surface_cameras(ball: Ball, rule: GeometryRule) -> Cameras:
    """The rule's cameras: on a sphere round the ball, looking at its centre, the ball just filling their view."""
    centre = ball.centre.double().cpu()
    directions = torch.from_numpy(sphere_directions(rule.views))
    eyes = centre + rule.distance * ball.radius * directions
    half = rule.resolution / 2
    # tangent of the angle under which a camera sees the radius of the ball, margin included
    reach = rule.margin / math.sqrt(rule.distance**2 - rule.margin**2)
    return Cameras(
        cam_from_world=torch.stack([look_at(eye, centre) for eye in eyes]),
        focal_px=torch.full((rule.views, 2), half / reach),
        centre_px=torch.full((rule.views, 2), half),
        width=rule.resolution,
        height=rule.resolution,
    )


def extract_surface(result: Renderable, ball: Ball, background: Float[Tensor, "3"], rule: GeometryRule) -> Mesh | None:
    """The surface of a result within a ball; None if it shows none.

    Expected depth (the renderer's alpha-weighted mean of depths, divided by alpha) of pixels whose alpha is at least
    ``rule.solid_alpha`` is fused with weight alpha into a truncated signed distance field; other pixels carve (Curless
    and Levoy 1996, see `evalsuite.splats.cpu.fusion`). The surface is its zero set (Lorensen and Cline 1987, as in
    Lewiner et al. 2003), faces counter-clockwise from outside. Deterministic: equal renders give equal bits.

    Args:
        result: whatever can be rendered; on any device.
        ball: the scene's centre and radius; ``rule.margin`` is added here.
        background: passed on to the renderer.
        rule: cameras, voxels, truncation.

    Raises:
        NonFiniteError: rendered depth or alpha holds NaN or infinity.
    """
    depth, alpha, cameras = _depth_images(result, ball, background, rule)
    radius = rule.margin * ball.radius
    voxel = 2 * radius / (rule.voxels - 1)
    centre = ball.centre.double().cpu().numpy()
    field = fusion.fuse(
        depth,
        alpha,
        fusion.tile_ranges(depth, alpha, rule.solid_alpha),
        cameras.cam_from_world.double().numpy(),
        cameras.focal_px.double().numpy(),
        cameras.centre_px.double().numpy(),
        centre - radius,
        voxel,
        rule.voxels,
        np.append(centre, radius),
        rule.truncation * voxel,
        rule.solid_alpha,
    )
    if not (field.min() < 0 < field.max()):
        return None
    vertices, faces, _, _ = marching_cubes(field, 0.0, allow_degenerate=False)
    return Mesh(vertices.astype(np.float64) * voxel + (centre - radius), faces.astype(np.int64))


def save_surface(mesh: Mesh, path: Path) -> None:
    """Write a mesh as GLB or PLY, by the suffix; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}{path.suffix}")
    try:
        trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@torch.no_grad()
def _depth_images(
    result: Renderable, ball: Ball, background: Float[Tensor, "3"], rule: GeometryRule
) -> tuple[Float[np.ndarray, "V H W"], Float[np.ndarray, "V H W"], Cameras]:
    """Depth and alpha from the rule's cameras, one at a time."""
    cameras = surface_cameras(ball, rule)
    shape = (rule.views, rule.resolution, rule.resolution)
    depth, alpha = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    for index in range(rule.views):
        render = result.render(cameras[[index]].to(background.device), background)
        for name, target, plane in (("depth", depth, render.depth), ("alpha", alpha, render.alpha)):
            if not torch.isfinite(plane).all():
                raise NonFiniteError(
                    f"{name} rendered for surface view {index} holds NaN or infinity, expected finite values: the arm "
                    "diverged, look at its checkpoint"
                )
            target[index] = plane[0].cpu().numpy()
    return depth, alpha.clip(0, 1), cameras
