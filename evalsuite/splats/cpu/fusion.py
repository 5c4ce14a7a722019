"""Depth images into a truncated signed distance field (Curless and Levoy 1996), parallel over blocks of voxels.

A pixel is solid where its alpha reaches the threshold; its depth then says how far each voxel on its ray lies in front
of the surface (positive) or behind it (negative). Elsewhere the ray is free; where it passes a solid pixel by less than
a pixel it is so only up to that pixel's depth, since an outline is known to a pixel only. A voxel's value is the
weighted mean over views of that distance, in units of the truncation and at most 1. The weight is 1 where a view sees
free space, alpha at a surface, and falls to 0 one truncation behind it, beyond which the view knows nothing. Voxels
that no view knows are inside (-1): a closed object has no inner surface. Voxels outside the ball are outside (1).

Each voxel adds its views in their order, whatever thread has its block: the same bits for any number of threads.
"""

import math

import numpy as np
from numba import njit, prange

BLOCK = 8
"""Voxels per side of a block: far from every surface, a block is decided as a whole."""

TILE = 8
"""Pixels per side of the tiles whose depth ranges decide a block."""


HIDDEN, CLEAR, EDGE, NEAR = 0, 1, 2, 3


@njit(cache=True, parallel=True)
def tile_ranges(depth, alpha, threshold):
    """Nearest and farthest depth of every tile's solid pixels, and its number of free ones: (V, rows, columns, 3)."""
    views, height, width = depth.shape
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    ranges = np.empty((views, rows, columns, 3), dtype=np.float32)
    for v in prange(views):
        for row in range(rows):
            for column in range(columns):
                near, far, free = np.float32(np.inf), np.float32(-np.inf), 0
                for y in range(row * TILE, min((row + 1) * TILE, height)):
                    for x in range(column * TILE, min((column + 1) * TILE, width)):
                        if alpha[v, y, x] < threshold:
                            free += 1
                        else:
                            near, far = min(near, depth[v, y, x]), max(far, depth[v, y, x])
                ranges[v, row, column, 0] = near
                ranges[v, row, column, 1] = far
                ranges[v, row, column, 2] = free
    return ranges


@njit(cache=True, parallel=True)
def fuse(depth, alpha, ranges, views, focal, centre, corner, voxel, side, ball, truncation, threshold):
    """Signed distance of a cube of voxels, in units of the truncation, in [-1, 1]: float32 (side, side, side), x first.

    Args:
        depth, alpha: (V, H, W) float32; depth is along the camera's z.
        ranges: of `tile_ranges`.
        views: (V, 4, 4) cam_from_world, float64; focal, centre: (V, 2) pixels.
        corner: (3,) centre of the first voxel; voxel: edge length; side: voxels per side.
        ball: (4,) centre and radius; truncation: world units; threshold: alpha from which a pixel is solid.
    """
    field = np.empty((side, side, side), dtype=np.float32)
    blocks = (side + BLOCK - 1) // BLOCK
    for block in prange(blocks**3):
        i0 = block // (blocks * blocks) * BLOCK
        j0 = block // blocks % blocks * BLOCK
        k0 = block % blocks * BLOCK
        x0, y0, z0 = corner[0] + i0 * voxel, corner[1] + j0 * voxel, corner[2] + k0 * voxel
        total, weight = np.zeros((BLOCK, BLOCK, BLOCK)), np.zeros((BLOCK, BLOCK, BLOCK))
        half = (BLOCK - 1) / 2 * voxel
        radius = half * math.sqrt(3.0)
        x, y, z = x0 + half - ball[0], y0 + half - ball[1], z0 + half - ball[2]
        reached = math.sqrt(x * x + y * y + z * z) - radius <= ball[3]
        if reached:
            clear, near = 0, False
            sights = np.empty(depth.shape[0], dtype=np.int8)
            for v in range(depth.shape[0]):
                sights[v] = _sight(
                    ranges[v], depth.shape, views[v], focal[v], centre[v], x0 + half, y0 + half, z0 + half, radius,
                    truncation,
                )  # fmt: skip
                clear += sights[v] == CLEAR
                near = near or sights[v] == NEAR
            total += clear
            weight += clear
            for v in range(depth.shape[0]):
                # where some view is clear and none is near a surface, edges add free space to free space
                if sights[v] == NEAR or (sights[v] == EDGE and (near or clear == 0)):
                    _add(
                        depth[v], alpha[v], views[v], focal[v], centre[v], x0, y0, z0, voxel, truncation, threshold,
                        total, weight,
                    )  # fmt: skip
        for i in range(min(BLOCK, side - i0)):
            for j in range(min(BLOCK, side - j0)):
                for k in range(min(BLOCK, side - k0)):
                    x, y, z = x0 + i * voxel - ball[0], y0 + j * voxel - ball[1], z0 + k * voxel - ball[2]
                    if x * x + y * y + z * z > ball[3] * ball[3]:
                        value = 1.0
                    elif weight[i, j, k] > 0:
                        value = total[i, j, k] / weight[i, j, k]
                    else:
                        value = -1.0
                    field[i0 + i, j0 + j, k0 + k] = value
    return field


