"""Nearest neighbours against brute force and scipy; the order of points against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from scipy.spatial import cKDTree

from evalsuite.metrics.kernels import nearest

Points = Float[np.ndarray, "P 3"]
SEEDS = st.integers(0, 2**31)
KINDS = ("cloud", "line", "plane", "grid", "one place")


def cloud(seed: int, count: int, kind: str = "cloud") -> Points:
    random = np.random.default_rng(seed)
    points = random.standard_normal((count, 3))
    points[:, {"line": [0, 1], "plane": [2]}.get(kind, [])] = 0.25
    if kind == "grid":
        points = points.round()
    if kind == "one place":
        points[:] = 0.5
    return points.astype(np.float32)


def squares(points: Points, queries: Points) -> Float[np.ndarray, "Q P"]:
    difference = points[None].astype(np.float64) - queries[:, None].astype(np.float64)
    return difference[..., 0] ** 2 + difference[..., 1] ** 2 + difference[..., 2] ** 2


def found(points: Points, queries: Points, starts: int = -1) -> tuple[np.ndarray, np.ndarray]:
    guesses = np.full(len(queries), starts)
    distances, indices = nearest.search(points, *nearest.tree(points), queries.astype(np.float64), guesses)
    return distances, indices


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33, 400])
def test_the_first_of_the_nearest_points_is_found(kind: str, count: int) -> None:
    points, queries = cloud(0, count, kind), np.concatenate([cloud(1, 50), cloud(2, 50, "grid"), cloud(0, count, kind)])
    expected = squares(points, queries)
    distances, indices = found(points, queries)
    assert np.array_equal(indices, expected.argmin(axis=1))
    assert np.array_equal(distances, np.sqrt(expected.min(axis=1)))


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.integers(1, 300), st.sampled_from(KINDS))
def test_where_a_search_starts_changes_nothing(seed: int, count: int, kind: str) -> None:
    points, queries = cloud(seed, count, kind), cloud(seed + 1, 40, kind)
    plain = found(points, queries)
    order = np.random.default_rng(seed).permutation(40)
    for distances, indices in (found(points, queries, count - 1), found(points, queries, count // 2)):
        assert np.array_equal(distances, plain[0])
        assert np.array_equal(indices, plain[1])
    assert np.array_equal(found(points, queries[order])[1], plain[1][order])


def test_many_points_against_scipy() -> None:
    """More queries than a thread's share, some of them far away."""
    points, queries = cloud(0, 20_000), np.concatenate([cloud(1, 3000), 40 * cloud(2, 50)])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    distances, indices = found(points, queries)
    expected, which = cKDTree(points).query(queries)
    assert np.array_equal(indices, which)
    assert distances == pytest.approx(expected, rel=1e-12)


def test_every_point_lies_in_one_leaf_and_in_its_boxes() -> None:
    points = cloud(3, 777)
    bounds, places, indices = nearest.tree(points)
    there = np.isfinite(places[:, 0])
    assert sorted(indices[there]) == list(range(777))
    assert np.array_equal(places.transpose(0, 2, 1)[there], points[indices[there]])
    leaves = bounds[len(places) :]
    low, high = np.where(there[:, None], places, np.inf).min(2), np.where(there[:, None], places, -np.inf).max(2)
    assert np.array_equal(leaves, np.concatenate([low, high], axis=1))
    assert bounds[1].tolist() == [*points.min(axis=0), *points.max(axis=0)]


@settings(deadline=None, max_examples=30)
@given(SEEDS, st.sampled_from(KINDS))
def test_points_settle_as_numpy_sorts_them(seed: int, kind: str) -> None:
    points = cloud(seed, 60, kind)
    codes = np.random.default_rng(seed).integers(0, 5, 60)
    order = np.argsort(codes)
    assert nearest.settle(order, codes, points)
    assert np.array_equal(order, np.lexsort((*points.T, codes)))


def test_a_long_run_of_equal_codes_is_left_to_numpy() -> None:
    points = np.zeros((400, 3), np.float32)
    points[:, 2] = -np.arange(400)
    assert not nearest.settle(np.arange(400), np.zeros(400, np.int64), points)


def test_codes_interleave_the_bits_of_the_cells() -> None:
    cells = np.random.default_rng(0).integers(0, 1024, (200, 3))
    expected = np.zeros(200, np.int64)
    for bit in range(10):
        for axis in range(3):
            expected |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    assert np.array_equal(nearest.interleave(cells), expected)
