"""Cameras of object scenes and the split of their views into inputs, capture and held-out."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from evalsuite.core.cases import Stratum
from evalsuite.core.conventions import focal_from_fov, look_at, orbit_position
from evalsuite.core.errors import OptionError
from evalsuite.core.protocol import Protocol, Rig
from evalsuite.core.types import Cameras, Mesh, Scene
from evalsuite.scenes.meshes import TexturedMesh, normalised
from evalsuite.scenes.raytrace import render_mesh
from evalsuite.scenes.visibility import visible_samples

_CAPTURE_ELEVATIONS_DEG = (-30.0, 70.0)
_HELDOUT_CLEARANCE_DEG = 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def orbit_cameras(
    azimuth_deg: Float[Tensor, "V"],
    elevation_deg: Float[Tensor, "V"],
    *,
    radius: float,
    fov_y_deg: float,
    resolution: int,
) -> Cameras:
    """Square pinhole cameras on a sphere round the origin that look at it, y up.

    Args:
        azimuth_deg: 0 is +z, 90 is +x.
        elevation_deg: upwards, in [-90, 90].
        radius: distance from the origin, world units.
        fov_y_deg: vertical field of view.
        resolution: width and height in pixels.
    """
    pairs = zip(azimuth_deg.tolist(), elevation_deg.tolist(), strict=True)
    poses = [look_at(orbit_position(azimuth, elevation, radius)) for azimuth, elevation in pairs]
    return Cameras(
        cam_from_world=torch.stack(poses),
        focal_px=torch.full((len(poses), 2), focal_from_fov(fov_y_deg, resolution)),
        centre_px=torch.full((len(poses), 2), resolution / 2),
        width=resolution,
        height=resolution,
    )


def object_scene(scene_id: str, stratum: Stratum, mesh: TexturedMesh, protocol: Protocol) -> Scene:
    """Ray-trace an object from the protocol's rig.

    Inputs stand at the rig's azimuths and elevation. Capture is the inputs, then further views evenly spread over
    the sphere between elevations -30 and 70 degrees (a Fibonacci spiral). Held-out views stand at the rig's
    elevations, at azimuths 20 degrees or more from every input's.

    Args:
        scene_id: id of the scene, `[a-z0-9.-]`.
        stratum: what its results are pooled with.
        mesh: y up; it is scaled into the rig's object radius.
        protocol: rig and background.

    Raises:
        OptionError: the rig has fewer capture views than inputs.
    """
    rig = protocol.rig
    inputs, further, heldout = _inputs(rig), _spiral(rig.capture_views - len(rig.input_azimuths_deg)), _heldout(rig)
    azimuth, elevation = torch.from_numpy(np.concatenate([inputs, further, heldout])).float().unbind(1)
    cameras = orbit_cameras(
        azimuth, elevation, radius=rig.camera_radius, fov_y_deg=rig.fov_y_deg, resolution=rig.resolution
    )
    truth = normalised(mesh, rig.object_radius)
    views, _ = render_mesh(truth, cameras, rig.supersample)
    stored = _as_stored(truth)
    return Scene(
        id=scene_id,
        stratum=stratum,
        inputs=views[: len(inputs)],
        capture=views[: rig.capture_views],
        heldout=views[rig.capture_views :],
        centre=torch.zeros(3),
        radius=rig.object_radius,
        background=torch.tensor(protocol.background),
        mesh=stored,
        surface=None if protocol.geometry is None else visible_samples(stored, protocol.geometry, "true"),
    )


def _as_stored(mesh: TexturedMesh) -> Mesh:
    """The mesh in numbers that GLB holds exactly: float32 vertices (as Embree sees them), 8-bit colours.

    GLB counts v downwards: texture coordinates are rounded so that v and 1 - v are float32 both.
    """
    uv, rgb = mesh.uv, mesh.vertex_rgb
    if uv is not None:
        step = 2.0 ** (np.ceil(np.log2(max(1.0, np.abs(uv).max(), np.abs(1 - uv).max()))) - 23)
        uv = np.round(uv / step) * step
    return Mesh(
        mesh.vertices.astype(np.float32).astype(np.float64),
        mesh.faces,
        uv,
        mesh.image,
        None if rgb is None else np.round(rgb * 255) / 255,
    )


def _inputs(rig: Rig) -> Float[np.ndarray, "V 2"]:
    """Azimuth and elevation of the inputs, degrees."""
    azimuth = np.array(rig.input_azimuths_deg)
    return np.stack([azimuth, np.full(len(azimuth), rig.input_elevation_deg)], axis=1)


def _spiral(count: int) -> Float[np.ndarray, "V 2"]:
    """Azimuth and elevation of a Fibonacci spiral: equal areas between the elevation limits, degrees."""
    if count < 0:
        raise OptionError(f"the rig has {-count} more inputs than capture views; capture contains the inputs: raise it")
    low, high = np.sin(np.radians(_CAPTURE_ELEVATIONS_DEG))
    k = np.arange(count)
    height = low + (high - low) * (k + 0.5) / max(count, 1)
    return np.stack([360 * (k * _GOLDEN % 1), np.degrees(np.arcsin(height))], axis=1)


def _heldout(rig: Rig) -> Float[np.ndarray, "V 2"]:
    """Azimuth and elevation of the held-out views, degrees; each elevation starts at another azimuth."""
    taken = np.sort(np.array(rig.input_azimuths_deg) % 360)
    gaps = np.diff(taken, append=taken[0] + 360)
    clearance = np.minimum(_HELDOUT_CLEARANCE_DEG, gaps / 2)
    free = gaps - 2 * clearance
    # positions along the free arcs laid end to end
    start = np.concatenate([[0.0], np.cumsum(free)])
    count = rig.heldout_per_elevation
    views = []
    for row, elevation in enumerate(rig.heldout_elevations_deg):
        for t in (np.arange(count) + (0.5 + row * _GOLDEN) % 1) / count * start[-1]:
            arc = min(int(np.searchsorted(start, t, side="right")) - 1, len(taken) - 1)
            views.append(((taken[arc] + clearance[arc] + t - start[arc]) % 360, elevation))
    return np.array(views).reshape(-1, 2)
