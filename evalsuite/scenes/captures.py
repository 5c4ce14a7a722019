"""Captures: posed images (COLMAP, transforms.json, NeRF's synthetic scenes) as scenes of the `unbounded` stratum.

All loaders treat the images alike: remove the lens distortion (cut so that no border is blank), cut every view,
centred, to the capture's median aspect, and area-average it to one size whose longer side is
``protocol.capture.long_side`` (None: they keep theirs). Each view keeps its own focal length and centre. The world is
only rotated (mean camera up becomes +y), never scaled or moved: the scene's ``centre`` and ``radius`` say where it is.

What the files hold decides whether a capture has alpha, whatever its layout. Where any pixel is transparent, images are
cut-outs, as NeRF's, instant-ngp and nerfstudio read them, and the protocol's background is laid behind. Else they are
photographs, which fill the frame: the background is black, as in 3DGS, and an alpha channel that is opaque everywhere
says nothing. Cut-outs among files without alpha are refused.

Poses and points come from a structure-from-motion run that saw the held-out images too, as in every published protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from evalsuite.core.errors import BadDataError, NonFiniteError
from evalsuite.core.protocol import CAMERA_RADIUS, OBJECT_RADIUS, CaptureRule, Protocol
from evalsuite.core.types import Cameras, Points, Scene, Views
from evalsuite.scenes.colmap import PLACES, find_model, listed_images, model_files, read_model
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
from evalsuite.scenes.photos import Cloud, Matrix, Photo, portable, present, some, unique
from evalsuite.scenes.pixels import transparency
from evalsuite.scenes.transforms import Listing, read_cloud, read_synthetic, read_transforms

MIN_AXIS_SPREAD = 1e-3
"""Mean squared sine between optical axes and their mean that still fixes a common point: about 2 degrees."""

RADIUS_PER_DISTANCE = OBJECT_RADIUS / CAMERA_RADIUS
"""A capture's radius over the median distance of its cameras from the centre: the foreground, framed as objects are."""


@dataclass(frozen=True)
class _Split:
    """Photographs by who may see them."""

    capture: tuple[Photo, ...]
    heldout: tuple[Photo, ...]

    @classmethod
    def every_kth(cls, photos: tuple[Photo, ...], k: int) -> _Split:
        """Hold out the first photograph, in name order, and every k-th after it."""
        return cls(tuple(photo for i, photo in enumerate(photos) if i % k), photos[::k])

    @property
    def photos(self) -> list[Photo]:
        """All, capture first."""
        return [*self.capture, *self.heldout]


def load_capture(root: Path, scene_id: str, protocol: Protocol) -> Scene:
    """A capture in whichever layout its folder has.

    In this order: a COLMAP model in ``sparse/0`` or ``sparse``, ``transforms_train.json``, ``transforms.json``, a model
    in ``colmap/sparse/0``. Args and errors are those of `load_colmap`, `load_synthetic` and `load_transforms`.
    """
    if _is_colmap(root):
        return load_colmap(root, scene_id, protocol)
    if (root / "transforms_train.json").is_file():
        return load_synthetic(root, scene_id, protocol)
    return load_transforms(root, scene_id, protocol)


def capture_files(root: Path) -> tuple[tuple[str, Path], ...]:
    """Name and place of every file that `load_capture` opens; no image is decoded, but errors are the same.

    Raises:
        MissingDataError, BadDataError, NonFiniteError: what the files list cannot be told.
    """
    if _is_colmap(root):
        return colmap_files(root)
    listing = _listing(root)
    paths = {photo.path for photo in (*listing.photos, *(listing.heldout or ()))}
    return _named(root, {*paths, *listing.files, *([listing.cloud] if listing.cloud else [])})


def colmap_files(root: Path, images: str = "images") -> tuple[tuple[str, Path], ...]:
    """Name and place of every file that `load_colmap` opens.

    Raises:
        MissingDataError, BadDataError: as `load_colmap`, of the list of images.
    """
    model = find_model(root) or root / PLACES[0]
    names = (portable(root / images, name) for name in listed_images(model))
    return _named(root, {*present(root, root / images, names)[0].values(), *model_files(model)})


