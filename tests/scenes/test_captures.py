"""Real captures: geometry and split on generated ones, and the mirror's photographs."""

from __future__ import annotations

import builtins
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
import torch
import trimesh
from capture_factories import (
    DISTANCE,
    LENSES,
    MARKS,
    PROTOCOL,
    TILT,
    colmap_capture,
    give_alpha,
    lens_camera,
    orbit_poses,
    write_colmap,
    write_synthetic,
    write_transforms,
)
from PIL import Image

from evalsuite.core.errors import BadDataError, MissingDataError
from evalsuite.core.protocol import CAMERA_RADIUS, OBJECT_RADIUS, CaptureRule, Protocol
from evalsuite.core.types import Cameras, Scene, Views
from evalsuite.scenes.captures import capture_files, load_capture, load_colmap, load_transforms


def _dots(views: Views) -> np.ndarray:
    """Centroid of each colour's dot in pixels, [V, 3, 2]."""
    y, x = np.mgrid[: views.cameras.height, : views.cameras.width] + 0.5
    found = []
    for image in views.rgb.numpy():
        weight = (image - np.median(image, axis=(0, 1)) - 0.03).clip(0)
        found.append([[np.average(axis, weights=weight[..., c]) for axis in (x, y)] for c in range(3)])
    return np.array(found)


def _projected(cameras: Cameras, points: np.ndarray) -> np.ndarray:
    world = torch.from_numpy(points).float()
    cam = world @ cameras.cam_from_world[:, :3, :3].transpose(1, 2) + cameras.cam_from_world[:, None, :3, 3]
    return (cam[..., :2] / cam[..., 2:] * cameras.focal_px[:, None] + cameras.centre_px[:, None]).numpy()


def _assert_sharp_geometry(scene: Scene, points: np.ndarray) -> None:
    for views in (scene.inputs, scene.capture, scene.heldout):
        np.testing.assert_allclose(_dots(views), _projected(views.cameras, points), atol=0.15)


def _grey(views: Views) -> list[int]:
    """Index, in name order, of the photograph each view came from."""
    return [round(float(image.median()) * 255 / 2) for image in views.rgb]


def _upright_marks(scene: Scene, count: int = 12) -> np.ndarray:
    """The marks in the scene's frame, found through the first held-out camera, which is photograph 0."""
    return _marks_seen_by(scene.heldout.cameras, orbit_poses(count)[0])


def _marks_seen_by(cameras: Cameras, first_pose: np.ndarray) -> np.ndarray:
    """The marks in the frame of cameras of which the first stood at ``first_pose``."""
    marks = (MARKS @ TILT[:3, :3].T + TILT[:3, 3]) @ first_pose[:3, :3].T + first_pose[:3, 3]
    pose = cameras.cam_from_world[0].double().numpy()
    return np.asarray((marks - pose[:3, 3]) @ pose[:3, :3])


@pytest.mark.parametrize("lens", sorted(LENSES))
def test_colmap_points_land_on_their_pixels(tmp_path: Path, lens: str) -> None:
    scene = load_colmap(colmap_capture(tmp_path, lens), "toy", PROTOCOL)
    _assert_sharp_geometry(scene, _upright_marks(scene))
    assert max(scene.capture.cameras.width, scene.capture.cameras.height) == 48
    assert scene.stratum == "unbounded"
    assert scene.capture.alpha is None


def test_every_lens_that_colmap_knows_is_tried() -> None:
    known = set(pycolmap.CameraModelId.__members__) - {"INVALID", "EQUIRECTANGULAR"}  # the last is no lens
    assert known <= set(LENSES)


@pytest.mark.parametrize("lens", ["OPENCV", "OPENCV_FISHEYE", "plain fisheye"])
def test_transforms_points_land_on_their_pixels(tmp_path: Path, lens: str) -> None:
    camera = lens_camera(lens)
    write_transforms(tmp_path, camera, 12, camera_model=camera.model_name)
    scene = load_transforms(tmp_path, "toy", PROTOCOL)
    _assert_sharp_geometry(scene, _upright_marks(scene))
    assert scene.points is None
    assert scene.notes == ()


def test_intrinsics_of_a_frame_win_over_those_on_top(tmp_path: Path) -> None:
    document = write_transforms(tmp_path, lens_camera("OPENCV"), 12)
    for frame in document["frames"]:
        frame.update({key: document[key] for key in ("fl_x", "fl_y", "k1", "k2", "p1", "p2")})
    for key in ("fl_x", "fl_y", "k1", "k2"):
        document[key] = 77.0
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    scene = load_transforms(tmp_path, "toy", PROTOCOL)
    _assert_sharp_geometry(scene, _upright_marks(scene))


