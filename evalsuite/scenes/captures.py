"""Captures: posed images (COLMAP, transforms.json, NeRF's synthetic scenes) as scenes of the `unbounded` stratum.

All loaders treat the images alike: remove the lens distortion (cut so that no border is blank), cut every view,
centred, to the capture's median aspect, and area-average it to one size whose longer side is
``protocol.capture.long_side`` (None: they keep theirs). Each view keeps its own focal length and centre. The world is
only rotated (mean camera up becomes +y), never scaled or moved: the scene's ``centre`` and ``radius`` say where it is.
Photographs fill the frame; the background is black, as in 3DGS. NeRF's synthetic images keep their alpha and the
protocol's background.

Poses and points come from a structure-from-motion run that saw the held-out images too, as in every published protocol.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
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
    read_layers,
    read_rgb,
)

Matrix = Float[np.ndarray, "4 4"]

MIN_AXIS_SPREAD = 1e-3
"""Mean squared sine between optical axes and their mean that still fixes a common point: about 2 degrees."""

RADIUS_PER_DISTANCE = OBJECT_RADIUS / CAMERA_RADIUS
"""A capture's radius over the median distance of its cameras from the centre: the foreground, framed as objects are."""

FETCH = "fetch the capture, or point EVALSUITE_MIRROR at a mirror that has it"


_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
"""nerfstudio's names of lenses that are OpenCV's, or its with coefficients left out."""


@dataclass(frozen=True)
class _Photo:
    """One posed image file, not yet decoded; ``camera`` may be of another size than the file, of the same aspect."""

    name: str
    path: Path
    camera: pycolmap.Camera
    cam_from_world: Matrix


@dataclass(frozen=True)
class _Split:
    """Photographs by who may see them; ``alpha`` says whether their transparency is coverage."""

    capture: tuple[_Photo, ...]
    heldout: tuple[_Photo, ...]
    alpha: bool = False

    @classmethod
    def every_kth(cls, photos: list[_Photo], k: int) -> _Split:
        """Hold out the first photograph, in name order, and every k-th after it."""
        return cls(tuple(photo for i, photo in enumerate(photos) if i % k), tuple(photos[::k]))

    @property
    def photos(self) -> list[_Photo]:
        """All, capture first."""
        return [*self.capture, *self.heldout]


def load_capture(root: Path, scene_id: str, protocol: Protocol) -> Scene:
    """A capture in whichever layout its folder has: ``sparse/0``, ``transforms_train.json`` or ``transforms.json``.

    Args and errors are those of `load_colmap`, `load_synthetic` and `load_transforms`.
    """
    if (root / "sparse" / "0").is_dir():
        return load_colmap(root, scene_id, protocol)
    if (root / "transforms_train.json").is_file():
        return load_synthetic(root, scene_id, protocol)
    return load_transforms(root, scene_id, protocol)


def load_colmap(root: Path, scene_id: str, protocol: Protocol, images: str = "images") -> Scene:
    """A capture with ``images/`` and a COLMAP model, binary or text, in ``sparse/0``.

    Points seen by fewer than two capture images are dropped: what only held-out images saw reaches no arm.

    Args:
        root: folder of the capture.
        scene_id: id of the scene.
        protocol: its ``capture`` rule gives size, split and number of inputs.
        images: folder of the images, which may be smaller than the model's cameras (``images_2``, ``images_4``).

    Raises:
        MissingDataError: no model, or none of its images on disk.
        BadDataError: a broken model or image, too few images, or no common place the cameras look at.
        NonFiniteError: NaN or infinity in a pose or camera.
    """
    model = read_model(root / "sparse" / "0")
    names = _unique(root, sorted(image.name for image in model.images.values() if image.has_pose))
    present, notes = _present(root, {name: root / images / name for name in names})
    by_name = {image.name: image for image in model.images.values()}
    photos = [
        _Photo(name, path, by_name[name].camera, _square(by_name[name].cam_from_world().matrix()))
        for name, path in present.items()
    ]
    return _scene(scene_id, _Split.every_kth(photos, protocol.capture.heldout_every), model, protocol, notes)


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
    photos, notes = _transforms_photos(root, root / "transforms.json")
    return _scene(scene_id, _Split.every_kth(photos, protocol.capture.heldout_every), None, protocol, notes)


