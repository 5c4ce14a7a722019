"""The prepared form: the same bits as the generated scene, whole or not there, rebuilt when what is behind it moves."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from evalsuite.core.conventions import opencv_from_opengl
from evalsuite.core.errors import BadDataError, ShapeError
from evalsuite.core.protocol import PROTOCOLS, CaptureRule, GeometryRule, Protocol, Rig
from evalsuite.core.types import Cameras, Mesh, Points, Scene, SurfaceSamples, Views
from evalsuite.scenes import catalogue, origin, prepared
from evalsuite.scenes.captures import load_transforms
from evalsuite.scenes.catalogue import SCENES, SceneEntry
from evalsuite.scenes.meshes import TexturedMesh, normalised
from evalsuite.scenes.origin import Origin, origin_of, read_origin
from evalsuite.scenes.prepared import read_scene, write_scene
from evalsuite.scenes.procedural import procedural_mesh
from evalsuite.scenes.rig import object_scene

TINY = Protocol(
    "tiny",
    rig=Rig(resolution=24, supersample=2),
    capture=CaptureRule(long_side=24, heldout_every=4),
    geometry=GeometryRule(samples=500),
)
ORIGIN = Origin("0" * 12, "1" * 12, "")


@pytest.fixture(scope="module")
def castle() -> Scene:
    return object_scene("toy.castle", "blocky", normalised(procedural_mesh("castle", 0), 0.6), TINY)


@pytest.fixture(scope="module")
def photographs(castle: Scene) -> Scene:
    """The castle as a capture: no alpha, no mesh, lenses that differ, points, notes."""
    generator = torch.Generator().manual_seed(0)
    points = Points(torch.randn(7, 3, generator=generator), torch.arange(21).reshape(7, 3) / 255)

    def photographed(views: Views) -> Views:
        focal = views.cameras.focal_px + torch.rand(len(views), 2, generator=torch.Generator().manual_seed(1))
        return Views(views.rgb, None, replace(views.cameras, focal_px=focal))

    capture = photographed(castle.capture)
    return replace(
        castle,
        stratum="unbounded",
        inputs=capture[[3, 0, 17]],
        capture=capture,
        heldout=photographed(castle.heldout),
        centre=torch.tensor([0.1, -0.2, 1 / 3]),
        radius=2 / 3,
        background=torch.zeros(3),
        points=points,
        mesh=None,
        surface=None,
        notes=("2 of 9 listed frames have no file: \u00fc.png, b.png",),
    )


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal bit for bit, tensors and arrays by type and shape too."""
    if isinstance(a, torch.Tensor | np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, Scene | Views | Cameras | Points | Mesh | SurfaceSamples):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return bool(a == b)