def load_colmap(root: Path, scene_id: str, protocol: Protocol, images: str = "images") -> Scene:
    """A capture with ``images/`` and a COLMAP model, binary or text, in one of `evalsuite.scenes.colmap.PLACES`.

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
    folder = find_model(root) or root / PLACES[0]
    model = read_model(folder)
    posed = [(portable(root / images, image.name), image) for image in model.images.values() if image.has_pose]
    there, notes = present(root, root / images, unique(root, (name for name, _ in posed)))
    by_name = dict(posed)
    photos = tuple(
        Photo(name, path, by_name[name].camera, _square(by_name[name].cam_from_world().matrix()))
        for name, path in there.items()
    )
    split = _Split.every_kth(photos, protocol.capture.heldout_every)
    seen_by = {by_name[photo.name].image_id for photo in split.capture}
    others = [path.name for path in sorted(folder.parent.iterdir()) if path.is_dir() and path != folder]
    if folder.name == "0" and others:
        notes = (*notes, f"of several models, {folder.relative_to(root)} is used, not {some(others)}")
    return _scene(scene_id, split, _seen_cloud(model, seen_by), protocol, notes)


def load_transforms(root: Path, scene_id: str, protocol: Protocol) -> Scene:
    """A capture described by ``transforms.json``, in the dialects of instant-ngp and nerfstudio.

    Intrinsics stand at the top or in a frame; poses are OpenGL camera-to-world. The publisher's split is kept, if he
    has one, and his points (``ply_file_path``); what else he says and is not followed becomes a note.

    Args:
        root: folder of the capture.
        scene_id: id of the scene.
        protocol: its ``capture`` rule gives size, split and number of inputs.

    Raises:
        MissingDataError: no ``transforms.json``, or none of its images on disk.
        BadDataError: invalid JSON, a key that cannot be followed, a broken image, too few images, or no common place
            the cameras look at.
        NonFiniteError: NaN or infinity in a pose or camera.
    """
    return _scene_of(scene_id, read_transforms(root), protocol)


def load_synthetic(root: Path, scene_id: str, protocol: Protocol) -> Scene:
    """A scene in the layout of NeRF's synthetic ones: ``transforms_train.json``, ``transforms_test.json``.

    The publisher's split is kept: `train` is the capture, `test` is held out, `val` is used only if there is no `test`.

    Args:
        root: folder of the scene.
        scene_id: id of the scene.
        protocol: its ``capture`` rule gives size and number of inputs; its background is laid behind cut-outs.

    Raises:
        MissingDataError, BadDataError, NonFiniteError: as `load_transforms`, for either file.
    """
    return _scene_of(scene_id, read_synthetic(root), protocol)


def _is_colmap(root: Path) -> bool:
    """Whether a COLMAP model is what the folder is about; below ``colmap`` it is what transforms.json was made from."""
    found = find_model(root)
    described = any((root / name).is_file() for name in ("transforms_train.json", "transforms.json"))
    return found is not None and not (described and found == root / PLACES[-1])


def _listing(root: Path) -> Listing:
    return read_synthetic(root) if (root / "transforms_train.json").is_file() else read_transforms(root)


def _named(root: Path, paths: set[Path]) -> tuple[tuple[str, Path], ...]:
    """Paths by what they are called below the folder; one elsewhere keeps its whole path."""
    names = {
        path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix(): path for path in paths
    }
    return tuple(sorted(names.items()))


def _scene_of(scene_id: str, listing: Listing, protocol: Protocol) -> Scene:
    if listing.heldout is None:
        split = _Split.every_kth(listing.photos, protocol.capture.heldout_every)
    else:
        split = _Split(listing.photos, listing.heldout)
    cloud, notes = read_cloud(listing)
    return _scene(scene_id, split, cloud, protocol, (*listing.notes, *notes))


def _square(pose: Float[np.ndarray, "3 4"]) -> Matrix:
    return np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])


def _scene(scene_id: str, split: _Split, cloud: Cloud | None, protocol: Protocol, notes: tuple[str, ...]) -> Scene:
    rule, photos = protocol.capture, split.photos
    _check(scene_id, split, rule)
    alpha, told = _coverage(scene_id, photos)
    poses = np.stack([photo.cam_from_world for photo in photos])
    upright = _upright(poses)
    poses[:, :3, :3] = poses[:, :3, :3] @ upright.T
    centre = _common_point(scene_id, poses)
    views = _views(photos, poses, rule.long_side, alpha)
    positions = views.cameras.positions.numpy()
    capture, heldout = views[: len(split.capture)], views[len(split.capture) :]
    spread = _farthest(positions[: len(capture)] - centre, rule.inputs)
    return Scene(
        id=scene_id,
        stratum="unbounded",
        inputs=capture[spread],
        capture=capture,
        heldout=heldout,
        centre=torch.from_numpy(centre).float(),
        radius=RADIUS_PER_DISTANCE * float(np.median(np.linalg.norm(positions - centre, axis=1))),
        background=torch.tensor(protocol.background) if alpha else torch.zeros(3),
        points=None if cloud is None else _points(cloud, upright),
        notes=(*notes, *told),
    )


def _coverage(scene_id: str, photos: list[Photo]) -> tuple[bool, tuple[str, ...]]:
    """Whether the images are cut-outs, and a note on those among them that cut nothing out."""
    told = {photo.name: transparency(photo.path) for photo in photos}
    whole, opaque, cut = ([name for name in told if told[name] == state] for state in ("none", "opaque", "used"))
    if cut and whole:
        raise BadDataError(
            f"{len(cut)} of {len(told)} images of {scene_id!r} are cut out ({some(cut)}), {len(whole)} have no alpha "
            f"({some(whole)}); expected all or none: give every image its alpha, or save all without"
        )
    if not cut or not opaque:
        return bool(cut), ()
    return True, (f"{len(opaque)} of {len(told)} cut-out images are opaque everywhere: {some(opaque)}",)


def _check(scene_id: str, split: _Split, rule: CaptureRule) -> None:
    for photo in split.photos:
        if not (np.isfinite(photo.cam_from_world).all() and np.isfinite(photo.camera.params).all()):
            raise NonFiniteError(
                f"pose or camera of {photo.path} holds NaN or infinity; expected finite numbers: correct it, or run "
                "SfM again"
            )
        if min(photo.camera.width, photo.camera.height, photo.camera.focal_length_x, photo.camera.focal_length_y) <= 0:
            raise BadDataError(
                f"camera of {photo.path} has a size or focal length of 0 or less; expected more: correct it, or "
                "calibrate again"
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


def _views(photos: list[Photo], poses: Float[np.ndarray, "V 4 4"], long_side: int | None, alpha: bool) -> Views:
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


def _camera_of_file(photo: Photo) -> pycolmap.Camera:
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


def _seen_cloud(model: pycolmap.Reconstruction, ids: set[int]) -> Cloud:
    """COLMAP's points with at least two capture images in their track."""
    kept = [
        point
        for point in model.points3D.values()
        if len(ids.intersection(element.image_id for element in point.track.elements)) >= 2
    ]
    xyz = np.array([point.xyz for point in kept], dtype=np.float64).reshape(-1, 3)
    rgb = np.array([point.color for point in kept], dtype=np.float32).reshape(-1, 3) / 255
    if not np.isfinite(xyz).all():
        raise NonFiniteError(
            "points3D of the COLMAP model holds NaN or infinity; expected finite points: run SfM again"
        )
    return Cloud(xyz, rgb)


def _points(cloud: Cloud, upright: Float[np.ndarray, "3 3"]) -> Points:
    return Points(torch.from_numpy(cloud.xyz @ upright.T).float(), torch.from_numpy(cloud.rgb))
