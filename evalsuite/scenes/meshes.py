"""Triangle meshes with one texture or vertex colours, read from OBJ (Fuel layout) and GLB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8
from PIL import Image
from trimesh.visual.material import PBRMaterial

from evalsuite.core.errors import BadDataError, MissingDataError, ShapeError

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_TEXTURE_FOLDERS = (".", "../materials/textures", "../textures", "textures")
_SPHERE_ITERATIONS = 256
_Y_UP_FROM_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class TexturedMesh:
    """Triangles with unlit albedo, sRGB: a texture (``uv`` and ``image``) or colours at the vertices.

    Attributes:
        uv: texture coordinates, origin at the image's lower left corner (image row = (1 - v) * h), repeating.
        image: texture, 8-bit sRGB.
        vertex_rgb: colours in [0, 1], interpolated linearly over a triangle.
    """

    vertices: Float[np.ndarray, "P 3"]
    faces: Int[np.ndarray, "F 3"]
    uv: Float[np.ndarray, "P 2"] | None = None
    image: UInt8[np.ndarray, "h w 3"] | None = None
    vertex_rgb: Float[np.ndarray, "P 3"] | None = None

    def __post_init__(self) -> None:
        if (self.uv is None) != (self.image is None) or (self.uv is None) == (self.vertex_rgb is None):
            raise ShapeError("a mesh has either uv and image or vertex_rgb; give exactly one of the two")
        for name in ("uv", "vertex_rgb"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.vertices):
                raise ShapeError(f"{name} has {len(values)} rows, vertices {len(self.vertices)}; expected the same")


def load_mesh(path: Path) -> TexturedMesh:
    """Read a mesh in its own axes and units.

    ``.obj``: the texture is looked up by its name in the ``.mtl`` and, where that path is wrong or there is no
    ``.mtl``, by file name, as ``texture.png`` or as the only image beside the mesh and in ``../materials/textures``,
    ``../textures`` and ``textures`` (Gazebo Fuel: ``meshes/model.obj``, ``materials/textures/texture.png``).
    ``.glb``: the base colour texture inside the file. Several materials become one atlas (`packed`); a material
    without texture becomes a flat colour; a file with colours at its vertices comes back with ``vertex_rgb``,
    textures of its other parts sampled at their vertices.

    Args:
        path: a ``.obj`` or ``.glb`` file.

    Raises:
        MissingDataError: the mesh or its texture is not there.
        BadDataError: a file is there but cannot be read, or holds no triangles.
    """
    if not path.is_file():
        raise MissingDataError(f"no mesh at {path}; expected a .obj or .glb file: check the path, or unpack it there")
    try:
        loaded = trimesh.load_scene(path, process=False)
        parts = [part for part in loaded.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    except Exception as error:  # trimesh's readers raise whatever they stumble over
        raise BadDataError(
            f"cannot read mesh {path} ({error!r}); expected a whole OBJ or GLB: fetch it anew"
        ) from error
    if not parts:
        raise BadDataError(f"mesh {path} holds no triangles; expected at least one: fetch it anew")
    if not all(np.isfinite(part.vertices).all() for part in parts):
        raise BadDataError(f"mesh {path} holds NaN or infinite vertices; expected finite ones: fetch it anew")
    textures = _mtl_textures(path) if path.suffix.lower() == ".obj" else None
    meshes = [_coloured(part, path, textures) for part in parts]
    return meshes[0] if len(meshes) == 1 else packed(meshes)


def packed(meshes: Sequence[TexturedMesh]) -> TexturedMesh:
    """Several meshes as one, their textures in one atlas without loss of resolution.

    The images are stacked, with a border of one repeated pixel; an image whose coordinates leave [0, 1] is tiled
    as often as they need. If any mesh has vertex colours, all get them, sampled from the textures.
    """
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, first, strict=False)])
    if any(mesh.vertex_rgb is not None for mesh in meshes):
        return TexturedMesh(vertices, faces, vertex_rgb=np.concatenate([_vertex_colours(mesh) for mesh in meshes]))
    tiles = [_tiled(mesh) for mesh in meshes]
    corners, height, width = _shelves([(image.shape[0] + 2, image.shape[1] + 2) for _, image in tiles])
    atlas = np.zeros((height, width, 3), dtype=np.uint8)
    uv = []
    for (top, left), (coordinates, image) in zip(corners, tiles, strict=True):
        h, w = image.shape[:2]
        rows, columns = (np.clip(np.arange(-1, size + 1), 0, size - 1) for size in (h, w))
        atlas[top : top + h + 2, left : left + w + 2] = image[rows[:, None], columns]
        # v grows upwards from the atlas's last row
        origin = np.array([left + 1, height - (top + 1 + h)])
        uv.append((origin + coordinates * (w, h)) / (width, height))
    return TexturedMesh(vertices, faces, uv=np.concatenate(uv), image=atlas)


def sample_texture(image: UInt8[np.ndarray, "h w 3"], uv: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P 3"]:
    """Bilinear look-up in a repeating texture: sRGB in [0, 1], float32; pixel centres at +0.5."""
    height, width = image.shape[:2]
    texels = image.reshape(-1, 3)
    x = uv[:, 0].astype(np.float32) * width - np.float32(0.5)
    y = (1 - uv[:, 1].astype(np.float32)) * height - np.float32(0.5)
    left, top = np.floor(x), np.floor(y)
    columns = [(left.astype(np.int32) + k) % width for k in (0, 1)]
    rows = [(top.astype(np.int32) + k) % height * width for k in (0, 1)]
    fx, fy = x - left, y - top
    colours = np.zeros((len(uv), 3), dtype=np.float32)
    for row, wy in zip(rows, (1 - fy, fy), strict=True):
        for column, wx in zip(columns, (1 - fx, fx), strict=True):
            colours += texels.take(row + column, axis=0) * (wx * wy)[:, None]
    return colours / np.float32(255)


def normalised(mesh: TexturedMesh, radius: float, z_up: bool = False) -> TexturedMesh:
    """The mesh scaled and shifted into the sphere of ``radius`` round the origin, y up.

    The centre is that of the smallest enclosing sphere, to about 1 % of its radius; the farthest vertex lies at
    ``radius`` exactly.

    Args:
        mesh: any mesh; vertices that no triangle uses are dropped.
        radius: world units, > 0.
        z_up: the mesh has z up; it is turned to y up (x stays).

    Raises:
        BadDataError: all vertices coincide.
    """
    used = np.unique(mesh.faces)
    number = np.zeros(len(mesh.vertices), dtype=np.int64)
    number[used] = np.arange(len(used))
    vertices = np.asarray(mesh.vertices, dtype=np.float64)[used]
    if z_up:
        vertices = vertices @ _Y_UP_FROM_Z_UP.T
    vertices = vertices - _sphere_centre(vertices)
    reach = np.linalg.norm(vertices, axis=1).max()
    if reach == 0:
        raise BadDataError("all vertices of the mesh coincide; expected a surface: check the mesh file")
    return replace(
        mesh,
        vertices=vertices * (radius / reach),
        faces=number[mesh.faces],
        uv=None if mesh.uv is None else mesh.uv[used],
        vertex_rgb=None if mesh.vertex_rgb is None else mesh.vertex_rgb[used],
    )


def _sphere_centre(vertices: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, "3"]:
    """Centre of the smallest enclosing sphere (Badoiu and Clarkson 2003, "Smaller core-sets for balls")."""
    centre: Float[np.ndarray, "3"] = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    for k in range(1, _SPHERE_ITERATIONS + 1):
        offset = vertices - centre
        centre = centre + offset[np.einsum("ij,ij->i", offset, offset).argmax()] / (k + 1)
    return centre


def _shelves(sizes: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], int, int]:
    """Row and column of each (height, width) in a roughly square sheet, tallest first; the sheet's height and width."""
    width = max(max(w for _, w in sizes), math.isqrt(sum(h * w for h, w in sizes)))
    corners = [(0, 0)] * len(sizes)
    top = left = shelf = 0
    for k in sorted(range(len(sizes)), key=lambda k: sizes[k], reverse=True):
        h, w = sizes[k]
        if left + w > width:
            top, left, shelf = top + shelf, 0, 0
        corners[k] = (top, left)
        left, shelf = left + w, max(shelf, h)
    return corners, top + shelf, width


