"""COLMAP's text form: what is cut is refused, what others write differently is read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalsuite.core.errors import BadDataError
from evalsuite.scenes.colmap import listed_images, read_model
from evalsuite.scenes.colmap_text import TEXT_FILES

Edit = Callable[[bytes], bytes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images, the last without points, of ten points in tracks of three."""
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(camera_id=1, model="PINHOLE", width=80, height=60, params=[90.0, 91, 40, 30])
    model.add_camera_with_trivial_rig(camera)
    for i in range(4):
        keypoints = np.arange(20.0).reshape(10, 2) + i if i < 3 else np.zeros((0, 2))
        image = pycolmap.Image(name=f"left  right/{i} (402).png", keypoints=keypoints, camera_id=1, image_id=i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    for number in range(10):
        track = pycolmap.Track([pycolmap.TrackElement(i + 1, number) for i in range(3)])
        model.add_point3D(np.array([0.5, number, 2]), track)
    (tmp_path / "model").mkdir()
    model.write_text(tmp_path / "model")
    return tmp_path / "model"


def _edit(folder: Path, edit: Edit, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(edit((folder / name).read_bytes()))


def _bare(data: bytes) -> bytes:
    """Without comments."""
    return re.sub(rb"(?m)^#.*\n", b"", data)


def _only_old_files(folder: Path) -> None:
    """As before COLMAP 3.12."""
    for name in ("rigs.txt", "frames.txt"):
        (folder / name).unlink()


def _assert_whole(folder: Path) -> None:
    model = read_model(folder)
    names = sorted(image.name for image in model.images.values())
    assert names == sorted(listed_images(folder)) == [f"left  right/{i} (402).png" for i in range(4)]
    assert sorted(len(image.points2D) for image in model.images.values()) == [0, 10, 10, 10]
    assert len(model.points3D) == 10


def test_a_name_ends_where_its_line_ends(folder: Path) -> None:
    _assert_whole(folder)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "edit",
    [
        _bare,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: _bare(data).rstrip(b"\n"),
    ],
    ids=["no comments", "CRLF", "BOM", "no comments and last line not ended"],
)
def test_what_others_write_is_read(folder: Path, edit: Edit, old: bool) -> None:
    if old:
        _only_old_files(folder)
    _edit(folder, edit, *(path.name for path in folder.iterdir()))
    _assert_whole(folder)


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_the_last_image_needs_no_line_of_points(folder: Path, ending: bytes) -> None:
    _edit(folder, lambda data: data.rstrip(b"\n") + ending, "images.txt")
    _assert_whole(folder)


@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_count_in_the_header_must_be_right(folder: Path, name: str) -> None:
    _edit(folder, lambda data: re.sub(rb"(Number of \w+:) (\d+)", rb"\1 1\2", data), name)
    with pytest.raises(BadDataError, match=rf"{name} holds \d+ entries, its header counts 1\d+"):
        read_model(folder)


def _tracks(model: pycolmap.Reconstruction) -> dict[int, set[tuple[int, int]]]:
    return {
        key: {(element.image_id, element.point2D_idx) for element in point.track.elements}
        for key, point in model.points3D.items()
    }


@pytest.mark.parametrize("name", ["cameras.txt", "images.txt", "points3D.txt"])
@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("old", [False, True])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_cut_is_read_as_a_smaller_model(folder: Path, name: str, bare: bool, old: bool, data: st.DataObject) -> None:
    """Wherever it is cut: refused, or the same model.

    A bare ``cameras.txt`` says nothing of the last digits of its last number, and is let off those.
    """
    copy = folder.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    if old:
        _only_old_files(copy)
    if bare:
        _edit(copy, _bare, name)
    whole = (copy / name).read_bytes()
    spared = 3 if bare and name == "cameras.txt" else 1
    kept = data.draw(st.integers(0, len(whole) - spared - 1), label="bytes kept")
    (copy / name).write_bytes(whole[:kept])
    try:
        model = read_model(copy)
    except BadDataError:
        return
    whole_model = read_model(folder)
    assert set(model.images) == set(whole_model.images)
    assert model.cameras[1].params.tolist() == whole_model.cameras[1].params.tolist()
    assert _tracks(model) == _tracks(whole_model)
    for key, image in whole_model.images.items():
        if key < 4:  # the name of the last image stands at the end: cut, it names no file
            assert model.images[key].name == image.name
        assert len(model.images[key].points2D) == len(image.points2D)


def test_empty_lines_that_were_removed_are_missed(folder: Path) -> None:
    """An editor that squeezes them makes the next image the points of the last."""
    _edit(
        folder, lambda data: data.replace(b"3 (402).png\n\n", b"3 (402).png\n5 1 0 0 0 0 0 0 1 4.png\n"), "images.txt"
    )
    with pytest.raises(BadDataError, match=r"does not hold x, y and id of points; it is cut, or empty lines"):
        read_model(folder)


def test_a_mean_track_length_that_is_rounded_is_right(folder: Path) -> None:
    _edit(folder, lambda data: data.replace(b"mean track length: 3", b"mean track length: 3.0"), "points3D.txt")
    _assert_whole(folder)
    _edit(folder, lambda data: data.replace(b"mean track length: 3.0", b"mean track length: 3.2"), "points3D.txt")
    with pytest.raises(BadDataError, match=r"tracks of 3 images on average, its header says 3\.2"):
        read_model(folder)


def test_one_id_of_two_images_is_refused(folder: Path) -> None:
    _edit(folder, lambda data: re.sub(rb"(?m)^2 (.*png)$", rb"1 \1", data), "images.txt")
    with pytest.raises(BadDataError, match="gives one id to two images"):
        read_model(folder)
