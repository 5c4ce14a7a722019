"""Which Gaussians touch which 16x16 tile, front to back.

One radix sort of the depths per camera, then a counting pass in that order: every tile's list comes out sorted, ties
broken by index, without sorting the (many more) tile entries themselves. A tile is listed only if the ellipse
alpha >= 1/255 meets it, not merely the ellipse's box.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from evalsuite.splats.cpu.projection import (
    DEPTH,
    HALF_A,
    HALF_C,
    HALF_HEIGHT,
    HALF_WIDTH,
    MEAN_X,
    MEAN_Y,
    SHEAR,
)  # fmt: skip

SHIFT = 4
TILE = 1 << SHIFT
RADIX_BITS = 11
CHUNKS = 16
"""Parts of the depth order that are counted and filled in parallel; the lists do not depend on it."""

SLACK = 1e-3  # pixels by which an ellipse is widened, so that rounding hides nothing


@njit(cache=True)
def depth_order(splats):
    """Indices of the visible Gaussians by increasing depth, stable (bits of positive floats sort as integers)."""
    count = splats.shape[0]
    indices, keys = np.empty(count, np.int32), np.empty(count, np.float32)
    total = 0
    for n in range(count):
        if splats[n, HALF_WIDTH] > 0:
            indices[total], keys[total] = n, splats[n, DEPTH]
            total += 1
    order, bits = indices[:total], keys[:total].view(np.uint32)
    other, other_bits = np.empty(total, np.int32), np.empty(total, np.uint32)
    buckets = 1 << RADIX_BITS
    for shift in range(0, 32, RADIX_BITS):
        places = np.zeros(buckets + 1, np.int64)
        for i in range(total):
            places[((bits[i] >> np.uint32(shift)) & np.uint32(buckets - 1)) + 1] += 1
        for b in range(buckets):
            places[b + 1] += places[b]
        for i in range(total):
            b = (bits[i] >> np.uint32(shift)) & np.uint32(buckets - 1)
            other[places[b]], other_bits[places[b]] = order[i], bits[i]
            places[b] += 1
        order, other, bits, other_bits = other, order, other_bits, bits
    return order


@njit(cache=True, inline="always")
def _span(low, high, size):
    """First and last pixel with a centre between two positions."""
    first = max(np.int64(math.ceil(low - (0.5 + SLACK))), 0)
    last = min(np.int64(math.floor(high - (0.5 - SLACK))), size - 1)
    return first, last


@njit(cache=True, inline="always")
def _pixel_rows(splat, column, height):
    """First and last row of pixels under the part of the ellipse that crosses a column of tiles."""
    mx, my = np.float64(splat[MEAN_X]), np.float64(splat[MEAN_Y])
    ex, ey = np.float64(splat[HALF_WIDTH]), np.float64(splat[HALF_HEIGHT])
    shear = np.float64(splat[SHEAR])
    left = (column * TILE + (0.5 - SLACK)) - mx
    right = left + (TILE - 1 + 2 * SLACK)
    tip = -shear * ex * ex / ey  # dx where the ellipse ends in y, and of the opposite end
    low, high = -ey, ey
    if not left <= tip <= right or not left <= -tip <= right:
        ratio = np.float64(splat[HALF_A]) / np.float64(splat[HALF_C])
        left, right = min(max(left, -ex), ex), min(max(right, -ex), ex)
        at = min(max(tip, left), right)
        high = -shear * at + math.sqrt(max(ratio * (ex - at) * (ex + at), 0.0))
        at = min(max(-tip, left), right)
        low = -shear * at - math.sqrt(max(ratio * (ex - at) * (ex + at), 0.0))
    return _span(my + low, my + high, height)


@njit(cache=True, parallel=True)
def ellipse_bounds(splats, width, height):
    """First and last column of tiles, first and last row of pixels in the first and in the last of them: [N, 6].

    The lists are filled in depth order, all over memory; this is small enough to stay in the cache.
    """
    bounds = np.empty((splats.shape[0], 6), np.int32)
    for n in prange(splats.shape[0]):
        splat, out = splats[n], bounds[n]
        out[:] = 0
        x, half = np.float64(splat[MEAN_X]), np.float64(splat[HALF_WIDTH])
        x0, x1 = _span(x - half, x + half, width)
        if half > 0 and x0 <= x1:
            out[0], out[1] = x0 >> SHIFT, x1 >> SHIFT
            out[2], out[3] = _pixel_rows(splat, out[0], height)
            if out[0] < out[1]:
                out[4], out[5] = _pixel_rows(splat, out[1], height)
        else:
            out[1] = -1
    return bounds


@njit(cache=True, inline="always")
def _bounded_rows(bounds, splats, n, column, height):
    """`_pixel_rows` of the n-th splat, from its bounds if they know."""
    if column == bounds[n, 0]:
        return np.int64(bounds[n, 2]), np.int64(bounds[n, 3])
    if column == bounds[n, 1]:
        return np.int64(bounds[n, 4]), np.int64(bounds[n, 5])
    return _pixel_rows(splats[n], column, height)


@njit(cache=True, parallel=True)
def count_entries(order, splats, bounds, width, height):
    """How many entries each part of the depth order adds to each tile: [CHUNKS, tiles]."""
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    counts = np.zeros((CHUNKS, tiles_x * tiles_y), np.int64)
    for chunk in prange(CHUNKS):
        for m in range(chunk * order.shape[0] // CHUNKS, (chunk + 1) * order.shape[0] // CHUNKS):
            n = order[m]
            for column in range(bounds[n, 0], bounds[n, 1] + 1):
                y0, y1 = _bounded_rows(bounds, splats, n, column, height)
                for row in range(y0 >> SHIFT, (y1 >> SHIFT) + 1):
                    counts[chunk, row * tiles_x + column] += 1
    return counts


@njit(cache=True, parallel=True)
def tile_lists(order, splats, bounds, width, height, counts, first, last):
    """Depth-sorted lists of the tiles ``first`` to ``last - 1``.

    Args:
        order, bounds, counts: results of `depth_order`, `ellipse_bounds` and `count_entries`.

    Returns:
        starts [tiles + 1], entries [E] (Gaussian indices), spans [E] (first and last row of the tile's pixels under
        the ellipse, four bits each), slots [E] (place of the entry in a table grouped by Gaussian), offsets [N + 1]
        (each Gaussian's first slot).
    """
    tiles_x = (width + TILE - 1) // TILE
    starts = np.zeros(last - first + 1, np.int64)
    cursors = np.empty((CHUNKS, last - first), np.int64)
    for t in range(last - first):
        place = starts[t]
        for chunk in range(CHUNKS):
            cursors[chunk, t] = place
            place += counts[chunk, first + t]
        starts[t + 1] = place
    entries, slots = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int64)
    spans = np.empty(starts[-1], np.uint8)
    covered = np.zeros(splats.shape[0] + 1, np.int64)
    top_row, bottom_row = (first // tiles_x) << SHIFT, (last - 1) // tiles_x << SHIFT | (TILE - 1)
    for chunk in prange(CHUNKS):
        for m in range(chunk * order.shape[0] // CHUNKS, (chunk + 1) * order.shape[0] // CHUNKS):
            n = order[m]
            nth = 0
            for column in range(bounds[n, 0], bounds[n, 1] + 1):
                low, high = _bounded_rows(bounds, splats, n, column, height)
                y0, y1 = max(low, top_row), min(high, bottom_row)
                for row in range(y0 >> SHIFT, (y1 >> SHIFT) + 1):
                    t = row * tiles_x + column - first
                    if 0 <= t < last - first:
                        place = cursors[chunk, t]
                        cursors[chunk, t] = place + 1
                        entries[place], slots[place] = n, nth
                        top = max(y0 - (row << SHIFT), 0)
                        spans[place] = top << SHIFT | min(y1 - (row << SHIFT), TILE - 1)
                        nth += 1
            covered[n + 1] = nth
    offsets = np.cumsum(covered)
    for e in prange(slots.shape[0]):
        slots[e] += offsets[entries[e]]
    return starts, entries, spans, slots, offsets
