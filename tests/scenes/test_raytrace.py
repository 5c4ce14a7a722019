"""Laws of the ray-traced truth, against geometry known in closed form and a brute-force tracer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from evalsuite.core.conventions import look_at, orbit_position
from evalsuite.core.errors import ShapeError
from evalsuite.core.types import Cameras
from evalsuite.scenes.meshes import TexturedMesh
from evalsuite.scenes.raytrace import render_mesh

UV = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])
SQUARE = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)


def _camera(eye: Tensor, resolution: int, focal: float) -> Cameras:
    return Cameras(
        look_at(eye)[None], torch.full((1, 2), focal), torch.full((1, 2), resolution / 2), resolution, resolution
    )


def _textured(vertices: np.ndarray, image: np.ndarray = QUARTERS) -> TexturedMesh:
    return TexturedMesh(vertices, FACES, uv=UV, image=image.repeat(64, axis=0).repeat(64, axis=1))


def _soup(seed: int, count: int = 12) -> TexturedMesh:
    """Random triangles of random colours inside the unit ball."""
    rng = np.random.default_rng(seed)
    vertices = rng.uniform(-0.55, 0.55, (3 * count, 3))
    return TexturedMesh(vertices, np.arange(3 * count).reshape(-1, 3), vertex_rgb=rng.random((3 * count, 3)))


def test_texture_is_neither_mirrored_nor_upside_down() -> None:
    views, _ = render_mesh(_textured(0.4 * SQUARE), _camera(torch.tensor([0.0, 0, 2]), 16, 16.0), 2)
    rgb = views.rgb[0]
    assert rgb[6, 6].tolist() == [1, 0, 0]
    assert rgb[6, 9].tolist() == [0, 1, 0]
    assert rgb[9, 6].tolist() == [0, 0, 1]
    assert rgb[9, 9].tolist() == [1, 1, 0]


def test_depth_of_a_slanted_plane() -> None:
    # the plane z = x / 2 seen from (0, 0, 3): depth is 3 - z along each ray
    vertices = SQUARE * (1, 1, 0) + np.array([[-0.5], [0.5], [0.5], [-0.5]]) * (0, 0, 1)
    _, depth = render_mesh(_textured(vertices), _camera(torch.tensor([0.0, 0, 3]), 32, 70.0), 1)
    slope = (torch.arange(32) + 0.5 - 16) / 70
    expected = 3 / (1 + slope / 2)
    torch.testing.assert_close(depth[0, 8], expected, rtol=1e-5, atol=1e-5)


def test_sphere_covers_its_solid_angle() -> None:
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.6)
    mesh = TexturedMesh(
        np.asarray(ball.vertices), np.asarray(ball.faces), vertex_rgb=np.full((len(ball.vertices), 3), 0.4)
    )
    views, depth = render_mesh(mesh, _camera(torch.tensor([0.0, 0, 1.5]), 64, 70.0), 4)
    assert views.alpha is not None
    radius = 70 * math.tan(math.asin(0.6 / 1.5))
    assert views.alpha.sum().item() == pytest.approx(math.pi * radius**2, rel=2e-3)
    assert depth[depth > 0].min().item() == pytest.approx(0.9, abs=1e-3)
    assert torch.unique(views.rgb[views.alpha > 0]).tolist() == pytest.approx([0.4])


@given(seed=st.integers(0, 10_000), azimuth=st.floats(0, 360), elevation=st.floats(-80, 80))
@settings(max_examples=15, deadline=None)
def test_supersampling_is_a_box_filter(seed: int, azimuth: float, elevation: float) -> None:
    mesh, eye = _soup(seed), orbit_position(azimuth, elevation, 1.5)
    coarse, depth = render_mesh(mesh, _camera(eye, 12, 13.0), 4)
    fine, fine_depth = render_mesh(mesh, _camera(eye, 48, 52.0), 1)
    assert coarse.alpha is not None
    assert fine.alpha is not None

    def pooled(plane: Float[Tensor, "H W"]) -> Float[Tensor, "h w"]:
        return torch.nn.functional.avg_pool2d(plane[None], 4)[0]

    alpha = pooled(fine.alpha[0])
    torch.testing.assert_close(coarse.alpha[0], alpha, atol=0.5 / 255 + 1e-5, rtol=0)
    hit = alpha > 0
    for c in range(3):
        mean = pooled(fine.rgb[0, ..., c])[hit] / alpha[hit]
        torch.testing.assert_close(coarse.rgb[0, ..., c][hit], mean, atol=1.01 / 255, rtol=0)
    torch.testing.assert_close(depth[0][hit], pooled(fine_depth[0])[hit] / alpha[hit], atol=1e-4, rtol=0)
    assert not coarse.rgb[0][~hit].any()
    assert not depth[0][~hit].any()


def _brute_force(mesh: TexturedMesh, camera: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Depth (0: none) and colour at pixel centres by solving for every ray and triangle (Moeller and Trumbore 1997)."""
    assert mesh.vertex_rgb is not None
    matrix = camera.cam_from_world[0].double().numpy()
    vertices = mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    at = (np.arange(camera.width) + 0.5 - camera.width / 2) / float(camera.focal_px[0, 0])
    y, x = np.meshgrid(at, at, indexing="ij")
    rays = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
    depth, colour = np.full(len(rays), np.inf), np.zeros((len(rays), 3))
    for face in mesh.faces:
        a, b, c = vertices[face]
        system = np.stack([np.broadcast_to(b - a, rays.shape), np.broadcast_to(c - a, rays.shape), -rays], axis=-1)
        u, v, t = np.linalg.solve(system, np.broadcast_to(-a, rays.shape)[..., None])[..., 0].T
        closer = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < depth)
        depth[closer] = t[closer]
        weights = np.stack([1 - u - v, u, v], axis=1)
        colour[closer] = weights[closer] @ mesh.vertex_rgb[face]
    return np.where(np.isfinite(depth), depth, 0), colour