def _vertex_colours(mesh: TexturedMesh) -> Float[np.ndarray, "P 3"]:
    if mesh.uv is None or mesh.image is None:
        assert mesh.vertex_rgb is not None
        return mesh.vertex_rgb
    return sample_texture(mesh.image, mesh.uv).astype(np.float64)


def _tiled(mesh: TexturedMesh) -> tuple[Float[np.ndarray, "P 2"], UInt8[np.ndarray, "h w 3"]]:
    """Coordinates in [0, 1] and an image repeated as often as the mesh's coordinates repeat it."""
    assert mesh.uv is not None
    assert mesh.image is not None
    low = np.floor(mesh.uv.min(axis=0) + 1e-6)
    count = np.maximum(np.ceil(mesh.uv.max(axis=0) - low - 1e-6), 1).astype(int)
    return (mesh.uv - low) / count, np.tile(mesh.image, (count[1], count[0], 1))


def _coloured(part: trimesh.Trimesh, path: Path, textures: dict[str, str] | None) -> TexturedMesh:
    """One part with the colours its file gives it; ``textures`` are those an OBJ's .mtl names."""
    visual: Any = part.visual
    vertices, faces = np.asarray(part.vertices), np.asarray(part.faces)
    if visual.kind in ("vertex", "face"):
        return TexturedMesh(vertices, faces, vertex_rgb=np.asarray(visual.vertex_colors)[:, :3] / 255)
    material, uv = getattr(visual, "material", None), getattr(visual, "uv", None)
    tint = np.ones(3)
    if material is None and path.suffix.lower() != ".obj":
        image = None  # glTF's default material is white
    elif isinstance(material, PBRMaterial):
        image = None if material.baseColorTexture is None else _pixels(material.baseColorTexture, path)
        if material.baseColorFactor is not None:
            tint = _srgb_from_linear(np.asarray(material.baseColorFactor[:3]) / 255)
    else:
        image = _obj_texture(path, getattr(material, "name", None), textures)
        if image is None and material is not None:
            tint = np.asarray(material.diffuse[:3]) / 255
    if uv is None and image is not None:
        raise BadDataError(f"mesh {path} has a texture but no coordinates in it; expected both: export it again")
    if uv is None or image is None:
        uv, image = np.full((len(vertices), 2), 0.5), np.full((1, 1, 3), 255, dtype=np.uint8)
    if (tint < 1).any():
        image = np.round(image * tint).astype(np.uint8)
    return TexturedMesh(vertices, faces, uv=np.asarray(uv, dtype=np.float64), image=image)


