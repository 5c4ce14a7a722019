"""Broken captures and meshes: one row per fault, with the error that the user gets, or what becomes of the scene."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
import trimesh
from capture_factories import PROTOCOL, colmap_capture, lens_camera, write_colmap, write_synthetic, write_transforms
from PIL import Image

from evalsuite.core.errors import BadDataError, EvalsuiteError, MissingDataError, NonFiniteError
from evalsuite.scenes.captures import load_capture
from evalsuite.scenes.meshes import load_mesh

Fault = Callable[[Path], Any]
Row = tuple[str, Fault, type[EvalsuiteError], str]


def _cut(path: Path, kept: float = 0.6) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])


def _edit(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text(encoding="utf-8")
    edited = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert edited != text
    path.write_text(edited, encoding="utf-8")


def _images(root: Path, first: int = 0) -> list[Path]:
    return sorted((root / "images").iterdir())[first:]


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


def _turn(path: Path) -> None:
    Image.open(path).rotate(90, expand=True).save(path)


def _change_model(change: Callable[[pycolmap.Reconstruction], Any]) -> Fault:
    def fault(root: Path) -> None:
        model = pycolmap.Reconstruction(root / "sparse/0")
        change(model)
        model.write(root / "sparse/0")

    return fault


def _nan_pose(model: pycolmap.Reconstruction) -> None:
    model.frames[5].rig_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([np.nan, 0, 0]))


def _nan_point(model: pycolmap.Reconstruction) -> None:
    for point in model.points3D.values():
        point.xyz = np.array([0, np.nan, 0])


def _first_camera(index: int, value: float) -> Callable[[pycolmap.Reconstruction], Any]:
    def change(model: pycolmap.Reconstruction) -> None:
        params = model.cameras[1].params
        params[index] = value
        model.cameras[1].params = params

    return change


def _deregister(model: pycolmap.Reconstruction) -> None:
    for frame in list(model.frames):
        model.deregister_frame(frame)


def _twice(model: pycolmap.Reconstruction) -> None:
    model.images[3].name = model.images[4].name


def _as_text(change: Callable[[Path], Any]) -> Fault:
    """The same capture with its model in COLMAP's text form, then changed."""

    def fault(root: Path) -> None:
        folder = root / "sparse/0"
        model = pycolmap.Reconstruction(folder)
        _remove(list(folder.iterdir()))
        model.write_text(folder)
        change(folder)

    return fault


def _unknown_model_id(root: Path) -> None:
    path = root / "sparse/0/cameras.bin"
    data = bytearray(path.read_bytes())
    data[12:16] = (77).to_bytes(4, "little")
    path.write_bytes(data)


