"""Density control: the opacity reset that gsplat 1.5.3 lacks, and the cap."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from gsplat.strategy import DefaultStrategy
from tiny_scene import SHORT, WHITE, start, supervision

from evalsuite.core.clock import Clock
from evalsuite.core.types import Gaussians
from evalsuite.splats import optimise as optimise_module
from evalsuite.splats.density import AdaptiveDensity
from evalsuite.splats.optimise import Optimisation, Start, optimise
from evalsuite.splats.recipes import Recipe

RESET = replace(SHORT, refine_start=1000, refine_stop=100, reset_every=10)
GROW = replace(
    SHORT, refine_start=2, refine_stop=100, refine_every=3, grow_gradient=1e-9, prune_opacity=1e-4, reset_every=1000
)


def run(recipe: Recipe, *checkpoints: int, initial: Gaussians | None = None) -> list[Gaussians]:
    initial = start() if initial is None else initial
    return [g for _, g in optimise(initial, supervision(), WHITE, recipe, checkpoints, seed=0, clock=Clock())]


class _Plain(AdaptiveDensity):
    """gsplat's decisions on our sums."""

    def step_post_backward(self, *arguments: Any) -> None:
        DefaultStrategy.step_post_backward(self, *arguments)


def plain_gsplat(recipe: Recipe, seed: int) -> DefaultStrategy:
    return _Plain(recipe, seed)


def unmended(recipe: Recipe) -> DefaultStrategy:
    return DefaultStrategy(
        prune_opa=recipe.prune_opacity,
        refine_start_iter=recipe.refine_start,
        refine_stop_iter=recipe.refine_stop,
        refine_every=recipe.refine_every,
        reset_every=recipe.reset_every,
    )


def test_opacities_are_reset() -> None:
    """Step 10 is the eleventh: right after it no opacity exceeds twice the pruning threshold."""
    before, after, later = run(RESET, 10, 11, 30)
    assert before.opacities.max() > 0.4
    assert after.opacities.max() <= 2 * RESET.prune_opacity * 1.001
    assert later.opacities.max() > 2 * RESET.prune_opacity, "they may grow again"


def test_the_first_step_resets_nothing() -> None:
    (first,) = run(RESET, 1)
    assert first.opacities.max() > 0.4


def test_no_reset_once_density_control_has_stopped() -> None:
    (after,) = run(replace(RESET, refine_stop=10), 11)
    assert after.opacities.max() > 0.4


