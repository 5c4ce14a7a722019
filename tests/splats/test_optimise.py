"""One trajectory, seen at several N: what its checkpoints promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from tiny_scene import SHORT, SIZE, WHITE, ring, start, supervision

from evalsuite.core.clock import Clock
from evalsuite.core.errors import EvalsuiteError, NonFiniteError, OptionError
from evalsuite.core.types import Cameras, Gaussians, Views
from evalsuite.scenes.catalogue import SUITES
from evalsuite.splats import optimise as optimise_module
from evalsuite.splats.optimise import Optimisation, optimise, scene_extent
from evalsuite.splats.rasterise import rasterise
from evalsuite.splats.recipes import RECIPES, Recipe

DENSE = replace(SHORT, refine_start=2, refine_stop=100, refine_every=5, grow_gradient=1e-7, grow_scale=0.02, cap=150)
"""Splits and clones from step 5 on: splitting draws random numbers."""

BRISK = replace(SHORT, lr_means=2e-3, lr_sh0=2.5e-2)
"""The published rates are for thousands of steps."""


def run(
    steps: Sequence[int], recipe: Recipe = SHORT, seed: int = 0, views: Views | None = None
) -> dict[int, Gaussians]:
    views = supervision() if views is None else views
    return dict(optimise(start(), views, WHITE, recipe, steps, seed=seed, clock=Clock()))


def equal(a: Gaussians, b: Gaussians) -> bool:
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(Gaussians))


def psnr(gaussians: Gaussians, views: Views) -> float:
    with torch.no_grad():
        rgb = rasterise(gaussians, views.cameras, WHITE).rgb
    return -10 * math.log10(float((rgb - views.over(WHITE)).square().mean()))


def test_zero_steps_are_the_very_initial_object() -> None:
    initial = start()
    found = list(optimise(initial, supervision(), WHITE, SHORT, (0, 1), seed=0, clock=Clock()))
    assert [n for n, _ in found] == [0, 1]
    assert found[0][1] is initial
    assert equal(initial, start()), "and nothing after has touched it"
    assert not equal(found[1][1], initial)


def test_zero_steps_alone_build_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimise_module, "Optimisation", None)
    clock, initial = Clock(), start()
    assert list(optimise(initial, supervision(), WHITE, SHORT, (0,), seed=0, clock=clock)) == [(0, initial)]
    assert clock.snapshot() == {}


@pytest.mark.parametrize("recipe", [SHORT, DENSE], ids=["fixed", "dense"])
def test_the_ladder_does_not_change_the_climb(recipe: Recipe) -> None:
    alone, among, again = run((20,), recipe), run((10, 20, 40), recipe), run((0, 5, 20), recipe)
    assert equal(alone[20], among[20])
    assert equal(alone[20], again[20])
    assert not equal(among[10], among[20])
    if recipe is DENSE:
        assert len(among[40]) == 150, "the test needs growth"


def test_what_happens_between_checkpoints_does_not_matter() -> None:
    """Evaluation may draw random numbers while the generator rests; splitting must not notice."""
    alone = run((20,), DENSE)
    disturbed = {}
    for n, gaussians in optimise(start(), supervision(), WHITE, DENSE, (3, 20), seed=0, clock=Clock()):
        disturbed[n] = gaussians
        torch.rand(7)
    assert equal(alone[20], disturbed[20])


def test_two_trajectories_side_by_side_do_not_meet() -> None:
    alone = run((4, 20), DENSE)
    both = [optimise(start(), supervision(), WHITE, DENSE, (4, 20), seed=seed, clock=Clock()) for seed in (0, 1)]
    *_, (first, _) = zip(*both, strict=True)
    assert first[0] == 20
    assert equal(alone[20], first[1])


def test_checkpoints_come_sorted_and_once() -> None:
    assert list(run((3, 1, 3, 0))) == [0, 1, 3]


def test_a_checkpoint_is_a_copy() -> None:
    trajectory = optimise(start(), supervision(), WHITE, SHORT, (2, 4), seed=0, clock=Clock())
    _, early = next(trajectory)
    kept = early.detach()
    assert not early.means.requires_grad
    next(trajectory)
    assert equal(early, kept)


def test_a_checkpoint_beyond_the_horizon_is_refused() -> None:
    with pytest.raises(OptionError, match=r"checkpoints are \[0, 201\], expected one or more from 0 to 200"):
        run((0, 201))


@pytest.mark.parametrize("steps", [(), (-1,), (-1, 5)], ids=["none", "negative", "one-negative"])
def test_a_ladder_without_sense_is_refused(steps: tuple[int, ...]) -> None:
    with pytest.raises(EvalsuiteError):
        run(steps)


def test_the_loss_falls() -> None:
    views = supervision()
    found = run((0, 20, 100), BRISK, views=views)
    before, middle, after = (psnr(found[n], views) for n in (0, 20, 100))
    assert before < middle < after
    assert after > before + 3


def test_seeds_differ_and_repeat() -> None:
    first, again, other = run((12,)), run((12,)), run((12,), seed=1)
    assert equal(first[12], again[12])
    assert not equal(first[12], other[12])


def test_every_view_is_seen_once_per_round(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    gradients = Optimisation.gradients

    def watched(self: Optimisation, view: int, degree: int) -> Any:
        seen.append(view)
        return gradients(self, view, degree)

    monkeypatch.setattr(Optimisation, "gradients", watched)
    run((18,))
    rounds = [seen[i : i + 6] for i in (0, 6, 12)]
    assert [sorted(r) for r in rounds] == [list(range(6))] * 3
    assert rounds[0] != rounds[1], "in a new order each time"


def test_evaluation_is_outside_the_clock() -> None:
    now = 0.0

    def tick() -> float:
        nonlocal now
        now += 1.0
        return now

    clock, seconds = Clock(tick), []
    for _ in optimise(start(), supervision(), WHITE, SHORT, (0, 2, 4), seed=0, clock=clock):
        seconds.append(clock.snapshot().get("optimise", 0.0))
        now += 1000.0
    # one tick for the setup and one for each stretch between checkpoints
    assert seconds == [0.0, 2.0, 3.0]
    assert set(clock.snapshot()) == {"optimise"}


def test_the_work_is_inside_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    gradients = Optimisation.gradients

    def slow(*arguments: Any) -> Any:
        nonlocal now
        now += 5.0
        return gradients(*arguments)

    monkeypatch.setattr(Optimisation, "gradients", slow)
    clock = Clock(lambda: now)
    seconds = [
        clock.snapshot()["optimise"]
        for _ in optimise(start(), supervision(), WHITE, SHORT, (3, 4), seed=0, clock=clock)
    ]
    assert seconds == [15.0, 20.0]


def test_extent_by_hand() -> None:
    """Cameras at x = 0, 2 and 4: the mean is 2, the farthest 2 away, times 1.1."""
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = -torch.tensor([0.0, 2.0, 4.0])
    cameras = Cameras(poses, torch.ones(3, 2), torch.ones(3, 2), 2, 2)
    assert scene_extent(Views(torch.zeros(3, 2, 2, 3), None, cameras)) == pytest.approx(2.2)


def test_extent_of_a_ring() -> None:
    assert scene_extent(supervision()) == pytest.approx(1.1 * 1.5 * math.cos(math.radians(15)), rel=1e-5)


def test_alpha_is_composited_over_the_background() -> None:
    """Colour under zero alpha is nothing to learn from."""
    photographs = supervision()
    views = Views(torch.rand(6, SIZE, SIZE, 3), torch.zeros(6, SIZE, SIZE), photographs.cameras)
    white = replace(photographs, rgb=torch.ones(6, SIZE, SIZE, 3))
    assert equal(run((5,), views=views)[5], run((5,), views=white)[5])


def test_a_target_that_is_no_number_is_refused() -> None:
    views = supervision()
    views.rgb[:, 12, 12, 0] = math.nan
    with pytest.raises(NonFiniteError, match=r"the loss became nan at step 0 of recipe 'test'") as caught:
        run((5,), views=views)
    assert caught.value.status == "nonfinite"


@pytest.mark.parametrize(("coefficients", "degree"), [(1, 0), (1, 3), (16, 1), (4, 3)])
def test_harmonics_have_the_degree_of_the_recipe(coefficients: int, degree: int) -> None:
    draw = torch.Generator().manual_seed(0)
    initial = replace(start(), sh=torch.randn(60, coefficients, 3, generator=draw))
    recipe = replace(SHORT, sh_degree=degree, sh_every=2, lr_sh0=0.0, lr_sh_rest=0.0)
    ((_, found),) = optimise(initial, supervision(), WHITE, recipe, (5,), seed=0, clock=Clock())
    assert found.sh.shape == (60, (degree + 1) ** 2, 3)
    kept = min(coefficients, (degree + 1) ** 2)
    assert torch.equal(found.sh[:, :kept], initial.sh[:, :kept])
    assert not found.sh[:, kept:].any()


def test_harmonics_are_fitted_degree_by_degree() -> None:
    found = run((4, 8), replace(SHORT, sh_degree=2, sh_every=4))
    assert not found[4].sh[:, 1:].any(), "constant colour first"
    assert found[8].sh[:, 1:4].any()
    assert not found[8].sh[:, 4:].any()


def test_extreme_opacities_survive_the_parameterisation() -> None:
    initial = start()
    initial.opacities[0], initial.opacities[1] = 0.0, 1.0
    initial.scales[2] = 0.0
    ((_, found),) = optimise(initial, supervision(), WHITE, SHORT, (3,), seed=0, clock=Clock())
    for field in fields(Gaussians):
        assert torch.isfinite(getattr(found, field.name)).all(), field.name


def test_a_single_view_is_enough() -> None:
    """No extent: positions rest, the rest is fitted."""
    views = supervision()[:1]
    found = run((0, 20), views=views)
    assert psnr(found[20], views) > psnr(found[0], views)


def test_cameras_of_the_test_look_at_the_scene() -> None:
    assert len(ring()) == 6
    assert (supervision().rgb < 0.9).any(dim=-1).float().mean() > 0.05


def test_the_hash_of_a_recipe_leaves_out_its_name_only() -> None:
    base = RECIPES["3dgs"]
    assert replace(base, name="other").hash == base.hash

    def changed(value: bool | float) -> bool | float:
        return not value if isinstance(value, bool) else value + 1

    names = [field.name for field in fields(Recipe) if field.name != "name"]
    others = [replace(base, **{name: changed(getattr(base, name))}).hash for name in names]
    assert len({base.hash, *others}) == len(fields(Recipe))


@pytest.mark.parametrize("name", list(SUITES))
def test_the_ladder_of_a_suite_fits_its_recipe(name: str) -> None:
    suite = SUITES[name]
    recipe = RECIPES[suite.recipe]
    assert max(n for trajectory in suite.trajectories() for n in trajectory.steps) <= recipe.horizon
    assert recipe.refine_start < recipe.refine_stop <= recipe.horizon
