"""Front-to-back blending of tile lists and its gradient, 16 pixels at a time.

The inner loops run over the pixels of one tile with every per-pixel quantity in a small local array, so that
LLVM turns them into vector code; nothing in them calls a library (a libm ``exp`` would block vectorisation).
The gradient pass also runs front to back: it replays the forward pass and keeps, per pixel, what is still to
come behind the current Gaussian, instead of dividing transmittances back out as a back-to-front pass must.
Every tile entry owns a row of the gradient table, and rows are summed per Gaussian in list order: no atomics,
the same bits for any number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from evalsuite.splats.cpu.tiles import TILE

PIXELS = TILE * TILE
ALPHA_CUT = np.float32(1.0 / 255.0)
ALPHA_MAX = np.float32(0.999)
T_STOP = np.float32(1e-4)
SIGMA_MAX = np.float32(6.0)  # exp(-6) < 1/255: nothing beyond can contribute
SUMS = 10  # mean2d (2), conic (3), opacity, colour (3), depth


@njit(cache=True, inline="always", fastmath=True)
def _exp_neg(sigma):
    """exp(-sigma) for sigma in [0, SIGMA_MAX]: degree-6 Taylor of exp(-sigma/8), squared three times; 1e-6 relative."""
    u = min(sigma, SIGMA_MAX) * np.float32(-0.125)
    p = np.float32(1 / 720) * u + np.float32(1 / 120)
    p = p * u + np.float32(1 / 24)
    p = p * u + np.float32(1 / 6)
    p = p * u + np.float32(0.5)
    p = p * u + np.float32(1.0)
    p = p * u + np.float32(1.0)
    p = p * p
    p = p * p
    return p * p


@njit(cache=True, inline="always")
def _rows(centre, extent, top):
    """First and one-past-last row of the tile starting at ``top`` that the Gaussian may touch."""
    low = int(np.floor(centre - extent - np.float32(0.51))) - top
    high = int(np.ceil(centre + extent - np.float32(0.49))) - top + 1
    return max(low, 0), min(high, TILE)


@njit(cache=True, parallel=True, fastmath=True)
def composite_forward(starts, entries, splats, background, width, height, rgb, alpha, depth):
    """Blend every tile.

    Args:
        splats: [N, 12] rows of mean x, y, conic xx, xy, yy, opacity, r, g, b, depth, half-height, unused.
        background: [3]; rgb [H, W, 3], alpha [H, W], depth [H, W] (not normalised by alpha): outputs.
    """
    tiles_x = (width + TILE - 1) // TILE
    for t in prange(starts.shape[0] - 1):
        left, top = (t % tiles_x) * TILE, (t // tiles_x) * TILE
        px = np.empty(PIXELS, np.float32)
        py = np.empty(PIXELS, np.float32)
        trans = np.ones(PIXELS, np.float32)  # transmittance; negative once the pixel has stopped
        red = np.zeros(PIXELS, np.float32)
        green = np.zeros(PIXELS, np.float32)
        blue = np.zeros(PIXELS, np.float32)
        far = np.zeros(PIXELS, np.float32)
        for p in range(np.uint64(PIXELS)):
            px[p] = np.float32(left) + np.float32(p % np.uint64(TILE)) + np.float32(0.5)
            py[p] = np.float32(top) + np.float32(p // np.uint64(TILE)) + np.float32(0.5)
        for k in range(starts[t], starts[t + 1]):
            n = entries[k]
            mx, my = splats[n, 0], splats[n, 1]
            half_a, b, half_c = np.float32(0.5) * splats[n, 2], splats[n, 3], np.float32(0.5) * splats[n, 4]
            opacity = splats[n, 5]
            cr, cg, cb, z = splats[n, 6], splats[n, 7], splats[n, 8], splats[n, 9]
            row0, row1 = _rows(my, splats[n, 10], top)
            for p in range(np.uint64(row0 * TILE), np.uint64(row1 * TILE)):
                dx = px[p] - mx
                dy = py[p] - my
                sigma = dx * (half_a * dx + b * dy) + half_c * dy * dy
                a = min(ALPHA_MAX, opacity * _exp_neg(max(sigma, np.float32(0))))
                a = a if (a >= ALPHA_CUT and sigma >= np.float32(0)) else np.float32(0)
                before = trans[p]
                after = before * (np.float32(1) - a)
                live = after > T_STOP
                weight = a * before if live else np.float32(0)
                trans[p] = after if live else -abs(before)
                red[p] += weight * cr
                green[p] += weight * cg
                blue[p] += weight * cb
                far[p] += weight * z
            if (k & 15) == 15:
                most = np.float32(-1)
                for p in range(np.uint64(PIXELS)):
                    most = max(most, trans[p])
                if most < np.float32(0):
                    break
        for y in range(top, min(top + TILE, height)):
            for x in range(left, min(left + TILE, width)):
                p = (y - top) * TILE + x - left
                rest = abs(trans[p])
                rgb[y, x, 0] = red[p] + rest * background[0]
                rgb[y, x, 1] = green[p] + rest * background[1]
                rgb[y, x, 2] = blue[p] + rest * background[2]
                alpha[y, x] = np.float32(1) - rest
                depth[y, x] = far[p]


@njit(cache=True, parallel=True, fastmath=True)
def composite_backward(
    starts, entries, slots, splats, background, width, height,
    rgb, alpha, depth, v_rgb, v_alpha, v_depth, table, v_background,
):  # fmt: skip
    """Gradient of `composite_forward`.

    Args:
        rgb, alpha, depth: the forward pass's outputs; v_*: their cotangents.
        table: [E, SUMS] output, one row per tile entry; v_background: [tiles, 3] output, one row per tile.
    """
    tiles_x = (width + TILE - 1) // TILE
    for t in prange(starts.shape[0] - 1):
        left, top = (t % tiles_x) * TILE, (t // tiles_x) * TILE
        px = np.empty(PIXELS, np.float32)
        py = np.empty(PIXELS, np.float32)
        trans = np.ones(PIXELS, np.float32)
        vr = np.zeros(PIXELS, np.float32)
        vg = np.zeros(PIXELS, np.float32)
        vb = np.zeros(PIXELS, np.float32)
        va = np.zeros(PIXELS, np.float32)
        vz = np.zeros(PIXELS, np.float32)
        rest = np.zeros(PIXELS, np.float32)  # cotangent . (what is behind the current Gaussian)
        for p in range(np.uint64(PIXELS)):
            px[p] = np.float32(left) + np.float32(p % np.uint64(TILE)) + np.float32(0.5)
            py[p] = np.float32(top) + np.float32(p // np.uint64(TILE)) + np.float32(0.5)
        for y in range(top, min(top + TILE, height)):
            for x in range(left, min(left + TILE, width)):
                p = (y - top) * TILE + x - left
                vr[p], vg[p], vb[p] = v_rgb[y, x, 0], v_rgb[y, x, 1], v_rgb[y, x, 2]
                va[p], vz[p] = v_alpha[y, x], v_depth[y, x]
                rest[p] = (
                    rgb[y, x, 0] * vr[p] + rgb[y, x, 1] * vg[p] + rgb[y, x, 2] * vb[p]
                    + alpha[y, x] * va[p] + depth[y, x] * vz[p]
                )  # fmt: skip
                through = np.float32(1) - alpha[y, x]
                v_background[t, 0] += through * vr[p]
                v_background[t, 1] += through * vg[p]
                v_background[t, 2] += through * vb[p]
        done = False
        for k in range(starts[t], starts[t + 1]):
            row = slots[k]
            if done:
                for s in range(SUMS):
                    table[row, s] = np.float32(0)
                continue
            n = entries[k]
            mx, my = splats[n, 0], splats[n, 1]
            conic_a, b, conic_c = splats[n, 2], splats[n, 3], splats[n, 4]
            half_a, half_c = np.float32(0.5) * conic_a, np.float32(0.5) * conic_c
            opacity = splats[n, 5]
            cr, cg, cb, z = splats[n, 6], splats[n, 7], splats[n, 8], splats[n, 9]
            row0, row1 = _rows(my, splats[n, 10], top)
            s_r = s_g = s_b = s_z = np.float32(0)
            s_1 = s_x = s_y = s_xx = s_xy = s_yy = np.float32(0)
            for p in range(np.uint64(row0 * TILE), np.uint64(row1 * TILE)):
                dx = px[p] - mx
                dy = py[p] - my
                sigma = dx * (half_a * dx + b * dy) + half_c * dy * dy
                raw = opacity * _exp_neg(max(sigma, np.float32(0)))
                a = min(ALPHA_MAX, raw)
                a = a if (a >= ALPHA_CUT and sigma >= np.float32(0)) else np.float32(0)
                before = trans[p]
                after = before * (np.float32(1) - a)
                live = after > T_STOP
                weight = a * before if live else np.float32(0)
                trans[p] = after if live else -abs(before)
                seen = vr[p] * cr + vg[p] * cg + vb[p] * cb + vz[p] * z + va[p]
                behind = rest[p] - weight * seen
                rest[p] = behind
                s_r += weight * vr[p]
                s_g += weight * vg[p]
                s_b += weight * vb[p]
                s_z += weight * vz[p]
                v_a = before * seen - behind / (np.float32(1) - a)
                v_sigma = -v_a * a if (live and raw <= ALPHA_MAX) else np.float32(0)
                vx = v_sigma * dx
                vy = v_sigma * dy
                s_1 += v_sigma
                s_x += vx
                s_y += vy
                s_xx += vx * dx
                s_xy += vx * dy
                s_yy += vy * dy
            table[row, 0] = -(conic_a * s_x + b * s_y)
            table[row, 1] = -(b * s_x + conic_c * s_y)
            table[row, 2] = np.float32(0.5) * s_xx
            table[row, 3] = s_xy
            table[row, 4] = np.float32(0.5) * s_yy
            table[row, 5] = -s_1 / opacity
            table[row, 6] = s_r
            table[row, 7] = s_g
            table[row, 8] = s_b
            table[row, 9] = s_z
            if (k & 15) == 15:
                most = np.float32(-1)
                for p in range(np.uint64(PIXELS)):
                    most = max(most, trans[p])
                done = bool(most < np.float32(0))


@njit(cache=True, parallel=True)
def reduce_table(order, offsets, table, v_splats):
    """Sum the rows of every visible Gaussian, in list order, into ``v_splats`` [N, SUMS]."""
    for m in prange(order.shape[0]):
        n = order[m]
        for s in range(SUMS):
            total = np.float32(0)
            for row in range(offsets[m], offsets[m + 1]):
                total += table[row, s]
            v_splats[n, s] = total
