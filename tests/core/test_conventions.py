"""Cameras stand where the conventions say and see the world the right way up."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evalsuite.core.conventions import (
    SH_C0,
    focal_from_fov,
    look_at,
    opencv_from_opengl,
    orbit_position,
    rgb_from_sh0,
    sh0_from_rgb,
)

AZIMUTHS = st.floats(-360, 360)
ELEVATIONS = st.floats(-85, 85)
RADII = st.floats(0.5, 4)


def seen(pose: Tensor, point: Tensor) -> Tensor:
    """Coordinates of a world point in the camera."""
    return pose[:3, :3] @ point + pose[:3, 3]


@pytest.mark.parametrize(
    ("azimuth", "elevation", "expected"),
    [
        (0.0, 0.0, (0, 0, 2)),
        (90.0, 0.0, (2, 0, 0)),
        (180.0, 0.0, (0, 0, -2)),
        (-90.0, 0.0, (-2, 0, 0)),
        (0.0, 90.0, (0, 2, 0)),
        (0.0, 30.0, (0, 1, math.sqrt(3))),
        (90.0, -30.0, (math.sqrt(3), -1, 0)),
    ],
)
def test_orbit_positions_by_hand(azimuth: float, elevation: float, expected: tuple[float, ...]) -> None:
    torch.testing.assert_close(
        orbit_position(azimuth, elevation, 2.0), torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0
    )


def test_the_pose_at_azimuth_zero_by_hand() -> None:
    """From +z: right is world right, down is world down, forward is -z."""
    expected = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 1.5], [0, 0, 0, 1]])
    torch.testing.assert_close(look_at(orbit_position(0.0, 0.0, 1.5)), expected, atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=40)
@given(AZIMUTHS, ELEVATIONS, RADII)
def test_the_target_is_in_the_centre_and_up_is_up(azimuth: float, elevation: float, radius: float) -> None:
    target = torch.tensor([0.1, -0.2, 0.3])
    eye = target + orbit_position(azimuth, elevation, radius)
    pose = look_at(eye, target)
    rotation = pose[:3, :3].double()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)
    assert torch.linalg.det(rotation) > 0.999
    torch.testing.assert_close(seen(pose, eye), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen(pose, target), torch.tensor([0.0, 0.0, radius]), atol=1e-5, rtol=1e-5)
    above = seen(pose, target + torch.tensor([0.0, 0.1, 0.0]))
    assert above[1] < 0, "image y grows downwards"
    assert abs(above[0]) < 1e-5, "no roll"


@settings(deadline=None, max_examples=40)
@given(AZIMUTHS)
def test_a_point_to_the_right_appears_on_the_right(azimuth: float) -> None:
    pose = look_at(orbit_position(azimuth, 0.0, 2.0))
    # who stands in front of the object and walks to growing azimuth walks to the right
    assert seen(pose, orbit_position(azimuth + 90, 0.0, 0.5))[0] > 0.49


@pytest.mark.parametrize("elevation", [90.0, -90.0])
def test_straight_up_and_down_are_rotations(elevation: float) -> None:
    eye = orbit_position(40.0, elevation, 1.5)
    pose = look_at(eye)
    assert torch.isfinite(pose).all()
    torch.testing.assert_close(pose[:3, :3] @ pose[:3, :3].T, torch.eye(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen(pose, torch.zeros(3)), torch.tensor([0.0, 0.0, 1.5]), atol=1e-5, rtol=0)


def test_opencv_from_opengl() -> None:
    """The same camera told in both ways, alone and in a batch."""
    opencv = torch.stack([look_at(orbit_position(a, e, 1.7)) for a, e in ((0.0, 0.0), (30.0, 20.0), (200.0, -50.0))])
    opengl = torch.linalg.inv(opencv.double())
    opengl = opengl @ torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    before = opengl.float().clone()
    given_poses = before.clone()
    torch.testing.assert_close(opencv_from_opengl(given_poses), opencv, atol=1e-5, rtol=0)
    torch.testing.assert_close(opencv_from_opengl(given_poses[1]), opencv[1], atol=1e-5, rtol=0)
    assert torch.equal(given_poses, before), "the argument is not touched"
    assert opencv_from_opengl(given_poses).dtype == torch.float32


def test_an_opengl_camera_at_its_origin_looks_along_minus_z() -> None:
    torch.testing.assert_close(
        seen(opencv_from_opengl(torch.eye(4)), torch.tensor([0.2, 0.3, -1.0])), torch.tensor([0.2, -0.3, 1.0])
    )


def test_focal_length() -> None:
    assert focal_from_fov(90.0, 200) == pytest.approx(100)
    assert focal_from_fov(49.1, 512) == pytest.approx(560.4, abs=0.1)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
def test_sh0_round_trip(rgb: list[float]) -> None:
    torch.testing.assert_close(rgb_from_sh0(sh0_from_rgb(torch.tensor(rgb))), torch.tensor(rgb), atol=1e-6, rtol=0)


def test_sh0_by_hand() -> None:
    assert pytest.approx(0.5 / math.sqrt(math.pi)) == SH_C0
    torch.testing.assert_close(sh0_from_rgb(torch.tensor([0.5, 1.0, 0.0])), torch.tensor([0.0, 0.5, -0.5]) / SH_C0)
