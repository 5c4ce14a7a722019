"""Samples of the visible surface: outside only, even by area, the same for the same seed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from evalsuite.core.errors import NonFiniteError, ShapeError
from evalsuite.core.protocol import GeometryRule
from evalsuite.core.types import Mesh, SurfaceSamples
from evalsuite.scenes.visibility import sphere_directions, visible_samples

RULE = GeometryRule(samples=4000, directions=48)


def as_mesh(*parts: trimesh.Trimesh) -> Mesh:
    whole = trimesh.util.concatenate(list(parts))
    return Mesh(np.asarray(whole.vertices), np.asarray(whole.faces))


def drawn(mesh: Mesh, stream: str = "true", rule: GeometryRule = RULE) -> SurfaceSamples:
    samples = visible_samples(mesh, rule, stream)
    assert samples is not None
    return samples


OUTER = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
INNER = trimesh.creation.icosphere(subdivisions=4, radius=0.3)


@pytest.mark.parametrize("count", [1, 2, 48, 65])
def test_directions_are_unit_vectors_spread_evenly(count: int) -> None:
    directions = sphere_directions(count)
    assert np.allclose(np.linalg.norm(directions, axis=1), 1)
    if count > 40:
        gaps = np.arccos(np.clip(directions @ directions.T - 3 * np.eye(count), -1, 1)).min(axis=1)
        ideal = math.sqrt(4 * math.pi / count)
        assert gaps.min() > 0.6 * ideal
        assert gaps.max() < 1.3 * ideal
        assert np.linalg.norm(directions.mean(axis=0)) < 0.02


def test_inner_sheets_get_no_samples() -> None:
    samples = drawn(as_mesh(OUTER, INNER))
    assert len(samples) == RULE.samples
    assert np.linalg.norm(samples.points, axis=1).min() > 0.49


def test_through_an_opening_the_inside_is_seen() -> None:
    """A tube is seen inside and out; with lids on, outside only."""
    tube = trimesh.creation.annulus(r_min=0.28, r_max=0.3, height=0.6)
    radii = np.linalg.norm(drawn(as_mesh(tube)).points[:, :2], axis=1)
    assert 0.4 < (radii < 0.285).mean() < 0.55
    lids = [trimesh.creation.box(extents=[0.7, 0.7, 0.02]).apply_translation([0, 0, z]) for z in (-0.31, 0.31)]
    closed = drawn(as_mesh(tube, *lids)).points
    assert not ((np.linalg.norm(closed[:, :2], axis=1) < 0.285) & (np.abs(closed[:, 2]) < 0.3)).any()


def test_samples_are_even_by_area_and_lie_on_the_surface() -> None:
    box = trimesh.creation.box(extents=[1.0, 0.5, 0.25])
    samples = drawn(as_mesh(box), rule=replace(RULE, samples=20_000))
    share = np.abs(samples.normals).mean(axis=0)
    areas = np.array([0.5 * 0.25, 1.0 * 0.25, 1.0 * 0.5])
    assert share == pytest.approx(areas / areas.sum(), abs=0.015)
    on_face = np.abs(np.abs(samples.points) - box.extents / 2).min(axis=1)
    assert on_face.max() < 1e-6


def test_winding_does_not_matter() -> None:
    inverted = OUTER.copy()
    inverted.invert()
    assert np.linalg.norm(drawn(as_mesh(inverted, INNER)).points, axis=1).min() > 0.49


def test_equal_seeds_draw_equal_points_and_streams_differ() -> None:
    mesh = as_mesh(OUTER)
    one, two = drawn(mesh), drawn(mesh)
    assert np.array_equal(one.points, two.points)
    assert np.array_equal(one.normals, two.normals)
    assert one.points.dtype == np.float32
    for other in (drawn(mesh, "predicted"), drawn(mesh, rule=replace(RULE, seed=1))):
        assert not np.array_equal(one.points, other.points)


def test_normals_are_those_of_the_triangles() -> None:
    samples = drawn(as_mesh(OUTER))
    cosines = np.einsum("ij,ij->i", samples.normals, samples.points) / 0.5
    assert cosines.min() > 0.98
    assert np.allclose(np.linalg.norm(samples.normals, axis=1), 1, atol=1e-6)


FLAT = Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]))
EMPTY = Mesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64))


@pytest.mark.parametrize("mesh", [FLAT, EMPTY], ids=["no area", "no faces"])
def test_without_area_there_are_no_samples(mesh: Mesh) -> None:
    assert visible_samples(mesh, RULE, "true") is None


def test_degenerate_triangles_get_no_samples() -> None:
    clean = as_mesh(OUTER)
    faces = np.concatenate([clean.faces, [[0, 0, 1], [5, 5, 5]]])
    assert np.isfinite(drawn(Mesh(clean.vertices, faces)).normals).all()


def test_bad_meshes_are_named() -> None:
    clean = as_mesh(OUTER)
    broken = clean.vertices.copy()
    broken[7, 2] = np.nan
    with pytest.raises(NonFiniteError, match="NaN or infinite vertices"):
        visible_samples(Mesh(broken, clean.faces), RULE, "true")
    with pytest.raises(ShapeError, match="faces name vertices 0 to 99999"):
        visible_samples(Mesh(clean.vertices, np.array([[0, 1, 99_999]])), RULE, "true")


def test_an_unused_broken_vertex_does_no_harm() -> None:
    clean = as_mesh(OUTER)
    more = np.concatenate([clean.vertices, [[np.nan] * 3]])
    mesh = Mesh(more, clean.faces)
    assert mesh.diagonal == clean.diagonal == pytest.approx(math.sqrt(3), rel=1e-3)
