"""From unconstrained parameters to splats and back, and Adam: one training step's work on sixteen Gaussians at a time.

It is `projection` and `harmonics` with activations, in the engine's vector type instead of float64. What float32 would
lose there, the determinant of a needle's covariance seen edge-on, is a sum of squares here: det(A A^T + e I) =
|a x b|^2 + e (|a|^2 + |b|^2) + e^2 for the rows a, b of A (Lagrange's identity).

Parameters and their gradients are flat arrays in which every group has its place (`starts`) and room for a multiple of
sixteen Gaussians. Gaussians in the room that is left are never seen.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from evalsuite.splats.cpu import elementary
from evalsuite.splats.cpu.compositor import SUMS
from evalsuite.splats.cpu.harmonics import C0, C1, C2, C3
from evalsuite.splats.cpu.projection import (
    COLUMNS,
    DEPTH,
    HALF_A,
    HALF_C,
    HALF_HEIGHT,
    HALF_WIDTH,
    MAX_EXTENT,
    MEAN_X,
    MEAN_Y,
    OPACITY,
    RED,
    SHEAR,
)  # fmt: skip
from evalsuite.splats.cpu.simd import (
    LANES,
    both,
    ceiling,
    fma,
    gather,
    lane,
    larger,
    lesser,
    load,
    negative,
    root,
    scatter,
    select,
    splat,
    store,
    totals,
)  # fmt: skip

MEANS, SCALES, QUATS, OPACITIES, SH0, SH_REST = range(6)
"""Places in `starts`: means [N, 3], logarithms of scales [N, 3], quaternions [N, 4], logits of opacities [N], constant
harmonics [N, 3], further harmonics [N, K - 1, 3]."""

(FOCAL_X, FOCAL_Y, CENTRE_X, CENTRE_Y, WIDTH, HEIGHT, POSITION, U_LOW, U_HIGH, V_LOW, V_HIGH,
 NEAR, FAR, EPS2D, CAMERA) = (12, 13, 14, 15, 16, 17, 18, 21, 22, 23, 24, 25, 26, 27, 28)  # fmt: skip
"""Places in a camera's row of CAMERA float32: first three rows of cam_from_world, pixels, position [3], slopes between
which the projection is linearised, depths between which Gaussians are seen, variance of the low-pass filter."""

UNSEEN_LOGIT = -50.0
"""Of the opacities of Gaussians that are not there."""

_CUT = np.float32(1 / 255)
_ZERO, _HALF, _ONE, _TWO, _THREE, _FIVE = (np.float32(x) for x in (0, 0.5, 1, 2, 3, 5))
_REACH = np.float32(MAX_EXTENT)
_FLOOR = np.float32(1e-24)
_C0, _C1 = np.float32(C0), np.float32(C1)
_C20, _C21, _C22 = (np.float32(c) for c in C2)
_C30, _C31, _C32, _C33, _C34 = (np.float32(c) for c in C3)


@njit(cache=True, inline="always")
def _three(values, index, stride):
    """Three neighbouring fields of sixteen rows."""
    return gather(values, index, stride), gather(values, index + 1, stride), gather(values, index + 2, stride)


@njit(cache=True, inline="always")
def _dot(a, b):
    return fma(a[2], b[2], fma(a[1], b[1], a[0] * b[0]))


@njit(cache=True, inline="always")
def _scaled(a, s):
    return a[0] * s, a[1] * s, a[2] * s


@njit(cache=True, inline="always")
def _times(a, b):
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@njit(cache=True, inline="always")
def _column(camera, place):
    return splat(camera[place]), splat(camera[place + 1]), splat(camera[place + 2])


@njit(cache=True, inline="always")
def _in_camera(camera, mean):
    """Points in the camera's frame."""
    return (
        _dot(_column(camera, 0), mean) + splat(camera[3]),
        _dot(_column(camera, 4), mean) + splat(camera[7]),
        _dot(_column(camera, 8), mean) + splat(camera[11]),
    )


