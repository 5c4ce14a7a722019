"""Geometry metrics: known distances, a second package, laws, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad
from scipy.spatial.transform import Rotation
from trimesh.registration import icp
from trimesh.transformations import transform_points

from evalsuite.core.errors import NonFiniteError, ShapeError
from evalsuite.core.protocol import GeometryRule
from evalsuite.core.types import SurfaceSamples
from evalsuite.metrics.geometry import (
    aligned_chamfer,
    chamfer,
    f_score,
    geometry_readings,
    index,
    neighbours,
    normal_consistency,
)
from evalsuite.metrics.spec import IMAGE_METRICS, METRICS, geometry_metrics

COUNT = 20_000
RULE = GeometryRule(samples=COUNT)
seeds = st.integers(0, 2**31)
law = settings(deadline=None, max_examples=30)


def drawn(mesh: trimesh.Trimesh, seed: int, count: int = COUNT) -> SurfaceSamples:
    points, face = trimesh.sample.sample_surface(mesh, count, seed=seed)
    return SurfaceSamples(points.astype(np.float32), mesh.face_normals[face].astype(np.float32))


def cloud(seed: int, count: int = 60) -> SurfaceSamples:
    random = np.random.default_rng(seed)
    points, normals = random.standard_normal((2, count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return SurfaceSamples(points.astype(np.float32), normals.astype(np.float32))


def ball(radius: float) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=5, radius=radius)


def cube(half: float) -> trimesh.Trimesh:
    return trimesh.creation.box(extents=[2 * half] * 3)


def ring(tube: float) -> trimesh.Trimesh:
    return trimesh.creation.torus(0.5, tube, major_sections=160, minor_sections=80)


def _overhang(a: float, b: float) -> float:
    """Mean distance from a cube of half side b to a concentric one of half side a < b."""

    def distance(y: float, x: float) -> float:
        return math.hypot(b - a, max(x - a, 0.0), max(y - a, 0.0))

    integral, _ = dblquad(distance, 0, b, 0, b)
    return integral / b**2


@pytest.mark.parametrize(
    ("pred", "true", "forth", "back"),
    [
        (ball(0.5), ball(0.6), 0.1, 0.1),
        (ball(0.6), ball(0.5), 0.1, 0.1),
        (cube(0.4), cube(0.5), 0.1, _overhang(0.4, 0.5)),
        (ring(0.3), ring(0.2), 0.1, 0.1),
        (ring(0.15), ring(0.25), 0.1, 0.1),
    ],
    ids=["ball in ball", "ball round ball", "cube in cube", "torus round torus", "torus in torus"],
)
def test_known_distances_are_right_to_one_percent(
    pred: trimesh.Trimesh, true: trimesh.Trimesh, forth: float, back: float
) -> None:
    diagonal = float(np.linalg.norm(np.ptp(true.vertices, axis=0)))
    pairs = neighbours(drawn(pred, 0), drawn(true, 1), diagonal)
    assert pairs.to_true.mean() == pytest.approx(forth / diagonal, rel=0.01)
    assert pairs.to_pred.mean() == pytest.approx(back / diagonal, rel=0.01)
    assert chamfer(pairs) == pytest.approx((forth + back) / 2 / diagonal, rel=0.01)
    assert f_score(pairs, 0.97 * 0.1 / diagonal) == 0
    assert f_score(pairs, 1.03 * max(forth, math.sqrt(3) * 0.1) / diagonal) == pytest.approx(1, abs=1e-3)


def test_a_threshold_between_two_sheets_gives_the_share_that_agrees() -> None:
    """Half of the prediction lies on the truth, half of it far away: precision 1/2, recall 1."""
    truth = drawn(ball(0.5), 0)
    near, far = drawn(ball(0.5), 1), drawn(ball(0.5), 2)
    pred = SurfaceSamples(
        np.concatenate([near.points, far.points + np.float32(10)]), np.concatenate([near.normals, far.normals])
    )
    assert f_score(neighbours(pred, truth, 1.0), 0.05) == pytest.approx(2 / 3, abs=1e-6)


def test_planes_at_an_angle_have_its_cosine() -> None:
    square = drawn(trimesh.creation.box(extents=[1, 1, 1e-6]), 0)
    turn = Rotation.from_euler("x", 25, degrees=True).as_matrix().astype(np.float32)
    turned = SurfaceSamples(square.points, square.normals @ turn.T)
    facing = np.abs(square.normals[:, 2]) > 0.5  # the rim has next to no area
    assert facing.mean() > 0.9999
    value = normal_consistency(neighbours(turned, square, 1.0))
    assert value == pytest.approx(math.cos(math.radians(25)), rel=1e-3)
    flipped = SurfaceSamples(square.points, -square.normals)
    assert normal_consistency(neighbours(flipped, square, 1.0)) == pytest.approx(1)


def test_against_trimesh_nearest_points_on_the_surface() -> None:
    """Samples lie on the surface, so our distance is the larger: by less than the gap between samples."""
    mesh = trimesh.creation.torus(0.5, 0.2)
    truth = drawn(mesh, 0)
    points = truth.points[:400] + np.random.default_rng(1).normal(0, 0.03, (400, 3)).astype(np.float32)
    pairs = neighbours(SurfaceSamples(points, truth.normals[:400]), truth, 1.0)
    _, expected, _ = trimesh.proximity.closest_point_naive(mesh, points)
    # ours come back along a space-filling curve: compare as sets
    excess = np.sort(pairs.to_true) - np.sort(expected)
    gap = math.sqrt(mesh.area / COUNT)
    assert excess.min() > -1e-6
    assert excess.max() < 2 * gap
    assert excess.mean() < 0.25 * gap


def test_two_samplings_of_a_plane_have_the_expected_floor() -> None:
    """Nearest of n random points per area: mean distance 1 / (2 sqrt(n)) (Clark and Evans 1954)."""
    square = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    value = chamfer(neighbours(drawn(square, 0), drawn(square, 1), 1.0))
    assert value == pytest.approx(1 / (2 * math.sqrt(COUNT)), rel=0.02)


def test_pinned_values() -> None:
    """A change of these is a new version of the metric."""
    readings = geometry_readings(cloud(1, 500), cloud(2, 500), 4.0, GeometryRule(samples=500, icp_samples=250))
    assert {name: reading.value for name, reading in readings.items()} == {
        "chamfer.500-s0": pytest.approx(0.0764602577, rel=1e-6),
        "chamfer.500-s0.icp": pytest.approx(0.0763407, rel=1e-4),
        "f-score-0.5.500-s0": 0.0,
        "f-score-1.500-s0": 0.004,
        "f-score-2.500-s0": pytest.approx(0.028),
        "normals.500-s0": pytest.approx(0.4970354, rel=1e-5),
    }


@law
@given(seeds)
def test_a_surface_is_at_no_distance_from_itself(seed: int) -> None:
    one = cloud(seed)
    pairs = neighbours(one, one, 1.0)
    assert chamfer(pairs) == 0
    assert f_score(pairs, 1e-9) == 1
    assert normal_consistency(pairs) == pytest.approx(1)


@law
@given(seeds, st.floats(0.01, 0.5))
def test_both_sides_count_alike(seed: int, threshold: float) -> None:
    one, two = cloud(seed), cloud(seed + 1, 40)
    forth, back = neighbours(one, two, 2.0), neighbours(two, one, 2.0)
    for metric in _metrics(threshold):
        assert metric(forth) == metric(back)


@law
@given(seeds, st.floats(0.1, 50.0), st.floats(0.01, 0.5))
def test_values_do_not_depend_on_the_unit_of_length(seed: int, scale: float, threshold: float) -> None:
    one, two = cloud(seed), cloud(seed + 1)
    larger = [replace(side, points=(side.points * scale).astype(np.float32)) for side in (one, two)]
    pairs, scaled = neighbours(one, two, 3.0), neighbours(larger[0], larger[1], 3.0 * scale)
    assert chamfer(scaled) == pytest.approx(chamfer(pairs), rel=1e-4)
    # a point may stand on the threshold to within rounding
    assert f_score(scaled, threshold) == pytest.approx(f_score(pairs, threshold), abs=0.05)


@law
@given(seeds)
def test_values_do_not_depend_on_the_frame(seed: int) -> None:
    one, two = cloud(seed), cloud(seed + 1)
    turn = Rotation.random(random_state=seed).as_matrix()
    shift = np.random.default_rng(seed).standard_normal(3)

    def moved(side: SurfaceSamples) -> SurfaceSamples:
        return SurfaceSamples(
            (side.points @ turn.T + shift).astype(np.float32), (side.normals @ turn.T).astype(np.float32)
        )

    pairs, turned = neighbours(one, two, 1.0), neighbours(moved(one), moved(two), 1.0)
    assert chamfer(turned) == pytest.approx(chamfer(pairs), rel=1e-4)
    assert normal_consistency(turned) == pytest.approx(normal_consistency(pairs), abs=1e-3)


@law
@given(seeds)
def test_values_do_not_depend_on_the_order_of_points(seed: int) -> None:
    one, two = cloud(seed), cloud(seed + 1)
    order = np.random.default_rng(seed).permutation(len(one))
    shuffled = SurfaceSamples(one.points[order], one.normals[order])
    for metric in _metrics(0.1):
        assert metric(neighbours(shuffled, two, 1.0)) == metric(neighbours(one, two, 1.0))


@law
@given(seeds, st.floats(0.001, 2.0))
def test_ranges(seed: int, threshold: float) -> None:
    pairs = neighbours(cloud(seed), cloud(seed + 1, 7), 1.0)
    assert chamfer(pairs) >= 0
    assert 0 <= f_score(pairs, threshold) <= f_score(pairs, 2 * threshold) <= 1
    assert 0 <= normal_consistency(pairs) <= 1 + 1e-6


@settings(deadline=None, max_examples=5)
@given(seeds)
def test_more_noise_is_worse(seed: int) -> None:
    truth = drawn(ball(0.5), 0, 4000)
    noise = np.random.default_rng(seed).standard_normal((4000, 3)).astype(np.float32)
    scores = []
    for sigma in (0.01, 0.03, 0.1):
        noisy = drawn(ball(0.5), 1, 4000)
        pairs = neighbours(replace(noisy, points=noisy.points + np.float32(sigma) * noise), truth, 1.7)
        scores.append((chamfer(pairs), -f_score(pairs, 0.01), -f_score(pairs, 0.02)))
    for column in zip(*scores, strict=True):
        assert list(column) == sorted(column)
        assert column[0] < column[2]


def _metrics(threshold: float) -> list[Callable[..., float]]:
    return [chamfer, normal_consistency, lambda pairs: f_score(pairs, threshold)]


def test_alignment_undoes_a_small_motion_and_only_the_icp_value_knows() -> None:
    truth = drawn(cube(0.4), 0)
    turn = Rotation.from_euler("y", 4, degrees=True).as_matrix()
    other = drawn(cube(0.4), 1)
    moved = replace(other, points=(other.points @ turn.T + [0.02, -0.01, 0.015]).astype(np.float32))
    floor = chamfer(neighbours(other, truth, 1.0))
    assert chamfer(neighbours(moved, truth, 1.0)) > 2 * floor
    assert aligned_chamfer(moved, truth, 1.0, RULE) < 1.15 * floor
    # a mirror image or another size is not a rigid motion
    larger = replace(other, points=other.points * np.float32(1.2))
    assert aligned_chamfer(larger, truth, 1.0, RULE) > 0.05


def test_ids_name_the_samples_and_the_alignment() -> None:
    default = geometry_metrics(GeometryRule())
    assert [spec.id for spec in default.values()] == [
        "chamfer.100k-s0",
        "chamfer.100k-s0.icp",
        "f-score-0.5.100k-s0",
        "f-score-1.100k-s0",
        "f-score-2.100k-s0",
        "normals.100k-s0",
    ]
    assert set(METRICS) == {*IMAGE_METRICS, *(spec.id for spec in default.values())}
    assert geometry_metrics(GeometryRule(samples=1500, seed=3))["chamfer.icp"].id == "chamfer.1500-s3.icp"
    assert METRICS["chamfer.100k-s0"].drop(0.01, 0.02) > 0, "a larger distance is worse"


def test_what_cannot_be_measured_has_a_status_and_no_value() -> None:
    some = cloud(0)
    for pred, true, status in ((None, some, "no-surface"), (some, None, "unsupported"), (None, None, "unsupported")):
        readings = geometry_readings(pred, true, 1.0, RULE)
        assert len(readings) == 6
        assert {(reading.value, reading.status) for reading in readings.values()} == {(None, status)}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("pred", "true", "diagonal", "message"),
    [
        ((0, 3), (9, 3), 1.0, r"pred has points \(0, 3\)"),
        ((9, 3), (4, 2), 1.0, r"true has points \(4, 2\)"),
        ((9, 3), (4,), 1.0, r"true has points \(4,\)"),
        ((9, 3), (9, 3), 0.0, r"diagonal is 0\.0, expected > 0"),
        ((9, 3), (9, 3), -1.0, r"diagonal is -1\.0, expected > 0"),
        ((9, 3), (9, 3), math.nan, "diagonal is nan"),
    ],
)
def test_bad_arguments_are_named(pred: tuple[int, ...], true: tuple[int, ...], diagonal: float, message: str) -> None:
    sides = [SurfaceSamples(np.zeros(shape), np.zeros(shape)) for shape in (pred, true)]
    for measure in (neighbours, lambda p, t, d: aligned_chamfer(p, t, d, RULE)):
        with pytest.raises(ShapeError, match=message) as caught:
            measure(*sides, diagonal)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("unchecked")
def test_points_without_normals_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"normals \(3, 3\)"):
        neighbours(SurfaceSamples(np.zeros((4, 3)), np.zeros((3, 3))), cloud(0), 1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["pred", "true"])
@pytest.mark.parametrize("field", ["points", "normals"])
def test_non_finite_samples_are_named(bad: float, side: str, field: str) -> None:
    sides = {"pred": cloud(0), "true": cloud(1)}
    values = getattr(sides[side], field).copy()
    values[3, 1] = bad
    sides[side] = replace(sides[side], **{field: values})
    with pytest.raises(NonFiniteError, match=f"{field} of {side} hold NaN or infinity"):
        neighbours(sides["pred"], sides["true"], 1.0)


def test_coinciding_points_are_measured() -> None:
    dot = SurfaceSamples(np.zeros((5, 3), dtype=np.float32), np.ones((5, 3), dtype=np.float32))
    assert chamfer(neighbours(dot, dot, 1.0)) == 0


def test_a_threshold_must_be_above_zero() -> None:
    with pytest.raises(ShapeError, match=r"threshold is 0\.0"):
        f_score(neighbours(cloud(0), cloud(1), 1.0), 0.0)


def test_a_truth_indexed_before_gives_the_same_readings() -> None:
    pred, true = drawn(ring(0.22), 0, 3000), drawn(ring(0.2), 1, 3000)
    rule = GeometryRule(samples=3000, icp_samples=500)
    assert geometry_readings(pred, index(true), 1.4, rule) == geometry_readings(pred, true, 1.4, rule)


def test_many_points_in_few_cells_are_sorted_too() -> None:
    """One far point makes the cells of the curve wide: nearly all others share one."""
    one, two = cloud(1, 300), cloud(2, 300)
    crowded = replace(one, points=np.concatenate([one.points[:-1], [[5e3, 0, 0]]]).astype(np.float32))
    order = np.random.default_rng(0).permutation(300)
    shuffled = SurfaceSamples(crowded.points[order], crowded.normals[order])
    for metric in _metrics(0.1):
        assert metric(neighbours(shuffled, two, 1.0)) == metric(neighbours(crowded, two, 1.0))


def test_alignment_is_that_of_trimesh() -> None:
    truth, other = drawn(cube(0.4), 0, 4000), drawn(cube(0.4), 1, 4000)
    turn = Rotation.from_euler("y", 4, degrees=True).as_matrix()
    moved = replace(other, points=(other.points @ turn.T + [0.02, -0.01, 0.015]).astype(np.float32))
    rule = GeometryRule(samples=4000, icp_samples=4000, icp_iterations=7)
    motion, _, _ = icp(
        moved.points.astype(np.float64), truth.points.astype(np.float64), threshold=0.0, max_iterations=7,
        scale=False, reflection=False,
    )  # fmt: skip
    aligned = replace(moved, points=transform_points(moved.points, motion).astype(np.float32))
    expected = chamfer(neighbours(aligned, truth, 1.0))
    assert aligned_chamfer(moved, truth, 1.0, rule) == pytest.approx(expected, rel=1e-5)
