"""Front-to-back blending of tile lists and its gradient, one row of 16 pixels at a time.

A tile row is one vector (`simd`), so sums over a tile are kept per lane and added up once. The exponent is written
around the ellipse's sheared axis, sigma = half_a dx^2 + half_c (dy + shear dx)^2, which cannot turn negative and costs
two multiply-adds per row: everything with dx alone is computed once per Gaussian and tile.

The gradient pass also runs front to back: it replays the forward pass and keeps, per pixel, what is still to come
behind the current Gaussian, instead of dividing transmittances back out as a back-to-front pass must. Every tile entry
owns a row of the gradient table, and rows are summed per Gaussian in list order: no atomics, the same bits for any
number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from evalsuite.splats.cpu.projection import (
    BLUE,
    DEPTH,
    GREEN,
    HALF_A,
    HALF_C,
    MEAN_X,
    MEAN_Y,
    OPACITY,
    RED,
    SHEAR,
)  # fmt: skip
from evalsuite.splats.cpu.simd import (
    LANES,
    absolute,
    any_lane,
    both,
    fma,
    lane,
    lesser,
    load,
    negative,
    select,
    splat,
    store,
    totals,
)  # fmt: skip
from evalsuite.splats.cpu.tiles import TILE

PIXELS = TILE * TILE
ALPHA_CUT = np.float32(1.0 / 255.0)
ALPHA_MAX = np.float32(0.999)
T_STOP = np.float32(1e-4)
SIGMA_MAX = np.float32(6.0)  # exp(-6) < 1/255: nothing beyond can contribute
SUMS = LANES
"""Columns of the gradient table: 12 sums (see `composite_backward`), padded to a cache line."""

ZERO, HALF, ONE, TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)

# exp(-u) on [0, 0.75], polynomial of degree 5 with 4e-8 relative error; squared three times it is exp(-8u)
_NODES = 0.375 * (1 + np.cos(np.pi * (np.arange(64) + 0.5) / 64))
E0, E1, E2, E3, E4, E5 = np.polynomial.polynomial.polyfit(_NODES, np.exp(-_NODES), 5, w=np.exp(_NODES)).astype(
    np.float32
)


@njit(cache=True, inline="always")
def _exp_neg(sigma):
    """exp(-min(sigma, SIGMA_MAX)) for sigma >= 0."""
    u = lesser(sigma, splat(SIGMA_MAX)) * splat(np.float32(0.125))
    p = fma(splat(E5), u, splat(E4))
    p = fma(p, u, splat(E3))
    p = fma(p, u, splat(E2))
    p = fma(p, u, splat(E1))
    p = fma(p, u, splat(E0))
    p = p * p
    p = p * p
    return p * p


@njit(cache=True, inline="always")
def _columns(left):
    """Pixel centres of a tile's columns."""
    x = np.empty(TILE, np.float32)
    for i in range(TILE):
        x[i] = np.float32(left + i) + HALF
    return load(x, 0)


@njit(cache=True, inline="always")
def _footprint(splats, n, x, top):
    """A Gaussian over a tile: dx, dy of its first row, half_a dx^2, shear dx, half_c, opacity."""
    dx = x - splat(splats[n, MEAN_X])
    dy = np.float32(top) + HALF - splats[n, MEAN_Y]
    across, shift = dx * dx * splat(splats[n, HALF_A]), dx * splat(splats[n, SHEAR])
    return dx, dy, across, shift, splat(splats[n, HALF_C]), splat(splats[n, OPACITY])


@njit(cache=True, inline="always")
def _light(splats, n):
    """What a Gaussian adds to a pixel: red, green, blue, depth."""
    return splat(splats[n, RED]), splat(splats[n, GREEN]), splat(splats[n, BLUE]), splat(splats[n, DEPTH])


@njit(cache=True, inline="always")
def _alive(trans):
    """Whether any pixel still takes light."""
    alive = False
    for row in range(TILE):
        alive = alive or any_lane(splat(ZERO) < load(trans, row * TILE))
    return alive


