"""Colour as a function of points: palettes, makers of patterns, and how patterns are weathered and blended."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from evalsuite.scenes.procedural.randomness import Xyz, hashed, one_of, value_noise

Colour = Float[np.ndarray, "3"]
Colours = Float[np.ndarray, "C 3"]
Pattern = Callable[[Xyz], Xyz]
"""Colours in [0, 1], give or take, at points."""
Maker = Callable[[np.random.Generator, Colours, float], Pattern]
"""Draws a pattern of the given colours with about ``scale`` features per unit of length."""
Space = Literal["solid", "surface"]
"""What a pattern reads: positions (solid) or the patch's own metric coordinates (surface)."""


def palette(rng: np.random.Generator, count: int = 4) -> Colours:
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


def tones(rng: np.random.Generator, hue: float, vivid: float, value: float) -> Colours:
    """Four colours round one: itself, darker, paler, and a neighbouring hue."""
    hues = (hue, hue + 0.02, hue - 0.02, hue + rng.uniform(0.05, 0.15))
    saturations = (vivid, vivid, 0.5 * vivid, vivid)
    values = (value, 0.45 * value, min(1.0, 1.3 * value), 0.8 * value)
    return np.array([colorsys.hsv_to_rgb(h % 1, s, v) for h, s, v in zip(hues, saturations, values, strict=True)])


def _ramp(colours: Colours, t: Float[np.ndarray, "P"]) -> Xyz:
    """Piecewise linear through the colours, t in [0, 1]."""
    stops = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(t, stops, colours[:, c]) for c in range(3)], axis=1)


