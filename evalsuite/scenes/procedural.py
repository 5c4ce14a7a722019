"""Textured objects made from code and seeds: the embedded suite's scenes and an endless supply for training.

Every surface is a set of *patches*, grids of points whose columns run to the right and whose rows run upwards as
seen from outside. Colour is a function of space or of the patch's own metric coordinates, evaluated at the texels
of an atlas, so that it is neither stretched nor, for solid patterns, broken at the edges of patches.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates
from scipy.spatial import cKDTree

from evalsuite.core.cases import Stratum
from evalsuite.core.errors import UnknownNameError
from evalsuite.core.protocol import OBJECT_RADIUS
from evalsuite.scenes.meshes import TexturedMesh, normalised, packed

KINDS: dict[str, Stratum] = {
    "chair": "thin",
    "wheel": "thin",
    "castle": "blocky",
    "truck": "blocky",
    "blob": "organic",
    "creature": "organic",
}
"""Kinds of procedural objects, each with the stratum its scenes belong to."""

_KIND_TEXELS = 260.0
_RANDOM_TEXELS = 140.0
_LATTICE = 16

T = TypeVar("T")
Grid = Float[np.ndarray, "_ _ 3"]
Xyz = Float[np.ndarray, "P 3"]
Colour = Float[np.ndarray, "3"]
Colours = Float[np.ndarray, "C 3"]
Vector = Sequence[float | int] | Float[np.ndarray, "_"]
Path = Sequence[Vector] | Float[np.ndarray, "_ 3"]
Pattern = Callable[[Xyz], Xyz]
Maker = Callable[[np.random.Generator, Colours, float], Pattern]
Space = Literal["solid", "surface"]


@dataclass(frozen=True)
class Part:
    """Patches painted with one pattern, which reads positions (``solid``) or patch coordinates (``surface``)."""

    patches: tuple[Grid, ...]
    pattern: Pattern
    space: Space = "solid"


def procedural_mesh(kind: str, seed: int) -> TexturedMesh:
    """An object of one of `KINDS`; the same kind and seed give the same bits.

    Args:
        kind: key of `KINDS`.
        seed: >= 0; varies proportions, colours and textures.

    Returns:
        Mesh in the sphere of radius `OBJECT_RADIUS` round the origin, y up, front towards +z.

    Raises:
        UnknownNameError: no such kind.
    """
    if kind not in _BUILDERS:
        raise UnknownNameError("procedural kind", kind, KINDS)
    rng = np.random.default_rng([list(KINDS).index(kind), seed])
    return _assembled(_BUILDERS[kind](rng), _KIND_TEXELS)


def random_mesh(seed: int) -> TexturedMesh:
    """An object for training: one of `KINDS`, or a composite of random primitives with random textures.

    Disjoint from `procedural_mesh`: the two draw from different random streams.

    Args:
        seed: >= 0.

    Returns:
        Mesh in the sphere of radius `OBJECT_RADIUS` round the origin.
    """
    rng = np.random.default_rng([len(KINDS), seed])
    builders = list(_BUILDERS.values()) if rng.random() < 0.25 else _COMPOSITIONS
    parts = _one_of(rng, builders)(rng)
    turn = _random_rotation(rng) if rng.random() < 0.4 else _rotation("y", rng.uniform(0, 2 * math.pi))
    if rng.random() < 0.4:
        turn = turn @ np.diag(rng.uniform(0.5, 1.0, 3))
    return _assembled([_moved(part, turn) for part in parts], _RANDOM_TEXELS)


def _one_of(rng: np.random.Generator, items: Sequence[T]) -> T:
    """A random item."""
    return items[int(rng.integers(len(items)))]


# --- patches -----------------------------------------------------------------------------------------------------


def _assembled(parts: Sequence[Part], texels_per_unit: float) -> TexturedMesh:
    """Parts baked into one mesh with one atlas; the density counts in units of the normalised object."""
    points = np.concatenate([grid.reshape(-1, 3) for part in parts for grid in part.patches])
    reach = np.linalg.norm(points - (points.min(axis=0) + points.max(axis=0)) / 2, axis=1).max()
    density = texels_per_unit * OBJECT_RADIUS / reach
    return normalised(packed([tile for part in parts for tile in _baked(part, density)]), OBJECT_RADIUS)


def _baked(part: Part, density: float) -> list[TexturedMesh]:
    """A part's patches, each with its own image; the pattern is evaluated once for all of them."""
    sizes = [_extent(grid) for grid in part.patches]
    shapes = [tuple(int(np.clip(math.ceil(side * density), 2, 320)) for side in size) for size in sizes]
    where = [
        _texels(grid, shape) if part.space == "solid" else _surface_coordinates(size, shape, k)
        for k, (grid, size, shape) in enumerate(zip(part.patches, sizes, shapes, strict=True))
    ]
    colours = np.clip(np.round(part.pattern(np.concatenate(where)) * 255), 0, 255).astype(np.uint8)
    ends = np.cumsum([len(points) for points in where])
    images = [flat.reshape(*shape, 3)[::-1] for flat, shape in zip(np.split(colours, ends[:-1]), shapes, strict=True)]
    return [_tile(grid, image) for grid, image in zip(part.patches, images, strict=True)]


def _extent(grid: Grid) -> tuple[float, float]:
    """Greatest length of a patch along its columns' and its rows' direction (height, width)."""
    up = np.linalg.norm(np.diff(grid, axis=0), axis=2).sum(axis=0).max()
    right = np.linalg.norm(np.diff(grid, axis=1), axis=2).sum(axis=1).max()
    return float(up), float(right)


def _texels(grid: Grid, shape: tuple[int, ...]) -> Xyz:
    """Positions of texel centres, bottom row first."""
    up, right = (_interpolation(n, m) for n, m in zip(shape, grid.shape[:2], strict=True))
    points: Xyz = np.einsum("ai,ijc,bj->abc", up, grid, right, optimize=True).reshape(-1, 3)
    return points


