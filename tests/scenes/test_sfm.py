"""Triangulated seeds against the surface they must lie on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from evalsuite.core.protocol import Protocol
from evalsuite.core.types import Views
from evalsuite.scenes.captures import load_transforms
from evalsuite.scenes.meshes import TexturedMesh, normalised
from evalsuite.scenes.procedural import procedural_mesh
from evalsuite.scenes.raytrace import render_mesh
from evalsuite.scenes.rig import orbit_cameras
from evalsuite.scenes.sfm import SfmResult, neighbouring, triangulate

WHITE = torch.ones(3)
PIXEL = 1.5 * 2 * np.tan(np.radians(49.1 / 2)) / 128
"""Size of a pixel at the object's distance."""


@pytest.fixture(scope="module")
def castle() -> TexturedMesh:
    return normalised(procedural_mesh("castle", 0), 0.6)


@pytest.fixture(scope="module")
def views(castle: TexturedMesh) -> Views:
    """Ten views of 128 px along an arc, 15 degrees apart."""
    azimuth, elevation = torch.arange(10) * 15.0, torch.full((10,), 20.0)
    cameras = orbit_cameras(azimuth, elevation, radius=1.5, fov_y_deg=49.1, resolution=128)
    return render_mesh(castle, cameras, 2)[0]


@pytest.fixture(scope="module")
def found(views: Views) -> SfmResult:
    return triangulate(views, WHITE)


def test_points_lie_on_the_surface(castle: TexturedMesh, found: SfmResult) -> None:
    mesh = trimesh.Trimesh(castle.vertices, castle.faces, process=False)
    surface = cKDTree(trimesh.sample.sample_surface(mesh, 200_000, seed=0)[0])
    distance, _ = surface.query(found.points.xyz.numpy())
    assert len(found.points) > 300
    assert np.median(distance) < 0.75 * PIXEL
    assert np.quantile(distance, 0.8) < 2 * PIXEL


def test_points_have_the_colour_of_a_view(views: Views, found: SfmResult) -> None:
    camera = views.cameras
    cam = found.points.xyz @ camera.cam_from_world[5, :3, :3].T + camera.cam_from_world[5, :3, 3]
    x, y = (cam[:, :2] / cam[:, 2:] * camera.focal_px[5] + camera.centre_px[5]).long().clamp(0, 127).T
    seen = views.over(WHITE)[5, y, x]
    matched = (found.points.rgb - seen).abs().median()
    shuffled = (found.points.rgb.flip(0) - seen).abs().median()
    assert matched < 0.7 * shuffled


def test_statistics_are_of_the_views_pixels(found: SfmResult) -> None:
    assert found.mean_track_length >= 2
    assert 0 < found.reprojection_error_px < 0.75  # half of what is allowed in the doubled image
    assert found.seconds > 0


def test_same_views_and_seed_give_the_same_points(views: Views) -> None:
    few = views[:4]
    first, second = triangulate(few, WHITE), triangulate(few, WHITE)
    assert len(first.points) > 50
    assert torch.equal(first.points.xyz, second.points.xyz)
    assert torch.equal(first.points.rgb, second.points.rgb)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core only")
def test_the_number_of_cores_does_not_matter(views: Views) -> None:
    few, cores = views[:4], os.sched_getaffinity(0)
    many = triangulate(few, WHITE)
    os.sched_setaffinity(0, {min(cores)})
    try:
        one = triangulate(few, WHITE)
    finally:
        os.sched_setaffinity(0, cores)
    assert torch.equal(many.points.xyz, one.points.xyz)
    assert (many.reprojection_error_px, many.mean_track_length) == (one.reprojection_error_px, one.mean_track_length)


def test_wrong_poses_lose_most_points(views: Views, found: SfmResult) -> None:
    cameras = views.cameras[list(range(10))[::-1]]
    wrong = triangulate(Views(views.rgb, views.alpha, cameras), WHITE)
    assert len(wrong.points) < 0.5 * len(found.points)


def test_views_are_matched_with_their_nearest() -> None:
    azimuth = torch.arange(30) * 12.0
    cameras = orbit_cameras(azimuth, torch.zeros(30), radius=1.5, fov_y_deg=49.1, resolution=16)
    pairs = neighbouring(cameras)
    assert pairs == sorted(set(pairs))
    assert {(j - i) % 30 for i, j in pairs} == {*range(1, 7), *range(24, 30)}
    assert len(neighbouring(cameras[:4])) == 6  # few views: all pairs


def test_blank_views_give_no_points(views: Views) -> None:
    blank = Views(torch.ones_like(views.rgb), None, views.cameras)
    result = triangulate(blank, WHITE)
    assert (len(result.points), result.mean_track_length, result.reprojection_error_px) == (0, 0.0, 0.0)


def test_one_view_gives_no_points(views: Views) -> None:
    assert len(triangulate(views[:1], WHITE).points) == 0


@pytest.mark.data
def test_fox_poses_agree_with_its_photographs() -> None:
    folder = Path(os.environ.get("EVALSUITE_MIRROR", "mirror-not-set")) / "captures" / "fox"
    scene = load_transforms(folder, "fox", Protocol("test"))
    result = triangulate(scene.capture[:10], scene.background)
    assert len(result.points) > 300
    assert result.reprojection_error_px < 0.6
