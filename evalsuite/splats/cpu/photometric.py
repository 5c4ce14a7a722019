"""L1 + D-SSIM over rows of interleaved images, in three passes; called by `evalsuite.splats.loss`.

Images come as [H, 3 W] float32: a horizontal tap is a shift by 3 floats. Rows are worked on 16 floats at a time, the
last 16 of a row overlapping those before: what is written twice is the same, and sums leave it out once.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from evalsuite.splats.cpu.simd import LANES, absolute, fma, lane, load, negative, select, splat, store, totals

TAPS = 11
K1_SQ, K2_SQ = 0.01**2, 0.03**2
_ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
_STEP = np.repeat(np.float32([0, 1]), LANES)


@njit(cache=True, inline="always")
def _blocks(width):
    """How many blocks of 16 cover a row."""
    return (width + LANES - 1) // LANES


@njit(cache=True, inline="always")
def _fresh(block, start):
    """1 in the lanes of a block that no earlier block has covered, else 0."""
    return load(_STEP, LANES + start - block * LANES)


@njit(cache=True, parallel=True)
def blur_rows(x, y, window, across):
    """Horizontal window sums of x, y, x^2, y^2 and xy into ``across`` [H, 5, W'], W' = 3 (W - 10) >= 16."""
    width = across.shape[2]
    for r in prange(x.shape[0]):
        row_x, row_y, out = x[r], y[r], across[r]
        for block in range(_blocks(width)):
            i = min(block * LANES, width - LANES)
            sx = sy = sxx = syy = sxy = splat(_ZERO)
            for k in range(TAPS):
                tap = splat(window[k])
                p, q = load(row_x, i + 3 * k), load(row_y, i + 3 * k)
                tp, tq = tap * p, tap * q
                sx, sy = sx + tp, sy + tq
                sxx, syy, sxy = fma(tp, p, sxx), fma(tq, q, syy), fma(tp, q, sxy)
            store(out[0], i, sx)
            store(out[1], i, sy)
            store(out[2], i, sxx)
            store(out[3], i, syy)
            store(out[4], i, sxy)


@njit(cache=True, inline="always")
def _down(rows, first, field, i, window):
    """Vertical window sum of one field, 16 columns of it."""
    s = splat(_ZERO)
    for k in range(TAPS):
        s = fma(splat(window[k]), load(rows[first + k, field], i), s)
    return s


@njit(cache=True, parallel=True)
def ssim_rows(across, window, scale, partial, sums):
    """Row sums of SSIM; ``scale`` x its derivatives in mean, square and product, 10 rows down, into ``partial``."""
    width = across.shape[2]
    for r in prange(sums.shape[0]):
        total, factor, two = splat(_ZERO), splat(scale), splat(_TWO)
        out = partial[r + TAPS - 1]
        for block in range(_blocks(width)):
            i = min(block * LANES, width - LANES)
            mx, my = _down(across, r, 0, i, window), _down(across, r, 1, i, window)
            xx, yy, xy = (
                _down(across, r, 2, i, window), _down(across, r, 3, i, window), _down(across, r, 4, i, window),
            )  # fmt: skip
            mean_xy, means = mx * my, fma(mx, mx, my * my)
            a1, a2 = fma(two, mean_xy, splat(np.float32(K1_SQ))), fma(two, xy - mean_xy, splat(np.float32(K2_SQ)))
            b1, b2 = means + splat(np.float32(K1_SQ)), xx + yy - means + splat(np.float32(K2_SQ))
            inverse = splat(_ONE) / (b1 * b2)
            s = a1 * a2 * inverse
            total = fma(s, _fresh(block, i), total)
            d_mean = two * inverse * (my * (a2 - a1) - mx * s * (b2 - b1))
            store(out[0], i, factor * d_mean)
            store(out[1], i, negative(factor * s * b1 * inverse))
            store(out[2], i, factor * two * a1 * inverse)
        sums[r] = lane(totals((total,)), 0)


@njit(cache=True, parallel=True)
def gradient_rows(x, y, partial, window, l1_scale, gradient, sums):
    """Gradient of the loss: L1's sign plus the window applied transposed to ``partial``; row sums of |x - y|."""
    width, margin = partial.shape[2], 3 * (TAPS - 1)
    for r in prange(x.shape[0]):
        down = np.zeros((3, width + 2 * margin), np.float32)
        for block in range(_blocks(width)):
            i = min(block * LANES, width - LANES)
            for f in range(3):  # the window is symmetric: transposed or not
                store(down[f], i + margin, _down(partial, r, f, i, window))
        row_x, row_y, out = x[r], y[r], gradient[r]
        total, zero, step = splat(_ZERO), splat(_ZERO), splat(l1_scale)
        for block in range(_blocks(x.shape[1])):
            i = min(block * LANES, x.shape[1] - LANES)
            g_mean = g_square = g_product = zero
            for k in range(TAPS):
                tap, at = splat(window[k]), i + 3 * k
                g_mean = fma(tap, load(down[0], at), g_mean)
                g_square = fma(tap, load(down[1], at), g_square)
                g_product = fma(tap, load(down[2], at), g_product)
            p, q = load(row_x, i), load(row_y, i)
            difference = p - q
            total = fma(absolute(difference), _fresh(block, i), total)
            sign = select(zero < difference, step, select(difference < zero, negative(step), zero))
            store(out, i, sign + fma(splat(_TWO) * p, g_square, fma(q, g_product, g_mean)))
        sums[r] = lane(totals((total,)), 0)