def _interpolation(texels: int, points: int) -> Float[np.ndarray, "texels points"]:
    """Matrix of linear interpolation from grid points to texel centres."""
    at = (np.arange(texels) + 0.5) / texels * (points - 1)
    left = np.minimum(at.astype(int), points - 2)
    weights = np.zeros((texels, points))
    weights[np.arange(texels), left] = 1 - (at - left)
    weights[np.arange(texels), left + 1] = at - left
    return weights


def _surface_coordinates(size: tuple[float, float], shape: tuple[int, ...], number: int) -> Xyz:
    """Metric (right, up, patch number) of texel centres, bottom row first, from the patch's centre."""
    up, right = (((np.arange(n) + 0.5) / n - 0.5) * side for n, side in zip(shape, size, strict=True))
    v, u = np.meshgrid(up, right, indexing="ij")
    return np.stack([u.ravel(), v.ravel(), np.full(u.size, 0.37 * number)], axis=1)


def _tile(grid: Grid, image: np.ndarray) -> TexturedMesh:
    """One patch as triangles, counter-clockwise from outside."""
    rows, columns = grid.shape[:2]
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    lower = np.stack([corner, corner + 1, corner + columns + 1], axis=1)
    upper = np.stack([corner, corner + columns + 1, corner + columns], axis=1)
    uv = np.stack([u.ravel(), v.ravel()], axis=1)
    return TexturedMesh(grid.reshape(-1, 3), np.concatenate([lower, upper]), uv=uv, image=image)


def _moved(part: Part, linear: np.ndarray, offset: Vector = (0.0, 0.0, 0.0)) -> Part:
    """A part under ``linear`` (positive determinant) and a shift; its solid pattern is carried along."""
    patches = tuple(grid @ linear.T + np.asarray(offset) for grid in part.patches)
    if part.space == "surface":
        return Part(patches, part.pattern, part.space)
    inverse, pattern = np.linalg.inv(linear), part.pattern
    return Part(patches, lambda p: pattern((p - np.asarray(offset)) @ inverse.T))


def _placed(patches: Sequence[Grid], offset: Vector, linear: np.ndarray | None = None) -> tuple[Grid, ...]:
    """Patches turned by ``linear``, then shifted."""
    linear = np.eye(3) if linear is None else linear
    return tuple(grid @ linear.T + np.asarray(offset, dtype=np.float64) for grid in patches)


def _rotation(axis: str, angle_rad: float) -> np.ndarray:
    """Right-handed rotation about a coordinate axis."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniform over all rotations: QR of a Gaussian matrix."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation: np.ndarray = q * np.sign(np.diag(r))
    return rotation if np.linalg.det(rotation) > 0 else -rotation


def _box(size: Vector, centre: Vector = (0.0, 0.0, 0.0)) -> tuple[Grid, ...]:
    """Six faces: front (+z), right (+x), back, left, top, bottom."""
    half = np.asarray(size, dtype=np.float64) / 2
    square = np.array([[[-1, -1, 1], [1, -1, 1]], [[-1, 1, 1], [1, 1, 1]]], dtype=np.float64)
    turns = [_rotation("y", k * math.pi / 2) for k in range(4)]
    turns += [_rotation("x", -math.pi / 2), _rotation("x", math.pi / 2)]
    return tuple(square @ turn.T * half + np.asarray(centre) for turn in turns)


def _revolved(profile: Sequence[Vector], segments: int = 32) -> tuple[Grid, ...]:
    """Surface of revolution about y of (radius, height) points, from bottom to top as seen from outside."""
    r, y = np.asarray(profile, dtype=np.float64).T
    a = np.linspace(-math.pi, math.pi, segments + 1)
    grid = np.stack(np.broadcast_arrays(np.outer(r, np.sin(a)), y[:, None], np.outer(r, np.cos(a))), axis=-1)
    return (grid,)


def _cylinder(radius: float, height: float, top: float | None = None) -> tuple[Grid, ...]:
    """Closed cylinder about y (a frustum if ``top`` differs), centred; side, bottom, top."""
    top = radius if top is None else top
    h = height / 2
    rings = [[(radius, -h), (top, h)], [(0.0, -h), (radius, -h)], [(top, h), (0.0, h)]]
    return tuple(patch for ring in rings for patch in _revolved(ring))


def _torus(ring: float, tube: float, squash: float = 1.0) -> tuple[Grid, ...]:
    """Torus about y; ``squash`` is the tube's height over its width."""
    t = np.linspace(-math.pi, math.pi, 17)
    return _revolved([(ring + tube * math.cos(a), tube * squash * math.sin(a)) for a in t], 48)


def _tube(path: Path, radius: Vector | float, sides: int = 12) -> tuple[Grid, ...]:
    """Round tube along a path, ends closed."""
    line = np.asarray(path, dtype=np.float64)
    tangent = np.gradient(line, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    across = np.zeros_like(line)
    hint = np.eye(3)[np.abs(tangent[0]).argmin()]
    for k, t in enumerate(tangent):
        hint = hint - t * (hint @ t)
        hint = across[k] = hint / np.linalg.norm(hint)
    r = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(line),))
    line = np.concatenate([line[:1], line, line[-1:]])
    across, tangent = (np.concatenate([x[:1], x, x[-1:]]) for x in (across, tangent))
    r = np.concatenate([[0.0], r, [0.0]])
    a = np.linspace(0, 2 * math.pi, sides + 1)[None, :, None]
    ring = np.cos(a) * across[:, None] + np.sin(a) * np.cross(tangent, across)[:, None]
    return (line[:, None] + r[:, None, None] * ring,)