COLMAP: list[Row] = [
    ("no model", lambda r: (r / "sparse/0/images.bin").unlink(), MissingDataError, r"sparse.0 holds no COLMAP model"),
    ("cameras cut", lambda r: _cut(r / "sparse/0/cameras.bin"), BadDataError, r"cameras\.bin is not a readable COLMAP"),
    ("images cut", lambda r: _cut(r / "sparse/0/images.bin"), BadDataError, r"images\.bin is not a readable COLMAP"),
    ("points cut", lambda r: _cut(r / "sparse/0/points3D.bin"), BadDataError, r"points3D\.bin is not a readable"),
    ("model empty", lambda r: _cut(r / "sparse/0/points3D.bin", 0), BadDataError, r"0 bytes, its counts ask for more"),
    ("lens unknown", _unknown_model_id, BadDataError, r"cameras\.bin .* \(camera model 77 is none"),
    (
        "lens unknown, text",
        _as_text(lambda f: _edit(f / "cameras.txt", "^1 PINHOLE", "1 MAGNIFIER")),
        BadDataError,
        "not a readable COLMAP model",
    ),
    (
        "parameter missing, text",
        _as_text(lambda f: _edit(f / "cameras.txt", r"^(1 PINHOLE .*) \S+$", r"\1")),
        BadDataError,
        "not a readable COLMAP model",
    ),
    (
        "word for a number, text",
        _as_text(lambda f: _edit(f / "images.txt", r"^(\d+) \S+ ", r"\1 north ")),
        BadDataError,
        "not a readable COLMAP model",
    ),
    (
        "points cut, text",
        _as_text(lambda f: _cut(f / "points3D.txt", 0.8)),
        BadDataError,
        r"points3D\.txt holds 2 entries, its header counts 3",
    ),
    ("no images", _change_model(_deregister), BadDataError, "lists no image with a pose"),
    ("pose NaN", _change_model(_nan_pose), NonFiniteError, r"pose or camera of .*\.png holds NaN"),
    ("focal NaN", _change_model(_first_camera(0, float("nan"))), NonFiniteError, r"000\.png holds NaN"),
    (
        "focal negative",
        _change_model(_first_camera(1, -150)),
        BadDataError,
        r"000\.png has a size or focal length of 0",
    ),
    ("points NaN", _change_model(_nan_point), NonFiniteError, "points3D of the COLMAP model holds NaN"),
    ("image listed twice", _change_model(_twice), BadDataError, r"lists image \d+\.png twice"),
    ("image cut", lambda r: _cut(_images(r)[5]), BadDataError, r"005\.png cannot be decoded"),
    ("image empty", lambda r: _cut(_images(r)[5], 0), BadDataError, r"005\.png cannot be decoded"),
    ("image of another aspect", lambda r: _turn(_images(r)[4]), BadDataError, "is 96 x 144, its camera 144 x 96"),
    ("all images gone", lambda r: _remove(_images(r)), MissingDataError, "none of the 12 images"),
    ("too few images", lambda r: _remove(_images(r, 5)), BadDataError, "5 usable images; expected at least 6"),
]


def _json(change: Callable[[dict[str, Any]], Any]) -> Fault:
    def fault(root: Path) -> None:
        document = json.loads((root / "transforms.json").read_text())
        change(document)
        (root / "transforms.json").write_text(json.dumps(document))

    return fault


def _frame(**changes: Any) -> Fault:
    return _json(lambda document: document["frames"][3].update(changes))


def _scaled(document: dict[str, Any]) -> None:
    frame = document["frames"][3]
    frame["transform_matrix"] = (2 * np.array(frame["transform_matrix"])).tolist()


TRANSFORMS: list[Row] = [
    ("no file", lambda r: (r / "transforms.json").unlink(), MissingDataError, r"transforms\.json is not there"),
    ("no JSON", lambda r: _cut(r / "transforms.json"), BadDataError, r"transforms\.json cannot be used \(JSONDecode"),
    ("bytes", lambda r: (r / "transforms.json").write_bytes(b"\xff\xfe\x00"), BadDataError, "UnicodeDecodeError"),
    ("a list", lambda r: (r / "transforms.json").write_text("[]"), BadDataError, "TypeError"),
    ("no frames", _json(lambda d: d.pop("frames")), BadDataError, "KeyError: 'frames'"),
    ("zero frames", _json(lambda d: d["frames"].clear()), BadDataError, "lists no image with a pose"),
    ("frames are numbers", _json(lambda d: d.update(frames=[1, 2])), BadDataError, "cannot be used"),
    ("no file_path", _json(lambda d: d["frames"][3].pop("file_path")), BadDataError, "KeyError: 'file_path'"),
    ("no pose", _json(lambda d: d["frames"][3].pop("transform_matrix")), BadDataError, "KeyError: 'transform_matrix'"),
    ("no focal length", _json(lambda d: d.pop("fl_x")), BadDataError, "camera_angle_x"),
    ("infinite size", _json(lambda d: d.update(w=float("inf"))), BadDataError, "cannot be used"),
    ("size of another aspect", _json(lambda d: d.update(w=150, h=100)), BadDataError, "is 100 x 150, its camera 150 x"),
    ("pose of two numbers", _frame(transform_matrix=[1, 2]), BadDataError, "not 4 x 4"),
    ("pose NaN", _frame(transform_matrix=np.full((4, 4), np.nan).tolist()), NonFiniteError, r"pose of images/008\.png"),
    ("pose scaled", _json(_scaled), BadDataError, "no rotation"),
    ("focal NaN", _json(lambda d: d.update(fl_x=float("nan"))), NonFiniteError, "pose or camera"),
    ("focal zero", _json(lambda d: d.update(fl_y=0)), BadDataError, "focal length of 0 or less"),
    ("panorama", _json(lambda d: d.update(camera_model="EQUIRECTANGULAR")), BadDataError, "EQUIRECTANGULAR"),
    ("image listed twice", _frame(file_path="./images/002.png"), BadDataError, r"lists image images/002\.png twice"),
    ("image cut", lambda r: _cut(_images(r)[5]), BadDataError, r"005\.png cannot be decoded"),
    ("all images gone", lambda r: _remove(_images(r)), MissingDataError, "none of the 12 images"),
]