def test_plain_gsplat_never_resets(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, upstream has mended its reset: drop ours (evalsuite/splats/density.py)."""
    monkeypatch.setattr(optimise_module, "AdaptiveDensity", plain_gsplat)
    (after,) = run(RESET, 11)
    assert after.opacities.max() > 0.4


def test_growth_stops_at_the_cap() -> None:
    sizes = [len(g) for g in run(replace(GROW, cap=100), *range(1, 31))]
    assert sizes[0] == 60
    assert max(sizes) == 100, "it grows up to the cap, and not beyond"
    assert len(run(GROW, 30)[0]) > 200, "without a cap in reach it grows on"


def test_more_gaussians_than_the_cap_stay_but_do_not_grow() -> None:
    sizes = [len(g) for g in run(replace(GROW, cap=40), *range(1, 16))]
    assert set(sizes) == {60}


def test_what_grows_grows_at_the_strongest_gradients() -> None:
    """Drive one step of growth by hand: room for two, five candidates."""
    density = AdaptiveDensity(replace(GROW, cap=12, grow_scale=1e9), seed=0)
    params, optimisers, state = hand_made(10)
    state["grad2d"] = torch.tensor([0.0, 8.0, 0.0, 2.0, 6.0, 0.0, 9.0, 0.0, 1.0, 0.0])
    state["count"] = torch.tensor([0.0, 4.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0])
    density._grow_gs(params, optimisers, state, step=5)
    assert len(params["means"]) == 12
    # mean gradients 2, 2, 6, 9, 1: the clones are of 6 and 4
    assert sorted(params["means"][10:, 0].tolist()) == [4.0, 6.0]


@pytest.mark.parametrize(("grow_scale", "room"), [(1e9, 5), (0.0, 5)], ids=["clone", "split"])
def test_each_candidate_adds_one(grow_scale: float, room: int) -> None:
    density = AdaptiveDensity(replace(GROW, cap=10 + room, grow_scale=grow_scale), seed=0)
    params, optimisers, state = hand_made(10)
    state["grad2d"], state["count"] = torch.ones(10), torch.ones(10)
    density._grow_gs(params, optimisers, state, step=5)
    assert {name: len(value) for name, value in params.items()} == dict.fromkeys(params, 10 + room)


def test_room_for_all_takes_all() -> None:
    density = AdaptiveDensity(replace(GROW, cap=1000, grow_scale=1e9), seed=0)
    params, optimisers, state = hand_made(10)
    state["grad2d"] = torch.tensor([1.0, 0.0] * 5)
    state["count"] = torch.ones(10)
    density._grow_gs(params, optimisers, state, step=5)
    assert len(params["means"]) == 15


def hand_made(count: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Parameters whose x is their index, their optimisers, and an empty running state."""
    means = torch.zeros(count, 3)
    means[:, 0] = torch.arange(float(count))
    values = {
        "means": means,
        "scales": torch.full((count, 3), -3.0),
        "quats": torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        "opacities": torch.zeros(count),
    }
    params: dict[str, Any] = {name: torch.nn.Parameter(value) for name, value in values.items()}
    return params, {name: torch.optim.Adam([p]) for name, p in params.items()}, {"scene_scale": 1.0}


def test_sums_are_those_of_gsplat() -> None:
    """One view after the other: `DefaultStrategy` on what autograd leaves, ours on what the fused step says."""
    run = Optimisation(start(), Start(supervision(), WHITE, SHORT, 0))
    theirs, ours = unmended(SHORT), AdaptiveDensity(SHORT, 0)
    state = {name: strategy.initialize_state() for name, strategy in (("theirs", theirs), ("ours", ours))}
    for view in range(len(run.cameras)):
        *_, info = run.gradients(view, 0)
        ours._update_state(run.params, state["ours"], info)
        loss, raster = run.loss(view, 0)
        raster.means2d.retain_grad()
        loss.backward()
        size = {"width": run.cameras.width, "height": run.cameras.height, "n_cameras": 1, "gaussian_ids": None}
        theirs._update_state(run.params, state["theirs"], {"means2d": raster.means2d, "radii": raster.radii, **size})
    assert torch.equal(state["ours"]["count"], state["theirs"]["count"])
    assert torch.allclose(state["ours"]["grad2d"], state["theirs"]["grad2d"], rtol=1e-4, atol=1e-9)


def test_transparent_gaussians_are_pruned() -> None:
    initial = start()
    initial.opacities[:20] = 1e-4
    (after,) = run(replace(GROW, grow_gradient=1e9, prune_opacity=0.01), 4, initial=initial)
    assert len(after) == 40


def test_a_scene_may_lose_every_gaussian() -> None:
    """All pruned: the picture is background from then on, not a crash."""
    initial = replace(start(), opacities=torch.full((60,), 1e-3))
    (after,) = run(replace(GROW, grow_gradient=1e9, prune_opacity=0.5), 10, initial=initial)
    assert len(after) == 0


def test_absolute_gradients_grow_more() -> None:
    """The sum of absolute gradients over pixels is never below the absolute sum: more Gaussians pass a threshold."""
    signed = run(replace(GROW, grow_gradient=2e-3), 20)[-1]
    absolute = run(replace(GROW, grow_gradient=2e-3, absgrad=True), 20)[-1]
    assert len(start()) <= len(signed) < len(absolute)
