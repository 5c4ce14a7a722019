"""glTF 2.0 in its binary form (GLB): the triangles and base colours of a file, or a refusal that names what is missing.

trimesh reads GLB too, but ignores what a file *requires*, quantised and sparse numbers, texture transforms and further
sets of coordinates, and takes the linear colours at vertices for sRGB. What is applied here: the node hierarchy,
triangles, strips and fans, any component type, ``KHR_texture_transform``, ``KHR_mesh_quantization``, WebP and AVIF
textures, the diffuse colour of ``KHR_materials_pbrSpecularGlossiness``. What would change shape or colour and is not
read (compressed geometry, KTX2 textures without another source, skins, instances) is refused by name. Alpha is ignored:
every surface is opaque.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8
from scipy.spatial.transform import Rotation

from evalsuite.core.errors import BadDataError, MissingDataError
from evalsuite.scenes.parts import Part
from evalsuite.scenes.pixels import decode

_READ = {
    "KHR_texture_transform",
    "KHR_mesh_quantization",
    "KHR_materials_pbrSpecularGlossiness",
    "EXT_texture_webp",
    "EXT_texture_avif",
}
_HARMLESS = {"KHR_lights_punctual", "KHR_xmp_json_ld", "KHR_animation_pointer", "EXT_lights_image_based"}
"""Extensions that change neither shape nor base colour; so do all of `_HARMLESS_PREFIX`."""
_HARMLESS_PREFIX = "KHR_materials_"
_COMPRESSED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
_SPECULAR = "KHR_materials_pbrSpecularGlossiness"
_TRANSFORM = "KHR_texture_transform"
_TEXTURE_SOURCES = ("EXT_texture_webp", "EXT_texture_avif")

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6

Array = Shaped[np.ndarray, "P C"]
Tree = dict[str, Any]


def read_glb(path: Path) -> list[Part]:
    """All triangles that the file's scene shows.

    Raises:
        MissingDataError: an image or buffer beside the file is not there.
        BadDataError: the file is cut or malformed, or asks for something that is not read here.
    """
    try:
        return list(_Glb(path, *_chunks(path)).parts())
    except (LookupError, ValueError, TypeError, AttributeError, struct.error, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BadDataError(
            f"cannot read mesh {path} ({reason}); expected a whole GLB of glTF 2.0: fetch it anew, or export it again"
        ) from error


def _chunks(path: Path) -> tuple[Tree, bytes]:
    """The JSON and the binary chunk."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    if magic != b"glTF" or version != 2:
        raise ValueError(f"it begins {data[:8]!r}")
    if length > len(data):
        raise ValueError(f"{len(data)} bytes, its header says {length}")
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= length:
        size, kind = struct.unpack_from("<I4s", data, at)
        if at + 8 + size > length:
            raise ValueError(f"{length} bytes, a chunk ends at {at + 8 + size}")
        chunks.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size
    return json.loads(chunks[b"JSON"]), chunks.get(b"BIN\0", b"")


def _refusal(path: Path, found: str, step: str) -> BadDataError:
    return BadDataError(f"mesh {path} {found}; expected glTF's core, which is read here: {step}")