def _srgb_from_linear(linear: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """IEC 61966-2-1; glTF's colour factors are linear."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _pixels(source: Image.Image | Path, path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Decoded 8-bit sRGB of an image file, or of an image inside the file ``path``."""
    try:
        if isinstance(source, Image.Image):
            return np.array(source.convert("RGB"))
        with Image.open(source) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError on a broken PNG
        raise BadDataError(
            f"cannot decode texture {path} ({error}); expected a whole PNG or JPEG: fetch it anew"
        ) from error


def _mtl_textures(path: Path) -> dict[str, str] | None:
    """Material name to texture name ("" for none) as the OBJ's .mtl says; None if there is no .mtl."""
    with path.open(errors="replace") as lines:
        named = next((line.split(maxsplit=1)[1].strip() for line in lines if line.startswith("mtllib ")), None)
    if named is None or not (path.parent / named).is_file():
        return None
    textures, material = {}, ""
    for line in (path.parent / named).read_text(errors="replace").splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "newmtl":
            material = value.strip()
            textures[material] = ""
        elif key == "map_Kd":
            textures[material] = value.strip()
    return textures


def _obj_texture(
    path: Path, material: str | None, textures: dict[str, str] | None
) -> UInt8[np.ndarray, "h w 3"] | None:
    """Texture of an OBJ's material, None if its .mtl says that it has none."""
    named = None if textures is None else textures.get(material or "", "")
    if named == "":
        return None
    folders = [path.parent / folder for folder in _TEXTURE_FOLDERS]
    # a Windows exporter's path is cut to its file name too
    names = ["texture.png"] if named is None else [named, named.replace("\\", "/").rsplit("/", 1)[-1]]
    found = [folder / name for name in names for folder in folders if (folder / name).is_file()]
    for folder in folders:
        images = [file for file in sorted(folder.glob("*")) if file.suffix.lower() in _IMAGE_SUFFIXES]
        found += images if len(images) == 1 else []
    if not found:
        raise MissingDataError(
            f"no texture {names[-1]} for mesh {path}; expected it in ../materials/textures or beside the mesh: "
            "unpack the whole model folder"
        )
    return _pixels(found[0], found[0])