def _ball(radii: Vector, rows: int = 12) -> tuple[Grid, ...]:
    """Ellipsoid as a cube blown up to a sphere: six patches without poles."""
    t = np.tan(np.linspace(-math.pi / 4, math.pi / 4, rows + 1))
    v, u = np.meshgrid(t, t, indexing="ij")
    face = np.stack([u, v, np.ones_like(u)], axis=-1)
    face /= np.linalg.norm(face, axis=-1, keepdims=True)
    turns = [_rotation("y", k * math.pi / 2) for k in range(4)]
    turns += [_rotation("x", -math.pi / 2), _rotation("x", math.pi / 2)]
    return tuple(face @ turn.T * np.asarray(radii) for turn in turns)


def _superellipsoid(radii: Vector, roundness: float) -> tuple[Grid, ...]:
    """Ellipsoid whose section is a superellipse: 2 is round, large is a box, 1 an octahedron."""
    unit = _ball((1.0, 1.0, 1.0), 16)
    return tuple(
        grid / (np.abs(grid) ** roundness).sum(axis=-1, keepdims=True) ** (1 / roundness) * np.asarray(radii)
        for grid in unit
    )


def _extruded(outline: Float[np.ndarray, "K 2"], depth: float) -> tuple[Grid, ...]:
    """Prism over a star-shaped, counter-clockwise outline in x, y, about the origin, along z."""
    ring = np.concatenate([outline, outline[:1]])
    front = np.column_stack([ring, np.full(len(ring), depth / 2)])
    back = front * (1, 1, -1)
    middle = front * (0, 0, 1)
    # rows of the caps run along the radius, "up" being to the left of the outline's direction
    return np.stack([back, front]), np.stack([front, middle]), np.stack([-middle, back])


# --- colour ------------------------------------------------------------------------------------------------------


def _palette(rng: np.random.Generator, count: int = 4) -> Colours:
    """Colours that go together: a base hue, neighbours, a contrast, and lightness from dark to pale."""
    base = rng.random()
    vivid = rng.uniform(0.15, 1.0)
    shifts = rng.choice([0.0, 0.04, -0.06, 0.12, 0.33, 0.5, 0.62], size=count)
    values = rng.permutation(np.linspace(rng.uniform(0.12, 0.5), rng.uniform(0.75, 1.0), count))
    colours = [
        colorsys.hsv_to_rgb((base + shift) % 1, float(np.clip(vivid * rng.uniform(0.4, 1.2), 0, 1)), value)
        for shift, value in zip(shifts, values, strict=True)
    ]
    # the first colour is the ground of most patterns: seldom near black
    if values[0] < 0.4 and rng.random() < 0.7:
        colours[0], colours[values.argmax()] = colours[values.argmax()], colours[0]
    if rng.random() < 0.4:
        colours[rng.integers(1, count)] = (rng.choice([0.06, 0.5, 0.93]),) * 3
    return np.array(colours)


def _noise(rng: np.random.Generator, octaves: int = 4) -> Callable[[Xyz], Float[np.ndarray, "P"]]:
    """Value noise in [0, 1], mean about 0.5: octaves of halving amplitude; features of about one unit."""
    lattice = rng.random((_LATTICE,) * 3)
    shifts = rng.uniform(0, _LATTICE, (octaves, 3))

    def noise(p: Xyz) -> Float[np.ndarray, "P"]:
        total = np.zeros(len(p))
        for k in range(octaves):
            q = p * 2.0**k + shifts[k]
            cell = np.floor(q)
            f = q - cell
            q = cell + f * f * (3 - 2 * f)
            total += 0.5**k * map_coordinates(lattice, q.T, order=1, mode="grid-wrap")
        amplitude = 2 - 0.5 ** (octaves - 1)
        return np.clip(0.5 + (total / amplitude - 0.5) * 1.6, 0, 1)

    return noise


