"""``transforms.json`` and its dialects: NeRF's synthetic scenes, instant-ngp, nerfstudio.

Every key is used, known to change nothing here, refused because what it says cannot be followed, or named in a note.
Where dialects differ: what a frame says wins over what the file says (instant-ngp); pixels are measured from the corner
(instant-ngp, COLMAP); the publisher's lists of files are the split, and the point cloud lies in the frame of the poses,
before ``applied_scale`` (nerfstudio).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import torch
import trimesh
from scipy.spatial.transform import Rotation

from evalsuite.core.conventions import opencv_from_opengl
from evalsuite.core.errors import BadDataError, MissingDataError, NonFiniteError
from evalsuite.scenes.colmap import PLACES
from evalsuite.scenes.images import image_size
from evalsuite.scenes.photos import Cloud, Matrix, Photo, portable, present, some, unique

_SPLITS = ("train_filenames", "val_filenames", "test_filenames")
_USED = {
    *("frames", "file_path", "transform_matrix", *_SPLITS, "ply_file_path", "applied_scale"),
    *("w", "h", "fl_x", "fl_y", "x_fov", "y_fov", "camera_angle_x", "camera_angle_y", "cx", "cy"),
    *("camera_model", "is_fisheye", "k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "distortion_params"),
}
_HARMLESS = {
    # instant-ngp's box in the world, and what only its training reads
    *("aabb", "aabb_scale", "render_aabb", "scale", "offset", "up", "n_extra_learnable_dims", "importance_sampling"),
    # depth, which no arm reads
    *("depth_path", "depth_file_path", "depth_unit_scale_factor", "integer_depth_scale", "enable_depth_loading"),
    # how others turn the world, and where poses came from
    *("applied_transform", "orientation_override", "rotation", "cam_from_world", "colmap_im_id", "sharpness"),
    *("timestamp", "timestamps", "camera_label", "image_id", "frame_id"),
}
_CONVERT = "convert the capture to a perspective or fisheye lens with COLMAP's or nerfstudio's coefficients"
_STAND = "make images of cameras that stand still, or remove the key if they did"
_AXES = "write poses with OpenGL's camera axes, and remove the key"
_REFUSED = {
    "equirectangular": ("panoramas are not supported", _CONVERT),
    "latlong": ("panoramas are not supported", _CONVERT),
    "orthographic": ("orthographic cameras are not supported", _CONVERT),
    "ftheta_p": ("f-theta lenses are not supported", _CONVERT),
    "omega": ("lenses of model FOV are not supported", _CONVERT),
    "lens": ("lenses are told by camera_model only", _CONVERT),
    "rolling_shutter": ("cameras that move while they expose are not supported", _STAND),
    "transform_matrix_start": ("cameras that move while they expose are not supported", _STAND),
    "transform_matrix_end": ("cameras that move while they expose are not supported", _STAND),
    "from_mitsuba": ("poses with Mitsuba's camera axes are not supported", _AXES),
    "normal_mts_args": ("poses with Mitsuba's camera axes are not supported", _AXES),
    "from_na": ("poses with NeuS2's camera axes are not supported", _AXES),
}
"""Keys that change what an image shows in a way that cannot be followed: why, and what to do."""

_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
"""nerfstudio's names of lenses that are OpenCV's, or its with coefficients left out."""

_CORRECT = "correct it there"
_GREY = 0.5
"""Colour of points that have none."""


class _FaultError(ValueError):
    """What is wrong in a document, what was expected, and what mends it; the caller adds the file."""

    def __init__(self, fault: str, expected: str, remedy: str = _CORRECT) -> None:
        super().__init__(fault)
        self.expected, self.remedy = expected, remedy


@dataclass(frozen=True)
class Listing:
    """What a capture's transforms say.

    Attributes:
        photos: those of the capture, in name order; all of them if ``heldout`` is None.
        heldout: what the publisher holds out; None if he does not say.
        files: what was read beside the photographs.
        cloud: the publisher's points.
        cloud_scale: factor from the cloud's coordinates to the poses'.
    """

    photos: tuple[Photo, ...]
    heldout: tuple[Photo, ...] | None
    notes: tuple[str, ...]
    files: tuple[Path, ...]
    cloud: Path | None = None
    cloud_scale: float = 1.0


def read_transforms(root: Path) -> Listing:
    """The capture that ``transforms.json`` in a folder describes.

    Raises:
        MissingDataError: no such file, or none of its images on disk.
        BadDataError: invalid JSON, a key that cannot be followed, a camera or pose that makes no sense.
        NonFiniteError: NaN or infinity in a pose.
    """
    file = root / "transforms.json"
    document, photos, notes = _read(file)
    with _faults_of(file):
        lists = _lists(document, root, {portable(root, frame["file_path"]) for frame in document["frames"]})
    cloud, scale, further = _cloud(file, document)
    notes = (*notes, *further)
    if lists is None:
        return Listing(tuple(photos.values()), None, notes, (file,), cloud, scale)
    train, test, which = lists
    unused = [name for name in photos if name not in train | test]
    if unused:
        notes = (
            *notes,
            f"{len(unused)} frames are neither in train_filenames nor in {which}, not used: {some(unused)}",
        )
    capture, heldout = (tuple(photo for name, photo in photos.items() if name in part) for part in (train, test))
    return Listing(capture, heldout, notes, (file,), cloud, scale)


def read_synthetic(root: Path) -> Listing:
    """NeRF's synthetic layout: `train` is the capture, `test` (or `val`, where there is none) is held out.

    Raises:
        MissingDataError, BadDataError, NonFiniteError: as `read_transforms`, for either file.
    """
    train = root / "transforms_train.json"
    test, instead = root / "transforms_test.json", root / "transforms_val.json"
    notes: tuple[str, ...] = ()
    if not test.is_file() and instead.is_file():
        test, notes = instead, ("transforms_test.json is not there: the views of transforms_val.json are held out",)
    document, photos, told = _read(train)
    _, others, further = _read(test)
    by_file = {photo.path.resolve() for photo in photos.values()}
    shared = [name for name, photo in others.items() if photo.path.resolve() in by_file]
    if shared:
        raise BadDataError(
            f"{train.name} and {test.name} of {root} both list {some(shared)}; expected no image in both, or held-out "
            "views would be trained on: remove it from one"
        )
    cloud, scale, cloudy = _cloud(train, document)
    notes = (*notes, *told, *(note for note in further if note not in told), *cloudy)
    return Listing(tuple(photos.values()), tuple(others.values()), notes, (train, test), cloud, scale)


def read_cloud(listing: Listing) -> tuple[Cloud | None, tuple[str, ...]]:
    """The publisher's points in the world of the poses, and what a reader of the record must know of them.

    Raises:
        BadDataError: the file is no PLY of points, or is cut.
        NonFiniteError: NaN or infinity in a point.
    """
    path = listing.cloud
    if path is None:
        return None, ()
    expected = "a whole PLY file of points: write it anew, or remove ply_file_path"
    said = re.search(rb"element vertex (\d+)", path.read_bytes()[:65536])
    if said is not None and int(said[1]) == 0:
        return None, (f"{path.name} of ply_file_path holds no points",)
    try:
        mesh: Any = trimesh.load(path, process=False)
        xyz = np.asarray(mesh.vertices, dtype=np.float64).reshape(-1, 3) * listing.cloud_scale
        colours = np.asarray(mesh.colors if hasattr(mesh, "colors") else mesh.visual.vertex_colors)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OSError) as error:
        raise BadDataError(f"{path} cannot be read ({str(error).splitlines()[0]}); expected {expected}") from error
    if said is not None and int(said[1]) != len(xyz):
        raise BadDataError(f"{path} holds {len(xyz)} points, its header counts {int(said[1])}; expected {expected}")
    if not np.isfinite(xyz).all():
        raise NonFiniteError(f"{path} holds NaN or infinity; expected finite points: {expected.partition(': ')[2]}")
    notes = [f"the {len(xyz)} points of {path.name} have no tracks: what only held-out images saw is among them"]
    if listing.cloud_scale != 1.0:
        notes.append(f"the points of {path.name} are scaled by applied_scale = {listing.cloud_scale:g}")
    if len(colours) == len(xyz):
        return Cloud(xyz, colours[:, :3].astype(np.float32) / 255), tuple(notes)
    notes.append(f"the points of {path.name} have no colour: grey is taken")
    return Cloud(xyz, np.full_like(xyz, _GREY, dtype=np.float32)), tuple(notes)


@contextmanager
def _faults_of(file: Path) -> Iterator[None]:
    """Say of which file a fault is."""
    try:
        yield
    except _FaultError as error:
        raise BadDataError(f"{file} cannot be used ({error}); expected {error.expected}: {error.remedy}") from error


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Photo], tuple[str, ...]]:
    """The document, its photographs on disk by name, and notes on what is missing or not followed."""
    if not file.is_file():
        raise MissingDataError(
            f"{file} is not there; expected the capture's cameras in it, or a COLMAP model in {' or '.join(PLACES)}: "
            "copy it there, or fetch the capture again"
        )
    with _faults_of(file):
        document = _parsed(file)
        frames = {portable(file.parent, frame["file_path"]): frame for frame in document["frames"]}
        names = unique(file, (portable(file.parent, frame["file_path"]) for frame in document["frames"]))
        notes = _unfollowed(document)
        there, absent = present(file, file.parent, names)
        photos = {
            name: Photo(name, path, _camera(_Keys(name, frames[name], document), path), _pose(name, frames[name]))
            for name, path in there.items()
        }
    return document, photos, (*absent, *notes)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())  # from bytes, a byte order mark says the encoding
    except ValueError as error:
        reason = f"{type(error).__name__}: {error}"
        raise _FaultError(reason, "JSON", f"{_CORRECT}, or copy the file again if it is cut") from error
    layout = "an object with a list of frames, as instant-ngp and nerfstudio write it"
    if not isinstance(document, dict):
        raise _FaultError(f"TypeError: it holds a {type(document).__name__}", layout)
    if not isinstance(document.get("frames"), list):
        raise _FaultError("KeyError: 'frames' is no list" if "frames" in document else "KeyError: 'frames'", layout)
    for number, frame in enumerate(document["frames"]):
        if not isinstance(frame, dict):
            raise _FaultError(f"TypeError: frame {number} is a {type(frame).__name__}", layout)
        if not isinstance(frame.get("file_path"), str) or not frame["file_path"]:
            raise _FaultError(f"KeyError: 'file_path' of frame {number}", "the path of its image there", _CORRECT)
    return document


def _unfollowed(document: dict[str, Any]) -> tuple[str, ...]:
    """Refuse what cannot be followed; name the other keys that are not used."""
    told: Counter[str] = Counter()
    for level in (document, *document["frames"]):
        for key in (key for key, value in level.items() if _says_something(value)):
            group = "ftheta_p" if key.startswith("ftheta_p") else key
            if group in _REFUSED:
                reason, remedy = _REFUSED[group]
                where = f" of {level['file_path']}" if level is not document else ""
                fault = f"{key}{where} is {json.dumps(level[key])[:60]}: {reason}"
                raise _FaultError(fault, "a capture without it", remedy)
            if key not in _USED | _HARMLESS:
                told[key] += 1
    masked = told.pop("mask_path", 0)
    notes = [f"mask_path ({masked} times) is not followed: what it masks counts as seen"] if masked else []
    if told:
        notes.append(f"keys that are not used: {', '.join(sorted(told))}")
    return tuple(notes)


def _says_something(value: Any) -> bool:
    """Not null, false, 0 or nothing, which exporters write of what is not there."""
    return any(_says_something(part) for part in value) if isinstance(value, list) else bool(value)


def _lists(document: dict[str, Any], root: Path, names: set[str]) -> tuple[set[str], set[str], str] | None:
    """The publisher's names of the capture and of what he holds out, and the key of the latter."""
    given = {key: document[key] for key in _SPLITS if document.get(key)}
    if not given:
        return None
    for key, listed in given.items():
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise _FaultError(f"{key} is no list of names", "the file_path of its frames")
    parts = {key: {portable(root, name) for name in listed} for key, listed in given.items()}
    for key, part in parts.items():
        if unknown := sorted(part - names):
            raise _FaultError(
                f"{key} names {some(unknown)}, {len(unknown)} without a frame", "the file_path of frames there"
            )
    which = "test_filenames" if "test_filenames" in parts else "val_filenames"
    if "train_filenames" not in parts or which not in parts:
        raise _FaultError(
            f"of the publisher's split it holds {', '.join(parts)} only",
            "train_filenames and test_filenames (or val_filenames), or none of them",
            "add the missing list, or remove what there is: then every k-th image is held out",
        )
    train, test = parts["train_filenames"], parts[which]
    if shared := sorted(train & test):
        raise _FaultError(
            f"train_filenames and {which} both name {some(shared)}",
            "no image in both, or held-out views would be trained on",
            "remove it from one",
        )
    return train, test, which


