"""Laws of procedural objects: closed, textured, in their sphere, repeatable, different."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.core.errors import UnknownNameError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG, OBJECT_RADIUS
from evalsuite.scenes.meshes import TexturedMesh
from evalsuite.scenes.procedural import KINDS, procedural_mesh, random_mesh
from evalsuite.scenes.procedural.random_objects import PRIMITIVES, SLENDER
from evalsuite.scenes.procedural.shapes import Grid
from evalsuite.scenes.raytrace import render_mesh
from evalsuite.scenes.rig import orbit_cameras


def _check(mesh: TexturedMesh) -> None:
    assert mesh.uv is not None
    assert mesh.image is not None
    assert np.isfinite(mesh.vertices).all()
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(OBJECT_RADIUS)
    assert mesh.faces.min() == 0
    assert mesh.faces.max() < len(mesh.vertices)
    assert mesh.uv.min() >= 0
    assert mesh.uv.max() <= 1


@functools.cache
def _kind(kind: str, seed: int) -> TexturedMesh:
    return procedural_mesh(kind, seed)


def _same(first: TexturedMesh, second: TexturedMesh) -> bool:
    return np.array_equal(first.vertices, second.vertices) and np.array_equal(first.image, second.image)


def test_two_kinds_per_object_stratum() -> None:
    assert sorted(KINDS.values()) == ["blocky", "blocky", "organic", "organic", "thin", "thin"]


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_repeatable_and_varied(kind: str) -> None:
    mesh = _kind(kind, 1)
    _check(mesh)
    assert _same(mesh, procedural_mesh(kind, 1))
    assert not _same(mesh, procedural_mesh(kind, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_kind_looks_like_its_stratum(kind: str) -> None:
    azimuth = torch.tensor([30.0, 120.0, 210.0, 300.0])
    cameras = orbit_cameras(azimuth, torch.full((4,), 20.0), radius=CAMERA_RADIUS, fov_y_deg=FOV_Y_DEG, resolution=64)
    views, _ = render_mesh(_kind(kind, 1), cameras, 2)
    assert views.alpha is not None
    solid = (views.alpha > 0.5).float()
    # share of the silhouette more than 4 pixels (of 64) from the background
    core = 1 - torch.nn.functional.max_pool2d(1 - solid[:, None], 9, stride=1, padding=4)
    thickness = (core.sum() / solid.sum()).item()
    assert solid.mean() > 0.08
    assert thickness < 0.06 if KINDS[kind] == "thin" else thickness > 0.1
    # detail: many colours, not shades of one grey
    rgb = views.rgb[views.alpha == 1]
    assert rgb.std(dim=0).max() > 0.06
    assert len(torch.unique(rgb, dim=0)) > 50
    assert (rgb.amax(dim=1) - rgb.amin(dim=1)).mean() > 0.04


def test_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown procedural kind 'chairs'.*Did you mean 'chair'"):
        procedural_mesh("chairs", 0)


@given(seed=st.integers(0, 2**63 - 1))
@settings(max_examples=25, deadline=None)
def test_random_mesh_never_fails(seed: int) -> None:
    _check(random_mesh(seed))


def test_random_mesh_is_repeatable_and_varied() -> None:
    meshes = [random_mesh(seed) for seed in range(8)]
    assert _same(meshes[5], random_mesh(5))
    assert len({(len(mesh.faces), mesh.vertices[0, 0]) for mesh in meshes}) == 8


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("number", range(len(PRIMITIVES)))
def test_primitives_are_closed_and_face_outwards(number: int, seed: int) -> None:
    area, volume = _area_and_volume(PRIMITIVES[number](np.random.default_rng(seed)))
    np.testing.assert_allclose(area, 0, atol=1e-9)
    assert volume > 0


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("number", range(len(SLENDER)))
def test_slender_objects_are_closed_and_face_outwards(number: int, seed: int) -> None:
    for part in SLENDER[number](np.random.default_rng(seed)):
        area, volume = _area_and_volume(part.patches)
        np.testing.assert_allclose(area, 0, atol=1e-9)
        assert volume > 0


@pytest.mark.parametrize("number", range(len(SLENDER)))
def test_slender_objects_fill_little_of_their_sphere(number: int) -> None:
    shares = []
    for seed in range(8):
        parts = SLENDER[number](np.random.default_rng(seed))
        points = np.concatenate([grid.reshape(-1, 3) for part in parts for grid in part.patches])
        reach = np.linalg.norm(points - (points.min(axis=0) + points.max(axis=0)) / 2, axis=1).max()
        shares.append(sum(_area_and_volume(part.patches)[1] for part in parts) / (4 / 3 * np.pi * reach**3))
    assert np.median(shares) < 0.07


def _area_and_volume(patches: Sequence[Grid]) -> tuple[np.ndarray, float]:
    """Sum of area vectors, zero for a closed surface, and volume, positive if it faces outwards."""
    area, volume = np.zeros(3), 0.0
    for grid in patches:
        a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
        for p, q, r in ((a, b, c), (a, c, d)):
            normal = np.cross(q - p, r - p) / 2
            area += normal.sum(axis=(0, 1))
            volume += float((p * normal).sum() / 3)
    return area, volume
