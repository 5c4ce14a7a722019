"""Captures made up for tests: coloured dots photographed through any lens, written in the layouts we read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from PIL import Image
from scipy.spatial.transform import Rotation

from evalsuite.core.conventions import look_at, orbit_position
from evalsuite.core.protocol import CaptureRule, Protocol

PROTOCOL = Protocol("test", capture=CaptureRule(long_side=48))
MARKS = np.array([[0.3, 0.2, 0.1], [-0.3, 0.0, 0.2], [0.1, -0.3, -0.2]])
"""One red, one green and one blue dot in the world, before it is tilted."""
TILT = np.vstack(
    [np.column_stack([Rotation.from_euler("xyz", [70, 20, -40], degrees=True).as_matrix(), [3, -1, 2]]), [0, 0, 0, 1.0]]
)
DISTANCE = 2.0
LENSES: dict[str, tuple[int, int, list[float]]] = {
    "PINHOLE": (144, 96, [150, 148, 70, 50]),
    "SIMPLE_RADIAL": (144, 96, [150, 72, 48, 0.08]),
    "OPENCV": (100, 150, [150, 152, 48, 76, 0.1, -0.05, 0.002, -0.001]),
    "OPENCV_FISHEYE": (150, 100, [130, 130, 75, 50, 0.02, 0.01, 0, 0]),
    "SIMPLE_PINHOLE": (144, 96, [150, 70, 50]),
    "RADIAL": (144, 96, [150, 72, 48, 0.08, -0.03]),
    "FULL_OPENCV": (100, 150, [150, 152, 48, 76, 0.1, -0.05, 0.002, -0.001, 0.01, 0.02, -0.01, 0.005]),
    "FOV": (150, 100, [130, 132, 75, 50, 0.6]),
    "SIMPLE_RADIAL_FISHEYE": (150, 100, [130, 75, 50, 0.03]),
    "RADIAL_FISHEYE": (150, 100, [130, 75, 50, 0.03, -0.01]),
    "SIMPLE_FISHEYE": (150, 100, [130, 75, 50]),
    "FISHEYE": (150, 100, [130, 132, 75, 50]),
    "THIN_PRISM_FISHEYE": (150, 100, [130, 130, 75, 50, 0.02, 0.01, 0.001, -0.001, 0.005, 0, 0.002, 0.001]),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        150,
        100,
        [130, 130, 75, 50, 0.02, 0.01, 0.005, 0, 0, 0, 0.001, -0.001, 0.002, 0, 0.001, 0],
    ),
    "SIMPLE_DIVISION": (144, 96, [150, 72, 48, -0.08]),
    "DIVISION": (144, 96, [150, 148, 72, 48, -0.08]),
    "EUCM": (150, 100, [130, 130, 75, 50, 0.5, 1.1]),
}
"""Every model of a lens that COLMAP has: width, height, parameters."""
LENSES |= {"plain fisheye": (150, 100, [130, 130, 75, 50, 0, 0, 0, 0])}  # no pinhole, though without coefficients
LENSES |= {"large": (460, 301, [480, 230, 150.5, 0.1])}  # averaged over blocks before undistortion


def lens_camera(name: str) -> pycolmap.Camera:
    width, height, params = LENSES[name]
    model = {"large": "SIMPLE_RADIAL", "plain fisheye": "OPENCV_FISHEYE"}.get(name, name)
    return pycolmap.Camera(model=model, width=width, height=height, params=params)


def orbit_poses(count: int) -> np.ndarray:
    """Orbit round the marks, in the tilted world."""
    poses = [look_at(orbit_position(37.0 * i, 10.0 + i, DISTANCE)).double().numpy() for i in range(count)]
    return np.asarray(np.stack(poses) @ np.linalg.inv(TILT))


def photograph(camera: pycolmap.Camera, pose: np.ndarray, grey: int) -> np.ndarray:
    """Grey image with a coloured dot at each mark's projection through the real lens."""
    marks = MARKS @ TILT[:3, :3].T + TILT[:3, 3]
    pixels = camera.img_from_cam(marks @ pose[:3, :3].T + pose[:3, 3])
    y, x = np.mgrid[: camera.height, : camera.width] + 0.5
    sigma = camera.width / 70
    dots: list[np.ndarray] = [np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2)) for u, v in pixels]
    return np.asarray(np.rint(grey + 120 * np.stack(dots, axis=-1)), dtype=np.uint8)


def write_images(root: Path, cameras: list[pycolmap.Camera], pattern: str = "{:03d}.png") -> np.ndarray:
    poses = orbit_poses(len(cameras))
    (root / "images").mkdir(parents=True, exist_ok=True)
    for i, (camera, pose) in enumerate(zip(cameras, poses, strict=True)):
        Image.fromarray(photograph(camera, pose, 2 * i)).save(root / "images" / pattern.format(i))
    return poses


