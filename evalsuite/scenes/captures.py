"""Real captures: posed photographs (COLMAP, transforms.json) as scenes of the `unbounded` stratum.

Both loaders treat the images alike: remove the lens distortion (cut so that no border is blank), cut every view,
centred, to the capture's median aspect, and area-average it to one size whose longer side is
``protocol.capture.long_side``. Each view keeps its own focal length and centre. The world is only rotated (mean
camera up becomes +y), never scaled or moved: the scene's ``centre`` and ``radius`` say where it is. Photographs fill
the frame; the background is black, as in 3DGS.

Poses and points come from a structure-from-motion run that saw the held-out images too, as in every published protocol.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from evalsuite.core.conventions import opencv_from_opengl
from evalsuite.core.errors import BadDataError, MissingDataError, NonFiniteError
from evalsuite.core.protocol import CAMERA_RADIUS, OBJECT_RADIUS, CaptureRule, Protocol
from evalsuite.core.types import Cameras, Points, Scene, Views
from evalsuite.scenes.colmap import read_model
from evalsuite.scenes.images import (
    Box,
    area_average,
    block_camera,
    block_size,
    centred_box,
    image_size,
    pinhole,
    pinhole_camera,
    read_rgb,
)

Matrix = Float[np.ndarray, "4 4"]

MIN_AXIS_SPREAD = 1e-3
"""Mean squared sine between optical axes and their mean that still fixes a common point: about 2 degrees."""

RADIUS_PER_DISTANCE = OBJECT_RADIUS / CAMERA_RADIUS
"""A capture's radius over the median distance of its cameras from the centre: the foreground, framed as objects are."""

FETCH = "fetch the capture, or point EVALSUITE_MIRROR at a mirror that has it"


@dataclass(frozen=True)
class _Photo:
    """One posed image file, not yet decoded; ``camera`` may be of another size than the file, of the same aspect."""

    name: str
    path: Path
    camera: pycolmap.Camera
    cam_from_world: Matrix


def load_colmap(root: Path, scene_id: str, protocol: Protocol) -> Scene:
    """A capture with ``images/`` and a COLMAP model, binary or text, in ``sparse/0``.

    Points seen by fewer than two capture images are dropped: what only held-out images saw reaches no arm.

    Args:
        root: folder of the capture.
        scene_id: id of the scene.
        protocol: its ``capture`` rule gives size, split and number of inputs.

    Raises:
        MissingDataError: no model, or none of its images on disk.
        BadDataError: a broken model or image, too few images, or no common place the cameras look at.
        NonFiniteError: NaN or infinity in a pose or camera.
    """
    model = read_model(root / "sparse" / "0")
    names = sorted(image.name for image in model.images.values() if image.has_pose)
    present, notes = _present(root, {name: root / "images" / name for name in names})
    by_name = {image.name: image for image in model.images.values()}
    photos = [
        _Photo(name, path, by_name[name].camera, _square(by_name[name].cam_from_world().matrix()))
        for name, path in present.items()
    ]
    return _scene(scene_id, photos, model, protocol, notes)