def _ramp(colours: Colours, t: Float[np.ndarray, "P"]) -> Xyz:
    """Piecewise linear through the colours, t in [0, 1]."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(t, stops, colours[:, c]) for c in range(3)], axis=1)


def _hashed(cell: Float[np.ndarray, "P 3"], salt: int) -> Float[np.ndarray, "P"]:
    """A number in [0, 1) for each integer cell."""
    i = cell.astype(np.int64)
    h = (i[:, 0] * 73856093) ^ (i[:, 1] * 19349663) ^ (i[:, 2] * 83492791) ^ (salt * 2654435761)
    h = (h ^ (h >> 13)) * 1274126177
    return ((h ^ (h >> 16)) & 0xFFFF) / 65536.0


def _flat(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    return lambda p: np.broadcast_to(colours[0], p.shape)


def _marble(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    noise = _noise(rng, 5)
    return lambda p: _ramp(colours, noise(p * scale / 4))


def _camouflage(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    noise = _noise(rng, 3)
    return lambda p: colours[np.minimum((noise(p * scale / 3) * len(colours)).astype(int), len(colours) - 1)]


def _stripes(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    noise = _noise(rng, 2)
    axis = np.eye(3)[rng.integers(2)] if rng.random() < 0.6 else rng.normal(size=3)
    axis = axis / np.linalg.norm(axis)
    wobble = rng.choice([0.0, 0.3, 1.5])
    count = int(rng.integers(2, len(colours) + 1))

    def stripes(p: Xyz) -> Xyz:
        band = np.floor(p @ axis * scale + wobble * noise(p * scale / 2)).astype(int) % count
        painted: Xyz = colours[band]
        return painted

    return stripes


def _checks(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    shift = rng.uniform(0, 1, 3)
    return lambda p: colours[np.floor(p * scale * 0.8 + shift).astype(int).sum(axis=1) % 2]


def _dots(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    size, salt = rng.uniform(0.25, 0.48), int(rng.integers(1 << 16))
    ink = colours[1:]

    def dots(p: Xyz) -> Xyz:
        q = p * scale * 0.8
        cell = np.floor(q)
        inside = np.linalg.norm(q - cell - 0.5, axis=1) < size
        chosen = ink[(_hashed(cell, salt) * len(ink)).astype(int)]
        painted: Xyz = np.where(inside[:, None], chosen, colours[0])
        return painted

    return dots


def _bricks(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    aspect, gap, salt = rng.uniform(1.2, 3.5), rng.uniform(0.05, 0.14), int(rng.integers(1 << 16))

    def bricks(p: Xyz) -> Xyz:
        # the third coordinate joins the first, so that side walls of solids have courses as well
        v = p[:, 1] * scale
        row = np.floor(v)
        u = (p[:, 0] + p[:, 2]) * scale / aspect + 0.5 * (row % 2)
        column = np.floor(u)
        joint = (v - row < gap) | (u - column < gap / aspect)
        shade = 0.75 + 0.35 * _hashed(np.stack([row, column, row], axis=1), salt)
        painted: Xyz = np.where(joint[:, None], colours[1], colours[0] * shade[:, None])
        return painted

    return bricks


def _wood(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    noise, axis = _noise(rng, 4), int(rng.integers(3))
    stretch = np.full(3, 1.0)
    stretch[axis] = 0.12
    offset = rng.normal(size=3)

    def wood(p: Xyz) -> Xyz:
        q = (p + offset) * stretch
        rings = np.linalg.norm(q, axis=1) * scale * 1.5 + 3 * noise(q * scale / 3)
        grain = 0.5 + 0.5 * np.sin(2 * math.pi * rings)
        painted: Xyz = colours[0] + (colours[1] - colours[0]) * (grain**3)[:, None]
        return painted

    return wood


def _plaid(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    widths = rng.uniform(0.15, 0.6, len(colours))

    def plaid(p: Xyz) -> Xyz:
        result = np.broadcast_to(colours[0], p.shape)
        for k in range(1, len(colours)):
            threads = (p * scale / (k + 0.5) % 1 < widths[k]).mean(axis=1, keepdims=True)
            result = result + (colours[k] - result) * 0.7 * threads
        return result

    return plaid


def _cells(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    seeds = rng.uniform(-1.3, 1.3, (int(np.clip(6 * scale**1.5, 20, 400)), 3))
    tree, edge = cKDTree(seeds), rng.uniform(0.1, 0.3) / scale
    chosen = rng.integers(1, len(colours), len(seeds))

    def cells(p: Xyz) -> Xyz:
        distance, index = tree.query(p, k=2)
        border = distance[:, 1] - distance[:, 0] < edge
        painted: Xyz = np.where(border[:, None], colours[0], colours[chosen[index[:, 0]]])
        return painted

    return cells


def _glyphs(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Rows of words in letter-like bitmaps, over paper with coloured lines; ink contrasts with the paper."""
    letters = np.zeros((24, 9, 7), dtype=bool)
    strokes = rng.random((24, 7, 3)) < 0.5
    letters[:, 1:8, 1:6] = np.concatenate([strokes, strokes[:, :, 1::-1]], axis=2)
    letters[:, 1:8, 1] = True
    letters[::5] = False
    lightness = colours.mean(axis=1)
    ink_rgb = colours[np.abs(lightness - lightness[0]).argmax()]
    salt, lines = int(rng.integers(1 << 16)), int(rng.integers(2, 5))

    def glyphs(p: Xyz) -> Xyz:
        q = p * (scale / 1.4, scale / 1.8, 1.0)
        cell = np.floor(q)
        fraction = q - cell
        letter = (_hashed(cell, salt) * len(letters)).astype(int)
        row = np.minimum(((1 - fraction[:, 1]) * 9).astype(int), 8)
        ink = letters[letter, row, np.minimum((fraction[:, 0] * 7).astype(int), 6)]
        banded = cell[:, 1] % lines == 0
        paper = np.where((banded & (cell[:, 0] % 7 < 4))[:, None], colours[1], colours[0])
        painted: Xyz = np.where((ink & ~banded)[:, None], ink_rgb, paper)
        return painted

    return glyphs


_SOLID = (_marble, _camouflage, _stripes, _checks, _dots, _wood, _cells, _plaid)
_SURFACE = (_stripes, _checks, _dots, _bricks, _plaid, _glyphs, _glyphs, _marble)


def _weathered(rng: np.random.Generator, pattern: Pattern, strength: float, scale: float = 6.0) -> Pattern:
    """A pattern under multi-octave changes of lightness."""
    noise = _noise(rng, 5)
    return lambda p: pattern(p) * (1 + strength * (noise(p * scale) - 0.6))[:, None]


def _blended(rng: np.random.Generator, first: Pattern, second: Pattern, scale: float) -> Pattern:
    """Two patterns, one showing where low-frequency noise is high."""
    noise = _noise(rng, 2)
    return lambda p: np.where((noise(p * scale) > 0.55)[:, None], second(p), first(p))


def _random_pattern(rng: np.random.Generator, space: Space) -> Pattern:
    """From flat to rich: one pattern or two, at a random scale, weathered or clean."""
    colours, scale = _palette(rng, int(rng.integers(3, 6))), float(np.exp(rng.uniform(math.log(4), math.log(18))))
    if rng.random() < 0.15:
        return _weathered(rng, _flat(rng, colours, scale), rng.choice([0.0, 0.2]))
    known = _SOLID if space == "solid" else _SURFACE
    pattern = _one_of(rng, known)(rng, colours, scale)
    if rng.random() < 0.3:
        second = _one_of(rng, known)(rng, _palette(rng, 4), scale * rng.uniform(0.5, 2.0))
        pattern = _blended(rng, pattern, second, rng.uniform(1.0, 3.0))
    return _weathered(rng, pattern, rng.uniform(0.1, 0.6), rng.uniform(2.0, 9.0))


def _pattern(rng: np.random.Generator, maker: Maker, colours: Colours, scale: float) -> Pattern:
    """A named pattern, lightly weathered."""
    return _weathered(rng, maker(rng, colours, scale), 0.35)


def _tones(rng: np.random.Generator, hue: float, vivid: float, value: float) -> Colours:
    """Four colours round one: itself, darker, paler, and a neighbouring hue."""
    hues = (hue, hue + 0.02, hue - 0.02, hue + rng.uniform(0.05, 0.15))
    saturations = (vivid, vivid, 0.5 * vivid, vivid)
    values = (value, 0.45 * value, min(1.0, 1.3 * value), 0.8 * value)
    return np.array([colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in zip(hues, saturations, values, strict=True)])


