"""Exact nearest neighbours among points of a surface: a tree of boxes.

Queries lie along a Morton curve, so each starts from what the one before it found: a bound that prunes most of the
tree. Of equally near points the one with the lowest index is taken: where a search starts, and on which thread, changes
nothing.
"""

import math

import numpy as np
from numba import njit, prange

LEAF = 16
"""Points per leaf."""

_CHUNK = 1024  # queries that follow each other on one thread
_DEPTH = 64  # most nodes that wait at a time: one per level


@njit(cache=True)
def interleave(cells):
    """Morton codes of cells: (P,) int64, 10 bits of each of the three coordinates of (P, 3) int64."""
    codes = np.empty(len(cells), dtype=np.int64)
    for i in range(len(cells)):
        codes[i] = _spread(cells[i, 0]) | _spread(cells[i, 1]) << 1 | _spread(cells[i, 2]) << 2
    return codes


@njit(cache=True)
def settle(order, codes, points):
    """Sort every run of equal codes by z, y, x, then index, in place; False, half done, if a run is long."""
    for i in range(1, len(order)):
        moving, back = order[i], i
        while back > 0 and codes[order[back - 1]] == codes[moving] and _before(points, moving, order[back - 1]):
            if i - back > 64:
                return False
            order[back] = order[back - 1]
            back -= 1
        order[back] = moving
    return True


@njit(cache=True)
def tree(points):
    """A complete binary tree of boxes that halve the points at the median of their longest side.

    The children of node k are 2 k and 2 k + 1, its root is 1, its leaves are the last L nodes.

    Args:
        points: (P, 3) float32, P > 0.

    Returns:
        Bounds of the nodes, (2 L, 6) float32, least corner first; coordinates of the leaves' points, (L, 3, `LEAF`)
        float32, infinite where there is none; their indices, (L, `LEAF`) int64.
    """
    count, levels = len(points), 0
    while count > LEAF << levels:
        levels += 1
    leaves = 1 << levels
    order = np.arange(count)
    for level in range(levels):
        for node in range(1 << level):
            first, last = count * node >> level, count * (node + 1) >> level
            _halve(points, order, first, count * (2 * node + 1) >> (level + 1), last)
    bounds = np.empty((2 * leaves, 6), dtype=np.float32)
    bounds[:, :3], bounds[:, 3:] = np.inf, -np.inf
    places = np.full((leaves, 3, LEAF), np.inf, dtype=np.float32)
    indices = np.zeros((leaves, LEAF), dtype=np.int64)
    for leaf in range(leaves):
        first = count * leaf >> levels
        for k in range((count * (leaf + 1) >> levels) - first):
            indices[leaf, k] = order[first + k]
            for axis in range(3):
                value = points[order[first + k], axis]
                places[leaf, axis, k] = value
                bounds[leaves + leaf, axis] = min(bounds[leaves + leaf, axis], value)
                bounds[leaves + leaf, 3 + axis] = max(bounds[leaves + leaf, 3 + axis], value)
    for node in range(leaves - 1, 0, -1):
        for axis in range(3):
            bounds[node, axis] = min(bounds[2 * node, axis], bounds[2 * node + 1, axis])
            bounds[node, 3 + axis] = max(bounds[2 * node, 3 + axis], bounds[2 * node + 1, 3 + axis])
    return bounds, places, indices


@njit(cache=True, parallel=True)
def search(points, bounds, places, indices, queries, starts):
    """Distance (Q,) float64 to the nearest of the points, and its index (Q,) int64.

    Args:
        points: (P, 3) float32; bounds, places, indices: their `tree`.
        queries: (Q, 3) float64.
        starts: (Q,) a point near each query, as a guess; -1: what the query before found.
    """
    distances, found = np.empty(len(queries)), np.empty(len(queries), dtype=np.int64)
    for chunk in prange((len(queries) + _CHUNK - 1) // _CHUNK):
        nodes, gaps, squares = np.empty(_DEPTH, dtype=np.int64), np.empty(_DEPTH), np.empty(LEAF)
        best = 0
        for i in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(queries))):
            best = starts[i] if starts[i] >= 0 else best
            x, y, z = queries[i, 0], queries[i, 1], queries[i, 2]
            dx, dy, dz = points[best, 0] - x, points[best, 1] - y, points[best, 2] - z
            least = dx * dx + dy * dy + dz * dz
            least, best = _nearest(bounds, places, indices, x, y, z, least, best, nodes, gaps, squares)
            distances[i], found[i] = math.sqrt(least), best
    return distances, found


@njit(cache=True)
def _nearest(bounds, places, indices, x, y, z, least, best, nodes, gaps, squares):
    leaves = len(places)
    nodes[0], gaps[0], waiting = 1, 0.0, 1
    while waiting > 0:
        waiting -= 1
        node, gap = nodes[waiting], gaps[waiting]
        while node < leaves and gap <= least:
            node *= 2
            left, right = _gap(bounds, node, x, y, z), _gap(bounds, node + 1, x, y, z)
            first = left <= right
            far = right if first else left
            gap = left if first else right
            if far <= least:
                nodes[waiting], gaps[waiting] = node + first, far
                waiting += 1
            node += not first
        if gap > least:
            continue
        place = places[node - leaves]
        for k in range(LEAF):
            dx, dy, dz = place[0, k] - x, place[1, k] - y, place[2, k] - z
            squares[k] = dx * dx + dy * dy + dz * dz
        for k in range(LEAF):
            if squares[k] <= least:
                index = indices[node - leaves, k]
                if squares[k] < least or index < best:
                    least, best = squares[k], index
    return least, best


@njit(cache=True)
def _halve(points, order, first, middle, last):
    """Reorder a range so that what is before its middle is less, along its longest side, than what is after."""
    axis, longest = 0, np.float32(-1)
    for side in range(3):
        low = high = points[order[first], side]
        for i in range(first + 1, last):
            low, high = min(low, points[order[i], side]), max(high, points[order[i], side])
        if high - low > longest:
            axis, longest = side, high - low
    left, right = first, last - 1
    while left < right:  # quickselect (Hoare 1961); equal coordinates in the order of their indices
        pivot = order[(left + right) // 2]
        value = points[pivot, axis]
        i, j = left, right
        while i <= j:
            while points[order[i], axis] < value or (points[order[i], axis] == value and order[i] < pivot):
                i += 1
            while points[order[j], axis] > value or (points[order[j], axis] == value and order[j] > pivot):
                j -= 1
            if i <= j:
                order[i], order[j] = order[j], order[i]
                i, j = i + 1, j - 1
        if middle <= j:
            right = j
        elif middle >= i:
            left = i
        else:
            break


@njit(cache=True)
def _gap(bounds, node, x, y, z):
    """Squared distance to a box, rounded like that to a point inside, so never above it."""
    dx = max(bounds[node, 0] - x, x - bounds[node, 3], 0.0)
    dy = max(bounds[node, 1] - y, y - bounds[node, 4], 0.0)
    dz = max(bounds[node, 2] - z, z - bounds[node, 5], 0.0)
    return dx * dx + dy * dy + dz * dz


@njit(cache=True)
def _spread(value):
    """Two zero bits between any two of the ten lowest bits."""
    value = (value | value << 16) & 0x030000FF
    value = (value | value << 8) & 0x0300F00F
    value = (value | value << 4) & 0x030C30C3
    return (value | value << 2) & 0x09249249


@njit(cache=True)
def _before(points, i, j):
    for axis in (2, 1, 0):
        if points[i, axis] != points[j, axis]:
            return points[i, axis] < points[j, axis]
    return i < j
