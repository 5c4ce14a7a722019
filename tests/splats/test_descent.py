"""The fused step against autograd through the renderer: gradients, parameters after N steps, density control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_scene import SHORT, SIZE, WHITE, cloud, ring, start, supervision
from torch import Tensor

from evalsuite.core.errors import NonFiniteError
from evalsuite.core.types import Cameras, Gaussians, Views
from evalsuite.splats.loss import photometric_gradient
from evalsuite.splats.optimise import Optimisation, Start
from evalsuite.splats.rasterise import rasterise
from evalsuite.splats.recipes import Recipe

COLOURED = replace(SHORT, sh_every=1)
"""Degree 3 from the fourth step on."""

GROWING = replace(SHORT, refine_start=2, refine_stop=100, refine_every=5, grow_gradient=1e-7, grow_scale=0.02, cap=150)


def optimisation(
    recipe: Recipe = SHORT, initial: Gaussians | None = None, views: Views | None = None, fused: bool = True
) -> Optimisation:
    run = Optimisation(
        start() if initial is None else initial, Start(supervision() if views is None else views, WHITE, recipe, 0)
    )
    if not fused:
        run.fused = None
    return run


def coloured(seed: int, count: int) -> Gaussians:
    """Gaussians with harmonics of degree 3, some of them black in some directions."""
    draw = torch.Generator().manual_seed(seed)
    return replace(cloud(seed, count), sh=0.5 * torch.randn(count, 16, 3, generator=draw))


def distance(found: Tensor | None, expected: Tensor | None) -> float:
    """Relative to the length."""
    assert found is not None
    assert expected is not None
    return float((found - expected).double().norm() / expected.double().norm().clamp_min(1e-30))


def both_gradients(
    initial: Gaussians, recipe: Recipe = SHORT, degree: int = 3, views: Views | None = None
) -> tuple[tuple[float, Mapping[str, Tensor | None]], tuple[float, Mapping[str, Tensor | None]]]:
    ours = optimisation(recipe, initial, views).gradients(0, degree)
    theirs = optimisation(recipe, initial, views, fused=False).gradients(0, degree)
    return ours[:2], theirs[:2]


# gradients


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([1, 15, 16, 17, 200]), st.sampled_from([0, 1, 2, 3]))
def test_gradients_are_those_of_autograd(seed: int, count: int, degree: int) -> None:
    (loss, ours), (expected, theirs) = both_gradients(coloured(seed, count), degree=degree)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (ours["sh_rest"] is None) == (theirs["sh_rest"] is None) == (degree == 0)
    for name in ours:
        if ours[name] is not None:
            assert distance(ours[name], theirs[name]) < 1e-4, name


@pytest.mark.parametrize("scale", [(0.6, 1e-4, 1e-4), (1e-5, 2e-5, 4e-5), (0.4, 0.3, 1e-6), (2.0, 3.0, 4.0)])
def test_needles_specks_plates_and_clouds(scale: tuple[float, float, float]) -> None:
    """What float32 would lose of a determinant is no loss."""
    initial = replace(coloured(3, 100), scales=torch.tensor(scale).repeat(100, 1))
    (_, ours), (_, theirs) = both_gradients(initial)
    for name in ours:
        assert distance(ours[name], theirs[name]) < 2e-3, name


def test_beside_behind_and_in_front_of_the_camera() -> None:
    """Culled Gaussians, and those beyond the field of view where the projection is linearised at its edge."""
    draw = torch.Generator().manual_seed(5)
    initial = replace(coloured(5, 300), means=1.5 * torch.randn(300, 3, generator=draw))
    (_, ours), (_, theirs) = both_gradients(initial)
    for name in ours:
        assert distance(ours[name], theirs[name]) < 5e-4, name
    unseen = theirs["means"]
    assert unseen is not None
    assert (unseen == 0).all(dim=1).any(), "the test needs some that are not seen"
    assert torch.equal((ours["means"] == 0).all(dim=1), (unseen == 0).all(dim=1))  # type: ignore[union-attr]


def test_beyond_the_field_of_view_the_projection_is_linearised_at_its_edge() -> None:
    """Wide Gaussians beside the picture that reach into it: their slopes are clamped, and have no gradient."""
    draw = torch.Generator().manual_seed(6)
    initial = coloured(6, 200)
    sides = torch.nn.functional.normalize(torch.randn(200, 3, generator=draw), dim=1)
    initial = replace(initial, means=1.1 * sides, scales=0.2 + 0.3 * torch.rand(200, 3, generator=draw))
    run = optimisation(SHORT, initial)
    camera = run.cameras[[0]]
    points = initial.means @ camera.cam_from_world[0, :3, :3].T + camera.cam_from_world[0, :3, 3]
    slopes = points[:, :2] / points[:, 2:] * camera.focal_px[0] / (camera.width / 2)
    beyond = (points[:, 2] > 0.1) & (slopes.abs() > 1.3).any(dim=1)
    (_, ours), (_, theirs) = both_gradients(initial)
    expected = theirs["means"]
    assert expected is not None
    assert (expected[beyond] != 0).any(dim=1).sum() > 10, "the test needs some that are seen"
    for name in ours:
        assert distance(ours[name], theirs[name]) < 1e-4, name


@pytest.mark.parametrize("size", [(5, 24), (24, 13), (37, 50)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    """Smaller than the window of SSIM, narrower than a vector, not square."""
    height, width = size
    base = ring(4, 24)
    cameras = Cameras(base.cam_from_world, base.focal_px, base.centre_px, width, height)
    with torch.no_grad():
        views = Views(rasterise(cloud(0), cameras, WHITE).rgb.clamp(0, 1), None, cameras)
    (loss, ours), (expected, theirs) = both_gradients(coloured(1, 60), views=views)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name in ours:
        assert distance(ours[name], theirs[name]) < 1e-4, name


def test_what_density_control_reads_of_absolute_gradients() -> None:
    recipe = replace(SHORT, absgrad=True)
    *_, ours = optimisation(recipe, coloured(2, 100)).gradients(0, 3)
    run = optimisation(recipe, coloured(2, 100), fused=False)
    *_, theirs = run.gradients(0, 3)
    half = torch.tensor([run.cameras.width / 2, run.cameras.height / 2])
    assert torch.allclose(ours["screen"], (theirs["means2d"].absgrad[0] * half).norm(dim=-1), rtol=1e-4, atol=1e-9)


def test_threads_change_no_bit() -> None:
    found = []
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        run = optimisation(COLOURED, coloured(4, 500))
        for step in range(6):
            run.step(step)
        found.append({name: value.detach().clone() for name, value in run.params.items()})
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


# steps


@pytest.mark.parametrize(("steps", "typical"), [(1, 0.0), (10, 1e-6), (200, 2e-3)])
def test_parameters_stay_together(steps: int, typical: float) -> None:
    """Adam moves an entry whose gradient is rounding dust as far as any other: the median entry is compared.

    After one step nearly every bit is the same; from then on dust decides where gradients cancel, and spreads.
    """
    runs = optimisation(COLOURED, coloured(1, 60)), optimisation(COLOURED, coloured(1, 60), fused=False)
    for step in range(steps):
        for run in runs:
            run.step(step)
    ours, theirs = (run.params for run in runs)
    for name, expected in theirs.items():
        error = (ours[name] - expected).detach().abs() / expected.detach().abs().clamp_min(1e-3)
        assert float(error.median()) <= typical, name
    if steps == 1:
        same = torch.cat([(ours[name] == theirs[name]).flatten() for name in ours])
        assert same.double().mean() > 0.98


def test_every_group_counts_its_own_steps() -> None:
    """Harmonics that were not used have no gradient: Adam corrects its bias for them from their first one on."""
    late = replace(SHORT, sh_every=3)
    runs = optimisation(late, coloured(1, 60)), optimisation(late, coloured(1, 60), fused=False)
    for step in range(4):
        for run in runs:
            run.step(step)
    taken = [{name: int(run.optimisers[name].state[run.params[name]]["step"]) for name in run.params} for run in runs]
    assert taken[0] == taken[1]
    assert taken[0]["sh_rest"] == 1
    assert taken[0]["means"] == 4


def test_density_control_replaces_parameters_between_steps() -> None:
    """Moments and step counts of those that stay survive, as they do with torch's own Adam."""
    runs = optimisation(GROWING), optimisation(GROWING, fused=False)
    for step in range(12):
        for run in runs:
            run.step(step)
        assert len(runs[0].params["means"]) == len(runs[1].params["means"]), step
    assert len(runs[0].params["means"]) > 60
    for name, optimiser in runs[0].optimisers.items():
        state, expected = (run.optimisers[name].state[run.params[name]] for run in runs)
        if name != "sh_rest":
            assert int(state["step"]) == int(expected["step"]) == 12
            assert state["exp_avg"].shape == runs[0].params[name].shape == optimiser.param_groups[0]["params"][0].shape
            error = (state["exp_avg"] - expected["exp_avg"]).abs()
            assert float(error.median()) <= 1e-3 * float(expected["exp_avg"].abs().max()), name


def test_no_gaussian_at_all_leaves_the_background() -> None:
    run = optimisation(SHORT, Gaussians(*(value[:0] for value in vars(start()).values())))
    loss, _, info = run.gradients(0, 0)
    white, _ = photometric_gradient(torch.ones(SIZE, SIZE, 3).numpy(), run.targets[0].numpy(), SHORT.ssim_weight)
    assert loss == pytest.approx(white)
    assert len(info["screen"]) == 0
    run.step(0)
    assert len(run.params["means"]) == 0


def test_a_parameter_that_is_no_number_is_refused() -> None:
    run = optimisation()
    run.optimisers["means"].param_groups[0]["lr"] = math.nan
    run.rate_of_means = math.inf
    with pytest.raises(NonFiniteError, match=r"a parameter became NaN or infinite at step 0 of recipe 'test'"):
        run.step(0)