@njit(cache=True)
def _sight(ranges, shape, view, focal, centre, x, y, z, radius, truncation):
    """What a view knows of a sphere: nothing, that all is free, that parts are, or that a surface may be near."""
    cz = view[2, 0] * x + view[2, 1] * y + view[2, 2] * z + view[2, 3]
    if cz - radius <= 0:
        return NEAR
    tx = (view[0, 0] * x + view[0, 1] * y + view[0, 2] * z + view[0, 3]) / cz
    ty = (view[1, 0] * x + view[1, 1] * y + view[1, 2] * z + view[1, 3]) / cz
    # a point of the sphere is at most this far off in x / z and y / z; two pixels more for interpolation
    reach_x = focal[0] * radius * (1 + abs(tx)) / (cz - radius) + 2
    reach_y = focal[1] * radius * (1 + abs(ty)) / (cz - radius) + 2
    px, py = focal[0] * tx + centre[0], focal[1] * ty + centre[1]
    left, right, top, bottom = px - reach_x, px + reach_x, py - reach_y, py + reach_y
    height, width = shape[1], shape[2]
    if right < 0 or bottom < 0 or left > width or top > height:
        return HIDDEN
    near, far, free = np.inf, -np.inf, 0.0
    for row in range(max(int(top), 0) // TILE, min(int(bottom), height - 1) // TILE + 1):
        for column in range(max(int(left), 0) // TILE, min(int(right), width - 1) // TILE + 1):
            near = min(near, ranges[row, column, 0])
            far = max(far, ranges[row, column, 1])
            free += ranges[row, column, 2]
    if cz + radius <= near - truncation and left >= 0 and top >= 0 and right <= width and bottom <= height:
        return CLEAR
    if cz - radius >= far + truncation and free == 0:
        return HIDDEN
    return NEAR if cz + radius > near - truncation and cz - radius < far + truncation else EDGE


@njit(cache=True)
def _add(depth, alpha, view, focal, centre, x0, y0, z0, voxel, truncation, threshold, total, weight):
    """Add what one view knows of every voxel of a block."""
    height, width = depth.shape
    for i in range(BLOCK):
        for j in range(BLOCK):
            x, y = x0 + i * voxel, y0 + j * voxel
            ax = view[0, 0] * x + view[0, 1] * y + view[0, 3]
            ay = view[1, 0] * x + view[1, 1] * y + view[1, 3]
            az = view[2, 0] * x + view[2, 1] * y + view[2, 3]
            for k in range(BLOCK):
                z = z0 + k * voxel
                cz = az + view[2, 2] * z
                if cz <= 0:
                    continue
                px = focal[0] * (ax + view[0, 2] * z) / cz + centre[0]
                py = focal[1] * (ay + view[1, 2] * z) / cz + centre[1]
                if not (0 <= px < width and 0 <= py < height):
                    continue
                column, row = int(px), int(py)
                a, itself = alpha[row, column], depth[row, column]
                if a < threshold:
                    distance = _clearance(depth, alpha, px, py, cz, truncation, threshold)
                elif abs(itself - cz) >= 2 * truncation:
                    distance = (itself - cz) / truncation
                else:
                    smooth = _smooth_depth(depth, alpha, row, column, px, py, truncation, threshold)
                    distance = (smooth - cz) / truncation
                if distance >= 1:
                    total[i, j, k] += 1
                    weight[i, j, k] += 1
                elif distance > -1:
                    w = a * min(1.0, 1.0 + distance)
                    total[i, j, k] += w * distance
                    weight[i, j, k] += w


@njit(cache=True)
def _clearance(depth, alpha, px, py, cz, truncation, threshold):
    """1 on a free ray; -1, nothing known, where a solid pixel next to it shows no more than the voxel's depth."""
    left, top = math.floor(px - 0.5), math.floor(py - 0.5)
    for y in range(max(top, 0), min(top + 2, depth.shape[0])):
        for x in range(max(left, 0), min(left + 2, depth.shape[1])):
            if alpha[y, x] >= threshold and depth[y, x] - cz < truncation:
                return -1.0
    return 1.0


@njit(cache=True)
def _smooth_depth(depth, alpha, row, column, px, py, truncation, threshold):
    """Bilinear depth; that of the pixel itself where a neighbour is free or more than a truncation away."""
    height, width = depth.shape
    itself = depth[row, column]
    left, top = math.floor(px - 0.5), math.floor(py - 0.5)
    if left < 0 or top < 0 or left + 1 >= width or top + 1 >= height:
        return itself
    for y in range(top, top + 2):
        for x in range(left, left + 2):
            if alpha[y, x] < threshold or abs(depth[y, x] - itself) > truncation:
                return itself
    fx, fy = px - 0.5 - left, py - 0.5 - top
    upper = depth[top, left] * (1 - fx) + depth[top, left + 1] * fx
    lower = depth[top + 1, left] * (1 - fx) + depth[top + 1, left + 1] * fx
    return upper * (1 - fy) + lower * fy