SYNTHETIC: list[Row] = [
    (
        "no test split",
        lambda r: (r / "transforms_test.json").unlink(),
        MissingDataError,
        r"transforms_test\.json is not",
    ),
    (
        "test split cut",
        lambda r: _cut(r / "transforms_test.json"),
        BadDataError,
        r"transforms_test\.json cannot be used",
    ),
    ("image cut", lambda r: _cut(r / "train/r_3.png"), BadDataError, r"r_3\.png cannot be decoded"),
    ("few images", lambda r: _remove(sorted((r / "train").iterdir())[4:]), BadDataError, "7 usable images; expected"),
]

OBJ = "mtllib model.mtl\nusemtl skin\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"


def _obj(root: Path, text: str = OBJ, texture: bool = True) -> Path:
    (root / "meshes").mkdir(parents=True)
    (root / "meshes/model.obj").write_text(text)
    if texture:
        (root / "materials/textures").mkdir(parents=True)
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / "materials/textures/texture.png")
    return root / "meshes/model.obj"


def _glb(root: Path, kept: float = 1) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    trimesh.creation.icosphere(subdivisions=2).export(root / "ball.glb")
    _cut(root / "ball.glb", kept)
    return root / "ball.glb"


def _cut_texture(root: Path) -> Path:
    path = _obj(root)
    _cut(root / "materials/textures/texture.png")
    return path