def _cloud(file: Path, document: dict[str, Any]) -> tuple[Path | None, float, tuple[str, ...]]:
    """Where the publisher's points are, and their scale."""
    name = document.get("ply_file_path")
    if not name:
        return None, 1.0, ()
    with _faults_of(file):
        if not isinstance(name, str):
            raise _FaultError(f"ply_file_path is {json.dumps(name)[:60]}", "the path of a PLY file")
        scale = _Keys("ply_file_path", {}, document).number("applied_scale", 1.0)
        if not (math.isfinite(scale) and scale > 0):
            raise _FaultError(f"applied_scale = {scale}", "a number above 0")
    path = file.parent / portable(file.parent, name)
    if not path.is_file():
        return None, 1.0, (f"{name} of ply_file_path is not there: the scene ships no points",)
    return path, scale, ()


@dataclass(frozen=True)
class _Keys:
    """What a document says of one frame: the frame's own keys win over those at the top."""

    name: str
    own: dict[str, Any]
    top: dict[str, Any]

    def level_of(self, *keys: str) -> dict[str, Any]:
        """The innermost level that holds any of some keys; an empty one if none does."""
        return next((level for level in (self.own, self.top) if level.keys() & set(keys)), {})

    def number(self, key: str, default: float) -> float:
        """A number, which may be written as a string, as some exporters do."""
        return self._converted(key, self.level_of(key).get(key, default))

    def focal(self, axis: str, pixels: int) -> float | None:
        """Focal length in pixels along an axis; None if nothing says it."""
        length, degrees, radians = f"fl_{axis}", f"{axis}_fov", f"camera_angle_{axis}"
        level = self.level_of(length, degrees, radians)
        if degrees in level:
            return self._from_angle(degrees, math.radians(self._converted(degrees, level[degrees])), pixels)
        if length in level:
            return self._converted(length, level[length])
        if radians in level:
            return self._from_angle(radians, self._converted(radians, level[radians]), pixels)
        return None

    def _converted(self, key: str, value: Any) -> float:
        try:
            if isinstance(value, bool):
                raise TypeError
            return float(value)
        except (TypeError, ValueError) as error:
            raise _FaultError(f"{key} of {self.name} is {json.dumps(value)[:60]}", "a number") from error

    def _from_angle(self, key: str, angle: float, pixels: int) -> float:
        if not 0 < angle < math.pi:
            unit = "degrees" if key.endswith("_fov") else "radians"
            raise _FaultError(
                f"{key} of {self.name} is no angle of view in {unit}", "more than 0, less than a half turn"
            )
        return 0.5 * pixels / math.tan(angle / 2)