@njit(cache=True, inline="always")
def _image_rows(camera, point, inverse):
    """Rows of J W (how the image moves with the world), the focal lengths over z, and where slopes are free."""
    slope_x, slope_y = point[0] * inverse, point[1] * inverse
    low_x, high_x, low_y, high_y = (
        splat(camera[U_LOW]), splat(camera[U_HIGH]), splat(camera[V_LOW]), splat(camera[V_HIGH]),
    )  # fmt: skip
    u, v = lesser(larger(slope_x, low_x), high_x), lesser(larger(slope_y, low_y), high_y)
    free_x, free_y = both(low_x <= slope_x, slope_x <= high_x), both(low_y <= slope_y, slope_y <= high_y)
    jx, jy = splat(camera[FOCAL_X]) * inverse, splat(camera[FOCAL_Y]) * inverse
    x, y, z = _column(camera, 0), _column(camera, 4), _column(camera, 8)
    u, v = negative(u), negative(v)
    p = (jx * fma(u, z[0], x[0]), jx * fma(u, z[1], x[1]), jx * fma(u, z[2], x[2]))
    q = (jy * fma(v, z[0], y[0]), jy * fma(v, z[1], y[1]), jy * fma(v, z[2], y[2]))
    return p, q, jx, jy, free_x, free_y


@njit(cache=True, inline="always")
def _quaternion(values, index):
    """Unit quaternions, real part first, and by what they were scaled."""
    w = gather(values, index, 4)
    x, y, z = _three(values, index + 1, 4)
    scale = splat(_ONE) / root(fma(w, w, _dot((x, y, z), (x, y, z))))
    return w * scale, x * scale, y * scale, z * scale, scale


@njit(cache=True, inline="always")
def _axes(w, x, y, z):
    """Columns of the rotation matrices."""
    one, two = splat(_ONE), splat(_TWO)
    return (
        (one - two * fma(y, y, z * z), two * fma(x, y, w * z), two * (x * z - w * y)),
        (two * (x * y - w * z), one - two * fma(x, x, z * z), two * fma(y, z, w * x)),
        (two * fma(x, z, w * y), two * (y * z - w * x), one - two * fma(x, x, y * y)),
    )


@njit(cache=True, inline="always")
def _covariance(a, b, eps):
    """Blurred xx, xy, yy and determinant of A A^T."""
    c0, c1, c2 = a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
    xx, xy, yy = _dot(a, a), _dot(a, b), _dot(b, b)
    det = _dot((c0, c1, c2), (c0, c1, c2)) + eps * (xx + yy + eps)
    return xx + eps, xy, yy + eps, det


@njit(cache=True, inline="always")
def _shape(values, starts, n, camera, point, inverse):
    """What projection needs of sixteen Gaussians from the n-th on, there and back.

    Returns:
        `_image_rows`; `_quaternion` and its `_axes`; scales; rows a, b of J W R S; `_covariance`.
    """
    image = _image_rows(camera, point, inverse)
    turn = _quaternion(values, starts[QUATS] + 4 * n)
    axes = _axes(turn[0], turn[1], turn[2], turn[3])
    logs = _three(values, starts[SCALES] + 3 * n, 3)
    scales = elementary.exp(logs[0]), elementary.exp(logs[1]), elementary.exp(logs[2])
    p, q = image[0], image[1]
    a = _times((_dot(p, axes[0]), _dot(p, axes[1]), _dot(p, axes[2])), scales)
    b = _times((_dot(q, axes[0]), _dot(q, axes[1]), _dot(q, axes[2])), scales)
    return image, turn, axes, scales, a, b, _covariance(a, b, splat(camera[EPS2D]))


@njit(cache=True, inline="always")
def _sigmoid(x):
    return splat(_ONE) / (splat(_ONE) + elementary.exp(negative(x)))


