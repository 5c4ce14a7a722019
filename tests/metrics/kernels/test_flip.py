"""FLIP's kernels against the authors' package, pixel row by pixel row."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import flip_evaluator
import numpy as np
import pytest
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

import evalsuite
from evalsuite.metrics.image import PIXELS_PER_DEGREE
from evalsuite.metrics.kernels import flip

FLAT = 1e-4
"""Where both images are flat, features differ by float32's rounding alone, of which FLIP takes the square root."""

Image = Float[np.ndarray, "H W 3"]


def picture(seed: int, height: int, width: int) -> Image:
    """Soft structure over all of [0, 1]."""
    soft = gaussian_filter(np.random.default_rng(seed).random((height, width, 3)), (2, 2, 0))
    return ((soft - soft.min()) / np.ptp(soft)).astype(np.float32)


def pair(noise: float, height: int = 40, width: int = 53) -> tuple[Image, Image]:
    """A picture without noise, and with it."""
    true = picture(0, height, width)
    moved = true + noise * (np.random.default_rng(1).random(true.shape) - 0.5)
    return moved.clip(0, 1).astype(np.float32), true


def rows_of(pred: Image, true: Image, density: float = PIXELS_PER_DEGREE) -> Float[np.ndarray, "H"]:
    """Mean error of every row."""
    filters = flip.filters(density)
    seen, known = (flip.appearance(np.ascontiguousarray(side), *filters) for side in (pred, true))
    return flip.row_errors(seen, known, 0, len(true)) / true.shape[1]


def theirs(pred: Image, true: Image, density: float = PIXELS_PER_DEGREE) -> Float[np.ndarray, "H"]:
    field, _, _ = flip_evaluator.evaluate(
        np.ascontiguousarray(true), np.ascontiguousarray(pred), "LDR", applyMagma=False, parameters={"ppd": density}
    )
    return field.reshape(len(true), -1).mean(axis=1, dtype=np.float64)


@pytest.mark.parametrize("noise", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("density", [PIXELS_PER_DEGREE, 30.0])
def test_rows_are_those_of_the_package(noise: float, density: float) -> None:
    pred, true = pair(noise)
    expected = theirs(pred, true, density)
    assert rows_of(pred, true, density) == pytest.approx(expected, abs=1e-5)
    assert expected.min() > 1e-3


@pytest.mark.parametrize("shape", [(1, 9), (3, 40), (40, 3), (21, 20)])
def test_images_smaller_than_the_filters(shape: tuple[int, int]) -> None:
    pred, true = pair(0.3, *shape)
    assert rows_of(pred, true) == pytest.approx(theirs(pred, true), abs=1e-5)


def test_eight_bit_images_before_a_plain_page() -> None:
    pred, true = ((side * 255).round() / np.float32(255) for side in pair(0.3))
    for side, top in ((pred, 12), (true, 16)):
        side[:top] = side[:, 30:] = 1
    ours = rows_of(pred, true)
    assert ours == pytest.approx(theirs(pred, true), abs=1e-5)
    assert ours[0] == 0
    assert ours[15] > 0.1, "the object is there in one of them only"


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 1, 0), (0, 0, 1)), ((0, 0, 0), (1, 1, 1)), ((1, 0, 0), (0, 1, 1)), ((0, 0, 0), (0, 0, 0))],
)
def test_colours_that_are_farthest_apart(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    one, two = (np.tile(np.array(colour, np.float32), (12, 14, 1)) for colour in (first, second))
    assert rows_of(one, two) == pytest.approx(theirs(one, two), abs=FLAT)


def test_an_edge_in_one_image_only() -> None:
    """Where features differ most, the exponent of the colour difference is smallest. Not black: L* is steep there."""
    flat = np.full((24, 24, 3), 0.1, np.float32)
    edge = flat.copy()
    edge[:, 12:] = 1
    assert rows_of(flat, edge) == pytest.approx(theirs(flat, edge), abs=FLAT)
    assert rows_of(flat, edge).min() > 0.4


def test_any_part_of_the_rows_can_be_asked_for() -> None:
    filters = flip.filters(PIXELS_PER_DEGREE)
    pred, true = (flip.appearance(side, *filters) for side in pair(0.3))
    assert flip.row_errors(pred, true, 7, 9).tolist() == flip.row_errors(pred, true, 0, 40)[7:16].tolist()


def digest() -> str:
    """Hash of what is seen of two images, and of their differences."""
    filters = flip.filters(PIXELS_PER_DEGREE)
    pred, true = (flip.appearance(side, *filters) for side in pair(0.3))
    parts = (pred, true, flip.row_errors(pred, true, 0, pred.shape[1]))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_threads_change_no_bit() -> None:
    folders = os.pathsep.join([str(Path(evalsuite.__file__).parent.parent), str(Path(__file__).parent)])
    code = "import numba, test_flip; print(numba.get_num_threads(), test_flip.digest())"
    found = []
    for threads in ("1", "3"):
        environment = os.environ | {"NUMBA_NUM_THREADS": threads, "PYTHONPATH": folders}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        found.append(done.stdout.split())
    assert [threads for threads, _ in found] == ["1", "3"]
    assert {bits for _, bits in found} == {digest()}


def test_the_matrix_is_that_of_srgb() -> None:
    """White is (1, 1, 1); the second row is the luminance of Rec. 709 to its four digits."""
    assert flip._XYZ.sum(axis=1) == pytest.approx(np.ones(3))
    assert flip._XYZ[1] == pytest.approx([0.2126, 0.7152, 0.0722], abs=1e-4)


def test_the_reach_covers_every_filter() -> None:
    contrast, features = flip.filters(PIXELS_PER_DEGREE)
    assert contrast.shape[1] == 2 * flip.reach(PIXELS_PER_DEGREE) + 1 == 21
    assert features.shape[1] <= contrast.shape[1]
    assert contrast[:2].sum(axis=1) == pytest.approx(np.ones(2), abs=1e-6)
    blue_yellow = np.square(contrast[2:].sum(axis=1, dtype=np.float64)).sum()
    assert math.sqrt(blue_yellow) == pytest.approx(1, abs=1e-6)