def _camera(keys: _Keys, path: Path) -> pycolmap.Camera:
    """Intrinsics of one frame; instant-ngp measures pixels from the corner, as we and COLMAP do."""
    width, height = _size(keys, path)
    across, down = keys.focal("x", width), keys.focal("y", height)
    if across is None:
        raise _FaultError(
            f"no focal length of {keys.name}", "fl_x, x_fov or camera_angle_x there or at the top", "add it"
        )
    centre = keys.number("cx", width / 2), keys.number("cy", height / 2)
    if not keys.level_of("w") and not (0 <= centre[0] <= width and 0 <= centre[1] <= height):
        raise _FaultError(
            f"cx, cy = {centre[0]:g}, {centre[1]:g} of {keys.name} lie outside its {width} x {height} pixels",
            "w and h of the image they were measured in",
            "add both",
        )
    model, coefficients = _lens(keys)
    params = [across, across if down is None else down, *centre, *coefficients]
    return pycolmap.Camera(model=model, width=width, height=height, params=params)


def _size(keys: _Keys, path: Path) -> tuple[int, int]:
    """Width and height that the intrinsics are of: as said, else the file's."""
    given = [bool(keys.level_of(key)) for key in ("w", "h")]
    if not any(given):
        return image_size(path)
    size = [keys.number(key, math.nan) for key in ("w", "h")]
    if not all(math.isfinite(side) for side in size):
        raise _FaultError(f"w, h = {size[0]}, {size[1]} of {keys.name}", "both, in pixels")
    return round(size[0]), round(size[1])