def load_synthetic(root: Path, scene_id: str, protocol: Protocol) -> Scene:
    """A scene in the layout of NeRF's synthetic ones: ``transforms_train.json``, ``transforms_test.json``, RGBA images.

    The publisher's split is kept: `train` is the capture, `test` is held out, `val` is not used.

    Args:
        root: folder of the scene.
        scene_id: id of the scene.
        protocol: its ``capture`` rule gives size and number of inputs; its background is laid behind.

    Raises:
        MissingDataError, BadDataError, NonFiniteError: as `load_transforms`, for either file.
    """
    train, notes = _transforms_photos(root, root / "transforms_train.json")
    test, further = _transforms_photos(root, root / "transforms_test.json")
    split = _Split(tuple(train), tuple(test), alpha=True)
    return _scene(scene_id, split, None, protocol, (*notes, *further))


def _transforms_photos(root: Path, file: Path) -> tuple[list[_Photo], tuple[str, ...]]:
    """The photographs that a file in one of the dialects of transforms.json lists, and a note on missing ones."""
    if not file.is_file():
        raise MissingDataError(f"{file} is not there; expected the capture's cameras in it: {FETCH}")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        listed = [{**document, **frame} for frame in document["frames"]]
        names = _unique(root, sorted(Path(frame["file_path"]).as_posix() for frame in listed))
        frames = {Path(frame["file_path"]).as_posix(): frame for frame in listed}
        present, notes = _present(root, {name: _with_suffix(root / name) for name in names})
        photos = [
            _Photo(name, path, _transforms_camera(frames[name], path), _transforms_pose(frames[name]))
            for name, path in present.items()
        ]
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadDataError(
            f"{file} cannot be used ({reason}); expected instant-ngp's or nerfstudio's layout: fetch it again"
        ) from error
    return photos, notes