@pytest.mark.parametrize("name", ["castle", "photographs"])
def test_what_is_read_is_what_was_written(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    scene: Scene = request.getfixturevalue(name)
    write_scene(scene, ORIGIN, tmp_path / "a")
    read = read_scene(tmp_path / "a")
    assert same(read, scene)
    assert not same(replace(read, radius=0.5), scene)
    assert read.capture.rgb.is_contiguous()
    assert read_origin(tmp_path / "a") == ORIGIN
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("colour", ["repeating texture", "vertices", "texture and vertices", "none"])
def test_every_kind_of_colour_survives(colour: str, castle: Scene, tmp_path: Path) -> None:
    assert castle.mesh is not None
    plain = TexturedMesh(
        castle.mesh.vertices, castle.mesh.faces, vertex_rgb=np.random.default_rng(0).random(castle.mesh.vertices.shape)
    )
    if "texture" in colour:
        uv = np.random.default_rng(0).normal(0, 3, (len(plain.vertices), 2))
        image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
        rgb = plain.vertex_rgb if "vertices" in colour else None
        scene = object_scene("toy.castle", "blocky", replace(plain, vertex_rgb=rgb, uv=uv, image=image), TINY)
    elif colour == "vertices":
        scene = object_scene("toy.castle", "blocky", plain, TINY)
    else:
        scene = replace(castle, mesh=Mesh(castle.mesh.vertices, castle.mesh.faces))
    write_scene(scene, ORIGIN, tmp_path / "a")
    read = read_scene(tmp_path / "a")
    if colour == "none":  # GLB's default material is white
        assert read.mesh is not None
        assert same(Mesh(read.mesh.vertices, read.mesh.faces), scene.mesh)
    else:
        assert same(read, scene)


def test_other_programs_see_the_colours_at_vertices(castle: Scene, tmp_path: Path) -> None:
    """COLOR_0 of a GLB is linear: sRGB 188 is 0.5029."""
    assert castle.mesh is not None
    grey = Mesh(castle.mesh.vertices, castle.mesh.faces, vertex_rgb=np.full(castle.mesh.vertices.shape, 188 / 255))
    write_scene(replace(castle, mesh=grey), ORIGIN, tmp_path / "a")
    content = (tmp_path / "a/mesh.glb").read_bytes()
    length = int.from_bytes(content[12:16], "little")
    tree = json.loads(content[20 : 20 + length])
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    assert (accessor["componentType"], accessor["type"]) == (5126, "VEC3")
    start = 28 + length + tree["bufferViews"][accessor["bufferView"]].get("byteOffset", 0)
    np.testing.assert_allclose(np.frombuffer(content, "<f4", 3 * accessor["count"], start), 0.50289, atol=1e-5)


def test_a_capture_without_points_and_one_with_zero_differ(photographs: Scene, tmp_path: Path) -> None:
    write_scene(replace(photographs, points=None), ORIGIN, tmp_path / "a")
    write_scene(replace(photographs, points=Points(torch.zeros(0, 3), torch.zeros(0, 3))), ORIGIN, tmp_path / "b")
    assert read_scene(tmp_path / "a").points is None
    empty = read_scene(tmp_path / "b").points
    assert empty is not None
    assert len(empty) == 0


def test_other_programs_can_read_it(castle: Scene, photographs: Scene, tmp_path: Path) -> None:
    write_scene(castle, ORIGIN, tmp_path / "a")
    write_scene(photographs, ORIGIN, tmp_path / "b")
    document = json.loads((tmp_path / "a/transforms.json").read_text())
    poses = torch.tensor([frame["transform_matrix"] for frame in document["frames"]], dtype=torch.float64)
    expected = torch.cat([castle.capture.cameras.cam_from_world, castle.heldout.cameras.cam_from_world]).double()
    torch.testing.assert_close(opencv_from_opengl(poses), expected, atol=1e-12, rtol=0)
    split = json.loads((tmp_path / "a/split.json").read_text())
    assert split["inputs"] == split["capture"][:4]
    assert [f"images/{name}" for name in split["heldout"]] == document["test_filenames"]
    with Image.open(tmp_path / "a/images/heldout-0002.png") as image:
        assert (image.mode, image.size) == ("RGBA", (24, 24))
    with Image.open(tmp_path / "b/images/heldout-0002.png") as image:
        assert image.mode == "RGB"
    surface = trimesh.load_mesh(tmp_path / "a/mesh.glb")
    assert castle.mesh is not None
    assert len(surface.faces) == len(castle.mesh.faces)
    texture = surface.visual.material.baseColorTexture
    assert castle.mesh.image is not None
    assert np.array_equal(np.asarray(texture.convert("RGB")), castle.mesh.image)
    samples = trimesh.load(tmp_path / "a/surface.ply")
    assert castle.surface is not None
    assert np.array_equal(samples.vertices.astype(np.float32), castle.surface.points)
    header = (tmp_path / "a/surface.ply").read_bytes().split(b"end_header")[0]
    assert b"property float nx" in header
    cloud = json.loads((tmp_path / "b/transforms.json").read_text())["ply_file_path"]
    assert len(trimesh.load(tmp_path / "b" / cloud).vertices) == 7


def test_our_own_reader_of_transforms_takes_it_too(photographs: Scene, tmp_path: Path) -> None:
    write_scene(photographs, ORIGIN, tmp_path)
    again = load_transforms(tmp_path, "again", TINY)
    assert len(again.capture) + len(again.heldout) == len(photographs.capture) + len(photographs.heldout)
    assert again.radius == pytest.approx(0.6, rel=1e-3)  # the castle's, seen from 1.5 away


def test_finer_values_than_a_file_holds_are_refused(castle: Scene, tmp_path: Path) -> None:
    capture = replace(castle.capture, rgb=castle.capture.rgb * 0.999)
    with pytest.raises(ShapeError, match="steps of 1/255"):
        write_scene(replace(castle, capture=capture), ORIGIN, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


DAMAGES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("image cut", lambda f: _cut(f / "images/capture-0003.png"), r"images/capture-0003\.png differs from its hash"),
    ("image changed", lambda f: Image.new("RGBA", (24, 24)).save(f / "images/capture-0003.png"), "differs from its"),
    ("image gone", lambda f: (f / "images/heldout-0000.png").unlink(), r"heldout-0000\.png is missing"),
    ("image more", lambda f: (f / "images/more.png").touch(), r"more\.png is unknown"),
    ("mesh cut", lambda f: _cut(f / "mesh.glb"), r"mesh\.glb differs from its hash"),
    ("surface cut", lambda f: _cut(f / "surface.ply"), r"surface\.ply differs from its hash"),
    ("split edited", lambda f: (f / "split.json").write_text("{}"), r"split\.json differs"),
    ("facts cut", lambda f: _cut(f / "scene.json"), "JSONDecodeError"),
    ("facts gone", lambda f: (f / "scene.json").unlink(), "FileNotFoundError"),
    ("facts without files", lambda f: (f / "scene.json").write_text('{"schema": 2}'), "origin"),
]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _small(scene: Scene) -> Callable[[Protocol], Scene]:
    """A generator that counts how often it is asked."""

    def generate(_: Protocol) -> Scene:
        generate.calls += 1  # type: ignore[attr-defined]
        return scene

    generate.calls = 0  # type: ignore[attr-defined]
    return generate


@pytest.fixture
def entry(castle: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SceneEntry:
    """``smoke.castle``, prepared in the working folder, reading one file, from another generator."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    Path("source.obj").write_text("v 0 0 0")
    entry = SceneEntry("smoke.castle", "blocky", _small(castle), lambda: [("source.obj", Path("source.obj"))])
    write_scene(replace(castle, id=entry.id), entry.origin(TINY), _folder())
    return entry


def _folder() -> Path:
    return Path("data/prepared/tiny/smoke.castle")


def test_the_command_is_of_the_suite_that_has_this_protocol(tmp_path: Path) -> None:
    (tmp_path / "gso.dino-3").mkdir()
    for protocol, suite in (("object-128", "scan"), ("object-256", "paper")):
        with pytest.raises(BadDataError, match=f"evalsuite prepare {suite}"):
            SCENES["gso.dino-3"].prepared(tmp_path / "gso.dino-3", PROTOCOLS[protocol])


def _calls(entry: SceneEntry) -> int:
    return entry.generate.calls  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_a_damaged_folder_is_refused_with_the_command_that_mends_it(
    damage: Callable[[Path], Any], message: str, entry: SceneEntry
) -> None:
    damage(_folder())
    with pytest.raises(BadDataError, match=rf"smoke\.castle is damaged .*{message}.*evalsuite prepare smoke") as caught:
        entry.load(TINY)
    assert "\n" not in str(caught.value)


def test_a_prepared_scene_is_taken_instead_of_generated(entry: SceneEntry, castle: Scene) -> None:
    assert same(entry.load(TINY), replace(castle, id=entry.id, source=entry.origin(TINY).source))
    assert _calls(entry) == 0


def test_another_scene_under_this_name_is_refused(entry: SceneEntry, castle: Scene) -> None:
    write_scene(replace(castle, id="smoke.truck"), entry.origin(TINY), _folder())
    with pytest.raises(BadDataError, match=r"is smoke\.truck, expected smoke\.castle: run `evalsuite prepare smoke`"):
        entry.load(TINY)


def test_a_scene_says_which_files_it_was_read_from(entry: SceneEntry, castle: Scene) -> None:
    def gone() -> list[tuple[str, Path]]:
        raise catalogue.MissingDataError("not on this machine")

    source = entry.origin(TINY).source
    assert source
    assert entry.load(TINY).source == source == entry.source(TINY)
    assert replace(entry, files=gone).source(TINY) == source, "known from when it was prepared"
    Path("source.obj").write_text("v 1 1 1")
    assert entry.source(TINY) != source


def test_it_serves_where_the_publishers_files_are_not(entry: SceneEntry) -> None:
    def gone() -> list[tuple[str, Path]]:
        raise catalogue.MissingDataError("not on this machine")

    moved = replace(entry, files=gone)
    moved.load(TINY)
    assert _calls(moved) == 0


def test_another_source_another_protocol_and_other_code_are_generated(
    entry: SceneEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry.load(replace(TINY, rig=replace(TINY.rig, supersample=3)))
    assert _calls(entry) == 1
    with monkeypatch.context() as patch:
        patch.setattr(origin, "_code_hash", lambda: "f" * 12)
        entry.load(TINY)
    assert _calls(entry) == 2
    Path("source.obj").write_text("v 0 0 1")
    entry.load(TINY)
    assert _calls(entry) == 3


def test_a_folder_of_a_newer_version_is_passed_over(entry: SceneEntry) -> None:
    facts = json.loads((_folder() / "scene.json").read_text())
    (_folder() / "scene.json").write_text(json.dumps({**facts, "schema": origin.SCHEMA + 1}))
    entry.load(TINY)
    assert _calls(entry) == 1


def test_places_of_files_do_not_count_but_their_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("same")
    (tmp_path / "c").write_text("other")
    first = origin_of(TINY, [("x", tmp_path / "a")])
    assert first == origin_of(TINY, [("x", tmp_path / "b")])
    assert not first.matches(origin_of(TINY, [("y", tmp_path / "a")]))
    assert not first.matches(origin_of(TINY, [("x", tmp_path / "c")]))
    assert first.matches(origin_of(TINY, []))
    assert first.code != ""


def test_a_crash_leaves_what_was_there(castle: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scene(castle, ORIGIN, tmp_path / "a")
    monkeypatch.setattr(prepared, "file_hash", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_scene(castle, ORIGIN, tmp_path / "a")
    monkeypatch.undo()
    assert same(read_scene(tmp_path / "a"), castle)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_is_removed_when_nobody_can_be_at_it(castle: Scene, tmp_path: Path) -> None:
    left = {name: tmp_path / name for name in (".a.killed", ".a.at-work", ".b.killed")}
    for path in left.values():
        (path / "images").mkdir(parents=True)
    for name in (".a.killed", ".b.killed"):
        long_ago = left[name].stat().st_mtime - prepared._ABANDONED_SECONDS - 1
        os.utime(left[name], (long_ago, long_ago))
    write_scene(castle, ORIGIN, tmp_path / "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.at-work", ".b.killed", "a"]


def test_two_processes_that_write_at_once_leave_one_whole_scene(
    castle: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def raced(self: Path, target: Path) -> Path:
        if target == tmp_path / "a" and not target.exists():
            shutil.copytree(self, target)  # the other process was quicker
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", raced)
    write_scene(castle, ORIGIN, tmp_path / "a")
    assert same(read_scene(tmp_path / "a"), castle)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_every_registered_scene_can_name_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    assert {SCENES[name].origin(TINY).source for name in SCENES} == {""}