def _lens(keys: _Keys) -> tuple[str, list[float]]:
    """COLMAP's name of the lens, and its coefficients after focal lengths and centre."""
    k1, k2, k3, k4, k5, k6, p1, p2 = _coefficients(keys)
    said = keys.level_of("camera_model").get("camera_model")
    fisheye = bool(keys.level_of("is_fisheye").get("is_fisheye"))
    if said not in (None, "OPENCV_FISHEYE", *_PERSPECTIVE):
        raise _FaultError(
            f"camera_model {said!r} of {keys.name} is not supported",
            f"OPENCV_FISHEYE, {', '.join(_PERSPECTIVE)}",
            _CONVERT,
        )
    if fisheye and said in _PERSPECTIVE:
        raise _FaultError(f"is_fisheye and camera_model {said} of {keys.name}", "one lens", "remove one of the two")
    kind = "OPENCV_FISHEYE" if fisheye else said or "OPENCV"
    beyond = {"OPENCV_FISHEYE": (k5, k6, p1, p2), "FULL_OPENCV": ()}.get(kind, (k4, k5, k6))
    if any(beyond):
        names = "k5, k6, p1, p2" if kind == "OPENCV_FISHEYE" else "k4, k5, k6"
        raise _FaultError(
            f"camera_model {kind!r} of {keys.name} with {names} = {', '.join(f'{value:g}' for value in beyond)}",
            f"coefficients that {kind} has",
            "name the camera_model they were calibrated for, or set them to 0",
        )
    if kind == "OPENCV_FISHEYE":
        return kind, [k1, k2, k3, k4]
    if any((k1, k2, k3, k4, k5, k6, p1, p2)):
        return "FULL_OPENCV", [k1, k2, p1, p2, k3, k4, k5, k6]
    return "PINHOLE", []