@njit(cache=True, parallel=True)
def composite_forward(first, starts, entries, spans, splats, background, width, height, rgb, alpha, depth):
    """Blend the tiles ``first``, ``first + 1``, ... whose lists are given.

    Args:
        splats: [N, 12] rows of `projection.project_forward`.
        background: [3]; rgb [H, W, 3], alpha [H, W], depth [H, W] (not normalised by alpha): outputs. Without depth
            (None) none is blended.
    """
    tiles_x = (width + TILE - 1) // TILE
    for i in prange(starts.shape[0] - 1):
        left, top = ((first + i) % tiles_x) * TILE, ((first + i) // tiles_x) * TILE
        x = _columns(left)
        trans = np.ones(PIXELS, np.float32)  # transmittance; negative once the pixel has stopped
        red, green, blue = np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32)
        far = np.zeros(PIXELS, np.float32)
        zero, one = splat(ZERO), splat(ONE)
        for k in range(starts[i], starts[i + 1]):
            n = entries[k]
            _, dy, across, shift, half_c, opacity = _footprint(splats, n, x, top)
            r, g, b, z = _light(splats, n)
            for row in range(spans[k] >> 4, (spans[k] & 15) + 1):
                p = row * TILE
                before = load(trans, p)
                if not any_lane(zero < before):
                    continue
                u = shift + splat(dy + np.float32(row))
                sigma = fma(half_c * u, u, across)
                a = lesser(opacity * _exp_neg(sigma), splat(ALPHA_MAX))
                a = select(splat(ALPHA_CUT) <= a, a, zero)
                after = before * (one - a)
                live = splat(T_STOP) < after
                weight = select(live, a * before, zero)
                store(trans, p, select(live, after, negative(absolute(before))))
                store(red, p, fma(weight, r, load(red, p)))
                store(green, p, fma(weight, g, load(green, p)))
                store(blue, p, fma(weight, b, load(blue, p)))
                if depth is not None:
                    store(far, p, fma(weight, z, load(far, p)))
            if (k & 15) == 15 and not _alive(trans):
                break
        for y in range(top, min(top + TILE, height)):
            for c in range(left, min(left + TILE, width)):
                p = (y - top) * TILE + c - left
                rest = abs(trans[p])
                rgb[y, c, 0] = red[p] + rest * background[0]
                rgb[y, c, 1] = green[p] + rest * background[1]
                rgb[y, c, 2] = blue[p] + rest * background[2]
                alpha[y, c] = ONE - rest
                if depth is not None:
                    depth[y, c] = far[p]