# --- kinds -------------------------------------------------------------------------------------------------------


def _chair(rng: np.random.Generator) -> list[Part]:
    """Slatted back, thin splayed legs, stretchers, a patterned cushion."""
    width, depth, back = rng.uniform(0.75, 1.0), rng.uniform(0.7, 0.95), rng.uniform(0.9, 1.3)
    thick, splay, lean = rng.uniform(0.022, 0.04), rng.uniform(0.0, 0.12), rng.uniform(0.05, 0.25)
    wood = _tones(rng, rng.uniform(0.04, 0.12), rng.uniform(0.4, 0.75), rng.uniform(0.45, 0.85))
    corners = [(x * width / 2 * 0.92, z * depth / 2 * 0.92) for x in (-1, 1) for z in (-1, 1)]
    feet = [(x * (1 + splay), -1.0, z * (1 + splay)) for x, z in corners]
    legs = [_tube([foot, (x, 0, z)], [0.7 * thick, 1.3 * thick])[0] for foot, (x, z) in zip(feet, corners, strict=True)]
    middle = [((f[0] + x) / 2, -0.5, (f[2] + z) / 2) for f, (x, z) in zip(feet, corners, strict=True)]
    rungs = [_tube([middle[a], middle[b]], 0.7 * thick)[0] for a, b in ((0, 1), (2, 3), (0, 2), (1, 3))]
    posts = [
        _tube([(x, 0, -depth / 2 * 0.9), (x, back, -depth / 2 * 0.9 - lean)], 1.2 * thick)[0]
        for x in (-width / 2 * 0.9, width / 2 * 0.9)
    ]
    slats: list[Grid] = []
    count = int(rng.integers(3, 7))
    for k in range(count):
        t = (k + 1.0) / (count + 0.3)
        centre = (0.0, t * back, -depth / 2 * 0.9 - t * lean)
        slats += _placed(_box((width * 0.86, 0.45 * back / count, 0.03)), centre, _rotation("x", -lean / back))
    cloth = _one_of(rng, [_plaid, _stripes, _checks, _dots])(rng, _palette(rng), rng.uniform(7, 12))
    return [
        Part((*legs, *rungs, *posts), _pattern(rng, _wood, wood, 9.0)),
        Part(tuple(slats), _pattern(rng, _wood, wood[::-1], 11.0)),
        Part(_box((width, 0.05, depth)), _pattern(rng, _wood, wood, 7.0)),
        Part(
            _placed(_superellipsoid((0.45 * width, 0.05, 0.45 * depth), 5.0), (0, 0.05, 0)), _weathered(rng, cloth, 0.3)
        ),
    ]


def _wheel(rng: np.random.Generator) -> list[Part]:
    """Spoked wheel on an A-frame stand; the wheel faces +z."""
    spokes, tube = int(rng.integers(10, 19)), rng.uniform(0.03, 0.05)
    face = _rotation("x", math.pi / 2)
    rim = _placed(_torus(0.8, tube, 1.4), (0, 0, 0), face)
    inner = _placed(_torus(0.45, 0.018), (0, 0, 0), face)
    hub = _placed(_cylinder(0.12, 0.26), (0, 0, 0), face)
    rods: list[list[Grid]] = [[], []]
    for k in range(spokes):
        a = 2 * math.pi * k / spokes
        out = np.array([math.sin(a), math.cos(a), 0.0])
        side = 0.1 if k % 2 else -0.1
        rods[k % 2] += _tube([0.09 * out + (0, 0, side), 0.8 * out], rng.uniform(0.014, 0.02), 8)
    spread = rng.uniform(0.4, 0.6)
    frame = [_tube([(x, -1.05, z * 1.3), (0, 0, z)], 0.025)[0] for x in (-spread, spread) for z in (-0.16, 0.16)]
    base = _placed(_box((2.3 * spread, 0.06, 0.62)), (0, -1.06, 0))
    first, second, metal = _palette(rng), _palette(rng), _tones(rng, rng.random(), 0.15, 0.6)
    return [
        Part(rim, _pattern(rng, _stripes, first, 9.0)),
        Part(inner, _pattern(rng, _flat, second[1:], 1.0)),
        Part(hub, _pattern(rng, _checks, second, 12.0)),
        Part(tuple(rods[0]), _pattern(rng, _stripes, second, 10.0)),
        Part(tuple(rods[1]), _pattern(rng, _flat, first[2:], 1.0)),
        Part((*frame, *_placed(_cylinder(0.03, 0.5), (0, 0, 0), face)), _pattern(rng, _marble, metal, 8.0)),
        Part(base, _pattern(rng, _wood, _tones(rng, 0.08, 0.6, 0.7), 6.0)),
    ]