class _Glb:
    """A parsed file; its methods follow the indices from nodes down to bytes."""

    def __init__(self, path: Path, tree: Tree, binary: bytes) -> None:
        self.path, self.tree, self.binary = path, tree, binary
        for name in tree.get("extensionsRequired", []):
            if name not in _READ | _HARMLESS and not name.startswith(_HARMLESS_PREFIX):
                raise self._unread(name)

    def _unread(self, extension: str) -> BadDataError:
        return _refusal(self.path, f"requires the extension {extension}", "export it without that extension")

    def parts(self) -> Iterator[Part]:
        """Those of every node that the scene shows, or of every root where a file names no scene."""
        nodes = self.tree.get("nodes", [])
        if "scenes" in self.tree:
            roots = self.tree["scenes"][self.tree.get("scene", 0)].get("nodes", [])
        else:
            children = {child for node in nodes for child in node.get("children", [])}
            roots = [index for index in range(len(nodes)) if index not in children]
        for root in roots:
            yield from self._node(root, np.eye(4))

    def _node(self, index: int, parent: Float[np.ndarray, "4 4"]) -> Iterator[Part]:
        node = self.tree["nodes"][index]
        if "EXT_mesh_gpu_instancing" in node.get("extensions", {}):
            raise _refusal(self.path, "draws instances (EXT_mesh_gpu_instancing)", "export them as meshes")
        pose = parent @ _matrix(node)
        if "mesh" in node:
            if "skin" in node:
                raise _refusal(self.path, "holds a skinned mesh", "apply the armature, then export it")
            mesh = self.tree["meshes"][node["mesh"]]
            if any(node.get("weights", mesh.get("weights", []))):
                raise _refusal(self.path, "holds a mesh with morph weights", "apply the shape keys, then export it")
            for primitive in mesh["primitives"]:
                if primitive.get("mode", _TRIANGLES) in (_TRIANGLES, _STRIP, _FAN):  # points and lines have no surface
                    yield self._primitive(primitive, pose)
        for child in node.get("children", []):
            yield from self._node(child, pose)

    def _primitive(self, primitive: Tree, pose: Float[np.ndarray, "4 4"]) -> Part:
        attributes = primitive["attributes"]
        for name in _COMPRESSED:
            if name in primitive.get("extensions", {}) and not self._has_data(attributes["POSITION"]):
                raise self._unread(name)
        vertices = self._numbers(attributes["POSITION"], 3).astype(np.float64)
        if not np.array_equal(pose, np.eye(4)):
            vertices = vertices @ pose[:3, :3].T + pose[:3, 3]
        faces = self._faces(primitive, len(vertices))
        if np.linalg.det(pose[:3, :3]) < 0:
            faces = faces[:, ::-1]
        factor, texture = self._base_colour(primitive)
        image = None if texture is None else self._image(texture["index"])
        uv = None if texture is None else self._coordinates(texture, attributes)
        colours = None
        if "COLOR_0" in attributes:
            colours = self._numbers(attributes["COLOR_0"], 4)[:, :3].astype(np.float64).clip(0, 1)
        return Part(vertices, faces, uv, image, factor, colours)

    def _faces(self, primitive: Tree, count: int) -> Int[np.ndarray, "F 3"]:
        if "indices" in primitive:
            order = self._accessor(primitive["indices"])[:, 0].astype(np.int64)
        else:
            order = np.arange(count)
        if len(order) and order.max() >= count:
            raise ValueError(f"index {order.max()} of {count} vertices")
        mode = primitive.get("mode", _TRIANGLES)
        if mode == _TRIANGLES:
            return order.reshape(-1, 3)
        if mode == _FAN:
            return np.stack([np.full(max(len(order) - 2, 0), order[0]), order[1:-1], order[2:]], axis=1)
        strip = np.stack([order[:-2], order[1:-1], order[2:]], axis=1)
        strip[1::2] = strip[1::2, [1, 0, 2]]
        same = (strip == np.roll(strip, 1, axis=1)).any(axis=1)  # repeated corners join strips
        return strip[~same]

    def _base_colour(self, primitive: Tree) -> tuple[Float[np.ndarray, "3"], Tree | None]:
        """Linear factor and texture reference of the primitive's material; glTF's default material is white."""
        material = self.tree["materials"][primitive["material"]] if "material" in primitive else {}
        glossy = material.get("extensions", {}).get(_SPECULAR)
        if glossy is None:
            colour = material.get("pbrMetallicRoughness", {})
            factor, texture = colour.get("baseColorFactor"), colour.get("baseColorTexture")
        else:
            factor, texture = glossy.get("diffuseFactor"), glossy.get("diffuseTexture")
        linear = np.ones(3) if factor is None else np.array(factor[:3], dtype=np.float64).clip(0, 1)
        return linear, texture

    def _coordinates(self, texture: Tree, attributes: Tree) -> Float[np.ndarray, "P 2"]:
        """Texture coordinates as the texture is looked up, origin at the lower left corner."""
        transform = texture.get("extensions", {}).get(_TRANSFORM)
        number = (transform or {}).get("texCoord", texture.get("texCoord", 0))
        if f"TEXCOORD_{number}" not in attributes:
            raise BadDataError(
                f"mesh {self.path} has a texture but no coordinates in it (TEXCOORD_{number}); expected both: "
                "export it again"
            )
        uv = self._numbers(attributes[f"TEXCOORD_{number}"], 2)
        if transform is not None:
            # counter-clockwise as seen in an image whose v runs downwards
            cos, sin = math.cos(transform.get("rotation", 0.0)), math.sin(transform.get("rotation", 0.0))
            turn = np.array([[cos, sin], [-sin, cos]]) * transform.get("scale", [1.0, 1.0])
            uv = uv.astype(np.float64) @ turn.T + transform.get("offset", [0.0, 0.0])
        # one minus float32 is what prepared scenes count on
        return np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1).astype(np.float64)

    def _image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        texture = self.tree["textures"][index]
        extensions = texture.get("extensions", {})
        sources = [extensions[name]["source"] for name in _TEXTURE_SOURCES if name in extensions]
        if not sources and "source" not in texture:
            raise self._unread(next(iter(extensions))) if extensions else ValueError(f"texture {index} has no source")
        number = sources[0] if sources else texture["source"]
        image = self.tree["images"][number]
        content = self._view(image["bufferView"]) if "bufferView" in image else self._uri(image["uri"])
        return np.array(decode(content, f"texture {number} of {self.path}").convert("RGB"))

    def _numbers(self, index: int, width: int) -> Array:
        """An accessor as real numbers, integers scaled if it says so; absent columns are ones."""
        accessor = self.tree["accessors"][index]
        values = self._accessor(index)[:, :width]
        if accessor.get("normalized"):
            top = np.iinfo(values.dtype).max
            values = np.maximum(values / np.float64(top), -1).astype(np.float64)
        elif accessor["componentType"] != 5126 and width == 4:  # colours in whole numbers are always meant as shares
            values = values / np.float64(np.iinfo(values.dtype).max)
        return values

    def _has_data(self, index: int) -> bool:
        return not {"bufferView", "sparse"}.isdisjoint(self.tree["accessors"][index])

    def _accessor(self, index: int) -> Array:
        """Rows of an accessor as stored, its sparse part put in."""
        accessor = self.tree["accessors"][index]
        kind, width = np.dtype(_COMPONENTS[accessor["componentType"]]), _WIDTHS[accessor["type"]]
        count = accessor["count"]
        if "bufferView" in accessor:
            values = self._rows(accessor, kind, width, count)
        elif self._has_data(index):
            values = np.zeros((count, width), dtype=kind)
        else:
            raise ValueError(f"accessor {index} has no data")
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            index_kind = np.dtype(_COMPONENTS[sparse["indices"]["componentType"]])
            where = self._rows(sparse["indices"], index_kind, 1, sparse["count"])
            values = values.copy()
            values[where[:, 0]] = self._rows(sparse["values"], kind, width, sparse["count"])
        return values

    def _rows(self, place: Tree, kind: np.dtype[Any], width: int, count: int) -> Array:
        view = self.tree["bufferViews"][place["bufferView"]]
        row = kind.itemsize * width
        return np.ndarray(
            (count, width), kind, self._view(place["bufferView"]), place.get("byteOffset", 0),
            (view.get("byteStride", row), kind.itemsize),
        )  # fmt: skip

    def _view(self, index: int) -> bytes:
        view = self.tree["bufferViews"][index]
        for name in _COMPRESSED:
            if name in view.get("extensions", {}):
                raise self._unread(name)
        start, buffer = view.get("byteOffset", 0), self._buffers[view["buffer"]]
        if start + view["byteLength"] > len(buffer):
            raise ValueError(f"a view ends at byte {start + view['byteLength']} of {len(buffer)}")
        return buffer[start : start + view["byteLength"]]

    @cached_property
    def _buffers(self) -> list[bytes]:
        return [
            self._uri(buffer["uri"]) if "uri" in buffer else self.binary if index == 0 else b""
            for index, buffer in enumerate(self.tree["buffers"])
        ]

    def _uri(self, uri: str) -> bytes:
        if uri.startswith("data:"):
            return base64.b64decode(uri.partition(",")[2])
        file = self.path.parent / unquote(uri)
        if not file.is_file():
            raise MissingDataError(
                f"no {uri} for mesh {self.path}; expected it beside the mesh: unpack the whole model"
            )
        return file.read_bytes()


def _matrix(node: Tree) -> Float[np.ndarray, "4 4"]:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    pose = np.eye(4)
    turn = Rotation.from_quat(node.get("rotation", [0.0, 0.0, 0.0, 1.0])).as_matrix()
    pose[:3, :3] = turn * node.get("scale", [1.0, 1.0, 1.0])
    pose[:3, 3] = node.get("translation", [0.0, 0.0, 0.0])
    return pose
