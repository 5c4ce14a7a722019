"""Triangle meshes with one texture or vertex colours, read from OBJ (Fuel layout) and GLB."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from evalsuite.core.errors import BadDataError, MissingDataError, ShapeError
from evalsuite.scenes.colours import srgb_from_linear, times
from evalsuite.scenes.gltf import read_glb
from evalsuite.scenes.obj import read_obj
from evalsuite.scenes.parts import Part

_SPHERE_ITERATIONS = 256
_WHITE_TEXEL = np.full((1, 1, 3), 255, dtype=np.uint8)
_Y_UP_FROM_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class TexturedMesh:
    """Triangles with unlit albedo, sRGB: a texture (``uv`` and ``image``), colours at the vertices, or their product.

    Attributes:
        uv: texture coordinates, origin at the image's lower left corner (image row = (1 - v) * h), repeating.
        image: texture, 8-bit sRGB.
        vertex_rgb: colours in [0, 1], interpolated linearly over a triangle; they multiply a texture in linear light.
    """

    vertices: Float[np.ndarray, "P 3"]
    faces: Int[np.ndarray, "F 3"]
    uv: Float[np.ndarray, "P 2"] | None = None
    image: UInt8[np.ndarray, "h w 3"] | None = None
    vertex_rgb: Float[np.ndarray, "P 3"] | None = None

    def __post_init__(self) -> None:
        if (self.uv is None) != (self.image is None) or (self.uv is None and self.vertex_rgb is None):
            raise ShapeError("a mesh has uv and image, vertex_rgb, or all three; give uv and image together")
        for name in ("uv", "vertex_rgb"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.vertices):
                raise ShapeError(f"{name} has {len(values)} rows, vertices {len(self.vertices)}; expected the same")


def load_mesh(path: Path) -> TexturedMesh:
    """Read a mesh in its own axes and units.

    ``.obj``: see `evalsuite.scenes.obj`; ``.glb``: see `evalsuite.scenes.gltf`. Several materials become one atlas
    (`packed`); a material without texture becomes a flat colour. Colours at vertices come back as ``vertex_rgb``,
    rounded to 8 bits as textures are.

    Args:
        path: a ``.obj`` or ``.glb`` file.

    Raises:
        MissingDataError: the mesh or its texture is not there.
        BadDataError: a file is there but cannot be read, holds no triangles, or asks for what is not read here.
    """
    if not path.is_file():
        raise MissingDataError(f"no mesh at {path}; expected a .obj or .glb file: check the path, or unpack it there")
    kind = path.suffix.lower()
    if kind not in (".obj", ".glb"):
        step = "pack it into one .glb" if kind == ".gltf" else "export it as one of these"
        raise BadDataError(f"mesh {path} is a {kind or 'file without suffix'}; expected .obj or .glb: {step}")
    parts = [part for part in (read_obj(path) if kind == ".obj" else read_glb(path)) if len(part.faces)]
    if not parts:
        raise BadDataError(f"mesh {path} holds no triangles; expected at least one: export its surface")
    for part in parts:
        if not np.isfinite(part.vertices).all():
            raise BadDataError(f"mesh {path} holds NaN or infinite vertices; expected finite ones: export it again")
        if part.uv is not None and not np.isfinite(part.uv).all():
            raise BadDataError(
                f"mesh {path} holds NaN or infinite texture coordinates; expected finite ones: export it again"
            )
    meshes = [_coloured(part) for part in parts]
    return meshes[0] if len(meshes) == 1 else packed(meshes)


def packed(meshes: Sequence[TexturedMesh]) -> TexturedMesh:
    """Several meshes as one, their textures in one atlas without loss of resolution.

    The images are stacked, with a border of one repeated pixel; an image whose coordinates leave [0, 1] is tiled
    as often as they need. If any mesh has vertex colours, all get them: in place of textures if each texture is of one
    colour, else white where a mesh has none.
    """
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    faces = np.concatenate([mesh.faces + start for mesh, start in zip(meshes, first, strict=False)])
    rgb = None
    if any(mesh.vertex_rgb is not None for mesh in meshes):
        if all(mesh.image is None or _is_flat(mesh.image) for mesh in meshes):
            return TexturedMesh(vertices, faces, vertex_rgb=np.concatenate([_vertex_colours(mesh) for mesh in meshes]))
        rgb = np.concatenate([np.ones_like(m.vertices) if m.vertex_rgb is None else m.vertex_rgb for m in meshes])
    tiles = [_tiled(_with_texture(mesh)) for mesh in meshes]
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
    return TexturedMesh(vertices, faces, uv=np.concatenate(uv), image=atlas, vertex_rgb=rgb)


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


def _is_flat(image: UInt8[np.ndarray, "h w 3"]) -> bool:
    return bool((image == image[0, 0]).all())


def _vertex_colours(mesh: TexturedMesh) -> Float[np.ndarray, "P 3"]:
    """Colours at the vertices of a mesh that has them, or whose texture is of one colour."""
    if mesh.uv is None or mesh.image is None:
        assert mesh.vertex_rgb is not None
        return mesh.vertex_rgb
    texels = sample_texture(mesh.image, mesh.uv).astype(np.float64)
    return texels if mesh.vertex_rgb is None else times(texels, mesh.vertex_rgb)


def _with_texture(mesh: TexturedMesh) -> TexturedMesh:
    """The same with a white texel if it has no texture."""
    if mesh.image is not None:
        return mesh
    return replace(mesh, uv=np.full((len(mesh.vertices), 2), 0.5), image=_WHITE_TEXEL)


def _tiled(mesh: TexturedMesh) -> tuple[Float[np.ndarray, "P 2"], UInt8[np.ndarray, "h w 3"]]:
    """Coordinates in [0, 1] and an image repeated as often as the mesh's coordinates repeat it."""
    assert mesh.uv is not None
    assert mesh.image is not None
    low = np.floor(mesh.uv.min(axis=0) + 1e-6)
    count = np.maximum(np.ceil(mesh.uv.max(axis=0) - low - 1e-6), 1).astype(int)
    return (mesh.uv - low) / count, np.tile(mesh.image, (count[1], count[0], 1))


def _coloured(part: Part) -> TexturedMesh:
    """One part with the colours that its file gives it."""
    rgb = part.colours
    if rgb is not None:
        linear = rgb if part.image is not None else rgb * part.factor
        rgb = np.round(srgb_from_linear(linear) * 255) / 255
        if part.image is None:
            return TexturedMesh(part.vertices, part.faces, vertex_rgb=rgb)
    uv, image = (np.full((len(part.vertices), 2), 0.5), _WHITE_TEXEL) if part.image is None else (part.uv, part.image)
    if (part.factor < 1).any():
        image = np.round(times(image / 255, srgb_from_linear(part.factor)) * 255).astype(np.uint8)
    return TexturedMesh(part.vertices, part.faces, uv=uv, image=image, vertex_rgb=rgb)
