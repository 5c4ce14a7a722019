"""Which Gaussians touch which 16x16 tile, front to back.

One radix sort of the depths per camera, then a counting pass in that order: every tile's list comes out
sorted, ties broken by index, without sorting the (many more) tile entries themselves.
"""

from __future__ import annotations

import numpy as np
from numba import njit

TILE = 16
RADIX_BITS = 11


@njit(cache=True)
def depth_order(depths, extents):
    """Indices of the visible Gaussians by increasing depth, stable (bits of positive floats sort as integers)."""
    total = 0
    for n in range(depths.shape[0]):
        if extents[n, 0] > 0:
            total += 1
    order = np.empty(total, np.int32)
    i = 0
    for n in range(depths.shape[0]):
        if extents[n, 0] > 0:
            order[i] = n
            i += 1
    keys = depths.view(np.uint32)
    other = np.empty(total, np.int32)
    buckets = 1 << RADIX_BITS
    for shift in range(0, 32, RADIX_BITS):
        counts = np.zeros(buckets + 1, np.int64)
        for i in range(total):
            counts[((keys[order[i]] >> np.uint32(shift)) & np.uint32(buckets - 1)) + 1] += 1
        for b in range(buckets):
            counts[b + 1] += counts[b]
        for i in range(total):
            b = (keys[order[i]] >> np.uint32(shift)) & np.uint32(buckets - 1)
            other[counts[b]] = order[i]
            counts[b] += 1
        order, other = other, order
    return order


@njit(cache=True, inline="always")
def _span(centre, extent, size):
    """First and last pixel whose centre may lie within ``extent`` of ``centre``; a hair of slack for rounding."""
    low = int(np.ceil(centre - extent - 0.5 - 1e-3))
    high = int(np.floor(centre + extent - 0.5 + 1e-3))
    return max(low, 0), min(high, size - 1)


@njit(cache=True)
def tile_lists(order, means2d, extents, width, height):
    """Depth-sorted list of every tile.

    Returns:
        starts [tiles + 1], entries [E] (Gaussian indices), slots [E] (place of the entry in a table grouped by
        Gaussian), offsets [M + 1] (first slot of the m-th visible Gaussian in ``order``).
    """
    tiles_x = (width + TILE - 1) // TILE
    tiles_y = (height + TILE - 1) // TILE
    starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
    offsets = np.zeros(order.shape[0] + 1, np.int64)
    for m in range(order.shape[0]):
        n = order[m]
        x0, x1 = _span(means2d[n, 0], extents[n, 0], width)
        y0, y1 = _span(means2d[n, 1], extents[n, 1], height)
        covered = 0
        if x1 >= x0 and y1 >= y0:
            for ty in range(y0 // TILE, y1 // TILE + 1):
                for tx in range(x0 // TILE, x1 // TILE + 1):
                    starts[ty * tiles_x + tx + 1] += 1
                    covered += 1
        offsets[m + 1] = offsets[m] + covered
    for t in range(starts.shape[0] - 1):
        starts[t + 1] += starts[t]
    cursor = starts[:-1].copy()
    entries = np.empty(starts[-1], np.int32)
    slots = np.empty(starts[-1], np.int64)
    for m in range(order.shape[0]):
        n = order[m]
        x0, x1 = _span(means2d[n, 0], extents[n, 0], width)
        y0, y1 = _span(means2d[n, 1], extents[n, 1], height)
        slot = offsets[m]
        if x1 >= x0 and y1 >= y0:
            for ty in range(y0 // TILE, y1 // TILE + 1):
                for tx in range(x0 // TILE, x1 // TILE + 1):
                    t = ty * tiles_x + tx
                    entries[cursor[t]] = n
                    slots[cursor[t]] = slot
                    cursor[t] += 1
                    slot += 1
    return starts, entries, slots, offsets
