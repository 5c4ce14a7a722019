"""L1 + D-SSIM over rows of interleaved images, in three passes; called by `evalsuite.splats.loss`.

Images come as [H, 3 W] float32: a horizontal tap is a shift by 3 floats, and every loop runs over contiguous memory.
Each pass is a kernel of its own because Numba 0.68 miscompiles them as one (it fuses loops that depend on each other).
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

K1_SQ, K2_SQ = 0.01**2, 0.03**2


@njit(cache=True, parallel=True, fastmath=True)
def blur_rows(x, y, window, across):
    """Horizontal window sums of x, y, x^2, y^2 and xy into ``across`` [H, 5, W']."""
    for r in prange(x.shape[0]):
        for k in range(11):
            tap, shift = window[k], np.uint64(3 * k)
            for i in range(np.uint64(across.shape[2])):
                p, q = x[r, i + shift], y[r, i + shift]
                across[r, 0, i] += tap * p
                across[r, 1, i] += tap * q
                across[r, 2, i] += tap * p * p
                across[r, 3, i] += tap * q * q
                across[r, 4, i] += tap * p * q


@njit(cache=True, parallel=True, fastmath=True)
def ssim_rows(across, window, scale, partial, sums):
    """Row sums of SSIM; ``scale`` x its derivatives in mean, square and product, 10 rows down, into ``partial``."""
    for r in prange(sums.shape[0]):
        m = np.empty((5, across.shape[2]), np.float32)
        for f in range(5):
            for i in range(np.uint64(m.shape[1])):
                m[f, i] = np.float32(0)
            for k in range(11):
                tap = window[k]
                for i in range(np.uint64(m.shape[1])):
                    m[f, i] += tap * across[r + k, f, i]
        total = np.float32(0)
        for i in range(np.uint64(m.shape[1])):
            mx, my = m[0, i], m[1, i]
            sxy = m[4, i] - mx * my
            a1, a2 = np.float32(2) * mx * my + np.float32(K1_SQ), np.float32(2) * sxy + np.float32(K2_SQ)
            b1 = mx * mx + my * my + np.float32(K1_SQ)
            b2 = m[2, i] - mx * mx + m[3, i] - my * my + np.float32(K2_SQ)
            inverse = np.float32(1) / (b1 * b2)
            s = a1 * a2 * inverse
            total += s
            d_mean = np.float32(2) * my * (a2 - a1) * inverse - np.float32(2) * mx * s * (b2 - b1) * inverse
            partial[r + 10, 0, i] = scale * d_mean
            partial[r + 10, 1, i] = -scale * s * b1 * inverse
            partial[r + 10, 2, i] = scale * np.float32(2) * a1 * inverse
        sums[r] = total


@njit(cache=True, parallel=True, fastmath=True)
def gradient_rows(x, y, partial, window, l1_scale, gradient, sums):
    """Gradient of the loss: L1's sign plus the window applied transposed to ``partial``; row sums of |x - y|."""
    for r in prange(x.shape[0]):
        down = np.empty((3, x.shape[1] + 30), np.float32)
        for f in range(3):
            for i in range(np.uint64(down.shape[1])):
                down[f, i] = np.float32(0)
            for k in range(11):
                tap = window[k]
                for i in range(np.uint64(partial.shape[2])):
                    down[f, i + np.uint64(30)] += tap * partial[r + 10 - k, f, i]
        total = np.float32(0)
        for i in range(np.uint64(x.shape[1])):
            difference = x[r, i] - y[r, i]
            total += abs(difference)
            sign = np.float32(1) if difference > np.float32(0) else np.float32(-1)
            gradient[r, i] = l1_scale * (sign if difference != np.float32(0) else np.float32(0))
        for k in range(11):
            tap, shift = window[k], np.uint64(30 - 3 * k)
            for i in range(np.uint64(x.shape[1])):
                gradient[r, i] += tap * (
                    down[0, i + shift] + np.float32(2) * x[r, i] * down[1, i + shift] + y[r, i] * down[2, i + shift]
                )
        sums[r] = total