def _coefficients(keys: _Keys) -> list[float]:
    """k1 to k6, p1, p2; nerfstudio may also list k1 to k4, p1, p2."""
    names = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
    level = keys.level_of("distortion_params", *names)
    if "distortion_params" not in level:
        return [keys.number(name, 0.0) for name in names]
    listed = level["distortion_params"]
    if not isinstance(listed, list) or len(listed) != 6:
        raise _FaultError(f"distortion_params of {keys.name} is {json.dumps(listed)[:60]}", "k1, k2, k3, k4, p1, p2")
    own = _Keys(keys.name, {f"distortion_params[{i}]": value for i, value in enumerate(listed)}, {})
    k1, k2, k3, k4, p1, p2 = (own.number(f"distortion_params[{i}]", 0.0) for i in range(6))
    return [k1, k2, k3, k4, 0.0, 0.0, p1, p2]


def _pose(name: str, frame: dict[str, Any]) -> Matrix:
    """OpenCV's camera-from-world of OpenGL's camera-to-world."""
    where = f"transform_matrix of {name}"
    if "transform_matrix" not in frame:
        raise _FaultError(f"KeyError: 'transform_matrix' of {name}", "the pose of its camera", "add it")
    try:
        pose = np.array(frame["transform_matrix"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise _FaultError(f"{where} holds other things than numbers", "4 x 4 numbers") from error
    if pose.shape not in ((4, 4), (3, 4)):
        raise _FaultError(f"{where} is {pose.shape}, not 4 x 4", "camera-to-world, row by row")
    if not np.isfinite(pose).all():
        raise NonFiniteError(f"pose of {name} holds NaN or infinity; expected finite numbers: {_CORRECT}")
    turn = pose[:3, :3]
    lengths = np.linalg.norm(turn, axis=0)
    if np.abs(turn.T @ turn - np.eye(3)).max() > 1e-2 or np.linalg.det(turn) < 0:
        raise _FaultError(
            f"{where} is no rotation and translation: columns of length {lengths.round(4).tolist()}, "
            f"determinant {np.linalg.det(turn):.4g}",
            "a rotation, columns of length 1, determinant 1",
            "divide scaled columns by their length, and mirror the images or the axes if the determinant is negative",
        )
    if len(pose) == 4 and np.abs(pose[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise _FaultError(
            f"last row of {where} is {pose[3].tolist()}", "0 0 0 1", "transpose the matrix if it is by columns"
        )
    exact = np.column_stack([Rotation.from_matrix(turn).as_matrix(), pose[:3, 3]])
    square = np.vstack([exact, [0.0, 0.0, 0.0, 1.0]])
    return opencv_from_opengl(torch.from_numpy(square)).numpy()