def load_transforms(root: Path, scene_id: str, protocol: Protocol) -> Scene:
    """A capture described by ``transforms.json``, in the dialects of instant-ngp and nerfstudio.

    Intrinsics stand at the top or in a frame; poses are OpenGL camera-to-world. The scene has no points.

    Args:
        root: folder of the capture.
        scene_id: id of the scene.
        protocol: its ``capture`` rule gives size, split and number of inputs.

    Raises:
        MissingDataError: no ``transforms.json``, or none of its images on disk.
        BadDataError: invalid JSON, a broken image, too few images, or no common place the cameras look at.
        NonFiniteError: NaN or infinity in a pose or camera.
    """
    file = root / "transforms.json"
    if not file.is_file():
        raise MissingDataError(f"{file} is not there; expected the capture's cameras in it: {FETCH}")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        frames = {str(frame["file_path"]): {**document, **frame} for frame in document["frames"]}
        present, notes = _present(root, {name: _with_suffix(root / name) for name in sorted(frames)})
        photos = [
            _Photo(name, path, _transforms_camera(frames[name], path), _transforms_pose(frames[name]))
            for name, path in present.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadDataError(
            f"{file} cannot be used ({reason}); expected instant-ngp's or nerfstudio's layout: fetch it again"
        ) from error
    return _scene(scene_id, photos, None, protocol, notes)


def _present(root: Path, paths: dict[str, Path]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The images on disk, in name order, and a note on the others."""
    present = {name: path for name, path in paths.items() if path.is_file()}
    absent = [name for name in paths if name not in present]
    if not present:
        raise MissingDataError(
            f"none of the {len(paths)} images of {root} is on disk; expected e.g. {_some(absent)}: {FETCH}"
        )
    if not absent:
        return present, ()
    return present, (f"{len(absent)} of {len(paths)} listed frames have no file: {_some(absent)}",)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _square(pose: Float[np.ndarray, "3 4"]) -> Matrix:
    return np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])


def _with_suffix(path: Path) -> Path:
    """NeRF's synthetic dialect leaves out the ``.png``."""
    return path if path.suffix else path.with_suffix(".png")


def _transforms_pose(frame: dict[str, Any]) -> Matrix:
    pose = np.array(frame["transform_matrix"], dtype=np.float64)
    if pose.shape not in ((4, 4), (3, 4)):
        raise ValueError(f"transform_matrix of {frame['file_path']} is {pose.shape}, not 4 x 4")
    if not np.isfinite(pose).all():
        raise NonFiniteError(
            f"pose of {frame['file_path']} holds NaN or infinity; expected finite numbers: correct the file"
        )
    turn = pose[:3, :3]
    if np.abs(turn.T @ turn - np.eye(3)).max() > 1e-2 or np.linalg.det(turn) < 0:
        raise ValueError(f"transform_matrix of {frame['file_path']} is no rotation and translation")
    exact = np.column_stack([Rotation.from_matrix(turn).as_matrix(), pose[:3, 3]])
    return opencv_from_opengl(torch.from_numpy(_square(exact))).numpy()


def _transforms_camera(frame: dict[str, Any], path: Path) -> pycolmap.Camera:
    """Intrinsics of one frame; instant-ngp measures pixels from the corner, as we and COLMAP do."""
    size = (frame["w"], frame["h"]) if "w" in frame and "h" in frame else image_size(path)
    width, height = (round(float(side)) for side in size)
    fx = float(frame["fl_x"]) if "fl_x" in frame else 0.5 * width / math.tan(float(frame["camera_angle_x"]) / 2)
    fy = float(frame.get("fl_y", fx))
    lens = [fx, fy, float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))]
    k1, k2, k3, k4, p1, p2 = (float(frame.get(key, 0.0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    kind = "OPENCV_FISHEYE" if frame.get("is_fisheye") else str(frame.get("camera_model", "OPENCV"))
    if kind == "OPENCV_FISHEYE":
        params = [*lens, k1, k2, k3, k4]
    elif kind not in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE") or k4:
        raise ValueError(f"camera_model {kind!r} with k4 = {k4} of {frame['file_path']} is not supported")
    elif any((k1, k2, k3, p1, p2)):
        kind, params = "FULL_OPENCV", [*lens, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]
    else:
        kind, params = "PINHOLE", lens
    return pycolmap.Camera(model=kind, width=width, height=height, params=params)


def _scene(
    scene_id: str,
    photos: list[_Photo],
    model: pycolmap.Reconstruction | None,
    protocol: Protocol,
    notes: tuple[str, ...],
) -> Scene:
    rule = protocol.capture
    _check(scene_id, photos, rule)
    poses = np.stack([photo.cam_from_world for photo in photos])
    upright = _upright(poses)
    poses[:, :3, :3] = poses[:, :3, :3] @ upright.T
    centre = _common_point(scene_id, poses)
    heldout = list(range(0, len(photos), rule.heldout_every))
    capture = [i for i in range(len(photos)) if i % rule.heldout_every]
    views = _views(photos, poses, rule.long_side)
    positions = views.cameras.positions.numpy()
    spread = _farthest(positions[capture] - centre, rule.inputs)
    points = None if model is None else _points(model, {photos[i].name for i in capture}, upright)
    return Scene(
        id=scene_id,
        stratum="unbounded",
        inputs=views[[capture[i] for i in spread]],
        capture=views[capture],
        heldout=views[heldout],
        centre=torch.from_numpy(centre).float(),
        radius=RADIUS_PER_DISTANCE * float(np.median(np.linalg.norm(positions - centre, axis=1))),
        background=torch.zeros(3),
        points=points,
        notes=notes,
    )


def _check(scene_id: str, photos: list[_Photo], rule: CaptureRule) -> None:
    for photo in photos:
        if not (np.isfinite(photo.cam_from_world).all() and np.isfinite(photo.camera.params).all()):
            raise NonFiniteError(
                f"pose or camera of {photo.path} holds NaN or infinity; expected finite numbers: run SfM again"
            )
    enough = rule.inputs + 2
    if len(photos) < enough or sum(1 for i in range(len(photos)) if i % rule.heldout_every) < rule.inputs:
        raise BadDataError(
            f"capture {scene_id!r} has {len(photos)} usable images; expected at least {enough} "
            f"({rule.inputs} inputs, one more, one held out): add images"
        )


def _upright(poses: Float[np.ndarray, "V 4 4"]) -> Float[np.ndarray, "3 3"]:
    """Smallest rotation of the world that takes the mean up direction of the cameras to +y."""
    up = -poses[:, 1, :3].mean(axis=0)
    if np.linalg.norm(up) < 1e-6:
        return np.eye(3)
    rotation, _ = Rotation.align_vectors(np.array([[0.0, 1.0, 0.0]]), up[None] / np.linalg.norm(up))
    return np.asarray(rotation.as_matrix())


def _common_point(scene_id: str, poses: Float[np.ndarray, "V 4 4"]) -> Float[np.ndarray, "3"]:
    """Least-squares point closest to all optical axes."""
    forward, positions = poses[:, 2, :3], -np.einsum("vji,vj->vi", poses[:, :3, :3], poses[:, :3, 3])
    off_axis = np.eye(3) - forward[:, :, None] * forward[:, None, :]
    normal = off_axis.mean(axis=0)
    if np.linalg.eigvalsh(normal)[0] >= MIN_AXIS_SPREAD:
        point = np.linalg.solve(normal, np.einsum("vij,vj->vi", off_axis, positions).mean(axis=0))
        if np.median(np.einsum("vi,vi->v", forward, point - positions)) > 0:
            return np.asarray(point)
    raise BadDataError(
        f"cameras of {scene_id!r} look outwards or in parallel; expected a common place before them: use another"
    )


def _farthest(offsets: Float[np.ndarray, "V 3"], count: int) -> list[int]:
    """Indices of views spread over the directions: each next one is the farthest from those taken, the first is 0."""
    directions = offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
    taken = [0]
    while len(taken) < count:
        nearest = np.linalg.norm(directions[:, None] - directions[taken], axis=2).min(axis=1)
        nearest[taken] = -1.0
        taken.append(int(nearest.argmax()))
    return sorted(taken)


def _views(photos: list[_Photo], poses: Float[np.ndarray, "V 4 4"], long_side: int) -> Views:
    """Decode, undistort, cut and reduce; nothing is ever enlarged."""
    full = [_camera_of_file(photo) for photo in photos]
    blocks = [block_size(camera, long_side) for camera in full]
    lenses = [block_camera(camera, block) for camera, block in zip(full, blocks, strict=True)]
    plain = [pinhole_camera(lens) for lens in lenses]
    aspect = float(np.median([camera.width / camera.height for camera in plain]))
    long_side = min(long_side, *(_long_side(centred_box(c.width, c.height, aspect)) for c in plain))
    size = max(1, round(long_side * min(1.0, aspect))), max(1, round(long_side / max(1.0, aspect)))
    boxes = [centred_box(c.width, c.height, size[0] / size[1]) for c in plain]  # the rounded aspect: square pixels
    images, focal, centre = [], [], []
    for photo, block, lens, camera, box in zip(photos, blocks, lenses, plain, boxes, strict=True):
        images.append(area_average(pinhole(read_rgb(photo.path, block), lens), box, size))
        scale = np.array([size[0] / (box[2] - box[0]), size[1] / (box[3] - box[1])])
        focal.append(np.array([camera.focal_length_x, camera.focal_length_y]) * scale)
        centre.append((np.array([camera.principal_point_x, camera.principal_point_y]) - box[:2]) * scale)
    cameras = Cameras(
        torch.from_numpy(poses).float(),
        torch.from_numpy(np.stack(focal)).float(),
        torch.from_numpy(np.stack(centre)).float(),
        *size,
    )
    return Views(torch.from_numpy(np.stack(images)).float() / 255, None, cameras)


def _long_side(box: Box) -> int:
    left, top, right, bottom = box
    return int(max(right - left, bottom - top))


def _camera_of_file(photo: _Photo) -> pycolmap.Camera:
    """Camera at the size of the file: some publishers ship reduced images with the cameras of the full ones."""
    width, height = image_size(photo.path)
    camera = pycolmap.Camera(photo.camera.todict())
    if (width, height) == (camera.width, camera.height):
        return camera
    if abs(width * camera.height - height * camera.width) > max(camera.width, camera.height):
        raise BadDataError(
            f"{photo.path} is {width} x {height}, its camera {camera.width} x {camera.height}; "
            f"expected the same aspect: take the images the poses were computed from"
        )
    camera.rescale(width, height)
    return camera


def _points(model: pycolmap.Reconstruction, seen_by: set[str], upright: Float[np.ndarray, "3 3"]) -> Points:
    """COLMAP's points with at least two capture images in their track."""
    ids = {key for key, image in model.images.items() if image.name in seen_by}
    kept = [
        point
        for point in model.points3D.values()
        if len(ids.intersection(element.image_id for element in point.track.elements)) >= 2
    ]
    xyz = np.array([point.xyz for point in kept], dtype=np.float64).reshape(-1, 3) @ upright.T
    rgb = np.array([point.color for point in kept], dtype=np.float32).reshape(-1, 3) / 255
    if not np.isfinite(xyz).all():
        raise NonFiniteError(
            "points3D of the COLMAP model holds NaN or infinity; expected finite points: run SfM again"
        )
    return Points(torch.from_numpy(xyz).float(), torch.from_numpy(rgb))