@njit(cache=True, parallel=True)
def composite_backward(
    first, starts, entries, spans, slots, splats, background, width, height,
    rgb, alpha, depth, v_rgb, v_alpha, v_depth, absgrad, table, v_background,
):  # fmt: skip
    """Gradient of `composite_forward`.

    Args:
        rgb, alpha, depth: the forward pass's outputs; v_*: their cotangents. Depth and the cotangents of alpha and
            depth may be None, all three: then only colour counts.
        absgrad: whether to sum the last two columns.
        table: [E, SUMS] output, one row per tile entry. With v = d loss / d sigma of a pixel: sums of v, v u, v dx,
            v dx^2, v u dx, v u^2, then of the colours' and depth's derivatives, and of the absolute derivatives in
            mean x and mean y.
        v_background: [tiles of the image, 3] output, one row per tile.
    """
    tiles_x = (width + TILE - 1) // TILE
    for i in prange(starts.shape[0] - 1):
        t = first + i
        left, top = (t % tiles_x) * TILE, (t // tiles_x) * TILE
        x = _columns(left)
        trans = np.ones(PIXELS, np.float32)
        vr, vg, vb = np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32)
        va, vz = np.zeros(PIXELS, np.float32), np.zeros(PIXELS, np.float32)
        rest = np.zeros(PIXELS, np.float32)  # cotangent . (what is behind the current Gaussian)
        for y in range(top, min(top + TILE, height)):
            for c in range(left, min(left + TILE, width)):
                p = (y - top) * TILE + c - left
                vr[p], vg[p], vb[p] = v_rgb[y, c, 0], v_rgb[y, c, 1], v_rgb[y, c, 2]
                rest[p] = rgb[y, c, 0] * vr[p] + rgb[y, c, 1] * vg[p] + rgb[y, c, 2] * vb[p]
                if v_depth is not None:
                    va[p], vz[p] = v_alpha[y, c], v_depth[y, c]
                    rest[p] = rest[p] + alpha[y, c] * va[p] + depth[y, c] * vz[p]
                through = ONE - alpha[y, c]
                v_background[t, 0] += through * vr[p]
                v_background[t, 1] += through * vg[p]
                v_background[t, 2] += through * vb[p]
        zero, one = splat(ZERO), splat(ONE)
        alive = True
        for k in range(starts[i], starts[i + 1]):
            out = table[slots[k]]
            if not alive:
                out[:] = ZERO
                continue
            n = entries[k]
            dx, dy, across, shift, half_c, opacity = _footprint(splats, n, x, top)
            r, g, b, z = _light(splats, n)
            slope_x, slope_u = splat(TWO * splats[n, HALF_A]) * dx, splat(TWO * splats[n, HALF_C])
            shear = splat(splats[n, SHEAR])
            s_r = s_g = s_b = s_z = zero
            s_1 = s_u = s_uu = zero
            a_x = a_y = zero
            for row in range(spans[k] >> 4, (spans[k] & 15) + 1):
                p = row * TILE
                before = load(trans, p)
                if not any_lane(zero < before):
                    continue
                u = shift + splat(dy + np.float32(row))
                sigma = fma(half_c * u, u, across)
                raw = opacity * _exp_neg(sigma)
                a = lesser(raw, splat(ALPHA_MAX))
                a = select(splat(ALPHA_CUT) <= a, a, zero)
                clear = one - a
                after = before * clear
                live = splat(T_STOP) < after
                weight = select(live, a * before, zero)
                store(trans, p, select(live, after, negative(absolute(before))))
                pr, pg, pb = load(vr, p), load(vg, p), load(vb, p)
                if v_depth is not None:
                    pz = load(vz, p)
                    seen = fma(pr, r, fma(pg, g, fma(pb, b, fma(pz, z, load(va, p)))))
                    s_z = fma(weight, pz, s_z)
                else:
                    seen = fma(pr, r, fma(pg, g, pb * b))
                behind = fma(negative(weight), seen, load(rest, p))
                store(rest, p, behind)
                s_r, s_g, s_b = fma(weight, pr, s_r), fma(weight, pg, s_g), fma(weight, pb, s_b)
                v_a = fma(before, seen, negative(behind / clear))
                v_sigma = select(both(live, raw <= splat(ALPHA_MAX)), negative(v_a) * a, zero)
                v_u = v_sigma * u
                s_1 = s_1 + v_sigma
                s_u = s_u + v_u
                s_uu = fma(v_u, u, s_uu)
                if absgrad:
                    pull = v_u * slope_u
                    a_x = a_x + absolute(fma(v_sigma, slope_x, pull * shear))
                    a_y = a_y + absolute(pull)
            s_x = s_1 * dx
            store(out, 0, totals((s_1, s_u, s_x, s_x * dx, s_u * dx, s_uu, s_r, s_g, s_b, s_z, a_x, a_y)))
            if (k & 15) == 15:
                alive = _alive(trans)


@njit(cache=True, parallel=True)
def reduce_table(offsets, table, splats, v_splats, v_absolute):
    """Sum every Gaussian's rows, in list order, and add what they mean to the outputs.

    Args:
        v_splats: [N, 12] derivatives in the columns of ``splats``.
        v_absolute: [N, 2] sums over pixels of the absolute derivatives in mean x and mean y.
    """
    for n in prange(splats.shape[0]):
        if offsets[n] == offsets[n + 1]:
            continue
        sums = splat(ZERO)
        for row in range(offsets[n], offsets[n + 1]):
            sums = sums + load(table[row], 0)
        half_a, shear, half_c = splats[n, HALF_A], splats[n, SHEAR], splats[n, HALF_C]
        v_mean_y = -TWO * half_c * lane(sums, 1)
        v_splats[n, MEAN_X] += v_mean_y * shear - TWO * half_a * lane(sums, 2)
        v_splats[n, MEAN_Y] += v_mean_y
        v_splats[n, HALF_A] += lane(sums, 3)
        v_splats[n, SHEAR] += TWO * half_c * lane(sums, 4)
        v_splats[n, HALF_C] += lane(sums, 5)
        v_splats[n, OPACITY] -= lane(sums, 0) / splats[n, OPACITY]
        v_splats[n, RED] += lane(sums, 6)
        v_splats[n, GREEN] += lane(sums, 7)
        v_splats[n, BLUE] += lane(sums, 8)
        v_splats[n, DEPTH] += lane(sums, 9)
        v_absolute[n, 0] += lane(sums, 10)
        v_absolute[n, 1] += lane(sums, 11)