@njit(cache=True, inline="always")
def _direction(camera, mean):
    """Unit vectors from the camera to points, and one over their lengths."""
    dx, dy, dz = (
        mean[0] - splat(camera[POSITION]), mean[1] - splat(camera[POSITION + 1]), mean[2] - splat(camera[POSITION + 2])
    )  # fmt: skip
    inverse = splat(_ONE) / root(larger(_dot((dx, dy, dz), (dx, dy, dz)), splat(_FLOOR)))
    return (dx * inverse, dy * inverse, dz * inverse), inverse


@njit(cache=True, inline="always")
def _basis(bands, direction, basis):
    """Fill ``basis`` [16 x LANES]; ``bands`` = (degree + 1)^2 (see `harmonics`)."""
    x, y, z = direction
    if bands > 1:
        store(basis, LANES, splat(-_C1) * y)
        store(basis, 2 * LANES, splat(_C1) * z)
        store(basis, 3 * LANES, splat(-_C1) * x)
    if bands > 4:
        store(basis, 4 * LANES, splat(_C20) * x * y)
        store(basis, 5 * LANES, splat(-_C20) * y * z)
        store(basis, 6 * LANES, splat(_C21) * (splat(_THREE) * z * z - splat(_ONE)))
        store(basis, 7 * LANES, splat(-_C20) * x * z)
        store(basis, 8 * LANES, splat(_C22) * (x * x - y * y))
    if bands > 9:
        xx, yy, five_zz = x * x, y * y, splat(_FIVE) * z * z
        store(basis, 9 * LANES, splat(-_C30) * y * (splat(_THREE) * xx - yy))
        store(basis, 10 * LANES, splat(_C31) * x * y * z)
        store(basis, 11 * LANES, splat(-_C32) * y * (five_zz - splat(_ONE)))
        store(basis, 12 * LANES, splat(_C33) * z * (five_zz - splat(_THREE)))
        store(basis, 13 * LANES, splat(-_C32) * x * (five_zz - splat(_ONE)))
        store(basis, 14 * LANES, splat(_C34) * z * (xx - yy))
        store(basis, 15 * LANES, splat(-_C30) * x * (xx - splat(_THREE) * yy))


@njit(cache=True, inline="always")
def _basis_gradient(bands, direction, g):
    """Gradient in the direction of the sum of ``g`` [16 x LANES] times the basis."""
    x, y, z = direction
    gx, gy, gz = splat(_ZERO), splat(_ZERO), splat(_ZERO)
    if bands > 1:
        c1 = splat(_C1)
        gx = negative(c1 * load(g, 3 * LANES))
        gy = negative(c1 * load(g, LANES))
        gz = c1 * load(g, 2 * LANES)
    if bands > 4:
        g4, g5, g6, g7, g8 = (
            load(g, 4 * LANES), load(g, 5 * LANES), load(g, 6 * LANES), load(g, 7 * LANES), load(g, 8 * LANES),
        )  # fmt: skip
        c0, c2 = splat(_C20), splat(_TWO * _C22) * g8
        gx = gx + c0 * (y * g4 - z * g7) + c2 * x
        gy = gy + c0 * (x * g4 - z * g5) - c2 * y
        gz = gz + splat(np.float32(6) * _C21) * z * g6 - c0 * (y * g5 + x * g7)
    if bands > 9:
        g9, g10, g11, g12 = load(g, 9 * LANES), load(g, 10 * LANES), load(g, 11 * LANES), load(g, 12 * LANES)
        g13, g14, g15 = load(g, 13 * LANES), load(g, 14 * LANES), load(g, 15 * LANES)
        difference, bend = x * x - y * y, splat(_FIVE) * z * z - splat(_ONE)
        c0, c2, c4 = splat(_THREE * _C30), splat(_C32), splat(_TWO * _C34) * z * g14
        c1 = splat(_C31) * g10
        twice_xy = splat(_TWO) * x * y
        gx = gx - c0 * (twice_xy * g9 + difference * g15) + c1 * y * z - c2 * bend * g13 + c4 * x
        gy = gy - c0 * (difference * g9 - twice_xy * g15) + c1 * x * z - c2 * bend * g11 - c4 * y
        gz = (
            gz + c1 * x * y - splat(np.float32(10) * _C32) * z * (y * g11 + x * g13)
            + splat(_C33) * (splat(np.float32(15)) * z * z - splat(_THREE)) * g12 + splat(_C34) * difference * g14
        )  # fmt: skip
    return gx, gy, gz


