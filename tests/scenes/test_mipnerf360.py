"""Mip-NeRF 360 in the publisher's layout: reduced images as they are, under a model of the full-sized ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from capture_factories import write_colmap
from PIL import Image

from evalsuite.cli import main
from evalsuite.core.cases import Trajectory
from evalsuite.core.errors import MissingDataError
from evalsuite.core.protocol import PROTOCOLS
from evalsuite.core.types import Cameras
from evalsuite.execution.trajectory import run_trajectory
from evalsuite.gates.golden import compare
from evalsuite.records.store import RecordStore
from evalsuite.scenes.catalogue import MIPNERF360, SCENES, SUITES

PUBLISHED = PROTOCOLS["capture-published"]


def _publish(root: Path, folder: str, size: tuple[int, int], reduced: tuple[int, int], count: int = 20) -> Path:
    """A capture with its full-sized images, as in ``sparse/0``, and reduced ones beside them."""
    camera = pycolmap.Camera(model="PINHOLE", width=size[0], height=size[1], params=[150, 148, 70, 50])
    write_colmap(root, [camera] * count)
    (root / folder).mkdir()
    for path in (root / "images").iterdir():
        Image.open(path).resize(reduced, Image.Resampling.BOX).save(root / folder / path.name)
    return root


@pytest.mark.parametrize(("name", "size", "reduced"), [("room", (144, 96), (72, 48)), ("garden", (150, 101), (38, 25))])
def test_reduced_images_are_taken_as_they_are(
    name: str, size: tuple[int, int], reduced: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path))
    root = _publish(tmp_path / "mipnerf360" / name, MIPNERF360[name], size, reduced)
    scene = SCENES[f"mipnerf360.{name}"].load(PUBLISHED)
    files = sorted((root / MIPNERF360[name]).iterdir())
    assert (len(scene.capture), len(scene.heldout), len(scene.inputs)) == (17, 3, 4)
    for views, chosen in ((scene.heldout, files[::8]), (scene.capture, [f for i, f in enumerate(files) if i % 8])):
        pixels = np.stack([np.array(Image.open(path)) for path in chosen])
        assert torch.equal(views.rgb, torch.from_numpy(pixels).float() / 255)
        scale = np.array(reduced) / size
        np.testing.assert_allclose(views.cameras.focal_px.numpy(), [[150, 148] * scale] * len(chosen), rtol=1e-6)
        np.testing.assert_allclose(views.cameras.centre_px.numpy(), [[70, 50] * scale] * len(chosen), rtol=1e-6)
    assert scene.stratum == "unbounded"
    assert scene.points is not None


def test_only_the_official_folder_and_the_model_are_the_scenes_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path))
    _publish(tmp_path / "mipnerf360/room", "images_2", (144, 96), (72, 48), count=12)
    names = [name for name, _ in SCENES["mipnerf360.room"].files()]
    assert {name.rsplit("/", 1)[0] for name in names} == {"images_2", "sparse/0"}
    assert sum(name.startswith("images_2/") for name in names) == 12


def test_scenes_come_out_of_the_publishers_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in MIPNERF360.items():
        size = (72, 48) if folder == "images_2" else (36, 24)
        _publish(Path("published") / name, folder, (144, 96), size, count=12)
    Path("mirror/mipnerf360").mkdir(parents=True)
    shutil.make_archive("mirror/mipnerf360/360_v2", "zip", "published")
    monkeypatch.setenv("EVALSUITE_MIRROR", "mirror")
    assert main(["fetch", "mipnerf360"]) == 0
    monkeypatch.delenv("EVALSUITE_MIRROR")
    scenes = [SCENES[f"mipnerf360.{name}"].load(PUBLISHED) for name in MIPNERF360]
    assert [scene.capture.cameras.width for scene in scenes] == [72, 72, 72, 72, 36]
    assert not Path("data/mipnerf360/room/images").exists()


def test_full_sized_images_do_not_stand_in_for_reduced_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path))
    camera = pycolmap.Camera(model="PINHOLE", width=144, height=96, params=[150, 148, 70, 50])
    write_colmap(tmp_path / "mipnerf360/garden", [camera] * 12)
    with pytest.raises(MissingDataError, match=r"images_4 of garden is not in .*run: evalsuite fetch mipnerf360, or"):
        SCENES["mipnerf360.garden"].load(PUBLISHED)


def test_a_case_without_data_is_not_run_and_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    store = RecordStore(tmp_path / "records")
    floor = Trajectory("mipnerf360.room", "mean-colour", None, (0,))
    assert floor in SUITES["paper"].trajectories()
    run_trajectory(floor, SUITES["paper"], store, "cpu")
    record = store.read("mipnerf360.room/mean-colour")
    assert record is not None
    assert record.status == "missing-data"
    verdict = compare(record.case, record, None)
    assert (verdict.verdict, verdict.blocks) == ("not-run", True)
    assert "evalsuite fetch mipnerf360" in verdict.reason


MIRROR = Path(os.environ.get("EVALSUITE_MIRROR", "mirror-not-set")) / "captures/bonsai"


def _halved(source: Path, root: Path, step: int) -> pycolmap.Reconstruction:
    """Every ``step``-th image of a capture, linked as ``images_2`` of one twice its size; returns its own model."""
    model = pycolmap.Reconstruction(source / "sparse/0")
    kept = sorted(image.name for image in model.images.values())[::step]
    for image in list(model.images.values()):
        if image.name not in kept:
            model.deregister_frame(image.frame_id)
    (root / "images_2").mkdir(parents=True)
    (root / "sparse/0").mkdir(parents=True)
    for name in kept:
        (root / "images_2" / name).symlink_to(source / "images" / name)
    full = pycolmap.Reconstruction(model)
    for camera in full.cameras.values():
        camera.rescale(2 * camera.width, 2 * camera.height)
    full.write_binary(root / "sparse/0")
    return model


@pytest.mark.data
def test_points_of_bonsai_land_on_its_halved_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A true scene of Mip-NeRF 360 in the publisher's layout: its points are seen where COLMAP saw them."""
    model = _halved(MIRROR.resolve(), tmp_path / "mipnerf360/bonsai", step=4)
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path))
    scene = SCENES["mipnerf360.bonsai"].load(PUBLISHED)
    assert (len(scene.capture), len(scene.heldout)) == (63, 10)
    assert (scene.capture.cameras.width, scene.capture.cameras.height) == (800, 533)
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda image: image.name)
    upright = _upright(images[0], scene.heldout.cameras)
    errors = []
    for view, image in enumerate(images[::8]):
        seen = image.get_observation_points2D()
        points = np.array([model.points3D[point.point3D_id].xyz for point in seen]) @ upright.T
        pixels = _projected(scene.heldout.cameras[[view]], points)
        errors.append(np.linalg.norm(pixels - [point.xy for point in seen], axis=1))
    assert np.concatenate(errors).mean() < 1.0
    assert scene.points is not None
    capture = {image.image_id for i, image in enumerate(images) if i % 8}
    tracks = [{e.image_id for e in point.track.elements} & capture for point in model.points3D.values()]
    assert len(scene.points) == sum(len(track) >= 2 for track in tracks) > 10_000


def _upright(image: pycolmap.Image, cameras: Cameras) -> np.ndarray:
    """The turn of the world, told by its first held-out camera."""
    turned = cameras.cam_from_world[0, :3, :3].double().numpy()
    return np.asarray(turned.T @ image.cam_from_world().rotation.matrix())


def _projected(cameras: Cameras, points: np.ndarray) -> np.ndarray:
    """Pixels of points in one camera, [P, 2]."""
    pose = cameras.cam_from_world[0].double().numpy()
    local = points @ pose[:3, :3].T + pose[:3, 3]
    return np.asarray(local[:, :2] / local[:, 2:] * cameras.focal_px[0].numpy() + cameras.centre_px[0].numpy())
