"""EWA projection of Gaussians and its vector-Jacobian product (Zwicker et al. 2001; gsplat 1.5.3 `persp_proj`).

Arithmetic is float64 inside: a needle seen edge-on has a 2D covariance whose determinant float32 loses. What leaves is
one row of float32 per Gaussian, in the form that the compositor evaluates:
alpha = opacity exp(-half_a dx^2 - half_c (dy + shear dx)^2), with half_a = 1 / (2 xx), shear = -xy / xx,
half_c = xx / (2 det) of the blurred 2D covariance. It is the usual conic, completed to squares.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

MEAN_X, MEAN_Y, HALF_A, SHEAR, HALF_C, OPACITY, RED, GREEN, BLUE, DEPTH, HALF_WIDTH, HALF_HEIGHT = range(12)
"""Columns of a splat: pixels, inverse variances, compensated opacity, colour, camera z, half sides of the box outside
which alpha < 1/255 (0 marks a culled Gaussian)."""

COLUMNS = 12
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


@njit(cache=True, inline="always")
def _unit(quat):
    """A quaternion, scaled to length 1, and the scale."""
    w, x, y, z = np.float64(quat[0]), np.float64(quat[1]), np.float64(quat[2]), np.float64(quat[3])
    scale = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
    return w * scale, x * scale, y * scale, z * scale, scale


@njit(cache=True, inline="always")
def _in_camera(mean, view):
    """A point in the camera's frame."""
    x, y, z = np.float64(mean[0]), np.float64(mean[1]), np.float64(mean[2])
    return (
        view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3],
        view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3],
        view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3],
    )


@njit(cache=True, parallel=True)
def project_forward(
    means, quats, scales, opacities, view, focal, centre, width, height, near, far, eps2d, antialiased, splats
):
    """Project N Gaussians into one camera.

    Args:
        view: [4, 4] cam_from_world; focal, centre: [2] pixels.
        splats: [N, 12] output; colours are left alone, all else is 0 where culled.
    """
    for n in prange(means.shape[0]):
        out = splats[n]
        for column in range(RED):
            out[column] = 0.0
        out[DEPTH] = 0.0
        out[HALF_WIDTH] = 0.0
        out[HALF_HEIGHT] = 0.0
        x, y, z = _in_camera(means[n], view)
        if z < near or z > far or opacities[n] < ALPHA_CUT:
            continue
        qw, qx, qy, qz, _ = _unit(quats[n])
        r00, r01, r02, r10, r11, r12, r20, r21, r22 = _rotation(qw, qx, qy, qz)
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
        opacity = np.float64(opacities[n])
        if antialiased:
            opacity *= math.sqrt(max(0.0, det_sharp / det))
        if opacity < ALPHA_CUT:
            continue
        reach = min(MAX_EXTENT, math.sqrt(2 * math.log(opacity / ALPHA_CUT)))
        ex, ey = reach * math.sqrt(xx), reach * math.sqrt(yy)
        px, py = focal[0] * x / z + centre[0], focal[1] * y / z + centre[1]
        if px + math.ceil(ex) <= 0 or px - math.ceil(ex) >= width:
            continue
        if py + math.ceil(ey) <= 0 or py - math.ceil(ey) >= height:
            continue
        out[MEAN_X] = px
        out[MEAN_Y] = py
        out[HALF_A] = 0.5 / xx
        out[SHEAR] = -xy / xx
        out[HALF_C] = 0.5 * xx / det
        out[OPACITY] = opacity
        out[DEPTH] = z
        out[HALF_WIDTH] = ex
        out[HALF_HEIGHT] = ey


@njit(cache=True, parallel=True)
def project_backward(
    means, quats, scales, opacities, view, focal, centre, width, height, eps2d, antialiased, splats,
    v_means2d, v_splats, v_means, v_quats, v_scales, v_opacities,
):  # fmt: skip
    """Add one camera's gradients to the last four arrays: means [N, 3], quats [N, 4], scales [N, 3], opacities [N].

    Args:
        v_means2d: [N, 2] cotangents of the projected centres; those in the first columns of ``v_splats`` are ignored.
        v_splats: [N, 12] cotangents of ``splats``.
    """
    for n in prange(means.shape[0]):
        if splats[n, HALF_WIDTH] <= 0:
            continue
        x, y, z = _in_camera(means[n], view)
        qw, qx, qy, qz, norm = _unit(quats[n])
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
        xx = a0 * a0 + a1 * a1 + a2 * a2
        xy = a0 * b0 + a1 * b1 + a2 * b2
        yy = b0 * b0 + b1 * b1 + b2 * b2
        det_sharp = xx * yy - xy * xy
        xs, ys = xx, yy
        xx += eps2d
        yy += eps2d
        det = xx * yy - xy * xy
        # half_a = 1 / (2 xx), shear = -xy / xx, half_c = xx / (2 det)
        g_a, g_s, g_c = np.float64(v_splats[n, HALF_A]), np.float64(v_splats[n, SHEAR]), np.float64(v_splats[n, HALF_C])
        g_xx = (-0.5 * g_a + xy * g_s) / (xx * xx) - 0.5 * g_c * (xy / det) * (xy / det)
        g_xy = -g_s / xx + g_c * (xx / det) * (xy / det)
        g_yy = -0.5 * g_c * (xx / det) * (xx / det)
        g_opacity = np.float64(v_splats[n, OPACITY])
        if antialiased:
            # compensation^2 = det(cov - eps) / det(cov)
            square = max(0.0, det_sharp / det)
            compensation = math.sqrt(square)
            if compensation > 1e-6:
                g_square = g_opacity * opacities[n] * 0.5 / (compensation * det)
                g_xx += g_square * (ys - square * yy)
                g_yy += g_square * (xs - square * xx)
                g_xy -= g_square * 2 * xy * (1 - square)
            g_opacity *= compensation
        v_opacities[n] += g_opacity
        # cov = M M^T with rows a, b
        va0, va1, va2 = 2 * g_xx * a0 + g_xy * b0, 2 * g_xx * a1 + g_xy * b1, 2 * g_xx * a2 + g_xy * b2
        vb0, vb1, vb2 = g_xy * a0 + 2 * g_yy * b0, g_xy * a1 + 2 * g_yy * b1, g_xy * a2 + 2 * g_yy * b2
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
        g_z = v_splats[n, DEPTH] - (vp0 * p0 + vp1 * p1 + vp2 * p2 + vq0 * q0 + vq1 * q1 + vq2 * q2) / z
        g_u = -jx * (vp0 * view[2, 0] + vp1 * view[2, 1] + vp2 * view[2, 2])
        g_v = -jy * (vq0 * view[2, 0] + vq1 * view[2, 1] + vq2 * view[2, 2])
        g_slope_x = jx * z * v_means2d[n, 0] + (g_u if u_free else 0.0)
        g_slope_y = jy * z * v_means2d[n, 1] + (g_v if v_free else 0.0)
        g_x, g_y = g_slope_x / z, g_slope_y / z
        g_z -= (g_slope_x * x + g_slope_y * y) / (z * z)
        v_means[n, 0] += view[0, 0] * g_x + view[1, 0] * g_y + view[2, 0] * g_z
        v_means[n, 1] += view[0, 1] * g_x + view[1, 1] * g_y + view[2, 1] * g_z
        v_means[n, 2] += view[0, 2] * g_x + view[1, 2] * g_y + view[2, 2] * g_z
