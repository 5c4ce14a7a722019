"""COLMAP models: whole ones are read, broken ones are refused at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from evalsuite.core.errors import BadDataError, MissingDataError
from evalsuite.scenes.colmap import read_model

FILES = ("cameras.bin", "images.bin", "points3D.bin", "rigs.bin", "frames.bin")


def _write(folder: Path) -> Path:
    """Two images of different lenses that see three points."""
    model = pycolmap.Reconstruction()
    for i, (lens, params) in enumerate([("OPENCV", [9.0, 9, 4, 3, 0.1, 0, 0, 0]), ("SIMPLE_PINHOLE", [9.0, 4, 3])]):
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(camera_id=i + 1, model=lens, width=8, height=6, params=params)
        )
        image = pycolmap.Image(name=f"some/{i}.png", keypoints=np.ones((5, 2)), camera_id=i + 1, image_id=i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    for number in range(3):
        track = pycolmap.Track([pycolmap.TrackElement(1, number), pycolmap.TrackElement(2, number)])
        model.add_point3D(np.array([0.0, number, 2]), track)
    folder.mkdir(parents=True)
    model.write_binary(folder)
    return folder


@pytest.mark.parametrize("old", [False, True])
def test_whole_model_is_read(tmp_path: Path, old: bool) -> None:
    folder = _write(tmp_path / "0")
    if old:  # before COLMAP 3.12 there were neither rigs nor frames
        (folder / "rigs.bin").unlink()
        (folder / "frames.bin").unlink()
    model = read_model(folder)
    assert (model.num_images(), model.num_cameras(), model.num_points3D()) == (2, 2, 3)
    assert {image.name for image in model.images.values()} == {"some/0.png", "some/1.png"}


@pytest.mark.parametrize("name", FILES)
def test_every_cut_is_refused_and_named(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path / "0") / name
    whole = path.read_bytes()
    for kept in range(0, len(whole), 3):
        path.write_bytes(whole[:kept])
        with pytest.raises(BadDataError, match=rf"{name} is not a readable COLMAP model \({kept} bytes"):
            read_model(tmp_path / "0")


@pytest.mark.parametrize("name", FILES)
def test_trailing_bytes_are_refused(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path / "0") / name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(BadDataError, match=name):
        read_model(tmp_path / "0")


def test_contradicting_files_are_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path / "0")
    (folder / "cameras.bin").write_bytes(bytes(8))
    with pytest.raises(BadDataError, match="not a readable COLMAP model") as caught:
        read_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gone", ["cameras.bin", "images.bin", "points3D.bin"])
def test_missing_file(tmp_path: Path, gone: str) -> None:
    (_write(tmp_path / "0") / gone).unlink()
    with pytest.raises(MissingDataError, match="holds no COLMAP model"):
        read_model(tmp_path / "0")