def _castle(rng: np.random.Generator) -> list[Part]:
    """Brick keep and walls with battlements, corner towers under cone roofs, a plank gate, windows, banners."""
    tower, wall, keep = rng.uniform(0.16, 0.22), rng.uniform(0.45, 0.65), rng.uniform(0.9, 1.25)
    stone = _tones(rng, rng.uniform(0.03, 0.15), rng.uniform(0.1, 0.45), rng.uniform(0.6, 0.85))
    corners = [(x, z) for x in (-0.7, 0.7) for z in (-0.7, 0.7)]
    towers = [p for x, z in corners for p in _placed(_cylinder(tower, wall * 1.5), (x, wall * 0.75, z))]
    roof = [(0.0, 0.0), (tower * 1.3, 0.0), (0.0, rng.uniform(0.35, 0.6))]
    roofs = [p for x, z in corners for p in _placed(_revolved(roof), (x, wall * 1.5, z))]
    walls = [*_placed(_box((1.4, wall, 1.4)), (0, wall / 2, 0))]
    half = rng.uniform(0.3, 0.4)
    centre = _placed(_box((2 * half, keep, 2 * half)), (0, keep / 2, 0))
    merlons = _around(_box((0.13, 0.12, 0.1)), [(-0.42 + 0.28 * k, wall + 0.06, 0.65) for k in range(4)])
    merlons += _around(_box((0.16, 0.12, 0.16)), [(x * (half - 0.08), keep + 0.06, half - 0.08) for x in (0, 1)])
    gate = _placed(_box((0.34, wall * 0.7, 0.06)), (0, wall * 0.35, 0.7))
    windows = _around(_box((0.1, 0.17, 0.02)), [(x * half, keep * 0.8, half) for x in (-0.5, 0.5)])
    dark = np.array([[0.1, 0.1, 0.16], [0.85, 0.75, 0.3], [0.2, 0.2, 0.3]])
    banner = _placed(_box((0.22, 0.34, 0.02)), (rng.choice([-0.4, 0.4]), wall * 0.6, 0.71))
    return [
        Part((*walls, *merlons), _pattern(rng, _bricks, stone, 13.0), "surface"),
        Part(centre, _pattern(rng, _bricks, stone[[2, 1, 0, 3]], 10.0), "surface"),
        Part(tuple(towers), _pattern(rng, _bricks, stone[[3, 1, 0, 2]], 12.0), "surface"),
        Part(tuple(roofs), _pattern(rng, _stripes, _palette(rng, 3), 9.0)),
        Part(gate, _pattern(rng, _bricks, _tones(rng, 0.07, 0.7, 0.45), 14.0), "surface"),
        Part(windows, _checks(rng, dark, 20.0)),
        Part(banner, _pattern(rng, _glyphs, _palette(rng), 10.0), "surface"),
    ]


def _around(patches: Sequence[Grid], spots: Sequence[Vector]) -> tuple[Grid, ...]:
    """Copies at spots of the front, repeated on the other three sides."""
    turns = [_rotation("y", side * math.pi / 2) for side in range(4)]
    return tuple(p for turn in turns for spot in spots for p in _placed(patches, turn @ np.asarray(spot), turn))


def _truck(rng: np.random.Generator) -> list[Part]:
    """Delivery truck, front towards +z: lettered cargo box, cab with windows, lamps, six wheels."""
    length, height, width = rng.uniform(1.1, 1.5), rng.uniform(0.65, 0.95), rng.uniform(0.6, 0.75)
    paint, trim = _palette(rng), _tones(rng, rng.random(), 0.8, 0.8)
    cab = rng.uniform(0.5, 0.75) * height + 0.1
    nose = length / 2 + 0.05
    cargo = _placed(_box((width, height, length)), (0, 0.2 + height / 2, 0))
    body = _placed(_superellipsoid((width / 2, cab / 2, 0.26), 9.0), (0, 0.17 + cab / 2, nose + 0.2))
    window = 0.17 + cab * 0.7
    glass = [
        *_placed(_box((width * 0.8, cab * 0.32, 0.04)), (0, window, nose + 0.45)),
        *_placed(_box((width + 0.02, cab * 0.3, 0.24)), (0, window, nose + 0.22)),
    ]
    chassis = _placed(_box((width * 0.8, 0.1, length + 0.55)), (0, 0.13, 0.25))
    bumper = _placed(_box((width * 1.02, 0.09, 0.06)), (0, 0.12, nose + 0.48))
    lamps = [
        p
        for x in (-0.34, 0.34)
        for p in (
            *_placed(_ball((0.06, 0.06, 0.03), 6), (x * width, 0.28, nose + 0.46)),
            *_placed(_box((0.09, 0.06, 0.03)), (x * width, 0.26, -length / 2)),
        )
    ]
    turn, size = _rotation("z", -math.pi / 2), rng.uniform(0.15, 0.19)
    spots = [(x * width / 2, 0.04, z) for x in (-1, 1) for z in (nose + 0.2, -0.15 * length, -0.4 * length)]
    tyres = [p for spot in spots for p in _placed(_cylinder(size, 0.14), spot, turn)]
    caps = [p for spot in spots for p in _placed(_cylinder(0.55 * size, 0.16), spot, turn)]
    rubber, chrome = np.array([[0.13] * 3, [0.05] * 3, [0.25] * 3]), np.array([[0.8] * 3, [0.5, 0.5, 0.55], [1.0] * 3])
    sky = np.array([[0.25, 0.4, 0.55], [0.6, 0.75, 0.85], [0.15, 0.2, 0.3]])
    return [
        Part(cargo, _pattern(rng, _glyphs, paint, rng.uniform(7, 10)), "surface"),
        Part(body, _pattern(rng, _one_of(rng, [_flat, _stripes, _marble]), trim, 5.0)),
        Part(tuple(glass), _pattern(rng, _marble, sky, 8.0)),
        Part((*chassis, *bumper), _pattern(rng, _stripes, rubber[[0, 2]], 14.0)),
        Part(tuple(lamps), _marble(rng, np.array([[0.9, 0.3, 0.1], [1.0, 0.9, 0.5]]), 20.0)),
        Part(tuple(tyres), _pattern(rng, _checks, rubber, 30.0), "surface"),
        Part(tuple(caps), _pattern(rng, _stripes, chrome, 20.0)),
    ]


def _bumpy(rng: np.random.Generator, radii: Vector, amplitude: float, scale: float, rows: int) -> tuple[Grid, ...]:
    """Ellipsoid displaced along its radius by smooth noise."""
    noise = _noise(rng, 3)
    unit = _ball((1.0, 1.0, 1.0), rows)
    return tuple(
        grid
        * (1 + amplitude * (noise(grid.reshape(-1, 3) * scale).reshape(*grid.shape[:2], 1) - 0.5))
        * np.asarray(radii)
        for grid in unit
    )


