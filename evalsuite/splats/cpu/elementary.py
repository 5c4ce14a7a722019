"""Exponential and logarithm of vectors, to about 2e-7 of the result."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from evalsuite.splats.cpu.simd import (
    exponent,
    fma,
    larger,
    lesser,
    nearest,
    negative,
    power_of_two,
    select,
    splat,
)  # fmt: skip

EXP_RANGE = np.float32(87.0)
"""Arguments of `exp` are brought to this distance from 0: float32 ends there."""

_LOG2_E = np.float32(1 / math.log(2))
_LN2_HIGH = np.float32(0.693359375)  # so few bits that its product with a whole number is exact
_LN2_LOW = np.float32(math.log(2) - 0.693359375)
_LN2 = np.float32(math.log(2))
_ROOT_2 = np.float32(math.sqrt(2))
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)

# exp on half an octave to either side of 0: degree 6 leaves 2e-9
_NODES = math.log(2) / 2 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
E0, E1, E2, E3, E4, E5, E6 = np.polynomial.polynomial.polyfit(_NODES, np.exp(_NODES), 6, w=np.exp(-_NODES)).astype(
    np.float32
)
# 2 artanh(s) = 2 s (1 + s^2 / 3 + s^4 / 5 + ...): |s| < 0.172 leaves 2e-9
A3, A5, A7, A9 = (np.float32(1 / n) for n in (3, 5, 7, 9))


@njit(cache=True, inline="always")
def exp(x):
    """e^x, x brought into `EXP_RANGE`."""
    x = lesser(larger(x, splat(-EXP_RANGE)), splat(EXP_RANGE))
    octaves = nearest(x * splat(_LOG2_E))
    r = fma(negative(octaves), splat(_LN2_LOW), fma(negative(octaves), splat(_LN2_HIGH), x))
    p = fma(splat(E6), r, splat(E5))
    p = fma(p, r, splat(E4))
    p = fma(p, r, splat(E3))
    p = fma(p, r, splat(E2))
    p = fma(p, r, splat(E1))
    p = fma(p, r, splat(E0))
    return p * power_of_two(octaves)


@njit(cache=True, inline="always")
def log(x):
    """The natural logarithm of normal numbers below 2^126."""
    octaves = exponent(x)
    m = x * power_of_two(negative(octaves))
    upper = splat(_ROOT_2) < m
    m = select(upper, m * splat(_HALF), m)
    octaves = select(upper, octaves + splat(_ONE), octaves)
    f = m - splat(_ONE)
    s = f / (f + splat(_TWO))
    square = s * s
    p = fma(splat(A9), square, splat(A7))
    p = fma(p, square, splat(A5))
    p = fma(p, square, splat(A3))
    twice = s + s
    return fma(octaves, splat(_LN2), fma(twice * square, p, twice))