def write_colmap(
    root: Path, cameras: list[pycolmap.Camera], *, text: bool = False, pattern: str = "{:03d}.png"
) -> None:
    """Point 0 is seen by images 0 and 1, point 1 by 0 and 8 (held out), point 2 by 1, 2 and 3."""
    model = pycolmap.Reconstruction()
    tracks, seen = [(0, 1), (0, 8), (1, 2, 3)], {}
    for i, pose in enumerate(write_images(root, cameras, pattern)):
        camera = pycolmap.Camera(cameras[i].todict())
        camera.camera_id = i + 1
        model.add_camera_with_trivial_rig(camera)
        seen[i] = [track for track in range(3) if i in tracks[track]]
        # written in reverse order of ids, so that name order differs from it
        name, keypoints = pattern.format(i), np.ones((len(seen[i]), 2))
        image = pycolmap.Image(name=name, keypoints=keypoints, camera_id=i + 1, image_id=len(cameras) - i)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
    marks = MARKS @ TILT[:3, :3].T + TILT[:3, 3]
    for number, views in enumerate(tracks):
        elements = [pycolmap.TrackElement(len(cameras) - i, seen[i].index(number)) for i in views if i < len(cameras)]
        model.add_point3D(marks[number], pycolmap.Track(elements), np.eye(3, dtype=np.uint8)[number] * 255)
    folder = root / "sparse" / "0"
    folder.mkdir(parents=True)
    model.write_text(folder) if text else model.write_binary(folder)


def write_transforms(
    root: Path, camera: pycolmap.Camera, count: int, pattern: str = "{:03d}.png", **top: Any
) -> dict[str, Any]:
    frames = []
    for i, pose in enumerate(write_images(root, [camera] * count, pattern)):
        world_from_cam = np.linalg.inv(pose) @ np.diag([1.0, -1, -1, 1])
        frames.append({"file_path": f"images/{pattern.format(i)}", "transform_matrix": world_from_cam.tolist()})
    names = (
        "fl_x",
        "fl_y",
        "cx",
        "cy",
        *(("k1", "k2", "p1", "p2") if camera.model_name == "OPENCV" else ("k1", "k2", "k3", "k4")),
    )
    lens = dict(zip(names, camera.params, strict=False))
    document = {"w": camera.width, "h": camera.height, **lens, "frames": frames[::-1], **top}
    (root / "transforms.json").write_text(json.dumps(document))
    return document


def colmap_capture(root: Path, lens: str = "PINHOLE", count: int = 12, **options: Any) -> Path:
    write_colmap(root, [lens_camera(lens)] * count, **options)
    return root


def write_synthetic(root: Path, train: int, test: int, size: int = 96) -> np.ndarray:
    """NeRF's synthetic layout: a disc of alpha with soft rim in a colour of its own round each mark; all poses."""
    focal = 1.1 * size
    camera = pycolmap.Camera(model="PINHOLE", width=size, height=size, params=[focal, focal, size / 2, size / 2])
    marks, poses = MARKS @ TILT[:3, :3].T + TILT[:3, 3], orbit_poses(train + test)
    y, x = np.mgrid[:size, :size] + 0.5
    for part, chosen in (("train", range(train)), ("test", range(train, train + test))):
        (root / part).mkdir(parents=True)
        frames = []
        for k, i in enumerate(chosen):
            pixels = camera.img_from_cam(marks @ poses[i][:3, :3].T + poses[i][:3, 3])
            reach = np.stack([np.hypot(x - u, y - v) for u, v in pixels], axis=-1)
            alpha = np.clip(size / 14 - reach.min(axis=-1), 0, 1)
            colour = np.eye(3)[reach.argmin(axis=-1)] * 0.8 + 0.1
            image = np.rint(np.concatenate([colour, alpha[..., None]], axis=-1) * 255).astype(np.uint8)
            Image.fromarray(image).save(root / part / f"r_{k}.png")
            pose = np.linalg.inv(poses[i]) @ np.diag([1.0, -1, -1, 1])
            frames.append({"file_path": f"./{part}/r_{k}", "rotation": 0.0, "transform_matrix": pose.tolist()})
        document = {"camera_angle_x": 2 * np.arctan(size / 2 / focal), "frames": frames}
        (root / f"transforms_{part}.json").write_text(json.dumps(document))
    return poses


def give_alpha(paths: list[Path], *, cut: bool) -> None:
    """An alpha channel for images: opaque everywhere, or transparent in the upper left quarter."""
    for path in paths:
        pixels = np.array(Image.open(path).convert("RGBA"))
        if cut:
            pixels[: pixels.shape[0] // 2, : pixels.shape[1] // 2, 3] = 0
        else:
            pixels[..., 3] = 255
        Image.fromarray(pixels).save(path)
