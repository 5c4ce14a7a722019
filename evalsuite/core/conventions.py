"""The conventions of every image, camera and Gaussian in the suite; converters live at the edges only.

=================  =====================================================================================
world              right-handed, y up; object scenes lie in a sphere of radius 0.6 at the origin
camera             OpenCV: x right, y down, z forward; pose stored as ``cam_from_world`` (4x4)
pixels             integer coordinates are pixel corners, the first pixel's centre is (0.5, 0.5)
colour             sRGB in [0, 1]; alpha is straight (not premultiplied)
background         white for object scenes
quaternion         real part first (w, x, y, z)
spherical harm.    real, in the order and sign of 3DGS; colour = 0.5 + sum_k sh_k Y_k, then max(0)
=================  =====================================================================================

A transform is named destination-first: ``x_cam = cam_from_world @ x_world``.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

SH_C0 = 0.28209479177387814
"""Value of the constant spherical harmonic, 1 / (2 sqrt(pi))."""


def focal_from_fov(fov_y_deg: float, height_px: int) -> float:
    """Focal length in pixels of a pinhole camera with the given vertical field of view."""
    return 0.5 * height_px / math.tan(math.radians(fov_y_deg) / 2)


def orbit_position(azimuth_deg: float, elevation_deg: float, radius: float) -> Float[Tensor, "3"]:
    """Point on a sphere around the origin; azimuth 0 is +z and grows towards +x, elevation is upwards."""
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    return radius * torch.tensor([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])


def look_at(eye: Float[Tensor, "3"], target: Float[Tensor, "3"] | None = None) -> Float[Tensor, "4 4"]:
    """OpenCV ``cam_from_world`` of a camera at ``eye`` that looks at ``target`` (default: the origin), y up.

    Looking straight up or down has no unique roll; z is then taken as the up hint.
    """
    eye = eye.double()
    target = torch.zeros(3, dtype=torch.float64) if target is None else target.double()
    forward = torch.nn.functional.normalize(target - eye, dim=0)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    if forward[1].abs() > 0.9999:
        up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward])
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = rotation
    pose[:3, 3] = -rotation @ eye
    return pose.float()


def opencv_from_opengl(world_from_cam: Float[Tensor, "*V 4 4"]) -> Float[Tensor, "*V 4 4"]:
    """OpenGL camera-to-world (y up, looks along -z) to OpenCV ``cam_from_world``."""
    flipped = world_from_cam.double().clone()
    flipped[..., :3, 1:3] *= -1
    return torch.linalg.inv(flipped).to(world_from_cam.dtype)


def opengl_from_opencv(cam_from_world: Float[Tensor, "*V 4 4"]) -> Float[Tensor, "*V 4 4"]:
    """OpenCV ``cam_from_world`` to OpenGL camera-to-world: the inverse of `opencv_from_opengl`."""
    world_from_cam = torch.linalg.inv(cam_from_world.double())
    world_from_cam[..., :3, 1:3] *= -1
    return world_from_cam.to(cam_from_world.dtype)


def sh0_from_rgb(rgb: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Constant SH coefficient whose rendered colour is ``rgb``."""
    return (rgb - 0.5) / SH_C0


def rgb_from_sh0(sh0: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Colour of a Gaussian with only the constant SH coefficient (not clamped)."""
    return sh0 * SH_C0 + 0.5
