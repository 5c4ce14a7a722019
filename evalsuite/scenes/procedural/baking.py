"""From painted patches to one textured mesh: patterns are evaluated at the texels of an atlas.

So colour is neither stretched nor, for solid patterns, broken at the edges of patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from evalsuite.core.protocol import OBJECT_RADIUS
from evalsuite.scenes.meshes import TexturedMesh, normalised, packed
from evalsuite.scenes.procedural.patterns import Pattern, Space
from evalsuite.scenes.procedural.randomness import Xyz
from evalsuite.scenes.procedural.shapes import Grid, Vector


@dataclass(frozen=True)
class Part:
    """Patches painted with one pattern, which reads positions (``solid``) or patch coordinates (``surface``)."""

    patches: tuple[Grid, ...]
    pattern: Pattern
    space: Space = "solid"


def moved(part: Part, linear: np.ndarray, offset: Vector = (0.0, 0.0, 0.0)) -> Part:
    """A part under ``linear`` (positive determinant) and a shift; its solid pattern is carried along."""
    patches = tuple(grid @ linear.T + np.asarray(offset) for grid in part.patches)
    if part.space == "surface":
        return Part(patches, part.pattern, part.space)
    inverse, pattern = np.linalg.inv(linear), part.pattern
    return Part(patches, lambda p: pattern((p - np.asarray(offset)) @ inverse.T))


def assembled(parts: Sequence[Part], texels_per_unit: float) -> TexturedMesh:
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