def _blob(rng: np.random.Generator) -> list[Part]:
    """A lumpy, glazed pebble with two blended patterns."""
    shape = _bumpy(rng, rng.uniform(0.7, 1.0, 3), rng.uniform(0.6, 1.1), rng.uniform(1.2, 2.0), 40)
    first = _one_of(rng, _SOLID)(rng, _palette(rng), rng.uniform(5, 9))
    second = _one_of(rng, [_marble, _camouflage, _cells])(rng, _palette(rng), rng.uniform(6, 12))
    return [Part(shape, _weathered(rng, _blended(rng, first, second, 1.5), 0.5, 5.0))]


def _creature(rng: np.random.Generator) -> list[Part]:
    """Four-legged animal, looking towards +z: patterned coat, pale belly, snout, eyes, ears, tail."""
    long, stout, leg = rng.uniform(0.5, 0.75), rng.uniform(0.28, 0.4), rng.uniform(0.35, 0.7)
    neck, head = rng.uniform(0.15, 0.6), rng.uniform(0.19, 0.27)
    hue = rng.random() if rng.random() < 0.4 else rng.uniform(0.03, 0.13)
    coat = _tones(rng, hue, rng.uniform(0.3, 0.8), 0.75)
    body = _bumpy(rng, (stout, stout, long), 0.15, 1.5, 20)
    top = np.array([0.0, stout * 0.7 + neck, long * 0.95 + 0.5 * neck])
    throat = _curve([(0, stout * 0.3, long * 0.55), (0, stout * 0.7 + 0.4 * neck, long * 0.85), top])
    skull = _placed(_bumpy(rng, (head, head, head * 1.1), 0.12, 1.5, 14), top)
    sole = -leg - 0.6 * stout
    legs: list[Grid] = []
    feet: list[Grid] = []
    for x, z in ((x, z) for x in (-0.42 * stout, 0.42 * stout) for z in (-0.68 * long, 0.68 * long)):
        path = _curve([(x, -0.2 * stout, z), (1.3 * x, -0.5 * leg - 0.4 * stout, 1.05 * z), (1.35 * x, sole, z)])
        legs += _tube(path, np.linspace(0.36 * stout, 0.19 * stout, 9))
        feet += _placed(_ball((0.25 * stout, 0.14 * stout, 0.33 * stout), 6), (1.35 * x, sole, z + 0.04))
    wag, lift, tip = rng.uniform(-0.4, 0.4), rng.uniform(0, 0.6), rng.uniform(-0.2, 0.9)
    tail = _curve([(0, 0.3 * stout, -0.9 * long), (wag / 2, lift, -1.2 * long), (wag, tip, -1.35 * long)])
    fur = _one_of(rng, [_camouflage, _stripes, _dots, _cells])(rng, coat, rng.uniform(6, 10))
    pelt = _weathered(rng, _fading(fur, coat[2], -0.75 * stout), 0.4)
    tubes = (*_tube(throat, np.linspace(0.75 * stout, 0.75 * head, 9)), *_tube(tail, np.linspace(0.09, 0.025, 9)))
    return [
        Part((*body, *skull, *legs, *tubes), pelt),
        Part(tuple(feet), _pattern(rng, _flat, coat[1:2] * 0.5, 1.0)),
        *_face(rng, top, head, coat),
    ]


def _face(rng: np.random.Generator, top: Float[np.ndarray, "3"], head: float, coat: Colours) -> list[Part]:
    """Snout, nose, ears and eyes of a head with its centre at ``top``."""

    def at(patches: Sequence[Grid], x: float, y: float, z: float, tilt: float = 0.0) -> tuple[Grid, ...]:
        return _placed(patches, top + head * np.array([x, y, z]), _rotation("z", tilt))

    ear = _revolved([(0.0, -0.1), (0.4 * head, 0.0), (0.25 * head, 0.6 * head), (0.0, 1.1 * head)], 12)
    ears = [p for side in (-1, 1) for p in at(ear, 0.6 * side, 0.65, -0.1, -0.4 * side)]
    snout = at(_ball((0.5 * head, 0.42 * head, 0.6 * head), 8), 0.0, -0.25, 0.85)
    nose = at(_ball((0.2 * head, 0.15 * head, 0.12 * head), 6), 0.0, -0.1, 1.42)
    whites = [p for side in (-1, 1) for p in at(_ball((0.2 * head,) * 3, 6), 0.5 * side, 0.3, 0.85)]
    pupils = [p for side in (-1, 1) for p in at(_ball((0.12 * head,) * 3, 6), 0.5 * side, 0.34, 0.97)]
    return [
        Part((*snout, *ears), _pattern(rng, _marble, coat[[2, 0, 3]], 9.0)),
        Part(nose, _pattern(rng, _flat, coat[1:2] * 0.5, 1.0)),
        Part(tuple(whites), _flat(rng, np.array([[0.95, 0.95, 0.9]]), 1.0)),
        Part(tuple(pupils), _flat(rng, np.array([[0.06, 0.05, 0.08]]), 1.0)),
    ]


def _fading(pattern: Pattern, colour: Colour, height: float) -> Pattern:
    """A pattern that turns to ``colour`` below a height."""

    def fading(p: Xyz) -> Xyz:
        share = np.clip((height + 0.12 - p[:, 1:2]) / 0.12, 0, 0.85) * (np.abs(p[:, :1]) < 0.35)
        painted: Xyz = pattern(p) * (1 - share) + colour * share
        return painted

    return fading


def _curve(points: Path, count: int = 9) -> Float[np.ndarray, "count 3"]:
    """Quadratic Bezier through the first and last of three points, passing the second half way."""
    start, middle, end = (np.asarray(p, dtype=np.float64) for p in points)
    t = np.linspace(0, 1, count)[:, None]
    control = 2 * middle - (start + end) / 2
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


_BUILDERS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "chair": _chair,
    "wheel": _wheel,
    "castle": _castle,
    "truck": _truck,
    "blob": _blob,
    "creature": _creature,
}


# --- composites --------------------------------------------------------------------------------------------------


