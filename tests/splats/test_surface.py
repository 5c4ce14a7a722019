"""Surface extraction: shapes of known size come back to a fraction of a voxel, the kernel equals its definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from evalsuite.core.errors import NonFiniteError
from evalsuite.core.protocol import GeometryRule
from evalsuite.core.types import Cameras, Mesh, Render
from evalsuite.scenes.meshes import TexturedMesh
from evalsuite.scenes.raytrace import render_mesh
from evalsuite.splats.cpu import fusion
from evalsuite.splats.surface import Ball, extract_surface, save_surface, surface_cameras

RULE = GeometryRule(views=24, resolution=96, voxels=64)
BALL = Ball(torch.zeros(3), 0.6)
WHITE = torch.ones(3)
VOXEL = 2 * RULE.margin * BALL.radius / (RULE.voxels - 1)


@dataclass
class Shape:
    """Depth and alpha from a function of cameras."""

    images: Callable[[Cameras], tuple[Tensor, Tensor]]
    primitives: int = 1
    bytes: int = 0

    def render(self, cameras: Cameras, background: Tensor) -> Render:
        depth, alpha = self.images(cameras)
        return Render(background.expand(*depth.shape, 3), alpha, depth)


def sphere(radius: float, centre: Tensor | None = None, opacity: float = 1.0) -> Shape:
    """A ball seen exactly: depth of the first intersection at the centre of each pixel."""
    where = torch.zeros(3) if centre is None else centre

    def images(cameras: Cameras) -> tuple[Tensor, Tensor]:
        rows, columns = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
        pixel = torch.stack([columns, rows], dim=-1).double() + 0.5
        depths = []
        for k in range(len(cameras)):
            rays = torch.nn.functional.pad((pixel - cameras.centre_px[k]) / cameras.focal_px[k], (0, 1), value=1.0)
            pose = cameras.cam_from_world[k].double()
            middle = pose[:3, :3] @ where.double() + pose[:3, 3]
            a, b, c = rays.square().sum(-1), rays @ middle, middle @ middle - radius**2
            root = b.square() - a * c
            depths.append(torch.where(root > 0, (b - root.clamp_min(0).sqrt()) / a, 0.0))
        depth = torch.stack(depths).float()
        return depth, (depth > 0).float() * opacity

    return Shape(images)


def traced(mesh: trimesh.Trimesh) -> Shape:
    """A mesh through the ray tracer."""
    textured = TexturedMesh(
        np.asarray(mesh.vertices), np.asarray(mesh.faces), vertex_rgb=np.full((len(mesh.vertices), 3), 0.5)
    )

    def images(cameras: Cameras) -> tuple[Tensor, Tensor]:
        views, depth = render_mesh(textured, cameras, 1)
        assert views.alpha is not None
        return depth, views.alpha

    return Shape(images)


def extracted(shape: Shape, ball: Ball = BALL, rule: GeometryRule = RULE) -> Mesh:
    mesh = extract_surface(shape, ball, WHITE, rule)
    assert mesh is not None
    return mesh


@pytest.mark.parametrize("opacity", [1.0, 0.6])
@pytest.mark.parametrize("radius", [0.2, 0.45, 0.59])
def test_a_sphere_comes_back_to_a_fraction_of_a_voxel(radius: float, opacity: float) -> None:
    mesh = extracted(sphere(radius, opacity=opacity))
    error = np.linalg.norm(mesh.vertices, axis=1) - radius
    assert abs(error.mean()) < 0.1 * VOXEL
    assert np.abs(error).max() < 0.5 * VOXEL
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert solid.is_watertight
    assert solid.volume == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.015), "faces must turn outwards"


def test_finer_voxels_and_pixels_give_a_finer_surface() -> None:
    errors = []
    for scale in (1, 2):
        mesh = extracted(sphere(0.4), rule=replace(RULE, voxels=48 * scale, resolution=64 * scale))
        errors.append(np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.4).mean())
    assert errors[1] < 0.6 * errors[0]


def test_the_ball_may_lie_anywhere() -> None:
    centre = torch.tensor([3.0, -2.0, 1.0])
    mesh = extracted(sphere(0.8, centre), Ball(centre, 1.2))
    error = np.linalg.norm(mesh.vertices - centre.numpy(), axis=1) - 0.8
    assert np.abs(error).max() < 2 * 0.5 * VOXEL


@pytest.mark.parametrize(
    "mesh", [trimesh.creation.box(extents=[0.6, 0.5, 0.4]), trimesh.creation.torus(0.35, 0.12)], ids=["box", "torus"]
)
def test_edges_and_holes_come_back(mesh: trimesh.Trimesh) -> None:
    found = extracted(traced(mesh))
    _, distance, _ = trimesh.proximity.closest_point_naive(mesh, found.vertices[::20])
    assert distance.mean() < 0.2 * VOXEL
    solid = trimesh.Trimesh(found.vertices, found.faces)
    assert solid.euler_number == mesh.euler_number
    assert solid.volume == pytest.approx(mesh.volume, rel=0.03)


def test_a_hidden_cavity_is_filled() -> None:
    shell = trimesh.util.concatenate([trimesh.creation.icosphere(radius=0.5), trimesh.creation.icosphere(radius=0.3)])
    found = extracted(traced(shell))
    assert np.linalg.norm(found.vertices, axis=1).min() > 0.45


def test_what_lies_outside_the_ball_is_cut() -> None:
    centre = torch.tensor([0.5, 0.0, 0.0])
    found = extracted(sphere(0.3, centre))
    assert np.linalg.norm(found.vertices, axis=1).max() < RULE.margin * BALL.radius + VOXEL


def test_equal_renders_give_equal_bits() -> None:
    one, two = extracted(sphere(0.4)), extracted(sphere(0.4))
    assert np.array_equal(one.vertices, two.vertices)
    assert np.array_equal(one.faces, two.faces)


def _blank(cameras: Cameras) -> tuple[Tensor, Tensor]:
    empty = torch.zeros(len(cameras), cameras.height, cameras.width)
    return empty, empty


def test_nothing_shown_is_no_surface() -> None:
    assert extract_surface(Shape(_blank), BALL, WHITE, RULE) is None
    assert extract_surface(sphere(0.4, opacity=0.3), BALL, WHITE, RULE) is None


@pytest.mark.parametrize("plane", ["depth", "alpha"])
def test_a_render_that_is_not_finite_is_named(plane: str) -> None:
    def images(cameras: Cameras) -> tuple[Tensor, Tensor]:
        depth, alpha = sphere(0.4).images(cameras)
        (depth if plane == "depth" else alpha)[0, 5, 5] = torch.nan
        return depth, alpha

    with pytest.raises(NonFiniteError, match=f"{plane} rendered for surface view 0"):
        extract_surface(Shape(images), BALL, WHITE, RULE)


def test_every_camera_sees_the_whole_ball() -> None:
    cameras = surface_cameras(BALL, RULE)
    assert cameras.positions.norm(dim=1).numpy() == pytest.approx(RULE.distance * BALL.radius, rel=1e-5)
    points = torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    points = points * RULE.margin * BALL.radius
    cam = (
        torch.einsum("vij,pj->vpi", cameras.cam_from_world[:, :3, :3], points) + cameras.cam_from_world[:, None, :3, 3]
    )
    pixel = cam[..., :2] / cam[..., 2:] * cameras.focal_px[:, None] + cameras.centre_px[:, None]
    assert pixel.min() > -0.01
    assert pixel.max() < RULE.resolution + 0.01
    assert pixel.max() > 0.99 * RULE.resolution, "and fills its view"


def _noise(seed: int, views: int = 5, size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Rough depth round the ball's centre in blobs, with holes and half-transparent pixels."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.rand(views, 2, 6, 6, generator=draw)
    fine = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    depth = 0.95 + 0.5 * fine[:, 0] + 0.02 * torch.rand(views, size, size, generator=draw)
    return depth.numpy().astype(np.float32), (2.0 * fine[:, 1]).clamp(0, 1).numpy().astype(np.float32)


def _defined(
    depth: np.ndarray, alpha: np.ndarray, cameras: Cameras, voxel: float, side: int, radius: float, truncation: float
) -> np.ndarray:
    """The definition in `evalsuite.splats.cpu.fusion`, voxel by voxel, without blocks."""
    height, width = depth.shape[1:]
    poses, focal, centre = (t.double().numpy() for t in (cameras.cam_from_world, cameras.focal_px, cameras.centre_px))
    axis = -radius + voxel * np.arange(side)
    field = np.empty((side, side, side))
    for index in np.ndindex(side, side, side):
        point = axis[list(index)]
        total = weights = 0.0
        for v in range(len(depth)):
            x, y, z = poses[v, :3, :3] @ point + poses[v, :3, 3]
            px, py = focal[v, 0] * x / z + centre[v, 0], focal[v, 1] * y / z + centre[v, 1]
            if not (0 <= px < width and 0 <= py < height):
                continue
            left, top = math.floor(px - 0.5), math.floor(py - 0.5)
            part = np.s_[v, max(top, 0) : top + 2, max(left, 0) : left + 2]
            near, solid = depth[part].astype(float), alpha[part] >= 0.5
            a, d = alpha[v, int(py), int(px)], float(depth[v, int(py), int(px)])
            if a < 0.5:
                signed = -1.0 if (near[solid] - z < truncation).any() else 1.0
            else:
                if near.shape == (2, 2) and solid.all() and np.abs(near - d).max() <= truncation:
                    fx, fy = px - 0.5 - left, py - 0.5 - top
                    d = float(np.array([1 - fy, fy]) @ near @ np.array([1 - fx, fx]))
                signed = (d - z) / truncation
            if signed >= 1:
                total, weights = total + 1, weights + 1
            elif signed > -1:
                weight = a * min(1.0, 1 + signed)
                total, weights = total + weight * signed, weights + weight
        field[index] = total / weights if weights > 0 else -1.0
        if np.linalg.norm(point) > radius:
            field[index] = 1.0
    return field


@pytest.mark.parametrize("seed", [0, 1])
def test_the_kernel_equals_its_definition(seed: int) -> None:
    """Blocks that are decided as a whole change nothing."""
    depth, alpha = _noise(seed)
    rule = replace(RULE, views=5, resolution=40)
    cameras = surface_cameras(BALL, rule)
    side, radius = 20, 0.63
    voxel = 2 * radius / (side - 1)
    expected = _defined(depth, alpha, cameras, voxel, side, radius, 0.9 * voxel)
    found = fusion.fuse(
        depth, alpha, fusion.tile_ranges(depth, alpha, 0.5), cameras.cam_from_world.double().numpy(),
        cameras.focal_px.double().numpy(), cameras.centre_px.double().numpy(), np.full(3, -radius), voxel, side,
        np.array([0.0, 0.0, 0.0, radius]), 0.9 * voxel, 0.5,
    )  # fmt: skip
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5
    assert {-1.0, 1.0} <= set(np.unique(found)), "all kinds of voxels are there"
    assert ((found > -0.9) & (found < 0.9)).sum() > 100


@pytest.mark.parametrize("suffix", [".glb", ".ply"])
def test_a_saved_surface_can_be_opened(suffix: str, tmp_path: Path) -> None:
    mesh = extracted(sphere(0.4))
    path = tmp_path / "case" / f"b-capture-n200{suffix}"
    save_surface(mesh, path)
    opened = trimesh.load_mesh(path, process=False)
    assert np.allclose(opened.vertices, mesh.vertices, atol=1e-6)
    assert np.array_equal(opened.faces, mesh.faces)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
