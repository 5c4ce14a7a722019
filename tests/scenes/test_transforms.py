"""The dialects of transforms.json: each key is used, harmless, refused or named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from capture_factories import MARKS, PROTOCOL, TILT, lens_camera, write_synthetic, write_transforms

from evalsuite.core.errors import BadDataError, EvalsuiteError, NonFiniteError
from evalsuite.core.types import Scene
from evalsuite.scenes import transforms
from evalsuite.scenes.captures import load_capture

NAMES = [f"images/{i:03d}.png" for i in range(12)]
Change = Callable[[dict[str, Any]], Any]


def _load(root: Path, change: Change | None = None, lens: str = "OPENCV", **top: Any) -> Scene:
    document = write_transforms(root, lens_camera(lens), 12, **top)
    if change is not None:
        change(document)
        (root / "transforms.json").write_text(json.dumps(document))
    return load_capture(root, "toy", PROTOCOL)


def _refused(error: type[EvalsuiteError], message: str, root: Path, change: Change | None = None, **top: Any) -> None:
    """One line that says found, expected and what to do; fetching mends none of these."""
    with pytest.raises(error, match=message) as caught:
        _load(root, change, **top)
    assert re.fullmatch(r".+; expected .+: .+", str(caught.value))
    assert "fetch" not in str(caught.value)


def _grey(scene: Scene) -> tuple[list[int], list[int]]:
    """Numbers of the photographs of capture and held-out views."""
    capture, heldout = (
        [round(float(image.median()) * 255 / 2) for image in views.rgb] for views in (scene.capture, scene.heldout)
    )
    return capture, heldout


def test_no_key_is_in_two_classes() -> None:
    classes = (transforms._USED, transforms._HARMLESS, set(transforms._REFUSED))
    assert sum(map(len, classes)) == len(set.union(*map(set, classes)))


def test_the_publishers_split_is_kept(tmp_path: Path) -> None:
    scene = _load(tmp_path, train_filenames=NAMES[4:], test_filenames=["./" + name for name in NAMES[1:3]])
    assert _grey(scene) == ([4, 5, 6, 7, 8, 9, 10, 11], [1, 2])
    assert scene.notes == (
        "2 frames are neither in train_filenames nor in test_filenames, not used: images/000.png, images/003.png",
    )


def test_val_is_held_out_where_there_is_no_test(tmp_path: Path) -> None:
    backslashes = [name.replace("/", "\\") for name in NAMES[:9]]
    scene = _load(tmp_path, train_filenames=backslashes, val_filenames=NAMES[9:], test_filenames=[])
    assert _grey(scene) == (list(range(9)), [9, 10, 11])
    assert scene.notes == ()


def test_empty_lists_are_no_split(tmp_path: Path) -> None:
    scene = _load(tmp_path, train_filenames=[], test_filenames=[])
    assert _grey(scene)[1] == [0, 8]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (
            {"train_filenames": [*NAMES[:8], "images/x.png"], "test_filenames": NAMES[8:]},
            r"names images/x\.png, 1 without",
        ),
        ({"train_filenames": NAMES[:8], "test_filenames": NAMES[7:]}, r"both name images/007\.png"),
        ({"train_filenames": NAMES[:8]}, "train_filenames only"),
        ({"test_filenames": NAMES[:8]}, "test_filenames only"),
        ({"train_filenames": "images/000.png", "test_filenames": NAMES}, "train_filenames is no list of names"),
    ],
)
def test_a_split_that_contradicts_itself_is_refused(tmp_path: Path, lists: dict[str, Any], message: str) -> None:
    _refused(BadDataError, message, tmp_path, **lists)


def test_one_image_in_train_and_test_is_refused(tmp_path: Path) -> None:
    write_synthetic(tmp_path, train=9, test=3)
    test = json.loads((tmp_path / "transforms_test.json").read_text())
    test["frames"][1]["file_path"] = "train/r_4.png"
    (tmp_path / "transforms_test.json").write_text(json.dumps(test))
    with pytest.raises(BadDataError, match=r"both list train/r_4\.png; expected no image in both"):
        load_capture(tmp_path, "toy", PROTOCOL)


def test_synthetic_scenes_with_val_in_place_of_test(tmp_path: Path) -> None:
    write_synthetic(tmp_path, train=9, test=3)
    (tmp_path / "transforms_test.json").rename(tmp_path / "transforms_val.json")
    scene = load_capture(tmp_path, "toy", PROTOCOL)
    assert len(scene.heldout) == 3
    assert scene.notes == ("transforms_test.json is not there: the views of transforms_val.json are held out",)


def _cloud(root: Path, points: np.ndarray, *, ascii_form: bool = True) -> None:
    """As nerfstudio writes it, or as trimesh does."""
    colours = np.eye(3, dtype=np.uint8) * 255
    root.mkdir(exist_ok=True)
    if not ascii_form:
        trimesh.PointCloud(points, colours).export(root / "sparse_pc.ply")
        return
    types = [*(f"property float {axis}" for axis in "xyz"), *(f"property uint8 {c}" for c in ("red", "green", "blue"))]
    rows = [f"{x:8f} {y:8f} {z:8f} {r} {g} {b}" for (x, y, z), (r, g, b) in zip(points, colours, strict=True)]
    header = ["ply", "format ascii 1.0", f"element vertex {len(points)}", *types, "end_header"]
    (root / "sparse_pc.ply").write_text("\n".join([*header, *rows, ""]))


@pytest.mark.parametrize("ascii_form", [True, False])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_points_of_ply_file_path_lie_on_their_pixels(tmp_path: Path, ascii_form: bool, scale: float) -> None:
    """The cloud is in the frame of the poses, whatever transform was applied to both, but before the scale."""
    _cloud(tmp_path, (MARKS @ TILT[:3, :3].T + TILT[:3, 3]) / scale, ascii_form=ascii_form)
    turned = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]
    scene = _load(tmp_path, ply_file_path="./sparse_pc.ply", applied_transform=turned, applied_scale=scale)
    assert scene.points is not None
    assert scene.points.rgb.tolist() == np.eye(3).tolist()
    cameras = scene.capture.cameras
    local = scene.points.xyz @ cameras.cam_from_world[:, :3, :3].transpose(1, 2)
    local = local + cameras.cam_from_world[:, None, :3, 3]
    pixels = local[..., :2] / local[..., 2:] * cameras.focal_px[:, None] + cameras.centre_px[:, None]
    for image, spots in zip(scene.capture.rgb, pixels.floor().long(), strict=True):
        x, y = spots.T
        assert image[y, x].argmax(dim=1).tolist() == [0, 1, 2]
    assert scene.notes[0] == "the 3 points of sparse_pc.ply have no tracks: what only held-out images saw is among them"
    assert len(scene.notes) == (1 if scale == 1.0 else 2)


def test_points_that_are_not_there_become_a_note(tmp_path: Path) -> None:
    scene = _load(tmp_path, ply_file_path="points.ply")
    assert scene.points is None
    assert scene.notes == ("points.ply of ply_file_path is not there: the scene ships no points",)


PLY = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"


def test_points_without_colour_are_grey(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_text(PLY + "0 0 0\n1 1 1\n")
    scene = _load(tmp_path, ply_file_path="a.ply")
    assert scene.points is not None
    assert torch.equal(scene.points.rgb, torch.full((2, 3), 0.5))
    assert "the points of a.ply have no colour: grey is taken" in scene.notes


def test_a_cloud_of_no_points_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.ply").write_text(PLY.replace("vertex 2", "vertex 0"))
    scene = _load(tmp_path, ply_file_path="a.ply")
    assert (scene.points, scene.notes) == (None, ("a.ply of ply_file_path holds no points",))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (PLY + "0 0 0\n", BadDataError, "holds 1 points, its header counts 2"),
        ("solid", BadDataError, r"a\.ply cannot be read"),
        (PLY + "0 0 nan\n1 1 1\n", NonFiniteError, r"a\.ply holds NaN"),
    ],
)
def test_broken_points_are_refused(tmp_path: Path, text: str, error: type[EvalsuiteError], message: str) -> None:
    (tmp_path / "a.ply").write_text(text)
    _refused(error, message, tmp_path, ply_file_path="a.ply")


@pytest.mark.parametrize("frame_only", [False, True])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("equirectangular", True),
        ("latlong", True),
        ("orthographic", True),
        ("ftheta_p0", 0.1),
        ("ftheta_p4", 0.1),
        ("lens", "ftheta"),
        ("omega", 0.9),
        ("rolling_shutter", [0, 0, 1]),
        ("transform_matrix_start", np.eye(4).tolist()),
        ("transform_matrix_end", np.eye(4).tolist()),
        ("from_mitsuba", True),
        ("from_na", True),
        ("camera_model", "FISHEYE624"),
        ("k5", 0.1),
        ("distortion_params", [0.1, 0.2]),
        ("is_fisheye", True),  # of a frame that says OPENCV
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, key: str, value: Any, frame_only: bool) -> None:
    def change(document: dict[str, Any]) -> None:
        document["camera_model"] = "OPENCV"
        (document["frames"][3] if frame_only else document)[key] = value

    _refused(BadDataError, rf"transforms\.json cannot be used .*{key.removesuffix('0')}", tmp_path, change)


def test_keys_that_say_nothing_are_no_reason_to_refuse(tmp_path: Path) -> None:
    scene = _load(tmp_path, latlong=False, ftheta_p0=0, rolling_shutter=[0, 0, 0], from_na=None, unheard_of=[])
    assert scene.notes == ()


def test_harmless_keys_are_no_note(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document.update(aabb_scale=16, scale=0.33, offset=[0.5, 0.5, 0.5], applied_transform=np.eye(4)[:3].tolist())
        document["frames"][0].update(sharpness=31.7, colmap_im_id=3, depth_file_path="depth/0.png", timestamp=1.5)

    assert _load(tmp_path, change).notes == ()


def test_masks_and_unknown_keys_are_named(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        document["fisheye_crop_radius"] = 300
        for frame in document["frames"]:
            frame.update(mask_path="masks/0.png", time=0.5)

    assert _load(tmp_path, change).notes == (
        "mask_path (12 times) is not followed: what it masks counts as seen",
        "keys that are not used: fisheye_crop_radius, time",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(k1=None), r"k1 of images/000\.png is null\); expected a number"),
        (lambda d: d.update(fl_x="wide"), r'fl_x of images/000\.png is "wide"'),
        (lambda d: d["frames"][3].update(cy=True), r"cy of images/008\.png is true"),
        (lambda d: d.pop("h"), r"w, h = 100\.0, nan"),
        (
            lambda d: (d.pop("fl_x"), d.update(camera_angle_x=40)),
            "camera_angle_x of images/000.png is no angle .* radians",
        ),
        (lambda d: (d.pop("w"), d.pop("h"), d.update(cx=480)), "cx, cy = 480, 76 of .* outside its 100 x 150 pixels"),
        (lambda d: d["frames"][3].update(file_path=7), "'file_path' of frame 3"),
    ],
)
def test_the_key_and_the_frame_are_named(tmp_path: Path, change: Change, message: str) -> None:
    _refused(BadDataError, message, tmp_path, change)


def _turned(by: np.ndarray) -> Change:
    def change(document: dict[str, Any]) -> None:
        frame = document["frames"][3]
        frame["transform_matrix"] = (np.array(frame["transform_matrix"]) @ by).tolist()

    return change


def _transposed(document: dict[str, Any]) -> None:
    frame = document["frames"][3]
    frame["transform_matrix"] = np.array(frame["transform_matrix"]).T.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_turned(np.diag([2.0, 2, 2, 1])), r"images/008\.png .* length \[2\.0, 2\.0, 2\.0\].*: divide"),
        (_turned(np.diag([1.0, 1, -1, 1])), r"images/008\.png .* determinant -1"),
        (_transposed, r"last row of transform_matrix of images/008\.png .*: transpose"),
    ],
)
def test_poses_that_are_none(tmp_path: Path, change: Change, message: str) -> None:
    _refused(BadDataError, message, tmp_path, change)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    plain = _load(tmp_path)
    file = tmp_path / "transforms.json"
    file.write_text(file.read_text(), encoding=encoding)
    assert torch.equal(load_capture(tmp_path, "toy", PROTOCOL).capture.rgb, plain.capture.rgb)


def test_ways_to_say_one_lens(tmp_path: Path) -> None:
    """A list of nerfstudio's, and its rational model: the same camera as by single keys."""
    plain = _load(tmp_path / "a")

    def as_list(document: dict[str, Any]) -> None:
        k1, k2, p1, p2 = (document.pop(key) for key in ("k1", "k2", "p1", "p2"))
        document["distortion_params"] = [k1, k2, 0, 0, p1, p2]

    listed = _load(tmp_path / "b", as_list)
    rational = _load(tmp_path / "c", camera_model="FULL_OPENCV", k4=1e-9, k5=0.0, k6=0.0)
    for other in (listed, rational):
        torch.testing.assert_close(other.capture.rgb, plain.capture.rgb, atol=1.5 / 255, rtol=0)
        torch.testing.assert_close(other.capture.cameras.focal_px, plain.capture.cameras.focal_px)


def test_a_focal_length_of_a_frame_wins_in_whatever_unit(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        for frame in document["frames"]:
            frame["x_fov"] = 40.0

    plain = _load(tmp_path / "a", lens="PINHOLE")
    scene = _load(tmp_path / "b", change, lens="PINHOLE")
    ratio = scene.capture.cameras.focal_px[:, 0] / plain.capture.cameras.focal_px[:, 0]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 0.5 * 144 / np.tan(np.radians(20)) / 150))