def _lathe(rng: np.random.Generator) -> tuple[Grid, ...]:
    """Vase, bottle or spindle: a smooth random profile about y."""
    knots = rng.uniform(0.12, 0.6, int(rng.integers(4, 8)))
    y = np.linspace(-0.8, 0.8, 24)
    radius = np.interp(y, np.linspace(-0.8, 0.8, len(knots)), knots)
    if rng.random() < 0.7:
        radius = np.convolve(np.pad(radius, 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    return _revolved([(0.0, -0.8), *zip(radius.tolist(), y.tolist(), strict=True), (0.0, 0.8)])


def _star(rng: np.random.Generator) -> tuple[Grid, ...]:
    """Extruded polygon, star or gear."""
    corners = int(rng.integers(3, 13))
    a = np.linspace(0, 2 * math.pi, 2 * corners, endpoint=False)
    r = np.where(np.arange(2 * corners) % 2 == 0, 0.7, 0.7 * rng.uniform(0.35, 1.0))
    return _extruded(np.stack([r * np.cos(a), r * np.sin(a)], axis=1), rng.uniform(0.08, 0.9))


def _noodle(rng: np.random.Generator) -> tuple[Grid, ...]:
    """Tapered bent tube."""
    return _tube(
        _curve(rng.uniform(-0.8, 0.8, (3, 3))), np.linspace(rng.uniform(0.03, 0.22), rng.uniform(0.03, 0.22), 9)
    )


_PRIMITIVES: tuple[Callable[[np.random.Generator], tuple[Grid, ...]], ...] = (
    lambda rng: _box(rng.uniform(0.25, 1.2, 3)),
    lambda rng: _box(rng.uniform(0.03, 1.2, 3)),
    lambda rng: _cylinder(rng.uniform(0.1, 0.6), rng.uniform(0.1, 1.3)),
    lambda rng: _cylinder(rng.uniform(0.2, 0.6), rng.uniform(0.4, 1.3), rng.uniform(0.0, 0.3)),
    lambda rng: _ball(rng.uniform(0.25, 0.7, 3)),
    lambda rng: _torus(rng.uniform(0.35, 0.6), rng.uniform(0.04, 0.2), rng.uniform(0.6, 1.8)),
    lambda rng: _superellipsoid(rng.uniform(0.2, 0.7, 3), rng.uniform(1.0, 8.0)),
    lambda rng: _bumpy(rng, rng.uniform(0.3, 0.7, 3), rng.uniform(0.2, 1.0), rng.uniform(1.0, 3.0), 20),
    lambda rng: _tube([(0, -0.7, 0), (0, 0.7, 0)], rng.uniform(0.02, 0.07)),
    _lathe,
    _star,
    _noodle,
)


def _primitive(rng: np.random.Generator) -> Part:
    """A random primitive under a random pattern."""
    space: Space = "surface" if rng.random() < 0.4 else "solid"
    return Part(_one_of(rng, _PRIMITIVES)(rng), _random_pattern(rng, space), space)


def _heap(rng: np.random.Generator) -> list[Part]:
    """Primitives of different size, each next to the surface of an earlier one."""
    parts = [_primitive(rng)]
    for _ in range(int(rng.integers(1, 7))):
        host = _one_of(rng, parts).patches
        grid = _one_of(rng, host).reshape(-1, 3)
        turn = _random_rotation(rng) if rng.random() < 0.5 else np.eye(3)
        part = _moved(_primitive(rng), turn * rng.uniform(0.25, 0.9))
        own = part.patches[0].reshape(-1, 3)
        # a point of each surface in common: the heap hangs together
        parts.append(_moved(part, np.eye(3), grid[rng.integers(len(grid))] - 0.9 * own[rng.integers(len(own))]))
    return parts


def _stack(rng: np.random.Generator) -> list[Part]:
    """Primitives on top of each other."""
    parts, top = [], 0.0
    for _ in range(int(rng.integers(2, 6))):
        part = _moved(_primitive(rng), np.eye(3) * rng.uniform(0.4, 1.0))
        y = np.concatenate([grid[..., 1].ravel() for grid in part.patches])
        parts.append(_moved(part, _rotation("y", rng.uniform(0, math.pi)), (0, top - y.min(), 0)))
        top += 0.95 * (y.max() - y.min())
    return parts


def _array(rng: np.random.Generator) -> list[Part]:
    """Copies of a primitive round a core."""
    core, satellite = _primitive(rng), _moved(_primitive(rng), _random_rotation(rng) * rng.uniform(0.2, 0.6))
    count, ring, height = int(rng.integers(3, 9)), rng.uniform(0.3, 0.8), rng.uniform(-0.5, 0.5)
    turns = [_rotation("y", 2 * math.pi * k / count) for k in range(count)]
    return [core, *(_moved(satellite, turn, turn @ np.array([0, height, ring])) for turn in turns)]


def _product(rng: np.random.Generator) -> list[Part]:
    """A packaged good: box, can or bottle with printed label, cap and bands."""
    label = _random_pattern(rng, "surface")
    if rng.random() < 0.4:
        return [Part(_box(rng.uniform(0.3, 1.2, 3)), label, "surface")]
    radius, height, neck = rng.uniform(0.25, 0.6), rng.uniform(0.5, 1.5), rng.uniform(0.3, 1.0)
    shoulder = height / 2 + rng.uniform(0.0, 0.4)
    body = _revolved(
        [(0, -height / 2), (radius, -height / 2), (radius, height / 2), (radius * neck, shoulder), (0, shoulder)]
    )
    band = _revolved([(radius * 1.01, -height * 0.35), (radius * 1.01, height * 0.35)])
    cap = _placed(_cylinder(radius * neck * 1.05, 0.2), (0, shoulder + 0.1, 0))
    return [
        Part(body, _random_pattern(rng, "solid")),
        Part(band, label, "surface"),
        Part(cap, _random_pattern(rng, "solid")),
    ]


_COMPOSITIONS = [_heap, _heap, _stack, _array, _product]
