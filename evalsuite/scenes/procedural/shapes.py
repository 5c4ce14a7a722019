"""Surfaces as sets of patches: boxes, tubes, balls, revolved and extruded outlines, and how they are placed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from evalsuite.scenes.procedural.randomness import value_noise

Grid = Float[np.ndarray, "_ _ 3"]
"""A patch: points whose columns run to the right and whose rows run upwards as seen from outside."""
Vector = Sequence[float | int] | Float[np.ndarray, "_"]
Path = Sequence[Vector] | Float[np.ndarray, "_ 3"]


def placed(patches: Sequence[Grid], offset: Vector, linear: np.ndarray | None = None) -> tuple[Grid, ...]:
    """Patches turned by ``linear``, then shifted."""
    linear = np.eye(3) if linear is None else linear
    return tuple(grid @ linear.T + np.asarray(offset, dtype=np.float64) for grid in patches)


def rotation(axis: str, angle_rad: float) -> np.ndarray:
    """Right-handed rotation about a coordinate axis."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def box(size: Vector, centre: Vector = (0.0, 0.0, 0.0)) -> tuple[Grid, ...]:
    """Six faces: front (+z), right (+x), back, left, top, bottom."""
    half = np.asarray(size, dtype=np.float64) / 2
    square = np.array([[[-1, -1, 1], [1, -1, 1]], [[-1, 1, 1], [1, 1, 1]]], dtype=np.float64)
    turns = [rotation("y", k * math.pi / 2) for k in range(4)]
    turns += [rotation("x", -math.pi / 2), rotation("x", math.pi / 2)]
    return tuple(square @ turn.T * half + np.asarray(centre) for turn in turns)


def revolved(profile: Sequence[Vector], segments: int = 32) -> tuple[Grid, ...]:
    """Surface of revolution about y of (radius, height) points, from bottom to top as seen from outside."""
    r, y = np.asarray(profile, dtype=np.float64).T
    a = np.linspace(-math.pi, math.pi, segments + 1)
    grid = np.stack(np.broadcast_arrays(np.outer(r, np.sin(a)), y[:, None], np.outer(r, np.cos(a))), axis=-1)
    return (grid,)


def cylinder(radius: float, height: float, top: float | None = None) -> tuple[Grid, ...]:
    """Closed cylinder about y (a frustum if ``top`` differs), centred; side, bottom, top."""
    top = radius if top is None else top
    h = height / 2
    rings = [[(radius, -h), (top, h)], [(0.0, -h), (radius, -h)], [(top, h), (0.0, h)]]
    return tuple(patch for ring in rings for patch in revolved(ring))


def torus(ring: float, tube: float, squash: float = 1.0) -> tuple[Grid, ...]:
    """Torus about y; ``squash`` is the tube's height over its width."""
    t = np.linspace(-math.pi, math.pi, 17)
    return revolved([(ring + tube * math.cos(a), tube * squash * math.sin(a)) for a in t], 48)


def tube(path: Path, radius: Vector | float, sides: int = 12) -> tuple[Grid, ...]:
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


def ball(radii: Vector, rows: int = 12) -> tuple[Grid, ...]:
    """Ellipsoid as a cube blown up to a sphere: six patches without poles."""
    t = np.tan(np.linspace(-math.pi / 4, math.pi / 4, rows + 1))
    v, u = np.meshgrid(t, t, indexing="ij")
    face = np.stack([u, v, np.ones_like(u)], axis=-1)
    face /= np.linalg.norm(face, axis=-1, keepdims=True)
    turns = [rotation("y", k * math.pi / 2) for k in range(4)]
    turns += [rotation("x", -math.pi / 2), rotation("x", math.pi / 2)]
    return tuple(face @ turn.T * np.asarray(radii) for turn in turns)


def superellipsoid(radii: Vector, roundness: float) -> tuple[Grid, ...]:
    """Ellipsoid whose section is a superellipse: 2 is round, large is a box, 1 an octahedron."""
    unit = ball((1.0, 1.0, 1.0), 16)
    return tuple(
        grid / (np.abs(grid) ** roundness).sum(axis=-1, keepdims=True) ** (1 / roundness) * np.asarray(radii)
        for grid in unit
    )


def bumpy(rng: np.random.Generator, radii: Vector, amplitude: float, scale: float, rows: int) -> tuple[Grid, ...]:
    """Ellipsoid displaced along its radius by smooth noise."""
    noise = value_noise(rng, 3)
    unit = ball((1.0, 1.0, 1.0), rows)
    return tuple(
        grid
        * (1 + amplitude * (noise(grid.reshape(-1, 3) * scale).reshape(*grid.shape[:2], 1) - 0.5))
        * np.asarray(radii)
        for grid in unit
    )


def extruded(outline: Float[np.ndarray, "K 2"], depth: float) -> tuple[Grid, ...]:
    """Prism over a star-shaped, counter-clockwise outline in x, y, about the origin, along z."""
    ring = np.concatenate([outline, outline[:1]])
    front = np.column_stack([ring, np.full(len(ring), depth / 2)])
    back = front * (1, 1, -1)
    middle = front * (0, 0, 1)
    # rows of the caps run along the radius, "up" being to the left of the outline's direction
    return np.stack([back, front]), np.stack([front, middle]), np.stack([-middle, back])


def curve(points: Path, count: int = 9) -> Float[np.ndarray, "count 3"]:
    """Quadratic Bezier through the first and last of three points, passing the second half way."""
    start, middle, end = (np.asarray(p, dtype=np.float64) for p in points)
    t = np.linspace(0, 1, count)[:, None]
    control = 2 * middle - (start + end) / 2
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
