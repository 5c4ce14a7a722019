"""Decoding, undistortion and area averaging of photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evalsuite.core.errors import BadDataError
from evalsuite.scenes.images import (
    area_average,
    block_camera,
    block_size,
    centred_box,
    pinhole,
    pinhole_camera,
    read_rgb,
)
from evalsuite.scenes.pixels import transparency

LENS = pycolmap.Camera(model="SIMPLE_RADIAL", width=90, height=60, params=[80.0, 45, 30, 0.1])


def _noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_whole_ratio_is_the_block_mean() -> None:
    image = _noise(24, 16)
    blocks = image.reshape(4, 4, 6, 4, 3).mean(axis=(1, 3))
    assert np.abs(area_average(image, (0.0, 0.0, 24.0, 16.0), (6, 4)) - blocks).max() <= 0.5 + 1e-4


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(9, 60),
    height=st.integers(9, 60),
    target=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    cut=st.floats(0, 3),
)
def test_mean_of_the_box_is_kept(width: int, height: int, target: tuple[int, int], cut: float) -> None:
    image = _noise(width, height)
    small = area_average(image, (cut, 0.0, float(width), float(height)), target)
    weight = np.clip(np.arange(1, width + 1) - cut, 0, 1)
    expected = np.average(image.mean(axis=0), axis=0, weights=weight)
    assert small.shape == (target[1], target[0], 3)
    np.testing.assert_allclose(small.mean(axis=(0, 1)), expected, atol=0.51)


@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(0.2, 5))
def test_centred_box_is_the_largest_of_its_aspect(width: int, height: int, aspect: float) -> None:
    left, top, right, bottom = centred_box(width, height, aspect)
    assert left + right == pytest.approx(width)
    assert top + bottom == pytest.approx(height)
    assert (right - left) / (bottom - top) == pytest.approx(aspect)
    assert min(left, top) == pytest.approx(0, abs=1e-9)


def test_undistorted_image_is_of_its_camera_and_has_no_blank_border() -> None:
    image = pinhole(np.full((60, 90, 3), 200, dtype=np.uint8), LENS)
    camera = pinhole_camera(LENS)
    assert image.shape == (camera.height, camera.width, 3)
    assert camera.is_undistorted()
    assert image.min() == 200


def test_pinhole_images_are_not_resampled() -> None:
    image, camera = _noise(30, 20), pycolmap.Camera(model="PINHOLE", width=30, height=20, params=[30, 30, 15, 10])
    assert pinhole(image, camera) is image
    assert block_size(camera, 5) == 1


def test_blocks_leave_twice_the_size_wanted_and_cut_the_rest(tmp_path: Path) -> None:
    image = _noise(91, 62)
    Image.fromarray(image).save(tmp_path / "a.png")
    camera = pycolmap.Camera(model="SIMPLE_RADIAL", width=91, height=62, params=[80.0, 45, 30, 0.1])
    assert block_size(camera, 15) == 3
    reduced, small = block_camera(camera, 3), read_rgb(tmp_path / "a.png", 3)
    assert small.shape == (reduced.height, reduced.width, 3) == (20, 30, 3)
    assert [reduced.focal_length, *reduced.params[1:3]] == pytest.approx([80 / 3, 15, 10])
    blocks = image[:60, :90].reshape(20, 3, 30, 3, 3).mean(axis=(1, 3))
    assert np.abs(small - blocks).max() < 0.6  # Pillow rounds in fixed point


def test_transparency_is_laid_over_black(tmp_path: Path) -> None:
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png").tolist() == [[[200, 100, 50], [0, 0, 0]]]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_truncated_file_is_named(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(_noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(BadDataError, match=rf"broken\.{suffix}.*fetch it again"):
        read_rgb(path)


def test_what_a_file_says_of_coverage(tmp_path: Path) -> None:
    rgba = np.dstack([_noise(8, 6), np.full((6, 8), 255, dtype=np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "opaque.png")
    rgba[5, 7, 3] = 254
    Image.fromarray(rgba).save(tmp_path / "used.png")
    Image.fromarray(_noise(8, 6)).save(tmp_path / "none.png")
    Image.fromarray(_noise(8, 6)).save(tmp_path / "none.jpg")
    palette = Image.new("P", (8, 6))
    palette.save(tmp_path / "transparent-colour.png", transparency=0)
    palette.save(tmp_path / "other-colour.png", transparency=7)
    said = {path.name: transparency(path) for path in tmp_path.iterdir()}
    assert said == {
        "opaque.png": "opaque",
        "used.png": "used",
        "none.png": "none",
        "none.jpg": "none",
        "transparent-colour.png": "used",
        "other-colour.png": "opaque",
    }
    (tmp_path / "used.png").write_bytes((tmp_path / "used.png").read_bytes()[:80])
    with pytest.raises(BadDataError, match=r"used\.png cannot be decoded"):
        transparency(tmp_path / "used.png")
