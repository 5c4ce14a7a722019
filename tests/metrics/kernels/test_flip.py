"""FLIP's error map against the authors' package, pixel by pixel."""

from __future__ import annotations

import flip_evaluator
import numpy as np
import pytest

from evalsuite.metrics.kernels.flip import error_map, filters


def picture(seed: int, height: int, width: int, rough: bool) -> np.ndarray:
    """Noise, or broad shapes with sharp edges."""
    draw = np.random.default_rng(seed)
    if rough:
        return draw.random((height, width, 3), dtype=np.float32)
    y, x = np.mgrid[:height, :width][..., None]
    waves = 0.5 + 0.4 * np.sin(x * draw.uniform(0.02, 0.3, 3) + y * draw.uniform(0.02, 0.3, 3))
    waves[height // 3 :, width // 2 :] = draw.random(3)
    return waves.astype(np.float32)


@pytest.mark.parametrize("pixels_per_degree", [30.0, 67.0206, 120.0])
@pytest.mark.parametrize(("height", "width"), [(11, 13), (64, 40), (33, 90)])
@pytest.mark.parametrize("rough", [False, True], ids=["shapes", "noise"])
def test_every_pixel_is_that_of_the_authors(pixels_per_degree: float, height: int, width: int, rough: bool) -> None:
    true = picture(1, height, width, rough)
    pred = np.clip(true + 0.3 * (picture(2, height, width, True) - 0.5), 0, 1).astype(np.float32)
    expected, _, _ = flip_evaluator.evaluate(
        true, pred, "LDR", applyMagma=False, computeMeanError=False, parameters={"ppd": pixels_per_degree}
    )
    assert np.abs(error_map(pred, true, *filters(pixels_per_degree)) - expected.squeeze()).max() < 2e-5


@pytest.mark.parametrize("colour", [(0, 0, 0), (1, 1, 1), (0, 1, 0), (0, 0, 1), (1, 0, 0)])
def test_the_ends_of_the_gamut(colour: tuple[int, int, int]) -> None:
    pred, true = np.full((20, 20, 3), colour, np.float32), np.full((20, 20, 3), (0, 1, 0), np.float32)
    expected, _, _ = flip_evaluator.evaluate(true, pred, "LDR", applyMagma=False, parameters={"ppd": 67.0})
    assert np.abs(error_map(pred, true, *filters(67.0)) - expected.squeeze()).max() < 2e-5


def test_the_farthest_colours_are_one_apart() -> None:
    """Green and blue, by which distances are scaled; no edge is near."""
    pred, true = np.full((30, 30, 3), (0, 1, 0), np.float32), np.full((30, 30, 3), (0, 0, 1), np.float32)
    assert error_map(pred, true, *filters(67.0)) == pytest.approx(1, abs=1e-5)


def test_a_band_of_rows_has_the_bits_of_the_whole() -> None:
    pred, true, taps = picture(3, 70, 40, True), picture(4, 70, 40, False), filters(67.0206)
    whole = error_map(pred, true, *taps)
    band = error_map(pred[10:60].copy(), true[10:60].copy(), *taps)
    assert np.array_equal(band[10:40], whole[20:50])
