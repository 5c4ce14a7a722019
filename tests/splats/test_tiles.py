"""Tile lists hold exactly the tiles that an ellipse meets, front to back, however the work is cut up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rasterise import (
    KINDS,
    gradients,
    inputs_of,
    leaves,
    random_background,
    random_cameras,
    random_gaussians,
)  # fmt: skip

from evalsuite.core.types import Cameras
from evalsuite.splats.cpu import blending, projection, tiles
from evalsuite.splats.cpu.projection import DEPTH, HALF_A, HALF_C, HALF_WIDTH, MEAN_X, MEAN_Y, SHEAR
from evalsuite.splats.rasterise import rasterise


def project(seed: int, count: int, kind: str, size: tuple[int, int]) -> np.ndarray:
    """Rows of a random cloud seen by a random camera."""
    cloud, cameras = random_gaussians(seed, count, kind=kind), random_cameras(seed, 1, size)
    splats = np.zeros((count, projection.COLUMNS), np.float32)
    means, quats, scales, opacities = (t.numpy() for t in (cloud.means, cloud.quats, cloud.scales, cloud.opacities))
    view, focal, centre = (t[0].double().numpy() for t in (cameras.cam_from_world, cameras.focal_px, cameras.centre_px))
    projection.project_forward(
        means, quats, scales, opacities, view, focal, centre, *size, 0.01, 1e10, 0.3, False, splats
    )
    return splats


def lists(splats: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Order, starts, entries, spans, slots and offsets of all tiles."""
    order = tiles.depth_order(splats)
    bounds = tiles.ellipse_bounds(splats, *size)
    counts = tiles.count_entries(order, splats, bounds, *size)
    return order, *tiles.tile_lists(order, splats, bounds, *size, counts, 0, counts.shape[1])


def inside(splat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels [H, W] whose centre lies in the ellipse."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    row = splat.astype(np.float64)
    dx, dy = x - row[MEAN_X], y - row[MEAN_Y]
    sigma = row[HALF_A] * dx**2 + row[HALF_C] * (dy + row[SHEAR] * dx) ** 2
    return sigma <= row[HALF_A] * row[HALF_WIDTH] ** 2


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from(KINDS), st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_lists_hold_what_the_ellipses_cover(seed: int, kind: str, size: tuple[int, int]) -> None:
    splats = project(seed, 40, kind, size)
    _, starts, entries, spans, _, _ = lists(splats, size)
    tiles_x = math.ceil(size[0] / tiles.TILE)
    listed = np.zeros((len(splats), size[1] + tiles.TILE, size[0] + tiles.TILE), bool)
    for t in range(len(starts) - 1):
        top, left = t // tiles_x * tiles.TILE, t % tiles_x * tiles.TILE
        depths = splats[entries[starts[t] : starts[t + 1]], DEPTH]
        assert (np.diff(depths) >= 0).all()
        for k in range(starts[t], starts[t + 1]):
            first, last = spans[k] >> 4, spans[k] & 15
            listed[entries[k], top + first : top + last + 1, left : left + tiles.TILE] = True
    for n, splat in enumerate(splats):
        if splat[HALF_WIDTH] <= 0:
            assert not listed[n].any()
            continue
        covered = inside(splat, size)
        assert not (covered & ~listed[n, : size[1], : size[0]]).any()


def test_lists_are_tight() -> None:
    """Of the tile rows listed for long needles, most hold a pixel of the ellipse; of their boxes' few do."""
    size = (200, 160)
    splats = project(3, 300, "needles", size)
    _, starts, entries, spans, _, _ = lists(splats, size)
    listed = useful = boxed = 0
    tiles_x = math.ceil(size[0] / tiles.TILE)
    masks = {n: inside(splats[n], size) for n in set(entries.tolist())}
    for t in range(len(starts) - 1):
        top, left = t // tiles_x * tiles.TILE, t % tiles_x * tiles.TILE
        for k in range(starts[t], starts[t + 1]):
            mask = masks[entries[k]][top : top + tiles.TILE, left : left + tiles.TILE].any(axis=1)
            listed += (int(spans[k]) & 15) - (int(spans[k]) >> 4) + 1
            useful += mask.sum()
    for n in masks:
        x, y, ex, ey = splats[n, [MEAN_X, MEAN_Y, HALF_WIDTH, projection.HALF_HEIGHT]]
        columns = min(x + ex, size[0]) // tiles.TILE - max(x - ex, 0) // tiles.TILE + 1
        boxed += columns * (min(y + ey, size[1]) - max(y - ey, 0))
    assert useful > 0.7 * listed
    assert listed < 0.6 * boxed


def test_slots_number_each_gaussians_entries() -> None:
    splats = project(5, 100, "huge", (70, 50))
    _, _, entries, _, slots, offsets = lists(splats, (70, 50))
    assert sorted(slots) == list(range(len(entries)))
    for entry, slot in zip(entries, slots, strict=True):
        assert offsets[entry] <= slot < offsets[entry + 1]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.floats(0.0078125, 2.0**100, width=32) | st.just(0.0), max_size=200))
def test_depth_order_is_a_stable_sort(depths: list[float]) -> None:
    splats = np.ones((len(depths), projection.COLUMNS), np.float32)
    splats[:, DEPTH] = depths
    splats[::5, HALF_WIDTH] = 0
    visible = np.flatnonzero(splats[:, HALF_WIDTH])
    expected = visible[np.argsort(splats[visible, DEPTH], kind="stable")]
    assert tiles.depth_order(splats).tolist() == expected.tolist()


@pytest.mark.parametrize("budget", [1, 50, 1000])
def test_a_small_budget_of_entries_changes_only_the_last_bits(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are made range by range when they would not fit: the same picture, gradients summed in parts."""

    def run() -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        values = leaves(random_gaussians(41, 300, 1), "cpu", torch.float32)
        back = random_background(41).requires_grad_()
        cameras: Cameras = random_cameras(41, 2, (70, 50))
        picture = rasterise(values, cameras, back)
        found = gradients(picture, inputs_of(values, back), torch.ones(2, 50, 70))
        return [picture.rgb, picture.alpha, picture.depth], found

    whole, expected = run()
    monkeypatch.setattr(blending, "MAX_ENTRIES", budget)
    parts, found = run()
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    for name, values in expected.items():
        assert (found[name] - values).norm() <= 1e-6 * values.norm(), name