@given(seed=st.integers(0, 10_000), azimuth=st.floats(0, 360), distance=st.sampled_from([0.2, 1.5, 4.0]))
@settings(max_examples=15, deadline=None)
def test_agrees_with_a_brute_force_tracer(seed: int, azimuth: float, distance: float) -> None:
    mesh, camera = _soup(seed), _camera(orbit_position(azimuth, 15.0, distance), 24, 30.0 * max(distance, 1))
    views, depth = render_mesh(mesh, camera, 1)
    expected_depth, expected_rgb = _brute_force(mesh, camera)
    wrong = (np.abs(depth.numpy().ravel() - expected_depth) > 1e-3) | (
        np.abs(views.rgb.numpy().reshape(-1, 3) - expected_rgb).max(axis=1) > 1 / 255
    )
    # a ray through an edge may fall on either side in single precision
    assert wrong.sum() <= 2


@given(seed=st.integers(0, 10_000), supersample=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_pixels_are_eight_bit_and_repeatable(seed: int, supersample: int) -> None:
    camera = _camera(torch.tensor([0.3, 0.4, 1.4]), 20, 22.0)
    views, depth = render_mesh(_soup(seed), camera, supersample)
    assert views.alpha is not None
    for plane in (views.rgb, views.alpha):
        torch.testing.assert_close(plane * 255, (plane * 255).round(), atol=1e-4, rtol=0)
        assert 0 <= plane.min() <= plane.max() <= 1
    assert views.alpha.max() > 0
    again, depth_again = render_mesh(_soup(seed), camera, supersample)
    assert torch.equal(again.rgb, views.rgb)
    assert torch.equal(depth_again, depth)


def test_nothing_in_view_is_empty() -> None:
    away = _camera(torch.tensor([0.0, 0, 3]), 8, 9.0)
    shifted = _soup(0)
    shifted = TexturedMesh(shifted.vertices + np.array([0, 0, 9]), shifted.faces, vertex_rgb=shifted.vertex_rgb)
    views, depth = render_mesh(shifted, away, 2)
    assert views.alpha is not None
    assert not views.alpha.any()
    assert not views.rgb.any()
    assert not depth.any()


def test_supersample_must_be_positive() -> None:
    with pytest.raises(ShapeError, match="supersample is 0"):
        render_mesh(_soup(0), _camera(torch.tensor([0.0, 0, 2]), 4, 4.0), 0)
