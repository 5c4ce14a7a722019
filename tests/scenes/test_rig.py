"""Laws of the camera rig: what looks where, and who may see it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from evalsuite.core.conventions import orbit_position
from evalsuite.core.errors import OptionError
from evalsuite.core.protocol import Protocol, Rig
from evalsuite.core.types import Cameras, Scene, Views
from evalsuite.scenes.meshes import TexturedMesh
from evalsuite.scenes.rig import object_scene, orbit_cameras

TINY = Rig(resolution=24, supersample=1)


def _scene(rig: Rig = TINY) -> Scene:
    box = trimesh.creation.box((3.0, 1.0, 1.0))
    rgb = np.random.default_rng(0).random((8, 3))
    mesh = TexturedMesh(np.asarray(box.vertices) + 7, np.asarray(box.faces), vertex_rgb=rgb)
    return object_scene("toy.box", "blocky", mesh, Protocol("test", rig=rig))


def _arc_deg(first: Cameras, second: Cameras) -> Float[Tensor, "A B"]:
    """Angles between the cameras' directions from the origin."""
    a, b = (torch.nn.functional.normalize(cameras.positions.double(), dim=1) for cameras in (first, second))
    return torch.rad2deg(torch.arccos((a @ b.T).clamp(-1, 1)))


def _elevation_deg(views: Views) -> Float[Tensor, "V"]:
    position = views.cameras.positions
    return torch.rad2deg(torch.asin(position[:, 1] / position.norm(dim=1)))


@given(azimuth=st.floats(0, 360), elevation=st.floats(-85, 85), radius=st.floats(0.5, 5))
def test_orbit_cameras_look_at_the_origin_upright(azimuth: float, elevation: float, radius: float) -> None:
    cameras = orbit_cameras(
        torch.tensor([azimuth]), torch.tensor([elevation]), radius=radius, fov_y_deg=49.1, resolution=64
    )
    torch.testing.assert_close(cameras.positions[0], orbit_position(azimuth, elevation, radius), atol=1e-4, rtol=1e-4)
    matrix = cameras.cam_from_world[0]
    torch.testing.assert_close(matrix[:3, 3], torch.tensor([0.0, 0.0, radius]), atol=1e-5, rtol=1e-5)
    down, right = matrix[:3, :3] @ torch.tensor([0.0, -1.0, 0.0]), matrix[0, :3]
    assert down[1] > 0
    assert abs(right[1]) < 1e-5
    edge = torch.tan(torch.deg2rad(torch.tensor(49.1 / 2))) * cameras.focal_px[0, 1]
    assert edge.item() == pytest.approx(32, rel=1e-5)


def test_views_are_split_as_the_protocol_says() -> None:
    scene = _scene()
    assert (len(scene.inputs), len(scene.capture), len(scene.heldout)) == (4, 96, 20)
    assert torch.equal(scene.capture.rgb[:4], scene.inputs.rgb)
    assert torch.equal(scene.capture.cameras.cam_from_world[:4], scene.inputs.cameras.cam_from_world)
    torch.testing.assert_close(_elevation_deg(scene.inputs), torch.full((4,), 20.0), atol=1e-3, rtol=0)
    expected = torch.tensor(TINY.heldout_elevations_deg).repeat_interleave(4)
    torch.testing.assert_close(_elevation_deg(scene.heldout), expected, atol=1e-3, rtol=0)
    assert scene.background.tolist() == [1, 1, 1]
    assert (scene.id, scene.stratum, scene.radius, scene.points) == ("toy.box", "blocky", 0.6, None)


def test_heldout_views_are_off_the_training_views() -> None:
    scene = _scene()
    assert _arc_deg(scene.heldout.cameras, scene.inputs.cameras).min() >= 15
    assert _arc_deg(scene.heldout.cameras, scene.capture.cameras).min() > 1
    apart = _arc_deg(scene.heldout.cameras, scene.heldout.cameras) + 360 * torch.eye(20)
    assert apart.min() > 10


def test_capture_is_spread_over_the_sphere() -> None:
    scene = _scene()
    further = scene.capture[4:]
    elevation = _elevation_deg(further)
    assert -30 <= elevation.min() < -28
    assert 66 < elevation.max() <= 70
    apart = _arc_deg(further.cameras, further.cameras) + 360 * torch.eye(92)
    assert apart.min() > 15
    # no hole: some view within 20 degrees of every direction between the elevation limits
    for azimuth in range(0, 360, 15):
        probe = orbit_cameras(
            torch.full((4,), float(azimuth)), torch.tensor([-25.0, 0, 30, 60]), radius=1.5, fov_y_deg=49.1, resolution=8
        )
        assert _arc_deg(probe, further.cameras).min(dim=1).values.max() < 20


def test_object_fits_every_view_and_the_truth() -> None:
    scene = _scene()
    assert scene.mesh is not None
    assert np.linalg.norm(scene.mesh.vertices, axis=1).max() == pytest.approx(0.6)
    for views in (scene.capture, scene.heldout):
        assert views.alpha is not None
        assert (views.alpha.amax(dim=(1, 2)) == 1).all()
        border = torch.cat([views.alpha[:, [0, -1]].flatten(1), views.alpha[:, :, [0, -1]].flatten(1)], dim=1)
        assert not border.any()


def test_scene_is_repeatable() -> None:
    first, second = _scene(), _scene()
    assert torch.equal(first.capture.rgb, second.capture.rgb)
    assert torch.equal(first.heldout.cameras.cam_from_world, second.heldout.cameras.cam_from_world)


@given(
    azimuths=st.lists(st.integers(0, 359), min_size=1, max_size=6, unique=True),
    elevations=st.lists(st.sampled_from([0.0, 10.0, 20.0, 30.0]), min_size=1, max_size=3, unique=True),
    count=st.integers(1, 5),
)
@settings(max_examples=25, deadline=None)
def test_heldout_azimuths_clear_any_inputs(azimuths: list[int], elevations: list[float], count: int) -> None:
    rig = dataclasses.replace(
        TINY,
        resolution=4,
        input_azimuths_deg=tuple(map(float, azimuths)),
        capture_views=len(azimuths),
        heldout_elevations_deg=tuple(elevations),
        heldout_per_elevation=count,
    )
    scene = _scene(rig)
    assert len(scene.heldout) == count * len(elevations)
    gap = np.diff(np.sort(azimuths), append=min(azimuths) + 360).max()
    position = scene.heldout.cameras.positions
    found = torch.rad2deg(torch.atan2(position[:, 0], position[:, 2]))
    away = (found[:, None] - torch.tensor(azimuths) + 180) % 360 - 180
    assert away.abs().min() > min(20, gap / 2) - 1e-3


def test_capture_must_hold_the_inputs() -> None:
    with pytest.raises(OptionError, match="1 more inputs than capture views"):
        _scene(dataclasses.replace(TINY, capture_views=3))
