"""Objects for training without end: heaps, stacks and arrays of primitives, packages, animals, frames, tools."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from evalsuite.scenes.meshes import TexturedMesh
from evalsuite.scenes.procedural.baking import Part, assembled, moved
from evalsuite.scenes.procedural.objects import BUILDERS
from evalsuite.scenes.procedural.patterns import Space, random_pattern
from evalsuite.scenes.procedural.randomness import one_of, random_rotation
from evalsuite.scenes.procedural.shapes import (
    Grid,
    ball,
    box,
    bumpy,
    curve,
    cylinder,
    extruded,
    placed,
    revolved,
    rotation,
    superellipsoid,
    torus,
    tube,
)
from evalsuite.scenes.sources import KINDS

_RANDOM_TEXELS = 140.0


def random_mesh(seed: int) -> TexturedMesh:
    """An object for training: one of `KINDS`, or a composite of random primitives with random textures.

    Disjoint from `procedural_mesh`: the two draw from different random streams.

    Args:
        seed: >= 0.

    Returns:
        Mesh in the sphere of radius `OBJECT_RADIUS` round the origin.
    """
    rng = np.random.default_rng([len(KINDS), seed])
    builders = list(BUILDERS.values()) if rng.random() < 0.25 else _COMPOSITIONS
    parts = one_of(rng, builders)(rng)
    turn = random_rotation(rng) if rng.random() < 0.4 else rotation("y", rng.uniform(0, 2 * math.pi))
    if rng.random() < 0.4:
        turn = turn @ np.diag(rng.uniform(0.5, 1.0, 3))
    return assembled([moved(part, turn) for part in parts], _RANDOM_TEXELS)


def _lathe(rng: np.random.Generator) -> tuple[Grid, ...]:
    """Vase, bottle or spindle: a smooth random profile about y."""
    knots = rng.uniform(0.12, 0.6, int(rng.integers(4, 8)))
    y = np.linspace(-0.8, 0.8, 24)
    radius = np.interp(y, np.linspace(-0.8, 0.8, len(knots)), knots)
    if rng.random() < 0.7:
        radius = np.convolve(np.pad(radius, 3, mode="edge"), np.full(7, 1 / 7), mode="valid")
    return revolved([(0.0, -0.8), *zip(radius.tolist(), y.tolist(), strict=True), (0.0, 0.8)])


def _star(rng: np.random.Generator) -> tuple[Grid, ...]:
    """Extruded polygon, star or gear."""
    corners = int(rng.integers(3, 13))
    a = np.linspace(0, 2 * math.pi, 2 * corners, endpoint=False)
    r = np.where(np.arange(2 * corners) % 2 == 0, 0.7, 0.7 * rng.uniform(0.35, 1.0))
    return extruded(np.stack([r * np.cos(a), r * np.sin(a)], axis=1), rng.uniform(0.08, 0.9))


def _noodle(rng: np.random.Generator) -> tuple[Grid, ...]:
    """Tapered bent tube."""
    return tube(curve(rng.uniform(-0.8, 0.8, (3, 3))), np.linspace(rng.uniform(0.03, 0.22), rng.uniform(0.03, 0.22), 9))


PRIMITIVES: tuple[Callable[[np.random.Generator], tuple[Grid, ...]], ...] = (
    lambda rng: box(rng.uniform(0.25, 1.2, 3)),
    lambda rng: box(rng.uniform(0.03, 1.2, 3)),
    lambda rng: cylinder(rng.uniform(0.1, 0.6), rng.uniform(0.1, 1.3)),
    lambda rng: cylinder(rng.uniform(0.2, 0.6), rng.uniform(0.4, 1.3), rng.uniform(0.0, 0.3)),
    lambda rng: ball(rng.uniform(0.25, 0.7, 3)),
    lambda rng: torus(rng.uniform(0.35, 0.6), rng.uniform(0.04, 0.2), rng.uniform(0.6, 1.8)),
    lambda rng: superellipsoid(rng.uniform(0.2, 0.7, 3), rng.uniform(1.0, 8.0)),
    lambda rng: bumpy(rng, rng.uniform(0.3, 0.7, 3), rng.uniform(0.2, 1.0), rng.uniform(1.0, 3.0), 20),
    lambda rng: tube([(0, -0.7, 0), (0, 0.7, 0)], rng.uniform(0.02, 0.07)),
    _lathe,
    _star,
    _noodle,
)
"""What draws the patches of a closed surface."""


def _primitive(rng: np.random.Generator) -> Part:
    """A random primitive under a random pattern."""
    space: Space = "surface" if rng.random() < 0.4 else "solid"
    return Part(one_of(rng, PRIMITIVES)(rng), random_pattern(rng, space), space)


def _heap(rng: np.random.Generator) -> list[Part]:
    """Primitives of different size, each next to the surface of an earlier one."""
    parts = [_primitive(rng)]
    for _ in range(int(rng.integers(1, 7))):
        host = one_of(rng, parts).patches
        grid = one_of(rng, host).reshape(-1, 3)
        turn = random_rotation(rng) if rng.random() < 0.5 else np.eye(3)
        part = moved(_primitive(rng), turn * rng.uniform(0.25, 0.9))
        own = part.patches[0].reshape(-1, 3)
        # a point of each surface in common: the heap hangs together
        parts.append(moved(part, np.eye(3), grid[rng.integers(len(grid))] - 0.9 * own[rng.integers(len(own))]))
    return parts


def _stack(rng: np.random.Generator) -> list[Part]:
    """Primitives on top of each other."""
    parts, top = [], 0.0
    for _ in range(int(rng.integers(2, 6))):
        part = moved(_primitive(rng), np.eye(3) * rng.uniform(0.4, 1.0))
        y = np.concatenate([grid[..., 1].ravel() for grid in part.patches])
        parts.append(moved(part, rotation("y", rng.uniform(0, math.pi)), (0, top - y.min(), 0)))
        top += 0.95 * (y.max() - y.min())
    return parts


def _array(rng: np.random.Generator) -> list[Part]:
    """Copies of a primitive round a core."""
    core, satellite = _primitive(rng), moved(_primitive(rng), random_rotation(rng) * rng.uniform(0.2, 0.6))
    count, ring, height = int(rng.integers(3, 9)), rng.uniform(0.3, 0.8), rng.uniform(-0.5, 0.5)
    turns = [rotation("y", 2 * math.pi * k / count) for k in range(count)]
    return [core, *(moved(satellite, turn, turn @ np.array([0, height, ring])) for turn in turns)]


def _product(rng: np.random.Generator) -> list[Part]:
    """A packaged good: box, can or bottle with printed label, cap and bands."""
    label = random_pattern(rng, "surface")
    if rng.random() < 0.4:
        return [Part(box(rng.uniform(0.3, 1.2, 3)), label, "surface")]
    radius, height, neck = rng.uniform(0.25, 0.6), rng.uniform(0.5, 1.5), rng.uniform(0.3, 1.0)
    shoulder = height / 2 + rng.uniform(0.0, 0.4)
    body = revolved(
        [(0, -height / 2), (radius, -height / 2), (radius, height / 2), (radius * neck, shoulder), (0, shoulder)]
    )
    band = revolved([(radius * 1.01, -height * 0.35), (radius * 1.01, height * 0.35)])
    cap = placed(cylinder(radius * neck * 1.05, 0.2), (0, shoulder + 0.1, 0))
    return [
        Part(body, random_pattern(rng, "solid")),
        Part(band, label, "surface"),
        Part(cap, random_pattern(rng, "solid")),
    ]


def _limbed(rng: np.random.Generator) -> list[Part]:
    """A body with mirrored pairs of limbs and flat wings or fins, a neck and a tail: concave all round."""
    radii = rng.uniform(0.12, 0.45, 3)
    coat = random_pattern(rng, "solid")
    feathers = random_pattern(rng, "solid") if rng.random() < 0.5 else coat
    grids: list[Grid] = [*bumpy(rng, radii, rng.uniform(0.1, 0.8), rng.uniform(1.0, 3.0), 16)]
    flat: list[Grid] = []
    for _ in range(int(rng.integers(1, 4))):
        root = random_rotation(rng)[0] * radii * 0.8
        tip = root + np.array([rng.uniform(0.0, 0.8), *rng.uniform(-0.9, 0.9, 2)]) * (1 if root[0] > 0 else -1, 1, 1)
        if rng.random() < 0.35:
            wing, turn = rng.uniform((0.25, 0.02, 0.12), (0.7, 0.07, 0.4)), random_rotation(rng)
            for side in (np.eye(3), np.diag([-1.0, 1.0, 1.0])):
                # a reflection on both sides of the turn: the wing has that symmetry itself, and stays right side out
                flat += placed(superellipsoid(wing, rng.uniform(1.5, 6.0)), side @ (root + tip) / 2, side @ turn @ side)
            continue
        bend, width = (root + tip) / 2 + rng.uniform(-0.3, 0.3, 3), rng.uniform(0.03, 0.15)
        taper = np.linspace(width, width * rng.uniform(0.3, 1.2), 9)
        for sign in (1.0, -1.0):
            grids += tube(curve([p * (sign, 1, 1) for p in (root, bend, tip)]), taper)
    for end in (-1.0, 1.0):
        path = [(0, 0, 0.7 * end * radii[2]), (0, *rng.uniform(-0.4, 0.6, 2)), (0, rng.uniform(-0.3, 0.9), 1.1 * end)]
        if rng.random() < 0.7:
            grids += tube(curve(path), np.linspace(rng.uniform(0.05, 0.2), rng.uniform(0.02, 0.15), 9))
    return [Part(tuple(grids), coat), *([Part(tuple(flat), feathers)] if flat else [])]


def _frame(rng: np.random.Generator) -> list[Part]:
    """Bars and plates that start where an earlier one ends: arches, ladders, gantries, shelves."""
    pattern, ends = random_pattern(rng, "solid"), [np.zeros(3)]
    thickness, bent = rng.uniform(0.03, 0.14), rng.random() < 0.4
    grids: list[Grid] = []
    for _ in range(int(rng.integers(3, 9))):
        start, axis = one_of(rng, ends), int(rng.integers(3))
        step = np.eye(3)[axis] * rng.choice([-1, 1]) * rng.uniform(0.3, 1.2)
        if bent:
            path = curve([start, start + step / 2 + rng.uniform(-0.3, 0.3, 3), start + step])
            grids += tube(path, rng.uniform(0.5, 1.0) * thickness, one_of(rng, [4, 12]))
        else:
            size = np.full(3, thickness) * rng.uniform(0.5, 1.5, 3)
            if rng.random() < 0.3:
                size[(axis + 1) % 3] = rng.uniform(0.2, 0.8)
            size[axis] = np.abs(step[axis]) + thickness
            grids += box(size, start + step / 2)
        ends.append(start + step)
    return [Part(tuple(grids), pattern)]


def _tool(rng: np.random.Generator) -> list[Part]:
    """Long things with a head: a handle or two, crossed blades, rings."""
    parts: list[Part] = []
    top, spread = rng.uniform(0.2, 0.9), rng.uniform(0.0, 0.5) if rng.random() < 0.5 else 0.0
    for angle in (spread, -spread) if spread else (0.0,):
        blade = extruded(np.array([(0.06, -0.9), (0.12, 0.0), (0.02, 0.9), (-0.12, 0.0)]), rng.uniform(0.03, 0.1))
        handle = tube([(0, -0.9, 0), (0, top, 0)], rng.uniform(0.04, 0.14), one_of(rng, [4, 6, 12]))
        shaft = Part(blade if spread or rng.random() < 0.2 else handle, random_pattern(rng, "solid"))
        parts.append(moved(shaft, rotation("z", angle)))
        if rng.random() < 0.5:
            ring = torus(rng.uniform(0.12, 0.28), rng.uniform(0.03, 0.07), rng.uniform(0.6, 1.8))
            grip = Part(placed(ring, (0, -1.0, 0), rotation("x", math.pi / 2)), random_pattern(rng, "solid"))
            parts.append(moved(grip, rotation("z", angle)))
    if not spread or rng.random() < 0.2:
        head = moved(_primitive(rng), random_rotation(rng) @ np.diag(rng.uniform(0.15, 0.5, 3)))
        parts.append(moved(head, np.eye(3), (0, top, 0)))
    return parts


SLENDER: tuple[Callable[[np.random.Generator], list[Part]], ...] = (_limbed, _frame, _tool)
"""Limbs, bars, blades: mostly air, of which silhouettes show little."""

_COMPOSITIONS = [_heap, _heap, _stack, _array, _product, _limbed, *SLENDER]
