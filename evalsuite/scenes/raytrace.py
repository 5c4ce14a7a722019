"""Ray-traced ground truth of meshes: unlit albedo, coverage and depth, by Embree on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from jaxtyping import Float, Int
from torch import Tensor

from evalsuite.core.errors import ShapeError
from evalsuite.core.types import Cameras, Views
from evalsuite.scenes.colours import times
from evalsuite.scenes.meshes import TexturedMesh, sample_texture

Ball = tuple[Float[np.ndarray, "3"], float]
"""Centre and radius of a sphere round the mesh: rays that miss it are not traced."""

_SLACK = 1 + 1e-5


def render_mesh(mesh: TexturedMesh, cameras: Cameras, supersample: int) -> tuple[Views, Float[Tensor, "V H W"]]:
    """Images of a mesh as a perfect, unlit scanner would store them.

    Each pixel sends a regular grid of ``supersample`` x ``supersample`` rays; the filter is a box. Both sides of a
    triangle are seen. Deterministic: the same mesh and cameras give the same bits.

    Args:
        mesh: in world coordinates.
        cameras: poses and pinhole intrinsics.
        supersample: rays per pixel and axis, >= 1.

    Returns:
        Views with straight ``rgb`` (mean over the rays that hit, 0 where none does) and ``alpha`` (share of rays
        that hit), both rounded to multiples of 1/255; and the depth along the camera's z, world units, mean over
        the rays that hit, 0 where none does.

    Raises:
        ShapeError: ``supersample`` is below 1.
    """
    if supersample < 1:
        raise ShapeError(f"supersample is {supersample}; expected 1 or more rays per pixel and axis")
    # robust: watertight intersection, no pinholes along shared edges
    scene = EmbreeScene(robust=True)
    TriangleMesh(scene, mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32))
    middle = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    ball = middle, float(np.linalg.norm(mesh.vertices - middle, axis=1).max())
    images = [_view(mesh, scene, ball, cameras[[k]], supersample) for k in range(len(cameras))]
    rgb, alpha, depth = (torch.from_numpy(np.stack(planes)) for planes in zip(*images, strict=True))
    return Views(rgb, alpha, cameras), depth


def _view(
    mesh: TexturedMesh, scene: EmbreeScene, ball: Ball, camera: Cameras, supersample: int
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """8-bit colour, 8-bit coverage and depth of one camera."""
    cam_from_world = camera.cam_from_world[0].double().numpy()
    pixel, cam_rays = _rays(ball, camera, cam_from_world, supersample)
    rotation = cam_from_world[:3, :3]
    eye = -rotation.T @ cam_from_world[:3, 3]
    directions = cam_rays @ rotation.astype(np.float32)
    origins = np.broadcast_to(eye.astype(np.float32), directions.shape)
    # directions have z = 1 in the camera, so Embree's ray parameter is the depth
    hits = scene.run(np.ascontiguousarray(origins), directions, output=1)
    hit = hits["primID"] >= 0
    colours = _albedo(mesh, hits["primID"][hit], hits["u"][hit], hits["v"][hit])
    pixel, count = pixel[hit], camera.height * camera.width
    samples = np.bincount(pixel, minlength=count)
    shape = (camera.height, camera.width)
    divisor = np.maximum(samples, 1)
    rgb = np.stack([np.bincount(pixel, channel, count) / divisor for channel in colours.T], axis=-1)
    depth = np.bincount(pixel, hits["tfar"][hit], count) / divisor
    return (
        (np.round(rgb * 255) / 255).astype(np.float32).reshape(*shape, 3),
        (np.round(samples * (255 / supersample**2)) / 255).astype(np.float32).reshape(shape),
        depth.astype(np.float32).reshape(shape),
    )


def _rays(
    ball: Ball, camera: Cameras, cam_from_world: Float[np.ndarray, "4 4"], supersample: int
) -> tuple[Int[np.ndarray, "R"], Float[np.ndarray, "R 3"]]:
    """Pixel index and camera-space direction (z = 1) of the rays that meet the mesh's bounding sphere."""
    focal, centre = camera.focal_px[0].double().numpy(), camera.centre_px[0].double().numpy()
    column = (np.arange(camera.width * supersample) + 0.5) / supersample
    row = (np.arange(camera.height * supersample) + 0.5) / supersample
    x = ((column - centre[0]) / focal[0])[None, :]
    y = ((row - centre[1]) / focal[1])[:, None]
    centre_cam = cam_from_world[:3, :3] @ ball[0] + cam_from_world[:3, 3]
    along = x * centre_cam[0] + y * centre_cam[1] + centre_cam[2]
    # squared distance of the line to the centre, times the squared length of its direction
    length = x**2 + y**2 + 1
    meets = (centre_cam @ centre_cam - (ball[1] * _SLACK) ** 2) * length <= along**2
    rows, columns = np.nonzero(meets)
    directions = np.ones((len(rows), 3), dtype=np.float32)
    directions[:, 0], directions[:, 1] = x[0, columns], y[rows, 0]
    return (rows // supersample) * camera.width + columns // supersample, directions


def _albedo(
    mesh: TexturedMesh, face: Int[np.ndarray, "R"], u: Float[np.ndarray, "R"], v: Float[np.ndarray, "R"]
) -> Float[np.ndarray, "R 3"]:
    """Colour at barycentric coordinates (1 - u - v, u, v) of faces; sRGB in [0, 1]."""
    corners = mesh.faces[face]
    weights = np.stack([1 - u - v, u, v], axis=1)

    def mixed(values: Float[np.ndarray, "P C"]) -> Float[np.ndarray, "R C"]:
        single = values.astype(np.float32)
        between: Float[np.ndarray, "R C"] = sum(weights[:, k, None] * single[corners[:, k]] for k in range(3))
        return between

    if mesh.uv is None or mesh.image is None:
        assert mesh.vertex_rgb is not None
        return mixed(mesh.vertex_rgb)
    texels = sample_texture(mesh.image, mixed(mesh.uv))
    return texels if mesh.vertex_rgb is None else times(texels, mixed(mesh.vertex_rgb))
