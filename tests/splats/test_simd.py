"""The vector type against NumPy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numba import njit
from numba.core.errors import TypingError

from evalsuite.splats.cpu.simd import (
    LANES,
    absolute,
    any_lane,
    both,
    ceiling,
    exponent,
    fma,
    gather,
    lane,
    larger,
    lesser,
    load,
    nearest,
    negative,
    power_of_two,
    root,
    scatter,
    select,
    splat,
    store,
    totals,
)

ROWS = 9
VECTORS = arrays(np.float32, (3, LANES), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False))


@njit
def _operations(a: np.ndarray, b: np.ndarray, c: np.ndarray, out: np.ndarray) -> None:
    x, y, z = load(a, 0), load(b, 0), load(c, 0)
    store(out[0], 0, x + y)
    store(out[1], 0, x - y)
    store(out[2], 0, x * y)
    store(out[3], 0, x / y)
    store(out[4], 0, fma(x, y, z))
    store(out[5], 0, lesser(x, y))
    store(out[6], 0, select(both(x < y, y <= z), negative(x), absolute(x)))
    store(out[7], 0, splat(lane(x, 5)))
    store(out[8], 0, larger(x, y))


@njit
def _single(a: np.ndarray, out: np.ndarray) -> None:
    x = load(a, 0)
    store(out[0], 0, root(absolute(x)))
    store(out[1], 0, ceiling(x))
    store(out[2], 0, nearest(x))
    store(out[3], 0, exponent(absolute(x) + splat(np.float32(1e-6))))


@njit
def _powers(a: np.ndarray, out: np.ndarray) -> None:
    store(out, 0, power_of_two(load(a, 0)))


@njit
def _strided(source: np.ndarray, start: int, stride: int, to: int, target: np.ndarray) -> None:
    scatter(target, to, stride, gather(source, start, stride))


@njit
def _sums(a: np.ndarray, out: np.ndarray) -> None:
    x, y, z = load(a[0], 0), load(a[1], 0), load(a[2], 0)
    store(out, 0, totals((x, y, z)))


@njit
def _any_above(a: np.ndarray, limit: float) -> bool:
    return any_lane(splat(np.float32(limit)) < load(a, 0))


@njit
def _copy(a: np.ndarray, start: int, out: np.ndarray, to: int) -> None:
    store(out, to, load(a, start))


def halved(values: np.ndarray) -> np.float32:
    """Sum of 16 numbers, the upper half onto the lower until one is left."""
    while len(values) > 1:
        values = values[: len(values) // 2] + values[len(values) // 2 :]
    return values[0]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(VECTORS)
def test_lanes_compute_as_numpy(vectors: np.ndarray) -> None:
    a, b, c = vectors
    found = np.empty((ROWS, LANES), np.float32)
    _operations(a, b, c, found)
    with np.errstate(all="ignore"):
        expected = [a + b, a - b, a * b, a / b]
    for row, values in zip(found, expected, strict=False):
        assert np.array_equal(row, values, equal_nan=True)
    # products of two float32 are exact in extended precision: the sum is rounded once, as here
    fused = (a.astype(np.longdouble) * b + c).astype(np.float32)
    assert np.array_equal(found[4], fused)
    assert np.array_equal(found[5], np.minimum(a, b))
    assert np.array_equal(found[6], np.where((a < b) & (b <= c), -a, abs(a)))
    assert (found[7] == a[5]).all()
    assert np.array_equal(found[8], np.maximum(a, b))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(VECTORS)
def test_functions_of_one_vector_compute_as_numpy(vectors: np.ndarray) -> None:
    found = np.empty((4, LANES), np.float32)
    _single(vectors[0], found)
    assert np.array_equal(found[0], np.sqrt(np.abs(vectors[0])))
    assert np.array_equal(found[1], np.ceil(vectors[0]))
    assert np.array_equal(found[2], np.rint(vectors[0]))
    assert np.array_equal(found[3], np.frexp(np.abs(vectors[0]) + np.float32(1e-6))[1] - 1)


def test_powers_of_two_are_exact() -> None:
    found = np.empty(LANES, np.float32)
    for first in (-126, -8, 112):
        whole = np.arange(first, first + LANES, dtype=np.float32)
        _powers(whole, found)
        assert np.array_equal(found, np.exp2(whole.astype(np.float64)).astype(np.float32))


@pytest.mark.parametrize("stride", [1, 3, 45])
def test_strides_are_walked(stride: int) -> None:
    source, target = np.arange(800, dtype=np.float32), np.zeros(800, np.float32)
    _strided(source, 5, stride, 11, target)
    places = 11 + stride * np.arange(LANES)
    assert np.array_equal(target[places], source[5 + stride * np.arange(LANES)])
    assert np.count_nonzero(target) == LANES


@settings(max_examples=50, deadline=None, derandomize=True)
@given(VECTORS)
def test_sums_run_over_lanes_by_halving(vectors: np.ndarray) -> None:
    found = np.empty(LANES, np.float32)
    _sums(vectors, found)
    assert [float(v) for v in found[:3]] == [float(halved(v)) for v in vectors]
    assert not found[3:].any()


def test_not_a_number_gives_way() -> None:
    found = np.empty((ROWS, LANES), np.float32)
    ones = np.ones(LANES, np.float32)
    _operations(np.full(LANES, np.nan, np.float32), ones, ones, found)
    assert (found[5] == 1).all()


@pytest.mark.parametrize("place", range(LANES))
def test_one_lane_is_enough(place: int) -> None:
    values = np.zeros(LANES, np.float32)
    assert not _any_above(values, 0.5)
    values[place] = 1
    assert _any_above(values, 0.5)


def test_loads_and_stores_begin_anywhere() -> None:
    source, target = np.arange(40, dtype=np.float32), np.zeros(40, np.float32)
    _copy(source, 7, target, 3)
    assert target.tolist() == [0.0] * 3 + [float(i) for i in range(7, 23)] + [0.0] * 21


@pytest.mark.parametrize("wrong", [np.zeros(32), np.zeros((2, 16), np.float32), np.zeros(64, np.float32)[::2]])
def test_only_contiguous_float32_rows_are_loaded(wrong: np.ndarray) -> None:
    with pytest.raises(TypingError):
        _copy(wrong, 0, np.zeros(16, np.float32), 0)
