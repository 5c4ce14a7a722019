"""EWA projection of Gaussians and its vector-Jacobian product (Zwicker et al. 2001; gsplat 1.5.3 `persp_proj`).

Arithmetic is float64 inside: a needle seen edge-on has a 2D covariance whose determinant float32 loses.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

ALPHA_CUT = 1.0 / 255.0
MAX_EXTENT = 3.33  # standard deviations at which even an opaque Gaussian falls below ALPHA_CUT
FOV_MARGIN = 0.3


@njit(cache=True, inline="always")
def _rotation(qw, qx, qy, qz):
    """Rotation matrix rows of a unit quaternion, real part first."""
    return (
        1 - 2 * (qy * qy + qz * qz), 2 * (qx * qy - qw * qz), 2 * (qx * qz + qw * qy),
        2 * (qx * qy + qw * qz), 1 - 2 * (qx * qx + qz * qz), 2 * (qy * qz - qw * qx),
        2 * (qx * qz - qw * qy), 2 * (qy * qz + qw * qx), 1 - 2 * (qx * qx + qy * qy),
    )  # fmt: skip


@njit(cache=True, inline="always")
def _clamped_slope(slope, centre, focal, size):
    """x/z limited to the field of view plus a margin; the second value tells whether it was inside."""
    margin = FOV_MARGIN * 0.5 * size / focal
    high = (size - centre) / focal + margin
    low = -(centre / focal + margin)
    clamped = min(high, max(low, slope))
    return clamped, clamped == slope


@njit(cache=True, parallel=True)
def project_forward(
    means, quats, scales, opacities, view, focal, centre, width, height, near, far, eps2d, antialiased,
    means2d, depths, conics, extents, compensations,
):  # fmt: skip
    """Project N Gaussians into one camera.

    Args:
        view: [4, 4] cam_from_world; focal, centre: [2] pixels.
        means2d [N, 2], depths [N], conics [N, 3] (inverse 2D covariance xx, xy, yy), extents [N, 2] (half-width
            in pixels of the box outside which alpha < 1/255; 0 marks a culled Gaussian), compensations [N]: outputs.
    """
    for n in prange(means.shape[0]):
        means2d[n, 0] = 0.0
        means2d[n, 1] = 0.0
        depths[n] = 0.0
        extents[n, 0] = 0.0
        extents[n, 1] = 0.0
        conics[n, 0] = 0.0
        conics[n, 1] = 0.0
        conics[n, 2] = 0.0
        compensations[n] = 0.0
        mx, my, mz = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])
        x = view[0, 0] * mx + view[0, 1] * my + view[0, 2] * mz + view[0, 3]
        y = view[1, 0] * mx + view[1, 1] * my + view[1, 2] * mz + view[1, 3]
        z = view[2, 0] * mx + view[2, 1] * my + view[2, 2] * mz + view[2, 3]
        if z < near or z > far or opacities[n] < ALPHA_CUT:
            continue
        qw, qx, qy, qz = (np.float64(quats[n, 0]), np.float64(quats[n, 1]),
                          np.float64(quats[n, 2]), np.float64(quats[n, 3]))  # fmt: skip
        norm = 1.0 / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(qw * norm, qx * norm, qy * norm, qz * norm)
        u, _ = _clamped_slope(x / z, centre[0], focal[0], width)
        v, _ = _clamped_slope(y / z, centre[1], focal[1], height)
        jx, jy = focal[0] / z, focal[1] / z
        # rows of J W: how the image moves with the world
        p0 = jx * (view[0, 0] - u * view[2, 0])
        p1 = jx * (view[0, 1] - u * view[2, 1])
        p2 = jx * (view[0, 2] - u * view[2, 2])
        q0 = jy * (view[1, 0] - v * view[2, 0])
        q1 = jy * (view[1, 1] - v * view[2, 1])
        q2 = jy * (view[1, 2] - v * view[2, 2])
        # ... and with the Gaussian's own axes, scaled: covariance is M M^T
        s0, s1, s2 = np.float64(scales[n, 0]), np.float64(scales[n, 1]), np.float64(scales[n, 2])
        a0 = (p0 * r00 + p1 * r10 + p2 * r20) * s0
        a1 = (p0 * r01 + p1 * r11 + p2 * r21) * s1
        a2 = (p0 * r02 + p1 * r12 + p2 * r22) * s2
        b0 = (q0 * r00 + q1 * r10 + q2 * r20) * s0
        b1 = (q0 * r01 + q1 * r11 + q2 * r21) * s1
        b2 = (q0 * r02 + q1 * r12 + q2 * r22) * s2
        xx = a0 * a0 + a1 * a1 + a2 * a2
        xy = a0 * b0 + a1 * b1 + a2 * b2
        yy = b0 * b0 + b1 * b1 + b2 * b2
        det_sharp = xx * yy - xy * xy
        xx += eps2d
        yy += eps2d
        det = xx * yy - xy * xy
        if det <= 0:
            continue
        compensation = math.sqrt(max(0.0, det_sharp / det))
        opacity = opacities[n] * compensation if antialiased else np.float64(opacities[n])
        if opacity < ALPHA_CUT:
            continue
        reach = min(MAX_EXTENT, math.sqrt(2 * math.log(opacity / ALPHA_CUT)))
        ex, ey = reach * math.sqrt(xx), reach * math.sqrt(yy)
        px, py = focal[0] * x / z + centre[0], focal[1] * y / z + centre[1]
        if px + math.ceil(ex) <= 0 or px - math.ceil(ex) >= width:
            continue
        if py + math.ceil(ey) <= 0 or py - math.ceil(ey) >= height:
            continue
        means2d[n, 0] = px
        means2d[n, 1] = py
        depths[n] = z
        conics[n, 0] = yy / det
        conics[n, 1] = -xy / det
        conics[n, 2] = xx / det
        extents[n, 0] = ex
        extents[n, 1] = ey
        compensations[n] = compensation


@njit(cache=True, parallel=True)
def project_backward(
    means, quats, scales, view, focal, centre, width, height, eps2d, antialiased,
    conics, extents, compensations, v_means2d, v_depths, v_conics, v_compensations,
    v_means, v_quats, v_scales,
):  # fmt: skip
    """Add one camera's gradients of means [N, 3], quats [N, 4] and scales [N, 3] to the last three arrays."""
    for n in prange(means.shape[0]):
        if extents[n, 0] <= 0:
            continue
        mx, my, mz = np.float64(means[n, 0]), np.float64(means[n, 1]), np.float64(means[n, 2])
        x = view[0, 0] * mx + view[0, 1] * my + view[0, 2] * mz + view[0, 3]
        y = view[1, 0] * mx + view[1, 1] * my + view[1, 2] * mz + view[1, 3]
        z = view[2, 0] * mx + view[2, 1] * my + view[2, 2] * mz + view[2, 3]
        qw, qx, qy, qz = (np.float64(quats[n, 0]), np.float64(quats[n, 1]),
                          np.float64(quats[n, 2]), np.float64(quats[n, 3]))  # fmt: skip
        norm = 1.0 / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        qw, qx, qy, qz = qw * norm, qx * norm, qy * norm, qz * norm
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(qw, qx, qy, qz)
        u, u_free = _clamped_slope(x / z, centre[0], focal[0], width)
        v, v_free = _clamped_slope(y / z, centre[1], focal[1], height)
        jx, jy = focal[0] / z, focal[1] / z
        p0 = jx * (view[0, 0] - u * view[2, 0])
        p1 = jx * (view[0, 1] - u * view[2, 1])
        p2 = jx * (view[0, 2] - u * view[2, 2])
        q0 = jy * (view[1, 0] - v * view[2, 0])
        q1 = jy * (view[1, 1] - v * view[2, 1])
        q2 = jy * (view[1, 2] - v * view[2, 2])
        s0, s1, s2 = np.float64(scales[n, 0]), np.float64(scales[n, 1]), np.float64(scales[n, 2])
        t00 = p0 * r00 + p1 * r10 + p2 * r20
        t01 = p0 * r01 + p1 * r11 + p2 * r21
        t02 = p0 * r02 + p1 * r12 + p2 * r22
        t10 = q0 * r00 + q1 * r10 + q2 * r20
        t11 = q0 * r01 + q1 * r11 + q2 * r21
        t12 = q0 * r02 + q1 * r12 + q2 * r22
        a0, a1, a2, b0, b1, b2 = t00 * s0, t01 * s1, t02 * s2, t10 * s0, t11 * s1, t12 * s2
        # conic = cov^-1: v_cov = -conic v_conic conic, with v_conic symmetrised
        ca, cb, cc = np.float64(conics[n, 0]), np.float64(conics[n, 1]), np.float64(conics[n, 2])
        ga, gb, gc = np.float64(v_conics[n, 0]), 0.5 * v_conics[n, 1], np.float64(v_conics[n, 2])
        h00, h01 = ga * ca + gb * cb, ga * cb + gb * cc
        h10, h11 = gb * ca + gc * cb, gb * cb + gc * cc
        g_xx = -(ca * h00 + cb * h10)
        g_xy = -(ca * h01 + cb * h11)
        g_yy = -(cb * h01 + cc * h11)
        if antialiased and compensations[n] > 1e-6:
            # compensation^2 = det(cov - eps) / det(cov)
            comp = np.float64(compensations[n])
            det = 1.0 / (ca * cc - cb * cb)
            g_sq = v_compensations[n] * 0.5 / comp
            ratio = comp * comp
            g_xx += g_sq * (ca - eps2d / det - ratio * ca)
            g_yy += g_sq * (cc - eps2d / det - ratio * cc)
            g_xy += g_sq * (cb - ratio * cb)
        # cov = M M^T with rows a, b
        va0, va1, va2 = 2 * (g_xx * a0 + g_xy * b0), 2 * (g_xx * a1 + g_xy * b1), 2 * (g_xx * a2 + g_xy * b2)
        vb0, vb1, vb2 = 2 * (g_xy * a0 + g_yy * b0), 2 * (g_xy * a1 + g_yy * b1), 2 * (g_xy * a2 + g_yy * b2)
        v_scales[n, 0] += va0 * t00 + vb0 * t10
        v_scales[n, 1] += va1 * t01 + vb1 * t11
        v_scales[n, 2] += va2 * t02 + vb2 * t12
        va0, va1, va2, vb0, vb1, vb2 = va0 * s0, va1 * s1, va2 * s2, vb0 * s0, vb1 * s1, vb2 * s2
        g00, g01, g02 = p0 * va0 + q0 * vb0, p0 * va1 + q0 * vb1, p0 * va2 + q0 * vb2
        g10, g11, g12 = p1 * va0 + q1 * vb0, p1 * va1 + q1 * vb1, p1 * va2 + q1 * vb2
        g20, g21, g22 = p2 * va0 + q2 * vb0, p2 * va1 + q2 * vb1, p2 * va2 + q2 * vb2
        gw = 2 * (qx * (g21 - g12) + qy * (g02 - g20) + qz * (g10 - g01))
        gx = 2 * (-2 * qx * (g11 + g22) + qy * (g01 + g10) + qz * (g02 + g20) + qw * (g21 - g12))
        gy = 2 * (-2 * qy * (g00 + g22) + qx * (g01 + g10) + qz * (g12 + g21) + qw * (g02 - g20))
        gz = 2 * (-2 * qz * (g00 + g11) + qx * (g02 + g20) + qy * (g12 + g21) + qw * (g10 - g01))
        along = gw * qw + gx * qx + gy * qy + gz * qz
        v_quats[n, 0] += (gw - along * qw) * norm
        v_quats[n, 1] += (gx - along * qx) * norm
        v_quats[n, 2] += (gy - along * qy) * norm
        v_quats[n, 3] += (gz - along * qz) * norm
        # rows p, q of J W: gradients of 1/z and of the clamped slopes
        vp0, vp1, vp2 = (
            r00 * va0 + r01 * va1 + r02 * va2,
            r10 * va0 + r11 * va1 + r12 * va2,
            r20 * va0 + r21 * va1 + r22 * va2,
        )
        vq0, vq1, vq2 = (
            r00 * vb0 + r01 * vb1 + r02 * vb2,
            r10 * vb0 + r11 * vb1 + r12 * vb2,
            r20 * vb0 + r21 * vb1 + r22 * vb2,
        )
        g_z = v_depths[n] - (vp0 * p0 + vp1 * p1 + vp2 * p2 + vq0 * q0 + vq1 * q1 + vq2 * q2) / z
        g_u = -jx * (vp0 * view[2, 0] + vp1 * view[2, 1] + vp2 * view[2, 2])
        g_v = -jy * (vq0 * view[2, 0] + vq1 * view[2, 1] + vq2 * view[2, 2])
        g_slope_x = jx * z * v_means2d[n, 0] + (g_u if u_free else 0.0)
        g_slope_y = jy * z * v_means2d[n, 1] + (g_v if v_free else 0.0)
        g_x, g_y = g_slope_x / z, g_slope_y / z
        g_z -= (g_slope_x * x + g_slope_y * y) / (z * z)
        v_means[n, 0] += view[0, 0] * g_x + view[1, 0] * g_y + view[2, 0] * g_z
        v_means[n, 1] += view[0, 1] * g_x + view[1, 1] * g_y + view[2, 1] * g_z
        v_means[n, 2] += view[0, 2] * g_x + view[1, 2] * g_y + view[2, 2] * g_z
