"""What chance is made of: random items and rotations, noise fields, hashed lattice cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

_LATTICE = 16
T = TypeVar("T")
Xyz = Float[np.ndarray, "P 3"]
"""Points in space or in a patch's own coordinates."""


def one_of(rng: np.random.Generator, items: Sequence[T]) -> T:
    """A random item."""
    return items[int(rng.integers(len(items)))]


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniform over all rotations: QR of a Gaussian matrix."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation: np.ndarray = q * np.sign(np.diag(r))
    return rotation if np.linalg.det(rotation) > 0 else -rotation


def value_noise(rng: np.random.Generator, octaves: int = 4) -> Callable[[Xyz], Float[np.ndarray, "P"]]:
    """Value noise in [0, 1], mean about 0.5: octaves of halving amplitude; features of about one unit."""
    lattice = rng.random((_LATTICE,) * 3)
    shifts = rng.uniform(0, _LATTICE, (octaves, 3))

    def noise(p: Xyz) -> Float[np.ndarray, "P"]:
        total = np.zeros(len(p))
        for k in range(octaves):
            q = p * 2.0**k + shifts[k]
            cell = np.floor(q)
            f = q - cell
            q = cell + f * f * (3 - 2 * f)
            total += 0.5**k * map_coordinates(lattice, q.T, order=1, mode="grid-wrap")
        amplitude = 2 - 0.5 ** (octaves - 1)
        return np.clip(0.5 + (total / amplitude - 0.5) * 1.6, 0, 1)

    return noise


def hashed(cell: Float[np.ndarray, "P 3"], salt: int) -> Float[np.ndarray, "P"]:
    """A number in [0, 1) for each integer cell."""
    i = cell.astype(np.int64)
    h = (i[:, 0] * 73856093) ^ (i[:, 1] * 19349663) ^ (i[:, 2] * 83492791) ^ (salt * 2654435761)
    h = (h ^ (h >> 13)) * 1274126177
    return ((h ^ (h >> 16)) & 0xFFFF) / 65536.0
