"""Rays through silhouettes."""

import numpy as np
from numba import njit, prange


@njit(cache=True, parallel=True, error_model="numpy")
def first_inside(start, slope, near, far, fractions, framed):
    """Ray parameter of the first sample that projects into all silhouettes, 0 if there is none: (R,) float32.

    Single roundings in the order of `evalsuite.arms.floors.VisualHull`'s tensors: the same bits.

    Args:
        start: (V, 3) float32, projection of the rays' origin into each view.
        slope: (V, 3, R) float32, what a unit of the ray parameter adds to it.
        near, far: (R,) float32, ends of the rays.
        fractions: (S,) float32, where samples lie between them.
        framed: (V, H + 2, W + 2) bool, silhouettes in a border of False.
    """
    views, height, width = framed.shape
    one, least = np.float32(1), np.float32(1e-9)
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    first = np.zeros(len(near), dtype=np.float32)
    for ray in prange(len(near)):
        for fraction in fractions:
            t = near[ray] + (far[ray] - near[ray]) * fraction
            inside = t != 0
            for view in range(views):
                z = start[view, 2] + slope[view, 2, ray] * t
                if not (inside and z > 0):
                    inside = False
                    break
                safe = max(z, least)
                column = min(max((start[view, 0] + slope[view, 0, ray] * t) / safe + one, np.float32(0)), right)
                row = min(max((start[view, 1] + slope[view, 1, ray] * t) / safe + one, np.float32(0)), bottom)
                inside = framed[view, int(row), int(column)]
            if inside:
                first[ray] = t
                break
    return first