@njit(cache=True, parallel=True)
def splats_forward(values, starts, stride, bands, camera, splats):
    """Project every Gaussian into one camera and colour it.

    Args:
        values: flat parameters; ``stride``: floats of `SH_REST` a Gaussian has, of which ``bands`` - 1 harmonics are
            used, ``bands`` = (degree + 1)^2.
        camera: [CAMERA].
        splats: [N, 12] output, rows of `projection.project_forward` with colours; N is a multiple of 16.
    """
    rows = splats.reshape(splats.size)
    for block in prange(splats.shape[0] // LANES):
        _forward(values, starts, stride, bands, camera, block * LANES, rows)


@njit(cache=True)
def _forward(values, starts, stride, bands, camera, n, rows):
    """`splats_forward` of sixteen Gaussians from the n-th on."""
    basis = np.empty(16 * LANES, np.float32)
    at = n * COLUMNS
    zero, one = splat(_ZERO), splat(_ONE)
    mean = _three(values, starts[MEANS] + 3 * n, 3)
    point = _in_camera(camera, mean)
    opacity = _sigmoid(load(values, starts[OPACITIES] + n))
    seen = both(both(splat(camera[NEAR]) <= point[2], point[2] <= splat(camera[FAR])), splat(_CUT) <= opacity)
    inverse = one / point[2]
    _, _, _, _, _, _, (xx, xy, yy, det) = _shape(values, starts, n, camera, point, inverse)
    ratio = elementary.log(larger(opacity / splat(_CUT), one))
    reach = lesser(root(ratio + ratio), splat(_REACH))
    ex, ey = reach * root(xx), reach * root(yy)
    px = fma(splat(camera[FOCAL_X]) * point[0], inverse, splat(camera[CENTRE_X]))
    py = fma(splat(camera[FOCAL_Y]) * point[1], inverse, splat(camera[CENTRE_Y]))
    seen = both(seen, both(zero < px + ceiling(ex), px - ceiling(ex) < splat(camera[WIDTH])))
    seen = both(seen, both(zero < py + ceiling(ey), py - ceiling(ey) < splat(camera[HEIGHT])))
    half = splat(_HALF)
    scatter(rows, at + MEAN_X, COLUMNS, select(seen, px, zero))
    scatter(rows, at + MEAN_Y, COLUMNS, select(seen, py, zero))
    scatter(rows, at + HALF_A, COLUMNS, select(seen, half / xx, zero))
    scatter(rows, at + SHEAR, COLUMNS, select(seen, negative(xy / xx), zero))
    scatter(rows, at + HALF_C, COLUMNS, select(seen, half * xx / det, zero))
    scatter(rows, at + OPACITY, COLUMNS, select(seen, opacity, zero))
    scatter(rows, at + DEPTH, COLUMNS, select(seen, point[2], zero))
    scatter(rows, at + HALF_WIDTH, COLUMNS, select(seen, ex, zero))
    scatter(rows, at + HALF_HEIGHT, COLUMNS, select(seen, ey, zero))
    direction, _ = _direction(camera, mean)
    _basis(bands, direction, basis)
    constant, rest = starts[SH0] + 3 * n, starts[SH_REST] + stride * n
    for c in range(3):
        colour = fma(splat(_C0), gather(values, constant + c, 3), half)
        for k in range(1, bands):
            colour = fma(load(basis, k * LANES), gather(values, rest + 3 * (k - 1) + c, stride), colour)
        scatter(rows, at + RED + c, COLUMNS, select(seen, larger(colour, zero), zero))


@njit(cache=True, parallel=True)
def add_rows(offsets, table, sums):
    """Add every Gaussian's rows of a gradient table to its row of ``sums`` [N, SUMS], in list order."""
    for n in prange(sums.shape[0]):
        row = load(sums[n], 0)
        for entry in range(offsets[n], offsets[n + 1]):
            row = row + load(table[entry], 0)
        store(sums[n], 0, row)


@njit(cache=True, inline="always")
def _colour_backward(values, gradients, starts, stride, bands, camera, n, light, basis, g):
    """Gradients of harmonics, written, and of the mean through the viewing direction, returned.

    Args:
        light: cotangents of red, green, blue.
        basis, g: [16 x LANES], overwritten.
    """
    mean = _three(values, starts[MEANS] + 3 * n, 3)
    direction, inverse = _direction(camera, mean)
    _basis(bands, direction, basis)
    constant, rest = starts[SH0] + 3 * n, starts[SH_REST] + stride * n
    for c in range(3):
        scatter(gradients, constant + c, 3, splat(_C0) * light[c])
    for k in range(1, bands):
        weight, along, at = load(basis, k * LANES), splat(_ZERO), rest + 3 * (k - 1)
        for c in range(3):
            scatter(gradients, at + c, stride, weight * light[c])
            along = fma(gather(values, at + c, stride), light[c], along)
        store(g, k * LANES, along)
    gx, gy, gz = _basis_gradient(bands, direction, g)
    along = _dot((gx, gy, gz), direction)
    return (
        (gx - along * direction[0]) * inverse, (gy - along * direction[1]) * inverse,
        (gz - along * direction[2]) * inverse,
    )  # fmt: skip


@njit(cache=True, inline="always")
def _put(gradients, index, stride, seen, value):
    """Write a gradient; 0 of what is not seen, whose arithmetic may have met infinity."""
    scatter(gradients, index, stride, select(seen, value, splat(_ZERO)))


@njit(cache=True, parallel=True)
def splats_backward(values, starts, stride, bands, camera, splats, sums, absgrad, gradients, screen):
    """Gradient of the loss in every parameter (see `splats_forward`), and on the screen.

    Args:
        sums: [N, SUMS] of `compositor.composite_backward`, added up per Gaussian.
        gradients: flat output, laid out as ``values``; harmonics that are not used are left alone.
        screen: [N] output: length of the gradient (or, if ``absgrad``, of the absolute one) in the projected centre,
            in half-images as density control wants it; 0 where a Gaussian is not seen.
    """
    rows, table = splats.reshape(splats.size), sums.reshape(sums.size)
    for block in prange(splats.shape[0] // LANES):
        _backward(
            values, starts, stride, bands, camera, block * LANES, rows, table, absgrad, gradients, screen
        )  # fmt: skip


@njit(cache=True)
def _backward(values, starts, stride, bands, camera, n, rows, table, absgrad, gradients, screen):
    """`splats_backward` of sixteen Gaussians from the n-th on."""
    basis, g = np.empty(16 * LANES, np.float32), np.empty(16 * LANES, np.float32)
    at, sum_at = n * COLUMNS, n * SUMS
    zero, one, two, half = splat(_ZERO), splat(_ONE), splat(_TWO), splat(_HALF)
    seen = zero < gather(rows, at + HALF_WIDTH, COLUMNS)
    mean = _three(values, starts[MEANS] + 3 * n, 3)
    point = _in_camera(camera, mean)
    inverse = one / point[2]
    image, turn, axes, scales, a, b, (xx, xy, _, det) = _shape(values, starts, n, camera, point, inverse)
    p, q, jx, jy, free_x, free_y = image
    w, x, y, z, norm = turn
    axis0, axis1, axis2 = axes
    half_a, half_c = half / xx, half * xx / det
    shear = negative(xy / xx)

    # from the table's sums to cotangents of the projected centre and of half_a, shear, half_c
    moment_x, moment_y = gather(table, sum_at + 2, SUMS), gather(table, sum_at + 1, SUMS)
    v_py = negative(two * half_c * moment_y)
    v_px = v_py * shear - two * half_a * moment_x
    g_a, g_c = gather(table, sum_at + 3, SUMS), gather(table, sum_at + 5, SUMS)
    g_s = two * half_c * gather(table, sum_at + 4, SUMS)
    pull_x = pull_y = zero
    if absgrad:
        pull_x, pull_y = gather(table, sum_at + 10, SUMS), gather(table, sum_at + 11, SUMS)
    else:
        pull_x, pull_y = v_px, v_py
    pull_x, pull_y = pull_x * splat(_HALF * camera[WIDTH]), pull_y * splat(_HALF * camera[HEIGHT])
    store(screen, n, select(seen, root(fma(pull_x, pull_x, pull_y * pull_y)), zero))

    opacity = gather(rows, at + OPACITY, COLUMNS)
    _put(gradients, starts[OPACITIES] + n, 1, seen, negative(gather(table, sum_at, SUMS)) * (one - opacity))

    # covariance
    ratio_x, ratio_y = xx / det, xy / det
    g_xx = (xy * g_s - half * g_a) / (xx * xx) - half * g_c * ratio_y * ratio_y
    g_xy = g_c * ratio_x * ratio_y - g_s / xx
    g_yy = negative(half * g_c * ratio_x * ratio_x)
    g_xx, g_yy = two * g_xx, two * g_yy
    va = (
        fma(g_xx, a[0], g_xy * b[0]), fma(g_xx, a[1], g_xy * b[1]), fma(g_xx, a[2], g_xy * b[2]),
    )  # fmt: skip
    vb = (
        fma(g_xy, a[0], g_yy * b[0]), fma(g_xy, a[1], g_yy * b[1]), fma(g_xy, a[2], g_yy * b[2]),
    )  # fmt: skip
    for i in range(3):
        _put(gradients, starts[SCALES] + 3 * n + i, 3, seen, fma(va[i], a[i], vb[i] * b[i]))
    va, vb = _times(va, scales), _times(vb, scales)

    # rotation: g_ij is the cotangent of its entry
    g00, g01, g02 = fma(p[0], va[0], q[0] * vb[0]), fma(p[0], va[1], q[0] * vb[1]), fma(p[0], va[2], q[0] * vb[2])
    g10, g11, g12 = fma(p[1], va[0], q[1] * vb[0]), fma(p[1], va[1], q[1] * vb[1]), fma(p[1], va[2], q[1] * vb[2])
    g20, g21, g22 = fma(p[2], va[0], q[2] * vb[0]), fma(p[2], va[1], q[2] * vb[1]), fma(p[2], va[2], q[2] * vb[2])
    s01, s02, s12, d10, d02, d21 = g01 + g10, g02 + g20, g12 + g21, g10 - g01, g02 - g20, g21 - g12
    gw = two * (x * d21 + y * d02 + z * d10)
    gx = two * (y * s01 + z * s02 + w * d21 - two * x * (g11 + g22))
    gy = two * (x * s01 + z * s12 + w * d02 - two * y * (g00 + g22))
    gz = two * (x * s02 + y * s12 + w * d10 - two * z * (g00 + g11))
    along = fma(gw, w, gx * x + gy * y + gz * z)
    quats = starts[QUATS] + 4 * n
    _put(gradients, quats, 4, seen, (gw - along * w) * norm)
    _put(gradients, quats + 1, 4, seen, (gx - along * x) * norm)
    _put(gradients, quats + 2, 4, seen, (gy - along * y) * norm)
    _put(gradients, quats + 3, 4, seen, (gz - along * z) * norm)

    # position: through the rows of J W, the projected centre and the viewing direction
    vp = (
        fma(axis0[0], va[0], fma(axis1[0], va[1], axis2[0] * va[2])),
        fma(axis0[1], va[0], fma(axis1[1], va[1], axis2[1] * va[2])),
        fma(axis0[2], va[0], fma(axis1[2], va[1], axis2[2] * va[2])),
    )
    vq = (
        fma(axis0[0], vb[0], fma(axis1[0], vb[1], axis2[0] * vb[2])),
        fma(axis0[1], vb[0], fma(axis1[1], vb[1], axis2[1] * vb[2])),
        fma(axis0[2], vb[0], fma(axis1[2], vb[1], axis2[2] * vb[2])),
    )
    forward = _column(camera, 8)
    g_u, g_v = negative(jx * _dot(vp, forward)), negative(jy * _dot(vq, forward))
    slope_x = fma(splat(camera[FOCAL_X]), v_px, select(free_x, g_u, zero))
    slope_y = fma(splat(camera[FOCAL_Y]), v_py, select(free_y, g_v, zero))
    v_x, v_y = slope_x * inverse, slope_y * inverse
    v_z = negative((_dot(vp, p) + _dot(vq, q) + v_x * point[0] + v_y * point[1]) * inverse)
    light = (
        _where_lit(rows, table, at, sum_at, 0, seen), _where_lit(rows, table, at, sum_at, 1, seen),
        _where_lit(rows, table, at, sum_at, 2, seen),
    )  # fmt: skip
    turned = _colour_backward(values, gradients, starts, stride, bands, camera, n, light, basis, g)
    for i in range(3):
        moved = fma(splat(camera[i]), v_x, fma(splat(camera[4 + i]), v_y, fma(splat(camera[8 + i]), v_z, turned[i])))
        _put(gradients, starts[MEANS] + 3 * n + i, 3, seen, moved)


@njit(cache=True, inline="always")
def _where_lit(rows, table, at, sum_at, channel, seen):
    """Cotangents of one channel; none where the colour is clamped at 0."""
    lit = both(seen, splat(_ZERO) < gather(rows, at + RED + channel, COLUMNS))
    return select(lit, gather(table, sum_at + 6 + channel, SUMS), splat(_ZERO))


@njit(cache=True, parallel=True)
def adam(values, gradients, first, second, pieces, rates, broken):
    """One step of Adam (Kingma and Ba 2015) as `torch.optim.Adam` with ``fused`` takes it, on flat arrays.

    Args:
        first, second: moments.
        pieces: [P, 3] first and last + 1 of some floats, both multiples of 16, and their group.
        rates: [groups, 6] float32: rate / (1 - beta1^t), sqrt(1 - beta2^t), 1 - beta1, beta2, 1 - beta2, epsilon; a
            group whose rate is NaN has no gradient and rests.
        broken: [P] output: 0, or NaN where a parameter is no longer finite.
    """
    for piece in prange(pieces.shape[0]):
        group = pieces[piece, 2]
        rate, correction, weight = rates[group, 0], rates[group, 1], rates[group, 2]
        keep, add, eps = splat(rates[group, 3]), splat(rates[group, 4]), splat(rates[group, 5])
        bad = zero = splat(_ZERO)
        if rate == rate:
            for i in range(pieces[piece, 0], pieces[piece, 1], LANES):
                gradient, m, v = load(gradients, i), load(first, i), load(second, i)
                m = fma(splat(weight), gradient - m, m)
                v = v * keep + add * gradient * gradient
                value = load(values, i) - splat(rate) * m / (root(v) / splat(correction) + eps)
                store(first, i, m)
                store(second, i, v)
                store(values, i, value)
                bad = fma(value, zero, bad)
        broken[piece] = lane(totals((bad,)), 0)
