"""sRGB and linear light."""

from __future__ import annotations

import numpy as np

from evalsuite.scenes.colours import linear_from_srgb, srgb_from_linear, times


def test_every_8_bit_value_survives_linear_float32() -> None:
    steps = np.arange(256) / 255
    linear = linear_from_srgb(steps).astype(np.float32)
    np.testing.assert_array_equal(np.round(srgb_from_linear(linear) * 255), np.arange(256))
    np.testing.assert_allclose(linear[[0, 10, 128, 255]], [0, 0.00303527, 0.21586, 1], rtol=1e-5)


def test_product_is_that_of_light() -> None:
    half = srgb_from_linear(np.array([0.5]))
    np.testing.assert_allclose(times(half, half), srgb_from_linear(np.array([0.25])))
    np.testing.assert_allclose(times(half, np.ones(1)), half)