def flat(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """The first colour."""
    return lambda p: np.broadcast_to(colours[0], p.shape)


def marble(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """All colours in turn along noise: clouds and veins."""
    noise = value_noise(rng, 5)
    return lambda p: _ramp(colours, noise(p * scale / 4))


def camouflage(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Patches with hard edges: noise cut into one level per colour."""
    noise = value_noise(rng, 3)
    return lambda p: colours[np.minimum((noise(p * scale / 3) * len(colours)).astype(int), len(colours) - 1)]


def stripes(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Straight or wavy bands across a random axis."""
    noise = value_noise(rng, 2)
    axis = np.eye(3)[rng.integers(2)] if rng.random() < 0.6 else rng.normal(size=3)
    axis = axis / np.linalg.norm(axis)
    wobble = rng.choice([0.0, 0.3, 1.5])
    count = int(rng.integers(2, len(colours) + 1))

    def paint(p: Xyz) -> Xyz:
        band = np.floor(p @ axis * scale + wobble * noise(p * scale / 2)).astype(int) % count
        painted: Xyz = colours[band]
        return painted

    return paint


def checks(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Cubes in the first two colours by turns."""
    shift = rng.uniform(0, 1, 3)
    return lambda p: colours[np.floor(p * scale * 0.8 + shift).astype(int).sum(axis=1) % 2]


def dots(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Balls of the other colours in a ground of the first, one per cell of a lattice."""
    size, salt = rng.uniform(0.25, 0.48), int(rng.integers(1 << 16))
    ink = colours[1:]

    def paint(p: Xyz) -> Xyz:
        q = p * scale * 0.8
        cell = np.floor(q)
        inside = np.linalg.norm(q - cell - 0.5, axis=1) < size
        chosen = ink[(hashed(cell, salt) * len(ink)).astype(int)]
        painted: Xyz = np.where(inside[:, None], chosen, colours[0])
        return painted

    return paint


def bricks(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Courses of the first colour, each brick in its own shade, with joints of the second."""
    aspect, gap, salt = rng.uniform(1.2, 3.5), rng.uniform(0.05, 0.14), int(rng.integers(1 << 16))

    def paint(p: Xyz) -> Xyz:
        # the third coordinate joins the first, so that side walls of solids have courses as well
        v = p[:, 1] * scale
        row = np.floor(v)
        u = (p[:, 0] + p[:, 2]) * scale / aspect + 0.5 * (row % 2)
        column = np.floor(u)
        joint = (v - row < gap) | (u - column < gap / aspect)
        shade = 0.75 + 0.35 * hashed(np.stack([row, column, row], axis=1), salt)
        painted: Xyz = np.where(joint[:, None], colours[1], colours[0] * shade[:, None])
        return painted

    return paint


def wood(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Rings round a stretched axis, bent by noise, from the first colour to the second."""
    noise, axis = value_noise(rng, 4), int(rng.integers(3))
    stretch = np.full(3, 1.0)
    stretch[axis] = 0.12
    offset = rng.normal(size=3)

    def paint(p: Xyz) -> Xyz:
        q = (p + offset) * stretch
        rings = np.linalg.norm(q, axis=1) * scale * 1.5 + 3 * noise(q * scale / 3)
        grain = 0.5 + 0.5 * np.sin(2 * math.pi * rings)
        painted: Xyz = colours[0] + (colours[1] - colours[0]) * (grain**3)[:, None]
        return painted

    return paint


def plaid(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Threads of the other colours over the first, along all three axes."""
    widths = rng.uniform(0.15, 0.6, len(colours))

    def paint(p: Xyz) -> Xyz:
        result = np.broadcast_to(colours[0], p.shape)
        for k in range(1, len(colours)):
            threads = (p * scale / (k + 0.5) % 1 < widths[k]).mean(axis=1, keepdims=True)
            result = result + (colours[k] - result) * 0.7 * threads
        return result

    return paint


def cells(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Voronoi cells of the other colours with borders of the first."""
    seeds = rng.uniform(-1.3, 1.3, (int(np.clip(6 * scale**1.5, 20, 400)), 3))
    tree, edge = cKDTree(seeds), rng.uniform(0.1, 0.3) / scale
    chosen = rng.integers(1, len(colours), len(seeds))

    def paint(p: Xyz) -> Xyz:
        distance, index = tree.query(p, k=2)
        border = distance[:, 1] - distance[:, 0] < edge
        painted: Xyz = np.where(border[:, None], colours[0], colours[chosen[index[:, 0]]])
        return painted

    return paint


def glyphs(rng: np.random.Generator, colours: Colours, scale: float) -> Pattern:
    """Rows of words in letter-like bitmaps, over paper with coloured lines; ink contrasts with the paper."""
    letters = np.zeros((24, 9, 7), dtype=bool)
    strokes = rng.random((24, 7, 3)) < 0.5
    letters[:, 1:8, 1:6] = np.concatenate([strokes, strokes[:, :, 1::-1]], axis=2)
    letters[:, 1:8, 1] = True
    letters[::5] = False
    lightness = colours.mean(axis=1)
    ink_rgb = colours[np.abs(lightness - lightness[0]).argmax()]
    salt, lines = int(rng.integers(1 << 16)), int(rng.integers(2, 5))

    def paint(p: Xyz) -> Xyz:
        q = p * (scale / 1.4, scale / 1.8, 1.0)
        cell = np.floor(q)
        fraction = q - cell
        letter = (hashed(cell, salt) * len(letters)).astype(int)
        row = np.minimum(((1 - fraction[:, 1]) * 9).astype(int), 8)
        ink = letters[letter, row, np.minimum((fraction[:, 0] * 7).astype(int), 6)]
        banded = cell[:, 1] % lines == 0
        paper = np.where((banded & (cell[:, 0] % 7 < 4))[:, None], colours[1], colours[0])
        painted: Xyz = np.where((ink & ~banded)[:, None], ink_rgb, paper)
        return painted

    return paint


SOLID = (marble, camouflage, stripes, checks, dots, wood, cells, plaid)
"""Makers of patterns that read positions."""
_SURFACE = (stripes, checks, dots, bricks, plaid, glyphs, glyphs, marble)


def weathered(rng: np.random.Generator, pattern: Pattern, strength: float, scale: float = 6.0) -> Pattern:
    """A pattern under multi-octave changes of lightness."""
    noise = value_noise(rng, 5)
    return lambda p: pattern(p) * (1 + strength * (noise(p * scale) - 0.6))[:, None]


def blended(rng: np.random.Generator, first: Pattern, second: Pattern, scale: float) -> Pattern:
    """Two patterns, one showing where low-frequency noise is high."""
    noise = value_noise(rng, 2)
    return lambda p: np.where((noise(p * scale) > 0.55)[:, None], second(p), first(p))


def worn(rng: np.random.Generator, maker: Maker, colours: Colours, scale: float) -> Pattern:
    """A named pattern, lightly weathered."""
    return weathered(rng, maker(rng, colours, scale), 0.35)


def random_pattern(rng: np.random.Generator, space: Space) -> Pattern:
    """From flat to rich: one pattern or two, at a random scale, weathered or clean."""
    colours, scale = palette(rng, int(rng.integers(3, 6))), float(np.exp(rng.uniform(math.log(4), math.log(18))))
    if rng.random() < 0.15:
        return weathered(rng, flat(rng, colours, scale), rng.choice([0.0, 0.2]))
    known = SOLID if space == "solid" else _SURFACE
    pattern = one_of(rng, known)(rng, colours, scale)
    if rng.random() < 0.3:
        second = one_of(rng, known)(rng, palette(rng, 4), scale * rng.uniform(0.5, 2.0))
        pattern = blended(rng, pattern, second, rng.uniform(1.0, 3.0))
    return weathered(rng, pattern, rng.uniform(0.1, 0.6), rng.uniform(2.0, 9.0))
