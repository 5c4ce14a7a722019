"""Where arm C starts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evalsuite.arms import seeding
from evalsuite.arms.seeding import (
    FALLBACK_POINTS,
    INITIAL_OPACITY,
    MIN_SFM_POINTS,
    gaussians_from_points,
    seed_gaussians,
)
from evalsuite.core.clock import Clock
from evalsuite.core.conventions import look_at, orbit_position, rgb_from_sh0
from evalsuite.core.errors import BadDataError
from evalsuite.core.types import Cameras, Evidence, Points, Views
from evalsuite.scenes.sfm import SfmResult

CENTRE, RADIUS = torch.tensor([0.1, 0.0, -0.2]), 0.5


def points(xyz: Tensor, seed: int = 0) -> Points:
    return Points(xyz, torch.rand(len(xyz), 3, generator=torch.Generator().manual_seed(seed)))


def ball(count: int, radius: float = RADIUS, seed: int = 0) -> Tensor:
    """Points on a sphere round the centre."""
    draw = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return CENTRE + radius * torch.nn.functional.normalize(draw, dim=1)


def evidence(shipped: Points | None = None, alpha: bool = True) -> Evidence:
    cameras = Cameras(
        torch.stack([look_at(orbit_position(a, 10.0, 1.5)) for a in (0.0, 180.0)]),
        torch.full((2, 2), 8.0),
        torch.full((2, 2), 4.0),
        8,
        8,
    )
    views = Views(torch.rand(2, 8, 8, 3), torch.ones(2, 8, 8) if alpha else None, cameras)
    return Evidence(views, views, shipped, CENTRE, RADIUS, torch.ones(3))


@pytest.fixture
def sfm(monkeypatch: pytest.MonkeyPatch) -> list[Points]:
    """A triangulation that finds what the test puts into the list; nothing if it is left empty."""
    found: list[Points] = []

    def fake(views: Views, background: Tensor, folder: Path | None) -> SfmResult:
        result = found[0] if found else points(torch.zeros(0, 3))
        return SfmResult(result, 3.0, 0.75 if found else 0.0, 0.1)

    monkeypatch.setattr(seeding, "structure_of", fake)
    return found


@pytest.fixture
def no_sfm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("nothing is to be triangulated here")

    monkeypatch.setattr(seeding, "structure_of", refuse)


def test_width_by_hand() -> None:
    """Points at x = 0, 1, 2, 3: squared distances 1 4 9, 1 1 4, 1 1 4, 1 4 9."""
    line = torch.zeros(4, 3)
    line[:, 0] = torch.arange(4.0)
    scales = gaussians_from_points(points(line)).scales
    expected = [math.sqrt(14 / 3), math.sqrt(2), math.sqrt(2), math.sqrt(14 / 3)]
    torch.testing.assert_close(scales[:, 0], torch.tensor(expected))
    assert torch.equal(scales, scales[:, :1].expand(4, 3)), "isotropic"


def test_width_on_a_grid() -> None:
    """In a cubic lattice every point has three neighbours at one spacing."""
    axis = 0.1 * torch.arange(4.0)
    grid = torch.cartesian_prod(axis, axis, axis)
    torch.testing.assert_close(gaussians_from_points(points(grid)).scales, torch.full((64, 3), 0.1))


def test_the_other_fields() -> None:
    given = points(ball(20))
    found = gaussians_from_points(given)
    assert torch.equal(found.means, given.xyz)
    torch.testing.assert_close(rgb_from_sh0(found.sh[:, 0]), given.rgb)
    assert found.sh_degree == 0
    assert torch.equal(found.opacities, torch.full((20,), INITIAL_OPACITY))
    assert torch.equal(found.quats, torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(20, 4))
    assert {t.dtype for t in (found.means, found.scales, found.sh)} == {torch.float32}


def test_points_at_one_place_have_some_width() -> None:
    scales = gaussians_from_points(points(torch.ones(10, 3))).scales
    assert (scales > 0).all()
    assert scales.max() < 1e-3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_points_are_refused(count: int) -> None:
    with pytest.raises(BadDataError, match=f"{count} points, expected more than 3"):
        gaussians_from_points(points(torch.zeros(count, 3)))
    assert len(gaussians_from_points(points(torch.zeros(4, 3)))) == 4


@pytest.mark.usefixtures("no_sfm")
def test_shipped_points_are_used_as_they_are() -> None:
    """Also those outside the bounding sphere: the publisher knows the scene."""
    shipped = points(ball(150, radius=3 * RADIUS))
    found, notes = seed_gaussians(evidence(shipped), 0, Clock())
    assert torch.equal(found.means, shipped.xyz)
    assert notes == ("150 points shipped with the scene",)


@pytest.mark.usefixtures("no_sfm")
def test_few_shipped_points_are_joined_by_the_fallback() -> None:
    shipped = points(ball(MIN_SFM_POINTS - 1))
    found, (note,) = seed_gaussians(evidence(shipped), 0, Clock())
    assert torch.equal(found.means[: len(shipped)], shipped.xyz)
    assert len(found) == len(shipped) + FALLBACK_POINTS
    assert note == f"99 points shipped with the scene; fallback: {FALLBACK_POINTS} random points in the bounding sphere"


def test_triangulated_points_are_used(sfm: list[Points]) -> None:
    sfm.append(points(ball(MIN_SFM_POINTS)))
    found, notes = seed_gaussians(evidence(), 0, Clock())
    assert torch.equal(found.means, sfm[0].xyz)
    assert notes == ("100 SfM points, reprojection error 0.75 px",)


def test_points_outside_the_bounding_sphere_are_dropped(sfm: list[Points]) -> None:
    inside, edge, outside = ball(120), ball(20, 1.04 * RADIUS, 1), ball(30, 1.06 * RADIUS, 2)
    sfm.append(points(torch.cat([outside, inside, edge])))
    found, (note,) = seed_gaussians(evidence(), 0, Clock())
    assert torch.equal(found.means, torch.cat([inside, edge])), "5 % beyond the sphere is allowed"
    torch.testing.assert_close(rgb_from_sh0(found.sh[:, 0]), sfm[0].rgb[30:])
    assert note.startswith("140 SfM points")


def test_unbounded_scenes_keep_every_point(sfm: list[Points]) -> None:
    sfm.append(points(ball(120, 20 * RADIUS)))
    found, _ = seed_gaussians(evidence(alpha=False), 0, Clock())
    assert len(found) == 120


def test_nothing_found_is_said(sfm: list[Points]) -> None:
    found, (note,) = seed_gaussians(evidence(), 0, Clock())
    assert note.startswith("0 SfM points")
    assert note.endswith(f"; fallback: {FALLBACK_POINTS} random points in the bounding sphere")
    assert len(found) == FALLBACK_POINTS
    distance = (found.means - CENTRE).norm(dim=1)
    assert distance.max() <= RADIUS * 1.00001
    # uniform in the volume: half of them within 2^(-1/3) of the radius
    assert float((distance < RADIUS * 0.5 ** (1 / 3)).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert (found.means - CENTRE).mean(dim=0).abs().max() < 0.02
    colours = rgb_from_sh0(found.sh[:, 0])
    assert colours.min() >= -1e-6
    assert colours.max() <= 1 + 1e-6


def test_the_fallback_counts_what_is_left_inside(sfm: list[Points]) -> None:
    sfm.append(points(torch.cat([ball(60), ball(200, 2 * RADIUS)])))
    found, (note,) = seed_gaussians(evidence(), 0, Clock())
    assert note.startswith("60 SfM points")
    assert len(found) == 60 + FALLBACK_POINTS


def test_seeds_differ_and_repeat(sfm: list[Points]) -> None:
    first, again, other = (seed_gaussians(evidence(), seed, Clock())[0] for seed in (0, 0, 1))
    assert torch.equal(first.means, again.means)
    assert torch.equal(first.sh, again.sh)
    assert not torch.equal(first.means, other.means)


def test_the_seed_does_not_reach_the_triangulation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[int, Path | None]] = []

    def fake(views: Views, background: Tensor, folder: Path | None) -> SfmResult:
        seen.append((len(views), folder))
        return SfmResult(points(ball(100)), 3.0, 0.5, 0.1)

    monkeypatch.setattr(seeding, "structure_of", fake)
    whole = evidence()
    held = replace(whole, supervision=whole.supervision[:1])
    found = [seed_gaussians(held, seed, Clock(), tmp_path)[0].means for seed in (0, 5)]
    assert seen == [(1, tmp_path)] * 2, "only the views that supervise"
    assert torch.equal(*found)


def test_a_kept_structure_costs_what_its_making_did(sfm: list[Points]) -> None:
    """And no second of the making counts twice."""
    sfm.append(points(ball(MIN_SFM_POINTS)))
    clock = Clock(now=lambda: 0.0)
    seed_gaussians(evidence(), 0, clock)
    assert clock.snapshot() == {"sfm": 0.1}


def test_drawing_leaves_the_global_generator_alone(sfm: list[Points]) -> None:
    before = torch.random.get_rng_state()
    held = evidence()
    torch.random.set_rng_state(before)
    seed_gaussians(held, 0, Clock())
    assert torch.equal(torch.random.get_rng_state(), before)


def on_gpu(held: Evidence) -> Evidence:
    """The same evidence as `evalsuite.execution.trajectory.load_scene` moves it."""
    views = held.supervision
    alpha = None if views.alpha is None else views.alpha.cuda()
    moved = Views(views.rgb.cuda(), alpha, views.cameras.to("cuda"))
    return replace(held, inputs=moved, supervision=moved, centre=held.centre.cuda(), background=held.background.cuda())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is False")
@pytest.mark.parametrize("found", [0, 120])
def test_evidence_on_a_gpu(sfm: list[Points], found: int) -> None:
    """COLMAP's points come from the host whatever the device of the views."""
    if found:
        sfm.append(points(ball(found)))
    gaussians, _ = seed_gaussians(on_gpu(evidence()), 0, Clock())
    assert gaussians.means.is_cuda
    assert gaussians.sh.is_cuda
    assert len(gaussians) == (found or FALLBACK_POINTS)
