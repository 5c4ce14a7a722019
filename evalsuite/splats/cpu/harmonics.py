"""Real spherical harmonics up to degree 3 as view-dependent colour, and their gradient.

Order and signs are those of 3DGS. Basis polynomials: Sloan, "Efficient Spherical Harmonic Evaluation" (JCGT 2013).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from evalsuite.splats.cpu.projection import BLUE, GREEN, HALF_WIDTH, RED

C0 = 0.28209479177387814
C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


@njit(cache=True, inline="always")
def _basis(count, x, y, z, basis):
    """Fill ``basis`` [16] for a unit direction; ``count`` = (degree + 1)^2."""
    basis[0] = C0
    if count > 1:
        basis[1] = -C1 * y
        basis[2] = C1 * z
        basis[3] = -C1 * x
    if count > 4:
        basis[4] = C2[0] * x * y
        basis[5] = -C2[0] * y * z
        basis[6] = C2[1] * (3 * z * z - 1)
        basis[7] = -C2[0] * x * z
        basis[8] = C2[2] * (x * x - y * y)
    if count > 9:
        basis[9] = -C3[0] * y * (3 * x * x - y * y)
        basis[10] = C3[1] * x * y * z
        basis[11] = -C3[2] * y * (5 * z * z - 1)
        basis[12] = C3[3] * z * (5 * z * z - 3)
        basis[13] = -C3[2] * x * (5 * z * z - 1)
        basis[14] = C3[4] * z * (x * x - y * y)
        basis[15] = -C3[0] * x * (x * x - 3 * y * y)


@njit(cache=True, inline="always")
def _basis_gradient(count, x, y, z, g):
    """Gradient in (x, y, z) of sum_k g[k] * basis[k]."""
    gx, gy, gz = 0.0, 0.0, 0.0
    if count > 1:
        gx -= C1 * g[3]
        gy -= C1 * g[1]
        gz += C1 * g[2]
    if count > 4:
        gx += C2[0] * (y * g[4] - z * g[7]) + 2 * C2[2] * x * g[8]
        gy += C2[0] * (x * g[4] - z * g[5]) - 2 * C2[2] * y * g[8]
        gz += 6 * C2[1] * z * g[6] - C2[0] * (y * g[5] + x * g[7])
    if count > 9:
        gx += (
            -6 * C3[0] * x * y * g[9] + C3[1] * y * z * g[10] - C3[2] * (5 * z * z - 1) * g[13]
            + 2 * C3[4] * x * z * g[14] - 3 * C3[0] * (x * x - y * y) * g[15]
        )  # fmt: skip
        gy += (
            -3 * C3[0] * (x * x - y * y) * g[9] + C3[1] * x * z * g[10] - C3[2] * (5 * z * z - 1) * g[11]
            - 2 * C3[4] * y * z * g[14] + 6 * C3[0] * x * y * g[15]
        )  # fmt: skip
        gz += (
            C3[1] * x * y * g[10] - 10 * C3[2] * z * (y * g[11] + x * g[13])
            + C3[3] * (15 * z * z - 3) * g[12] + C3[4] * (x * x - y * y) * g[14]
        )  # fmt: skip
    return gx, gy, gz


@njit(cache=True, parallel=True)
def colours_forward(means, sh, position, splats):
    """Write colours max(0, 0.5 + SH) of the visible Gaussians seen from ``position`` [3] into ``splats`` [N, 12].

    Args:
        sh: [N, K, 3] coefficients, K in (1, 4, 9, 16).
    """
    count = sh.shape[1]
    for n in prange(means.shape[0]):
        splats[n, RED] = 0.0
        splats[n, GREEN] = 0.0
        splats[n, BLUE] = 0.0
        if splats[n, HALF_WIDTH] <= 0:
            continue
        basis = np.empty(16, np.float64)
        dx, dy, dz = means[n, 0] - position[0], means[n, 1] - position[1], means[n, 2] - position[2]
        norm = 1.0 / math.sqrt(max(1e-24, dx * dx + dy * dy + dz * dz))
        _basis(count, dx * norm, dy * norm, dz * norm, basis)
        for c in range(3):
            value = 0.5
            for k in range(count):
                value += basis[k] * sh[n, k, c]
            splats[n, RED + c] = max(0.0, value)


@njit(cache=True, parallel=True)
def colours_backward(means, sh, position, splats, v_splats, v_sh, v_means):
    """Add one camera's gradients to ``v_sh`` [N, K, 3] and, through the viewing direction, to ``v_means`` [N, 3]."""
    count = sh.shape[1]
    for n in prange(means.shape[0]):
        if splats[n, HALF_WIDTH] <= 0:
            continue
        basis = np.empty(16, np.float64)
        g = np.zeros(16, np.float64)
        dx, dy, dz = means[n, 0] - position[0], means[n, 1] - position[1], means[n, 2] - position[2]
        norm = 1.0 / math.sqrt(max(1e-24, dx * dx + dy * dy + dz * dz))
        x, y, z = dx * norm, dy * norm, dz * norm
        _basis(count, x, y, z, basis)
        for c in range(3):
            if splats[n, RED + c] <= 0:
                continue
            for k in range(count):
                v_sh[n, k, c] += basis[k] * v_splats[n, RED + c]
                g[k] += sh[n, k, c] * v_splats[n, RED + c]
        if count > 1:
            gx, gy, gz = _basis_gradient(count, x, y, z, g)
            along = gx * x + gy * y + gz * z
            v_means[n, 0] += (gx - along * x) * norm
            v_means[n, 1] += (gy - along * y) * norm
            v_means[n, 2] += (gz - along * z) * norm