def _unique(root: Path, names: list[str]) -> list[str]:
    """The sorted names, if there are any and no two are the same."""
    if not names:
        raise BadDataError(f"{root} lists no image with a pose; expected one pose per image: fetch the capture again")
    twice = next((name for name, following in pairwise(names) if name == following), None)
    if twice is not None:
        raise BadDataError(f"{root} lists image {twice} twice; expected one pose per image: remove one of the two")
    return names


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
    fx = _focal(frame, "x", width)
    fy = _focal(frame, "y", height) if {"fl_y", "camera_angle_y"} & frame.keys() else fx
    lens = [fx, fy, float(frame.get("cx", width / 2)), float(frame.get("cy", height / 2))]
    k1, k2, k3, k4, p1, p2 = (float(frame.get(key, 0.0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    kind = "OPENCV_FISHEYE" if frame.get("is_fisheye") else str(frame.get("camera_model", "OPENCV"))
    if kind == "OPENCV_FISHEYE":
        params = [*lens, k1, k2, k3, k4]
    elif kind not in _PERSPECTIVE or k4:
        raise ValueError(f"camera_model {kind!r} with k4 = {k4} of {frame['file_path']} is not supported")
    elif any((k1, k2, k3, p1, p2)):
        kind, params = "FULL_OPENCV", [*lens, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0]
    else:
        kind, params = "PINHOLE", lens
    return pycolmap.Camera(model=kind, width=width, height=height, params=params)


def _focal(frame: dict[str, Any], axis: str, pixels: int) -> float:
    if f"fl_{axis}" in frame:
        return float(frame[f"fl_{axis}"])
    return 0.5 * pixels / math.tan(float(frame[f"camera_angle_{axis}"]) / 2)


def _scene(
    scene_id: str, split: _Split, model: pycolmap.Reconstruction | None, protocol: Protocol, notes: tuple[str, ...]
) -> Scene:
    rule, photos = protocol.capture, split.photos
    _check(scene_id, split, rule)
    poses = np.stack([photo.cam_from_world for photo in photos])
    upright = _upright(poses)
    poses[:, :3, :3] = poses[:, :3, :3] @ upright.T
    centre = _common_point(scene_id, poses)
    views = _views(photos, poses, rule.long_side, split.alpha)
    positions = views.cameras.positions.numpy()
    capture, heldout = views[: len(split.capture)], views[len(split.capture) :]
    spread = _farthest(positions[: len(capture)] - centre, rule.inputs)
    points = None if model is None else _points(model, {photo.name for photo in split.capture}, upright)
    return Scene(
        id=scene_id,
        stratum="unbounded",
        inputs=capture[spread],
        capture=capture,
        heldout=heldout,
        centre=torch.from_numpy(centre).float(),
        radius=RADIUS_PER_DISTANCE * float(np.median(np.linalg.norm(positions - centre, axis=1))),
        background=torch.tensor(protocol.background) if split.alpha else torch.zeros(3),
        points=points,
        notes=notes,
    )


def _check(scene_id: str, split: _Split, rule: CaptureRule) -> None:
    for photo in split.photos:
        if not (np.isfinite(photo.cam_from_world).all() and np.isfinite(photo.camera.params).all()):
            raise NonFiniteError(
                f"pose or camera of {photo.path} holds NaN or infinity; expected finite numbers: run SfM again"
            )
        if min(photo.camera.width, photo.camera.height, photo.camera.focal_length_x, photo.camera.focal_length_y) <= 0:
            raise BadDataError(
                f"camera of {photo.path} has a size or focal length of 0 or less; expected more: calibrate it again"
            )
    if len(split.capture) <= rule.inputs or not split.heldout:
        raise BadDataError(
            f"capture {scene_id!r} has {len(split.photos)} usable images; expected at least {rule.inputs + 2} "
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


def _views(photos: list[_Photo], poses: Float[np.ndarray, "V 4 4"], long_side: int | None, alpha: bool) -> Views:
    """Decode, undistort, cut and reduce; nothing is ever enlarged."""
    full = [_camera_of_file(photo) for photo in photos]
    blocks = [block_size(camera, long_side) for camera in full]
    lenses = [block_camera(camera, block) for camera, block in zip(full, blocks, strict=True)]
    plain = [pinhole_camera(lens) for lens in lenses]
    aspect = float(np.median([camera.width / camera.height for camera in plain]))
    whole = min(_long_side(centred_box(c.width, c.height, aspect)) for c in plain)
    side = whole if long_side is None else min(long_side, whole)
    size = max(1, round(side * min(1.0, aspect))), max(1, round(side / max(1.0, aspect)))
    boxes = [centred_box(c.width, c.height, size[0] / size[1]) for c in plain]  # the rounded aspect: square pixels
    images, focal, centre = [], [], []
    for photo, block, lens, camera, box in zip(photos, blocks, lenses, plain, boxes, strict=True):
        layers = read_layers(photo.path, block) if alpha else (read_rgb(photo.path, block),)
        images.append([area_average(pinhole(layer, lens), box, size) for layer in layers])
        scale = np.array([size[0] / (box[2] - box[0]), size[1] / (box[3] - box[1])])
        focal.append(np.array([camera.focal_length_x, camera.focal_length_y]) * scale)
        centre.append((np.array([camera.principal_point_x, camera.principal_point_y]) - box[:2]) * scale)
    cameras = Cameras(
        torch.from_numpy(poses).float(),
        torch.from_numpy(np.stack(focal)).float(),
        torch.from_numpy(np.stack(centre)).float(),
        *size,
    )
    planes = np.array(images)
    if not alpha:
        return Views(torch.from_numpy(planes[:, 0]).float().div_(255), None, cameras)  # gigabytes: no copy
    coverage = planes[:, 1, ..., 0]
    straight = np.rint(planes[:, 0] * (255 / np.maximum(coverage, 1))[..., None]).clip(0, 255)
    return Views(torch.from_numpy(straight).float() / 255, torch.from_numpy(coverage).float() / 255, cameras)


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
