"""The six kinds of the embedded suite: chair, wheel, castle, truck, blob, creature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from evalsuite.core.errors import UnknownNameError
from evalsuite.scenes.meshes import TexturedMesh
from evalsuite.scenes.procedural.baking import Part, assembled
from evalsuite.scenes.procedural.patterns import (
    SOLID,
    Colour,
    Colours,
    Pattern,
    blended,
    bricks,
    camouflage,
    cells,
    checks,
    dots,
    flat,
    glyphs,
    marble,
    palette,
    plaid,
    stripes,
    tones,
    weathered,
    wood,
    worn,
)
from evalsuite.scenes.procedural.randomness import Xyz, one_of
from evalsuite.scenes.procedural.shapes import (
    Grid,
    Vector,
    ball,
    box,
    bumpy,
    curve,
    cylinder,
    placed,
    revolved,
    rotation,
    superellipsoid,
    torus,
    tube,
)
from evalsuite.scenes.sources import KINDS

_KIND_TEXELS = 260.0


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
    if kind not in BUILDERS:
        raise UnknownNameError("procedural kind", kind, KINDS)
    rng = np.random.default_rng([list(KINDS).index(kind), seed])
    return assembled(BUILDERS[kind](rng), _KIND_TEXELS)


def _chair(rng: np.random.Generator) -> list[Part]:
    """Slatted back, thin splayed legs, stretchers, a patterned cushion."""
    width, depth, back = rng.uniform(0.75, 1.0), rng.uniform(0.7, 0.95), rng.uniform(0.9, 1.3)
    thick, splay, lean = rng.uniform(0.022, 0.04), rng.uniform(0.0, 0.12), rng.uniform(0.05, 0.25)
    timber = tones(rng, rng.uniform(0.04, 0.12), rng.uniform(0.4, 0.75), rng.uniform(0.45, 0.85))
    corners = [(x * width / 2 * 0.92, z * depth / 2 * 0.92) for x in (-1, 1) for z in (-1, 1)]
    feet = [(x * (1 + splay), -1.0, z * (1 + splay)) for x, z in corners]
    legs = [tube([foot, (x, 0, z)], [0.7 * thick, 1.3 * thick])[0] for foot, (x, z) in zip(feet, corners, strict=True)]
    middle = [((f[0] + x) / 2, -0.5, (f[2] + z) / 2) for f, (x, z) in zip(feet, corners, strict=True)]
    rungs = [tube([middle[a], middle[b]], 0.7 * thick)[0] for a, b in ((0, 1), (2, 3), (0, 2), (1, 3))]
    posts = [
        tube([(x, 0, -depth / 2 * 0.9), (x, back, -depth / 2 * 0.9 - lean)], 1.2 * thick)[0]
        for x in (-width / 2 * 0.9, width / 2 * 0.9)
    ]
    slats: list[Grid] = []
    count = int(rng.integers(3, 7))
    for k in range(count):
        t = (k + 1.0) / (count + 0.3)
        centre = (0.0, t * back, -depth / 2 * 0.9 - t * lean)
        slats += placed(box((width * 0.86, 0.45 * back / count, 0.03)), centre, rotation("x", -lean / back))
    cloth = one_of(rng, [plaid, stripes, checks, dots])(rng, palette(rng), rng.uniform(7, 12))
    return [
        Part((*legs, *rungs, *posts), worn(rng, wood, timber, 9.0)),
        Part(tuple(slats), worn(rng, wood, timber[::-1], 11.0)),
        Part(box((width, 0.05, depth)), worn(rng, wood, timber, 7.0)),
        Part(placed(superellipsoid((0.45 * width, 0.05, 0.45 * depth), 5.0), (0, 0.05, 0)), weathered(rng, cloth, 0.3)),
    ]


def _wheel(rng: np.random.Generator) -> list[Part]:
    """Spoked wheel on an A-frame stand; the wheel faces +z."""
    spokes, thick = int(rng.integers(10, 19)), rng.uniform(0.03, 0.05)
    face = rotation("x", math.pi / 2)
    rim = placed(torus(0.8, thick, 1.4), (0, 0, 0), face)
    inner = placed(torus(0.45, 0.018), (0, 0, 0), face)
    hub = placed(cylinder(0.12, 0.26), (0, 0, 0), face)
    rods: list[list[Grid]] = [[], []]
    for k in range(spokes):
        a = 2 * math.pi * k / spokes
        out = np.array([math.sin(a), math.cos(a), 0.0])
        side = 0.1 if k % 2 else -0.1
        rods[k % 2] += tube([0.09 * out + (0, 0, side), 0.8 * out], rng.uniform(0.014, 0.02), 8)
    spread = rng.uniform(0.4, 0.6)
    frame = [tube([(x, -1.05, z * 1.3), (0, 0, z)], 0.025)[0] for x in (-spread, spread) for z in (-0.16, 0.16)]
    base = placed(box((2.3 * spread, 0.06, 0.62)), (0, -1.06, 0))
    first, second, metal = palette(rng), palette(rng), tones(rng, rng.random(), 0.15, 0.6)
    return [
        Part(rim, worn(rng, stripes, first, 9.0)),
        Part(inner, worn(rng, flat, second[1:], 1.0)),
        Part(hub, worn(rng, checks, second, 12.0)),
        Part(tuple(rods[0]), worn(rng, stripes, second, 10.0)),
        Part(tuple(rods[1]), worn(rng, flat, first[2:], 1.0)),
        Part((*frame, *placed(cylinder(0.03, 0.5), (0, 0, 0), face)), worn(rng, marble, metal, 8.0)),
        Part(base, worn(rng, wood, tones(rng, 0.08, 0.6, 0.7), 6.0)),
    ]


def _castle(rng: np.random.Generator) -> list[Part]:
    """Brick keep and walls with battlements, corner towers under cone roofs, a plank gate, windows, banners."""
    tower, wall, keep = rng.uniform(0.16, 0.22), rng.uniform(0.45, 0.65), rng.uniform(0.9, 1.25)
    stone = tones(rng, rng.uniform(0.03, 0.15), rng.uniform(0.1, 0.45), rng.uniform(0.6, 0.85))
    corners = [(x, z) for x in (-0.7, 0.7) for z in (-0.7, 0.7)]
    towers = [p for x, z in corners for p in placed(cylinder(tower, wall * 1.5), (x, wall * 0.75, z))]
    roof = [(0.0, 0.0), (tower * 1.3, 0.0), (0.0, rng.uniform(0.35, 0.6))]
    roofs = [p for x, z in corners for p in placed(revolved(roof), (x, wall * 1.5, z))]
    walls = [*placed(box((1.4, wall, 1.4)), (0, wall / 2, 0))]
    half = rng.uniform(0.3, 0.4)
    centre = placed(box((2 * half, keep, 2 * half)), (0, keep / 2, 0))
    merlons = _around(box((0.13, 0.12, 0.1)), [(-0.42 + 0.28 * k, wall + 0.06, 0.65) for k in range(4)])
    merlons += _around(box((0.16, 0.12, 0.16)), [(x * (half - 0.08), keep + 0.06, half - 0.08) for x in (0, 1)])
    gate = placed(box((0.34, wall * 0.7, 0.06)), (0, wall * 0.35, 0.7))
    windows = _around(box((0.1, 0.17, 0.02)), [(x * half, keep * 0.8, half) for x in (-0.5, 0.5)])
    dark = np.array([[0.1, 0.1, 0.16], [0.85, 0.75, 0.3], [0.2, 0.2, 0.3]])
    banner = placed(box((0.22, 0.34, 0.02)), (rng.choice([-0.4, 0.4]), wall * 0.6, 0.71))
    return [
        Part((*walls, *merlons), worn(rng, bricks, stone, 13.0), "surface"),
        Part(centre, worn(rng, bricks, stone[[2, 1, 0, 3]], 10.0), "surface"),
        Part(tuple(towers), worn(rng, bricks, stone[[3, 1, 0, 2]], 12.0), "surface"),
        Part(tuple(roofs), worn(rng, stripes, palette(rng, 3), 9.0)),
        Part(gate, worn(rng, bricks, tones(rng, 0.07, 0.7, 0.45), 14.0), "surface"),
        Part(windows, checks(rng, dark, 20.0)),
        Part(banner, worn(rng, glyphs, palette(rng), 10.0), "surface"),
    ]


def _around(patches: Sequence[Grid], spots: Sequence[Vector]) -> tuple[Grid, ...]:
    """Copies at spots of the front, repeated on the other three sides."""
    turns = [rotation("y", side * math.pi / 2) for side in range(4)]
    return tuple(p for turn in turns for spot in spots for p in placed(patches, turn @ np.asarray(spot), turn))


def _truck(rng: np.random.Generator) -> list[Part]:
    """Delivery truck, front towards +z: lettered cargo box, cab with windows, lamps, six wheels."""
    length, height, width = rng.uniform(1.1, 1.5), rng.uniform(0.65, 0.95), rng.uniform(0.6, 0.75)
    paint, trim = palette(rng), tones(rng, rng.random(), 0.8, 0.8)
    cab = rng.uniform(0.5, 0.75) * height + 0.1
    nose = length / 2 + 0.05
    cargo = placed(box((width, height, length)), (0, 0.2 + height / 2, 0))
    body = placed(superellipsoid((width / 2, cab / 2, 0.26), 9.0), (0, 0.17 + cab / 2, nose + 0.2))
    window = 0.17 + cab * 0.7
    glass = [
        *placed(box((width * 0.8, cab * 0.32, 0.04)), (0, window, nose + 0.45)),
        *placed(box((width + 0.02, cab * 0.3, 0.24)), (0, window, nose + 0.22)),
    ]
    chassis = placed(box((width * 0.8, 0.1, length + 0.55)), (0, 0.13, 0.25))
    bumper = placed(box((width * 1.02, 0.09, 0.06)), (0, 0.12, nose + 0.48))
    lamps = [
        p
        for x in (-0.34, 0.34)
        for p in (
            *placed(ball((0.06, 0.06, 0.03), 6), (x * width, 0.28, nose + 0.46)),
            *placed(box((0.09, 0.06, 0.03)), (x * width, 0.26, -length / 2)),
        )
    ]
    turn, size = rotation("z", -math.pi / 2), rng.uniform(0.15, 0.19)
    spots = [(x * width / 2, 0.04, z) for x in (-1, 1) for z in (nose + 0.2, -0.15 * length, -0.4 * length)]
    tyres = [p for spot in spots for p in placed(cylinder(size, 0.14), spot, turn)]
    caps = [p for spot in spots for p in placed(cylinder(0.55 * size, 0.16), spot, turn)]
    rubber, chrome = np.array([[0.13] * 3, [0.05] * 3, [0.25] * 3]), np.array([[0.8] * 3, [0.5, 0.5, 0.55], [1.0] * 3])
    sky = np.array([[0.25, 0.4, 0.55], [0.6, 0.75, 0.85], [0.15, 0.2, 0.3]])
    return [
        Part(cargo, worn(rng, glyphs, paint, rng.uniform(7, 10)), "surface"),
        Part(body, worn(rng, one_of(rng, [flat, stripes, marble]), trim, 5.0)),
        Part(tuple(glass), worn(rng, marble, sky, 8.0)),
        Part((*chassis, *bumper), worn(rng, stripes, rubber[[0, 2]], 14.0)),
        Part(tuple(lamps), marble(rng, np.array([[0.9, 0.3, 0.1], [1.0, 0.9, 0.5]]), 20.0)),
        Part(tuple(tyres), worn(rng, checks, rubber, 30.0), "surface"),
        Part(tuple(caps), worn(rng, stripes, chrome, 20.0)),
    ]


def _blob(rng: np.random.Generator) -> list[Part]:
    """A lumpy, glazed pebble with two blended patterns."""
    shape = bumpy(rng, rng.uniform(0.7, 1.0, 3), rng.uniform(0.6, 1.1), rng.uniform(1.2, 2.0), 40)
    first = one_of(rng, SOLID)(rng, palette(rng), rng.uniform(5, 9))
    second = one_of(rng, [marble, camouflage, cells])(rng, palette(rng), rng.uniform(6, 12))
    return [Part(shape, weathered(rng, blended(rng, first, second, 1.5), 0.5, 5.0))]


def _creature(rng: np.random.Generator) -> list[Part]:
    """Four-legged animal, looking towards +z: patterned coat, pale belly, snout, eyes, ears, tail."""
    long, stout, leg = rng.uniform(0.5, 0.75), rng.uniform(0.28, 0.4), rng.uniform(0.35, 0.7)
    neck, head = rng.uniform(0.15, 0.6), rng.uniform(0.19, 0.27)
    hue = rng.random() if rng.random() < 0.4 else rng.uniform(0.03, 0.13)
    coat = tones(rng, hue, rng.uniform(0.3, 0.8), 0.75)
    body = bumpy(rng, (stout, stout, long), 0.15, 1.5, 20)
    top = np.array([0.0, stout * 0.7 + neck, long * 0.95 + 0.5 * neck])
    throat = curve([(0, stout * 0.3, long * 0.55), (0, stout * 0.7 + 0.4 * neck, long * 0.85), top])
    skull = placed(bumpy(rng, (head, head, head * 1.1), 0.12, 1.5, 14), top)
    sole = -leg - 0.6 * stout
    legs: list[Grid] = []
    feet: list[Grid] = []
    for x, z in ((x, z) for x in (-0.42 * stout, 0.42 * stout) for z in (-0.68 * long, 0.68 * long)):
        path = curve([(x, -0.2 * stout, z), (1.3 * x, -0.5 * leg - 0.4 * stout, 1.05 * z), (1.35 * x, sole, z)])
        legs += tube(path, np.linspace(0.36 * stout, 0.19 * stout, 9))
        feet += placed(ball((0.25 * stout, 0.14 * stout, 0.33 * stout), 6), (1.35 * x, sole, z + 0.04))
    wag, lift, tip = rng.uniform(-0.4, 0.4), rng.uniform(0, 0.6), rng.uniform(-0.2, 0.9)
    tail = curve([(0, 0.3 * stout, -0.9 * long), (wag / 2, lift, -1.2 * long), (wag, tip, -1.35 * long)])
    fur = one_of(rng, [camouflage, stripes, dots, cells])(rng, coat, rng.uniform(6, 10))
    pelt = weathered(rng, _fading(fur, coat[2], -0.75 * stout), 0.4)
    tubes = (*tube(throat, np.linspace(0.75 * stout, 0.75 * head, 9)), *tube(tail, np.linspace(0.09, 0.025, 9)))
    return [
        Part((*body, *skull, *legs, *tubes), pelt),
        Part(tuple(feet), worn(rng, flat, coat[1:2] * 0.5, 1.0)),
        *_face(rng, top, head, coat),
    ]


def _face(rng: np.random.Generator, top: Float[np.ndarray, "3"], head: float, coat: Colours) -> list[Part]:
    """Snout, nose, ears and eyes of a head with its centre at ``top``."""

    def at(patches: Sequence[Grid], x: float, y: float, z: float, tilt: float = 0.0) -> tuple[Grid, ...]:
        return placed(patches, top + head * np.array([x, y, z]), rotation("z", tilt))

    ear = revolved([(0.0, -0.1), (0.4 * head, 0.0), (0.25 * head, 0.6 * head), (0.0, 1.1 * head)], 12)
    ears = [p for side in (-1, 1) for p in at(ear, 0.6 * side, 0.65, -0.1, -0.4 * side)]
    snout = at(ball((0.5 * head, 0.42 * head, 0.6 * head), 8), 0.0, -0.25, 0.85)
    nose = at(ball((0.2 * head, 0.15 * head, 0.12 * head), 6), 0.0, -0.1, 1.42)
    whites = [p for side in (-1, 1) for p in at(ball((0.2 * head,) * 3, 6), 0.5 * side, 0.3, 0.85)]
    pupils = [p for side in (-1, 1) for p in at(ball((0.12 * head,) * 3, 6), 0.5 * side, 0.34, 0.97)]
    return [
        Part((*snout, *ears), worn(rng, marble, coat[[2, 0, 3]], 9.0)),
        Part(nose, worn(rng, flat, coat[1:2] * 0.5, 1.0)),
        Part(tuple(whites), flat(rng, np.array([[0.95, 0.95, 0.9]]), 1.0)),
        Part(tuple(pupils), flat(rng, np.array([[0.06, 0.05, 0.08]]), 1.0)),
    ]


def _fading(pattern: Pattern, colour: Colour, height: float) -> Pattern:
    """A pattern that turns to ``colour`` below a height."""

    def fading(p: Xyz) -> Xyz:
        share = np.clip((height + 0.12 - p[:, 1:2]) / 0.12, 0, 0.85) * (np.abs(p[:, :1]) < 0.35)
        painted: Xyz = pattern(p) * (1 - share) + colour * share
        return painted

    return fading


BUILDERS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    "chair": _chair,
    "wheel": _wheel,
    "castle": _castle,
    "truck": _truck,
    "blob": _blob,
    "creature": _creature,
}
"""What draws the parts of each of `KINDS`."""
