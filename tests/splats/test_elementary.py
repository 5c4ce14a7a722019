"""Exponential and logarithm against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from evalsuite.splats.cpu import elementary
from evalsuite.splats.cpu.simd import LANES, load, store


@njit
def _exp(values: np.ndarray, out: np.ndarray) -> None:
    for i in range(0, len(values), LANES):
        store(out, i, elementary.exp(load(values, i)))


@njit
def _log(values: np.ndarray, out: np.ndarray) -> None:
    for i in range(0, len(values), LANES):
        store(out, i, elementary.log(load(values, i)))


def test_exponential_over_its_range() -> None:
    values = np.concatenate([np.linspace(-87, 87, 1 << 14), np.linspace(-1, 1, 1 << 12)]).astype(np.float32)
    found = np.empty_like(values)
    _exp(values, found)
    exact = np.exp(values.astype(np.float64))
    assert np.abs(found / exact - 1).max() < 2e-7


def test_exponential_of_zero_is_one() -> None:
    found = np.empty(LANES, np.float32)
    _exp(np.zeros(LANES, np.float32), found)
    assert (found == 1).all()


@pytest.mark.parametrize(("value", "limit"), [(-1000.0, -87.0), (1000.0, 87.0), (-np.inf, -87.0)])
def test_exponential_ends_where_float32_does(value: float, limit: float) -> None:
    found = np.empty(LANES, np.float32)
    _exp(np.full(LANES, value, np.float32), found)
    assert found == pytest.approx(np.exp(limit), rel=1e-6)


def test_logarithm_over_its_range() -> None:
    values = np.exp(np.concatenate([np.linspace(-87, 87, 1 << 14), np.linspace(-1, 1, 1 << 12)])).astype(np.float32)
    found = np.empty_like(values)
    _log(values, found)
    exact = np.log(values.astype(np.float64))
    assert np.abs(found - exact).max() <= 2.0**-17, "a unit in the last place of the largest, 87"
    near = np.abs(exact) < 1
    assert (np.abs(found - exact)[near] <= 2e-7 * np.abs(exact[near]) + 1e-12).all(), "relative, near 1 too"


def test_logarithm_of_one_is_zero() -> None:
    found = np.empty(LANES, np.float32)
    _log(np.ones(LANES, np.float32), found)
    assert (found == 0).all()
