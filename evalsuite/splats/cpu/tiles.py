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
def _pixel_columns(splat, width):
    """First and last column of pixels under the ellipse."""
    x, half = np.float64(splat[MEAN_X]), np.float64(splat[HALF_WIDTH])
    return _span(x - half, x + half, width)


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
def count_entries(order, splats, width, height):
    """How many entries each part of the depth order adds to each tile: [CHUNKS, tiles]."""
    tiles_x, tiles_y = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    counts = np.zeros((CHUNKS, tiles_x * tiles_y), np.int64)
    for chunk in prange(CHUNKS):
        for m in range(chunk * order.shape[0] // CHUNKS, (chunk + 1) * order.shape[0] // CHUNKS):
            splat = splats[order[m]]
            x0, x1 = _pixel_columns(splat, width)
            for column in range(x0 >> SHIFT, (x1 >> SHIFT) + 1):
                y0, y1 = _pixel_rows(splat, column, height)
                for row in range(y0 >> SHIFT, (y1 >> SHIFT) + 1):
                    counts[chunk, row * tiles_x + column] += 1
    return counts


@njit(cache=True, parallel=True)
def tile_lists(order, splats, width, height, counts, first, last):
    """Depth-sorted lists of the tiles ``first`` to ``last - 1``.

    Args:
        counts: result of `count_entries`.

    Returns:
        starts [tiles + 1], entries [E] (Gaussian indices), spans [E] (first and last row of the tile's pixels under
        the ellipse, four bits each), slots [E] (place of the entry in a table grouped by Gaussian), offsets [M + 1]
        (first slot of the m-th visible Gaussian in ``order``).
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
    owners, spans = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint8)
    covered = np.zeros(order.shape[0] + 1, np.int64)
    for chunk in prange(CHUNKS):
        for m in range(chunk * order.shape[0] // CHUNKS, (chunk + 1) * order.shape[0] // CHUNKS):
            n = order[m]
            splat = splats[n]
            x0, x1 = _pixel_columns(splat, width)
            for column in range(x0 >> SHIFT, (x1 >> SHIFT) + 1):
                y0, y1 = _pixel_rows(splat, column, height)
                y0, y1 = max(y0, (first // tiles_x) << SHIFT), min(y1, (last - 1) // tiles_x << SHIFT | (TILE - 1))
                for row in range(y0 >> SHIFT, (y1 >> SHIFT) + 1):
                    t = row * tiles_x + column - first
                    if 0 <= t < last - first:
                        place = cursors[chunk, t]
                        cursors[chunk, t] = place + 1
                        entries[place], owners[place], slots[place] = n, m, covered[m + 1]
                        top = max(y0 - (row << SHIFT), 0)
                        bottom = min(y1 - (row << SHIFT), TILE - 1)
                        spans[place] = top << 4 | bottom
                        covered[m + 1] += 1
    offsets = np.cumsum(covered)
    for e in prange(slots.shape[0]):
        slots[e] += offsets[owners[e]]
    return starts, entries, spans, slots, offsets