@pytest.mark.parametrize("both", [False, True])
def test_field_of_view_alone_is_enough(tmp_path: Path, both: bool) -> None:
    height, fy = (96, 140.0) if both else (120, 130.0)
    camera = pycolmap.Camera(model="PINHOLE", width=120, height=height, params=[130, fy, 60, height / 2])
    document = write_transforms(tmp_path, camera, 12)
    document = {"camera_angle_x": 2 * np.arctan(60 / 130), "frames": document["frames"]}
    if both:
        document["camera_angle_y"] = 2 * np.arctan(height / 2 / fy)
    for frame in document["frames"]:
        frame["file_path"] = frame["file_path"].removesuffix(".png")
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    scene = load_transforms(tmp_path, "toy", PROTOCOL)
    _assert_sharp_geometry(scene, _upright_marks(scene))


def test_nerf_synthetic_scenes_keep_alpha_and_split(tmp_path: Path) -> None:
    write_synthetic(tmp_path, train=9, test=3)
    scene = load_capture(tmp_path, "toy", PROTOCOL)
    assert (len(scene.inputs), len(scene.capture), len(scene.heldout)) == (4, 9, 3)
    assert scene.background.tolist() == [1, 1, 1]
    assert scene.notes == ()
    assert scene.capture.alpha is not None
    assert (scene.capture.cameras.width, scene.capture.cameras.height) == (48, 48)
    # straight colour: a rim pixel is as red as the middle, whatever its coverage
    seen = scene.capture.rgb[scene.capture.alpha > 0.2]
    pure = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
    assert (seen[:, None] - pure).abs().amax(dim=-1).amin(dim=1).median() < 0.01
    for views, first in ((scene.capture, 0), (scene.heldout, 9)):
        assert views.alpha is not None
        marks = _marks_seen_by(views.cameras, orbit_poses(12)[first])
        for view, spots in enumerate(_projected(views.cameras, marks).astype(int)):
            x, y = spots.T
            assert views.alpha[view, y, x].min() > 0.9
            assert views.rgb[view, y, x].argmax(dim=1).tolist() == [0, 1, 2]


def test_nerf_synthetic_scenes_need_both_files(tmp_path: Path) -> None:
    write_synthetic(tmp_path, train=9, test=3)
    (tmp_path / "transforms_test.json").unlink()
    with pytest.raises(MissingDataError, match=r"transforms_test\.json is not there"):
        load_capture(tmp_path, "toy", PROTOCOL)


def _write(layout: str, root: Path) -> list[Path]:
    """A capture in one of the layouts; returns its images."""
    if layout == "synthetic":
        write_synthetic(root, train=9, test=3)
    elif layout == "transforms":
        write_transforms(root, lens_camera("OPENCV"), 12)
    else:
        colmap_capture(root, "OPENCV")
    return sorted(root.rglob("*.png"))


