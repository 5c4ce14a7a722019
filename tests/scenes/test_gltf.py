"""GLB: colours are linear, coordinates and numbers as the file says, and what is not read is refused by name."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evalsuite.core.errors import BadDataError, MissingDataError
from evalsuite.core.types import Cameras
from evalsuite.scenes.meshes import TexturedMesh, load_mesh, sample_texture
from evalsuite.scenes.raytrace import render_mesh

QUAD = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
ORDER = np.array([0, 1, 2, 0, 2, 3], np.uint16)
TEXELS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [188, 188, 188]]], np.uint8)
GREY = np.full((4, 4), [0.21586, 0.21586, 0.21586, 1.0], np.float32)
"""sRGB 128."""

Tree = dict[str, Any]
Change = Callable[[Tree], Any]


def _image(pixels: np.ndarray = TEXELS, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


class _File:
    """A quad in one primitive, built attribute by attribute."""

    def __init__(self, uv: np.ndarray | None = UV, **attributes: np.ndarray) -> None:
        self.binary = b""
        self.tree: Tree = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}]}
        self.tree |= {"accessors": [], "bufferViews": []}
        given = {"POSITION": QUAD, **({} if uv is None else {"TEXCOORD_0": uv}), **attributes}
        used = {name: self.accessor(values) for name, values in given.items()}
        self.primitive: Tree = {"attributes": used, "indices": self.accessor(ORDER[:, None]), "material": 0}
        self.colour: Tree = {}
        self.tree |= {
            "meshes": [{"primitives": [self.primitive]}],
            "materials": [{"pbrMetallicRoughness": self.colour}],
        }

    def view(self, content: bytes) -> int:
        self.tree["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content)})
        self.binary += content + bytes(-len(content) % 4)
        return len(self.tree["bufferViews"]) - 1

    def accessor(self, values: np.ndarray) -> int:
        kinds = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
        shape = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}[values.shape[1]]
        facts = {"bufferView": self.view(values.tobytes()), "count": len(values), "type": shape}
        facts["componentType"] = kinds[values.dtype.str[1:]]
        if values.dtype.kind in "iu" and shape != "SCALAR":
            facts["normalized"] = True
        self.tree["accessors"].append(facts)
        return len(self.tree["accessors"]) - 1

    def textured(self, content: bytes | None = None, **reference: Any) -> _File:
        self.tree["images"] = [{"bufferView": self.view(content or _image()), "mimeType": "image/png"}]
        self.tree["textures"] = [{"source": 0}]
        self.colour["baseColorTexture"] = {"index": 0, **reference}
        return self

    def saved(self, folder: Path, change: Change | None = None) -> Path:
        self.tree["buffers"] = [{"byteLength": len(self.binary)}]
        if change is not None:
            change(self.tree)
        text = json.dumps(self.tree).encode()
        text += b" " * (-len(text) % 4)
        chunks = [(text, b"JSON"), (self.binary, b"BIN\0")]
        body = b"".join(struct.pack("<I4s", len(data), kind) + data for data, kind in chunks)
        path = folder / "a.glb"
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
        return path

    def load(self, folder: Path, change: Change | None = None) -> TexturedMesh:
        return load_mesh(self.saved(folder, change))


def _at_corners(mesh: TexturedMesh) -> list[list[int]]:
    """8-bit texture colours near the corners of the quad."""
    assert mesh.uv is not None
    assert mesh.image is not None
    inner = mesh.uv + 0.5 * (mesh.uv.mean(axis=0) - mesh.uv)
    return (sample_texture(mesh.image, inner) * 255).round().astype(int).tolist()


PLAIN = [[0, 0, 255], [188, 188, 188], [0, 255, 0], [255, 0, 0]]


@pytest.mark.parametrize("kind", [np.float32, np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("material", [True, False])
def test_colours_at_vertices_are_linear(kind: type, channels: int, material: bool, tmp_path: Path) -> None:
    scale = 1 if kind is np.float32 else np.iinfo(kind).max
    colours = np.round(GREY * scale, 0 if scale > 1 else 5)[:, :channels].astype(kind)
    file = _File(None, COLOR_0=colours)
    if not material:
        del file.primitive["material"]
    rgb = file.load(tmp_path).vertex_rgb
    assert rgb is not None
    np.testing.assert_allclose(rgb * 255, 128, atol=1e-9)


def test_factor_multiplies_colours_and_texture_in_linear_light(tmp_path: Path) -> None:
    file = _File(None, COLOR_0=GREY)
    file.colour["baseColorFactor"] = [0.5, 1, 1, 1]
    rgb = file.load(tmp_path).vertex_rgb
    assert rgb is not None
    np.testing.assert_allclose(rgb[0] * 255, [92, 128, 128], atol=1e-9)
    textured = _File().textured()
    textured.colour["baseColorFactor"] = [0.5, 1, 1, 1]
    found = textured.load(tmp_path).image
    assert found is not None
    assert found[1, 1].tolist() == [137, 188, 188]  # 188 is 0.503 of the light
    assert found[0, 0].tolist() == [188, 0, 0]


def test_colours_multiply_a_texture_to_the_last_pixel(tmp_path: Path) -> None:
    white = np.full((2, 2, 3), 188, np.uint8)
    mesh = _File(COLOR_0=GREY).textured(_image(white)).load(tmp_path)
    assert mesh.image is not None
    assert mesh.vertex_rgb is not None
    pose = np.diag([1.0, -1, -1, 1])
    pose[:3, 3] = [-0.5, 0.5, 1]
    cameras = Cameras(torch.from_numpy(pose[None]).float(), torch.full((1, 2), 8.0), torch.full((1, 2), 4.0), 8, 8)
    views, _ = render_mesh(mesh, cameras, 1)
    assert (views.rgb[0, 4, 4] * 255).round().tolist() == [93.0, 93.0, 93.0]  # 0.503 of 0.216


def test_the_set_of_coordinates_is_the_one_that_is_named(tmp_path: Path) -> None:
    mirrored = UV * [-1, 1] + np.array([1, 0])
    mesh = _File(TEXCOORD_1=mirrored.astype(np.float32)).textured(texCoord=1).load(tmp_path)
    assert _at_corners(mesh) == [PLAIN[k] for k in (1, 0, 3, 2)]
    with pytest.raises(BadDataError, match=r"no coordinates in it \(TEXCOORD_1\)"):
        _File().textured(texCoord=1).load(tmp_path)


TRANSFORMS: list[tuple[Tree, list[list[float]]]] = [
    ({"offset": [0.5, 0]}, [[0.5, 1], [1.5, 1], [1.5, 0], [0.5, 0]]),
    ({"scale": [2, 3]}, [[0, 3], [2, 3], [2, 0], [0, 0]]),
    # counter-clockwise in an image whose v runs downwards: (1, 0) goes to (0, -1)
    ({"rotation": np.pi / 2}, [[1, 0], [1, -1], [0, -1], [0, 0]]),
    (
        {"rotation": np.pi / 2, "scale": [2, 3], "offset": [0.1, 0.2]},
        [[3.1, 0.2], [3.1, -1.8], [0.1, -1.8], [0.1, 0.2]],
    ),
    ({"texCoord": 1}, [[0, 0.5], [0.5, 0.5], [0.5, 0], [0, 0]]),
]


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(("transform", "expected"), TRANSFORMS)
def test_texture_transforms_are_applied(
    transform: Tree, expected: list[list[float]], required: bool, tmp_path: Path
) -> None:
    file = _File(TEXCOORD_1=UV / 2).textured(extensions={"KHR_texture_transform": transform})
    if required:
        file.tree["extensionsRequired"] = ["KHR_texture_transform"]
    mesh = file.load(tmp_path)
    assert mesh.uv is not None
    np.testing.assert_allclose(mesh.uv, np.array(expected) * [1, -1] + [0, 1], atol=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_whole_numbers_are_shares_where_they_say_so(kind: type, tmp_path: Path) -> None:
    file = _File((UV * np.iinfo(kind).max).astype(kind)).textured()
    assert _at_corners(file.load(tmp_path)) == PLAIN
    quantised = _File(POSITION=(QUAD * 32767).astype(np.int16))
    quantised.tree["extensionsRequired"] = ["KHR_mesh_quantization"]
    quantised.tree["nodes"][0] |= {"scale": [2, 2, 2], "translation": [1, 0, 0]}
    np.testing.assert_allclose(quantised.load(tmp_path).vertices, QUAD * 2 + [1, 0, 0])


def test_sparse_and_interleaved_numbers_are_read(tmp_path: Path) -> None:
    file = _File()
    where, what = file.view(np.array([2], np.uint16).tobytes()), file.view(np.array([5, 6, 7], np.float32).tobytes())
    sparse = {"count": 1, "indices": {"bufferView": where, "componentType": 5123}, "values": {"bufferView": what}}
    file.tree["accessors"][0]["sparse"] = sparse
    mesh = file.load(tmp_path)
    np.testing.assert_array_equal(mesh.vertices, [*QUAD[:2], [5, 6, 7], QUAD[3]])
    file = _File()
    both = file.view(np.hstack([QUAD, UV]).astype(np.float32).tobytes())
    file.tree["bufferViews"][both]["byteStride"] = 20
    file.tree["accessors"][0]["bufferView"] = file.tree["accessors"][1]["bufferView"] = both
    file.tree["accessors"][1]["byteOffset"] = 12
    assert _at_corners(file.textured().load(tmp_path)) == PLAIN


@pytest.mark.parametrize(("mode", "order"), [(5, [0, 1, 3, 2]), (6, [0, 1, 2, 3]), (4, [0, 1, 2, 0, 2, 3])])
def test_strips_and_fans_are_triangles(mode: int, order: list[int], tmp_path: Path) -> None:
    file = _File()
    file.primitive |= {"mode": mode, "indices": file.accessor(np.array(order, np.uint16)[:, None])}
    mesh = file.load(tmp_path)
    corners = mesh.vertices[mesh.faces]
    turned = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_array_equal(turned, [[0, 0, 1], [0, 0, 1]])


def test_nodes_place_their_meshes(tmp_path: Path) -> None:
    file = _File()
    half = np.sqrt(0.5)
    file.tree["nodes"] = [
        {"children": [1, 2], "translation": [10, 0, 0]},
        {"mesh": 0, "rotation": [0, 0, half, half], "scale": [2, 1, 1]},
        {"mesh": 0, "matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 5, 1]},
    ]
    vertices = file.load(tmp_path).vertices
    np.testing.assert_allclose(vertices[1], [10, 2, 0], atol=1e-12)
    np.testing.assert_allclose(vertices[5], [11, 0, 5])


def test_other_sources_of_a_texture(tmp_path: Path) -> None:
    def webp(tree: Tree) -> None:
        tree["textures"][0] = {"extensions": {"EXT_texture_webp": {"source": 0}}}

    def outside(tree: Tree) -> None:
        tree["images"][0] = {"uri": "my%20tex.png"}

    def inline(tree: Tree) -> None:
        tree["images"][0] = {"uri": "data:image/png;base64," + base64.b64encode(_image()).decode()}

    def glossy(tree: Tree) -> None:
        material = {"diffuseTexture": {"index": 0}, "diffuseFactor": [1, 1, 1, 1]}
        tree["materials"][0] = {"extensions": {"KHR_materials_pbrSpecularGlossiness": material}}

    (tmp_path / "my tex.png").write_bytes(_image())
    for content, change in ((_image(kind="WEBP"), webp), (None, outside), (None, inline), (None, glossy)):
        assert _at_corners(_File().textured(content).load(tmp_path, change)) == PLAIN
    (tmp_path / "my tex.png").unlink()
    with pytest.raises(MissingDataError, match=r"no my%20tex\.png for mesh"):
        _File().textured().load(tmp_path, outside)


def _required(name: str) -> Change:
    return lambda tree: tree.update(extensionsRequired=[name])


def _only_ktx(tree: Tree) -> None:
    tree["textures"][0] = {"extensions": {"KHR_texture_basisu": {"source": 0}}}


def _squeezed(tree: Tree) -> None:
    tree["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0}}
    del tree["accessors"][0]["bufferView"]


def _node(**facts: Any) -> Change:
    return lambda tree: tree["nodes"][0].update(facts)


REFUSED: list[tuple[str, Change, str]] = [
    *[
        (name, _required(name), f"requires the extension {name}")
        for name in (
            "KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_texture_basisu", "MY_shape"
        )
    ],
    ("KTX2 without another source", _only_ktx, "requires the extension KHR_texture_basisu"),
    ("Draco, not declared", _squeezed, "requires the extension KHR_draco_mesh_compression"),
    (
        "meshopt, not declared",
        lambda t: t["bufferViews"][0].update(extensions={"EXT_meshopt_compression": {}}),
        "requires the extension EXT_meshopt_compression",
    ),
    ("instances", _node(extensions={"EXT_mesh_gpu_instancing": {}}), "EXT_mesh_gpu_instancing"),
    ("skin", _node(skin=0), "skinned"),
    ("morph", _node(weights=[0, 1]), "morph weights"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_not_read_is_refused_by_name(change: Change, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=message) as caught:
        _File().textured().load(tmp_path, change)
    assert "fetch" not in str(caught.value)


def test_optional_extensions_with_a_plain_form_are_read(tmp_path: Path) -> None:
    def optional(tree: Tree) -> None:
        tree["textures"][0]["extensions"] = {"KHR_texture_basisu": {"source": 7}}
        tree["materials"][0]["extensions"] = {"KHR_materials_unlit": {}}
        tree["extensionsRequired"] = ["KHR_materials_unlit"]

    assert _at_corners(_File().textured().load(tmp_path, optional)) == PLAIN


MALFORMED: list[Change] = [
    lambda tree: tree.update(nodes=[{"mesh": 3}]),
    lambda tree: tree["bufferViews"][0].update(byteLength=10**6),
    lambda tree: tree["accessors"][0].update(count=400),
    lambda tree: tree["nodes"][0].update(children=[0]),
    lambda tree: tree["images"].clear(),
    lambda tree: tree["meshes"][0]["primitives"][0]["attributes"].pop("POSITION"),
    lambda tree: tree["accessors"][0].update(componentType=1),
    lambda tree: tree.update(nodes={"a": 1}),
]


@pytest.mark.parametrize("change", MALFORMED)
def test_malformed_files_are_bad_data(change: Change, tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"cannot read mesh .*a\.glb"):
        _File().textured().load(tmp_path, change)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.1, 0.5, 0.99])
def test_cut_files_are_bad_data(kept: float, tmp_path: Path) -> None:
    path = _File().textured().saved(tmp_path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(BadDataError, match=r"cannot read mesh .*fetch it anew"):
        load_mesh(path)


def test_a_deep_or_float_texture_is_as_elsewhere(tmp_path: Path) -> None:
    deep = np.full((2, 2), 30146, np.uint16)
    image = _File().textured(_image(deep)).load(tmp_path).image
    assert image is not None
    assert (image == 117).all()
    with pytest.raises(BadDataError, match=r"texture 0 of .*a\.glb cannot be used \(TIFF of mode F"):
        _File().textured(_image(deep.astype(np.float32), "TIFF")).load(tmp_path)