def _empty_glb(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    document = b'{"asset": {"version": "2.0"}}   '
    header = b"glTF" + (2).to_bytes(4, "little") + (20 + len(document)).to_bytes(4, "little")
    (root / "none.glb").write_bytes(header + len(document).to_bytes(4, "little") + b"JSON" + document)
    return root / "none.glb"


MESHES: list[tuple[str, Callable[[Path], Path], type[EvalsuiteError], str]] = [
    ("OBJ gone", lambda r: r / "model.obj", MissingDataError, r"no mesh at .*model\.obj"),
    (
        "OBJ without texture",
        lambda r: _obj(r, texture=False),
        MissingDataError,
        r"no texture\.png, nor a single image",
    ),
    ("OBJ without coordinates", lambda r: _obj(r, re.sub(r"vt.*\n|/\d", "", OBJ)), BadDataError, "no coordinates"),
    ("OBJ texture cut", _cut_texture, BadDataError, r"texture .*texture\.png cannot be decoded"),
    ("OBJ empty", lambda r: _obj(r, ""), BadDataError, r"model\.obj"),
    ("OBJ of points", lambda r: _obj(r, OBJ.split("f ")[0]), BadDataError, r"model\.obj"),
    ("OBJ NaN", lambda r: _obj(r, OBJ.replace("v 1 0 0", "v nan 0 0")), BadDataError, "NaN or infinite vertices"),
    ("OBJ index too high", lambda r: _obj(r, OBJ + "f 1/1 2/2 9/3\n"), BadDataError, r"cannot read mesh"),
    ("GLB cut", lambda r: _glb(r, 0.5), BadDataError, r"cannot read mesh .*ball\.glb"),
    ("GLB empty", lambda r: _glb(r, 0), BadDataError, r"ball\.glb"),
    ("GLB without meshes", _empty_glb, BadDataError, r"none\.glb holds no triangles"),
]


def _refused(load: Callable[[], Any], error: type[EvalsuiteError], message: str) -> None:
    """One line: what was found, what was expected, what to do."""
    with pytest.raises(error, match=message) as caught:
        load()
    assert re.fullmatch(r".+; expected .+: .+", str(caught.value))


def _rows(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("fault", "error", "message"), [r[1:] for r in rows], ids=[r[0] for r in rows])


def _refused_capture(root: Path, error: type[EvalsuiteError], message: str) -> None:
    """As `_refused`; what is there but wrong is not mended by fetching it, unless an image is cut."""
    _refused(lambda: load_capture(root, "toy", PROTOCOL), error, message)
    if error is not MissingDataError and "decoded" not in message:
        with pytest.raises(error, match=r"^(?!.*fetch)"):
            load_capture(root, "toy", PROTOCOL)


@_rows(COLMAP)
def test_colmap(tmp_path: Path, fault: Fault, error: type[EvalsuiteError], message: str) -> None:
    fault(colmap_capture(tmp_path))
    _refused_capture(tmp_path, error, message)


@_rows(TRANSFORMS)
def test_transforms(tmp_path: Path, fault: Fault, error: type[EvalsuiteError], message: str) -> None:
    write_transforms(tmp_path, lens_camera("OPENCV"), 12)
    fault(tmp_path)
    _refused_capture(tmp_path, error, message)


@_rows(SYNTHETIC)
def test_synthetic(tmp_path: Path, fault: Fault, error: type[EvalsuiteError], message: str) -> None:
    write_synthetic(tmp_path, train=9, test=3)
    fault(tmp_path)
    _refused_capture(tmp_path, error, message)


@_rows(MESHES)
def test_mesh(tmp_path: Path, fault: Callable[[Path], Path], error: type[EvalsuiteError], message: str) -> None:
    path = fault(tmp_path / "thing")
    _refused(lambda: load_mesh(path), error, message)


def test_zero_points_leave_the_seed_to_the_fallback(tmp_path: Path) -> None:
    def empty(model: pycolmap.Reconstruction) -> None:
        for number in list(model.points3D):
            model.delete_point3D(number)

    _change_model(empty)(colmap_capture(tmp_path))
    scene = load_capture(tmp_path, "toy", PROTOCOL)
    assert scene.points is not None
    assert len(scene.points) == 0


@pytest.mark.parametrize("text", [False, True])
def test_names_beyond_ascii_are_names(tmp_path: Path, text: bool) -> None:
    pattern = "B\u00e4ume \u6a39/\u00fc {:02d}.png" if not text else "\u6a39-{:02d}.png"
    (tmp_path / "c/images" / Path(pattern).parent).mkdir(parents=True)
    write_colmap(tmp_path / "c", [lens_camera("OPENCV")] * 12, text=text, pattern=pattern)
    plain = load_capture(colmap_capture(tmp_path / "d", "OPENCV"), "toy", PROTOCOL)
    assert load_capture(tmp_path / "c", "toy", PROTOCOL).capture.rgb.equal(plain.capture.rgb)
    write_transforms(tmp_path / "t\u00e9", lens_camera("OPENCV"), 12, pattern="\u6a39 {:02d}.png")
    assert len(load_capture(tmp_path / "t\u00e9", "toy", PROTOCOL).capture) == 10


def test_some_missing_images_become_a_note(tmp_path: Path) -> None:
    _remove(_images(colmap_capture(tmp_path))[3:5])
    scene = load_capture(tmp_path, "toy", PROTOCOL)
    assert scene.notes == ("2 of 12 listed frames have no file: 003.png, 004.png",)


def test_a_mesh_without_material_is_white(tmp_path: Path) -> None:
    mesh = load_mesh(_glb(tmp_path))
    assert mesh.image is not None
    assert mesh.image.tolist() == [[[255, 255, 255]]]