LAYOUTS = ["colmap", "transforms", "synthetic"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channel", [True, False])
def test_opaque_images_are_photographs_in_every_layout(tmp_path: Path, layout: str, channel: bool) -> None:
    images = _write(layout, tmp_path)
    give_alpha(images, cut=False)
    for path in images if not channel else []:
        Image.open(path).convert("RGB").save(path)
    scene = load_capture(tmp_path, "toy", PROTOCOL)
    assert scene.capture.alpha is None
    assert scene.heldout.alpha is None
    assert scene.background.tolist() == [0, 0, 0]
    assert scene.notes == ()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transparent_images_are_cut_outs_in_every_layout(tmp_path: Path, layout: str) -> None:
    give_alpha(_write(layout, tmp_path), cut=True)
    scene = load_capture(tmp_path, "toy", PROTOCOL)
    assert scene.background.tolist() == [1, 1, 1]
    for views in (scene.capture, scene.heldout):
        assert views.alpha is not None
        assert views.alpha[:, :5, :5].max() == 0
        assert views.alpha[:, -5:, -5:].min() == (1 if layout != "synthetic" else 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cut_outs_among_files_without_alpha_are_refused(tmp_path: Path, layout: str) -> None:
    images = _write(layout, tmp_path)
    for path in images:
        Image.open(path).convert("RGB").save(path)
    give_alpha(images[2:3], cut=True)
    with pytest.raises(
        BadDataError, match=rf"1 of 12 images of 'toy' are cut out \(.*{images[2].stem}.*11 have no alpha"
    ):
        load_capture(tmp_path, "toy", PROTOCOL)


def test_a_cut_out_that_fills_its_frame_becomes_a_note(tmp_path: Path) -> None:
    images = _write("transforms", tmp_path)
    give_alpha(images[:1], cut=False)
    give_alpha(images[1:], cut=True)
    scene = load_capture(tmp_path, "toy", PROTOCOL)
    assert scene.heldout.alpha is not None
    assert scene.heldout.alpha[0].min() == 1
    assert scene.notes == ("1 of 12 cut-out images are opaque everywhere: images/000.png",)


@pytest.mark.parametrize("place", ["sparse", "colmap/sparse/0"])
def test_a_model_lies_where_others_put_it(tmp_path: Path, place: str) -> None:
    plain = load_capture(colmap_capture(tmp_path / "a"), "toy", PROTOCOL)
    root = colmap_capture(tmp_path / "b")
    model = (root / "sparse").rename(root / "model") / "0"
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    model.rename(root / place)
    scene = load_capture(root, "toy", PROTOCOL)
    assert torch.equal(scene.capture.rgb, plain.capture.rgb)
    assert scene.notes == ()


def test_a_model_below_colmap_gives_way_to_the_transforms_made_from_it(tmp_path: Path) -> None:
    colmap_capture(tmp_path)
    (tmp_path / "colmap").mkdir()
    (tmp_path / "sparse").rename(tmp_path / "colmap/sparse")
    write_transforms(tmp_path, lens_camera("PINHOLE"), 12)
    assert load_capture(tmp_path, "toy", PROTOCOL).points is None


def test_of_several_models_the_first_is_used_and_said(tmp_path: Path) -> None:
    shutil.copytree(colmap_capture(tmp_path) / "sparse/0", tmp_path / "sparse/1")
    assert load_capture(tmp_path, "toy", PROTOCOL).notes == ("of several models, sparse/0 is used, not 1",)


@pytest.mark.parametrize("text", [False, True])
def test_names_of_a_model_with_folders_spaces_and_backslashes(tmp_path: Path, text: bool) -> None:
    plain = load_capture(colmap_capture(tmp_path / "a"), "toy", PROTOCOL)
    (tmp_path / "b/images/left cam").mkdir(parents=True)
    write_colmap(tmp_path / "b", [lens_camera("PINHOLE")] * 12, pattern="left cam/{:03d} (402).png")
    model = pycolmap.Reconstruction(tmp_path / "b/sparse/0")
    for image in model.images.values():
        image.name = image.name.replace("/", "\\")
    shutil.rmtree(tmp_path / "b/sparse/0")
    (tmp_path / "b/sparse/0").mkdir()
    (model.write_text if text else model.write_binary)(tmp_path / "b/sparse/0")
    scene = load_capture(tmp_path / "b", "toy", PROTOCOL)
    assert torch.equal(scene.capture.rgb, plain.capture.rgb)
    names = [name for name, _ in capture_files(tmp_path / "b")]
    assert sum(name.startswith("images/left cam/") for name in names) == 12


@pytest.mark.parametrize("layout", [*LAYOUTS, "text", "photographs elsewhere"])
def test_the_files_of_a_capture_are_those_that_are_opened(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held against what Python itself opens while the capture is loaded."""
    root = tmp_path / "capture"
    if layout == "text":
        colmap_capture(root, text=True)
    elif layout == "photographs elsewhere":
        document = write_transforms(root, lens_camera("OPENCV"), 12, ply_file_path="points/a.ply")
        (root / "images").rename(tmp_path / "rgb")
        for frame in document["frames"]:
            frame["file_path"] = frame["file_path"].replace("images", "../rgb")
        (root / "transforms.json").write_text(json.dumps(document))
        (root / "points").mkdir()
        trimesh.PointCloud(MARKS).export(root / "points/a.ply")
    else:
        _write(layout, root)
    (root / "images").mkdir(exist_ok=True)
    (root / "images/not-listed.png").touch()
    (root / "transforms_val.json").touch()
    opened: set[Path] = set()
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", _recorded(open, opened))
    load_capture(root, "toy", PROTOCOL)
    monkeypatch.undo()
    seen = {path.resolve() for path in opened if path.resolve().is_relative_to(tmp_path.resolve())}
    listed = {path.resolve() for _, path in capture_files(root)}
    assert len(listed) >= 13
    if layout != "colmap":  # COLMAP opens its binary files itself
        assert seen == listed
    assert seen <= listed


def _recorded(original: Callable[..., Any], opened: set[Path]) -> Callable[..., Any]:
    def record(file: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(file, str | os.PathLike):
            opened.add(Path(file))
        return original(file, *arguments, **options)

    return record


def test_cameras_of_different_sizes_end_in_one_raster(tmp_path: Path) -> None:
    lenses = [lens_camera(("PINHOLE", "SIMPLE_RADIAL", "OPENCV_FISHEYE")[i % 3]) for i in range(12)]
    write_colmap(tmp_path, lenses)
    scene = load_colmap(tmp_path, "toy", PROTOCOL)
    _assert_sharp_geometry(scene, _upright_marks(scene))


def test_reduced_images_with_cameras_of_the_full_size(tmp_path: Path) -> None:
    colmap_capture(tmp_path, "PINHOLE")
    for path in (tmp_path / "images").iterdir():
        Image.open(path).reduce(2).save(path)
    scene = load_colmap(tmp_path, "toy", PROTOCOL)
    _assert_sharp_geometry(scene, _upright_marks(scene))


def test_nothing_is_enlarged(tmp_path: Path) -> None:
    scene = load_colmap(colmap_capture(tmp_path), "toy", replace(PROTOCOL, capture=CaptureRule(long_side=5000)))
    assert (scene.capture.cameras.width, scene.capture.cameras.height) == (144, 96)
    np.testing.assert_array_equal(
        scene.heldout.rgb[0].numpy(), np.array(Image.open(tmp_path / "images/000.png"), np.float32) / 255
    )


def test_text_and_binary_models_give_the_same_scene(tmp_path: Path) -> None:
    binary = load_colmap(colmap_capture(tmp_path / "a"), "toy", PROTOCOL)
    text = load_colmap(colmap_capture(tmp_path / "b", text=True), "toy", PROTOCOL)
    assert torch.equal(binary.capture.rgb, text.capture.rgb)
    torch.testing.assert_close(binary.capture.cameras.cam_from_world, text.capture.cameras.cam_from_world)


def test_every_eighth_image_in_name_order_is_held_out(tmp_path: Path) -> None:
    scene = load_colmap(colmap_capture(tmp_path, count=20), "toy", PROTOCOL)
    assert _grey(scene.heldout) == [0, 8, 16]
    assert _grey(scene.capture) == [i for i in range(20) if i % 8]
    assert len(set(_grey(scene.inputs))) == 4
    assert set(_grey(scene.inputs)) < set(_grey(scene.capture))


def test_inputs_look_from_all_round(tmp_path: Path) -> None:
    scene = load_colmap(colmap_capture(tmp_path, count=20), "toy", PROTOCOL)
    offsets = torch.nn.functional.normalize(scene.inputs.cameras.positions - scene.centre, dim=1)
    cosines = (offsets @ offsets.T - 2 * torch.eye(4)).max(dim=1).values
    assert cosines.max() < 0.6  # four neighbours on the orbit of 37 degree steps would have 0.8


def test_world_is_turned_upright_round_the_common_point(tmp_path: Path) -> None:
    scene = load_colmap(colmap_capture(tmp_path), "toy", PROTOCOL)
    poses = torch.cat([scene.capture.cameras.cam_from_world, scene.heldout.cameras.cam_from_world])
    up = torch.nn.functional.normalize(-poses[:, 1, :3].mean(dim=0), dim=0)
    torch.testing.assert_close(up, torch.tensor([0.0, 1, 0]), atol=1e-5, rtol=0)
    eyes = torch.cat([scene.capture.cameras.positions, scene.heldout.cameras.positions])
    torch.testing.assert_close((eyes - scene.centre).norm(dim=1), torch.full((12,), DISTANCE), atol=1e-4, rtol=0)
    assert scene.radius == pytest.approx(DISTANCE * OBJECT_RADIUS / CAMERA_RADIUS, rel=1e-4)


def test_points_that_fewer_than_two_capture_images_saw_are_dropped(tmp_path: Path) -> None:
    scene = load_colmap(colmap_capture(tmp_path), "toy", PROTOCOL)
    assert scene.points is not None
    assert scene.points.rgb.tolist() == [[0.0, 0.0, 1.0]]
    np.testing.assert_allclose(scene.points.xyz.numpy(), _upright_marks(scene)[2:], atol=1e-4)


def test_frames_without_a_file_become_a_note(tmp_path: Path) -> None:
    write_transforms(tmp_path, lens_camera("OPENCV"), 12)
    for name in ("003.png", "007.png"):
        (tmp_path / "images" / name).unlink()
    scene = load_transforms(tmp_path, "toy", PROTOCOL)
    assert len(scene.capture) + len(scene.heldout) == 10
    assert scene.notes == ("2 of 12 listed frames have no file: images/003.png, images/007.png",)


@pytest.mark.parametrize("load", [load_colmap, load_transforms])
def test_missing_folder(tmp_path: Path, load: Callable[[Path, str, Protocol], Scene]) -> None:
    with pytest.raises(MissingDataError, match="nowhere"):
        load(tmp_path / "nowhere", "toy", PROTOCOL)


def _matrix(frame: dict[str, Any]) -> np.ndarray:
    return np.array(frame["transform_matrix"])


@pytest.mark.parametrize("outwards", [True, False])
def test_cameras_without_a_common_place_are_refused(tmp_path: Path, outwards: bool) -> None:
    document = write_transforms(tmp_path, lens_camera("OPENCV"), 12)
    for frame in document["frames"]:
        pose = _matrix(frame)
        pose[:3, :3] = pose[:3, :3] @ np.diag([-1, 1, -1]) if outwards else np.eye(3)
        frame["transform_matrix"] = pose.tolist()
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    with pytest.raises(BadDataError, match="look outwards or in parallel"):
        load_transforms(tmp_path, "toy", PROTOCOL)


MIRROR = Path(os.environ.get("EVALSUITE_MIRROR", "mirror-not-set")) / "captures"
CAPTURES = Protocol("test")


@pytest.mark.data
def test_points_of_beer_land_on_their_photographs() -> None:
    scene = load_colmap(MIRROR / "beer", "beer", CAPTURES)
    assert (len(scene.capture), len(scene.heldout), scene.capture.cameras.height) == (62, 9, 320)
    assert scene.points is not None
    assert len(scene.points) > 4000
    model = pycolmap.Reconstruction(MIRROR / "beer/sparse/0")
    upright = _upright_from(model, scene)
    error, colour = [], []
    for view, image in enumerate(sorted(model.images.values(), key=lambda i: i.name)[::8]):
        seen = image.get_observation_points2D()
        points = [model.points3D[point.point3D_id] for point in seen]
        camera = scene.heldout.cameras[[view]]
        pixels = _projected(camera, np.array([p.xyz for p in points]) @ upright.T)[0]
        rays = image.camera.cam_from_img(np.array([point.xy for point in seen]))
        observed = rays * camera.focal_px[0].numpy() + camera.centre_px[0].numpy()
        error.append(np.linalg.norm(pixels - observed, axis=1))
        inside = ((pixels > 0) & (pixels < [camera.width, camera.height])).all(axis=1)
        x, y = pixels[inside].astype(int).T
        colour.append(np.abs(scene.heldout.rgb[view].numpy()[y, x] - np.array([p.color for p in points])[inside] / 255))
    assert np.median(np.concatenate(error)) < 1.5
    assert np.median(np.concatenate(colour)) < 0.05


def _upright_from(model: pycolmap.Reconstruction, scene: Scene) -> np.ndarray:
    first = min(model.images.values(), key=lambda image: image.name)
    pose = scene.heldout.cameras.cam_from_world[0, :3, :3].double().numpy()
    return np.asarray(pose.T @ first.cam_from_world().rotation.matrix())


@pytest.mark.data
def test_fox_goes_on_without_its_missing_frames() -> None:
    scene = load_transforms(MIRROR / "fox", "fox", CAPTURES)
    assert len(scene.capture) + len(scene.heldout) == 50
    assert (scene.capture.cameras.width, scene.capture.cameras.height) == (180, 320)
    assert scene.notes[0].startswith("17 of 67 listed frames have no file: images/0005.jpg")


@pytest.mark.data
def test_bonsai_loads() -> None:
    scene = load_colmap(MIRROR / "bonsai", "bonsai", CAPTURES)
    assert (len(scene.capture), len(scene.heldout)) == (255, 37)
    assert scene.points is not None
    assert len(scene.points) > 60_000
