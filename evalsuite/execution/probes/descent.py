"""The optimiser at work on the veils: the slope of its loss in every group of parameters, and where steps lead."""

from __future__ import annotations

from dataclasses import fields
from functools import partial

import torch
from torch import Tensor

from evalsuite.core.clock import Clock
from evalsuite.core.types import Gaussians, Views
from evalsuite.execution.probes.stage import (
    Numbers,
    background,
    bands,
    disturbed,
    require_same,
    slope_error,
    vector,
    veil_cameras,
    veils,
)
from evalsuite.metrics.spec import FIELDS, GROUPS
from evalsuite.splats.optimise import Optimisation, Start, optimise
from evalsuite.splats.rasterise import rasterise
from evalsuite.splats.recipes import RECIPES, Recipe

RECIPE = "3dgs"
STEPS = 10
LATE = range(2997, 3003)
"""Degrees 2 and 3 of the harmonics."""

STEP_LENGTHS = {"means": 1e-3} | dict.fromkeys(GROUPS[1:], 1e-2)
"""Of the finite differences: long enough for float32, too short for two veils to change their order."""


def slopes(device: str) -> Numbers:
    """Loss over all views, with all harmonics, and its gradient in every group of parameters, as the step has it.

    It is held to the gradient that autograd gives of the renderer.

    That parameters lead to images as their gradients say is held to finite differences of a sum over the images, which
    float64 adds up: of the loss itself float32 leaves too few digits (its gradient in the image: `photometry`).
    """
    run = started(device)
    total, outputs = _loss(run), _Outputs(run)
    expected = _gradients(run, total)
    numbers: dict[str, tuple[float, ...]] = {"round-trip": (_round_trip(run, device),)}
    for name, gradient in _gradients(run, outputs.sum()).items():
        value = partial(outputs.at, run.params[name])
        numbers[f"slope-{name}-error"] = (slope_error(f"slope-{name}", gradient, STEP_LENGTHS[name], value),)
    loss, found = _of_the_step(run)
    numbers["slope-loss"] = (loss,)
    for name, gradient in found.items():
        require_same(f"slope-{name}", gradient, expected[name])
        numbers |= vector(f"slope-{name}", gradient)
    return numbers


def steps(device: str) -> Numbers:
    """How the first steps move every field, for whoever calls `optimise`, and what density control saw of a round."""
    start, run = disturbed(veils()).to(device), started(device)
    firmness = _firmness(run)
    task = (photographs(device), background().to(device), RECIPES[RECIPE], (STEPS,))
    ((_, end),) = optimise(start, *task, seed=0, clock=Clock())
    numbers: dict[str, tuple[float, ...]] = {}
    for name in FIELDS:
        before, after = getattr(start, name), getattr(end, name)
        if name == "quats":  # the optimiser hands out unit quaternions
            before = torch.nn.functional.normalize(before, dim=-1)
        group = name
        if name == "sh":
            group, before, after = "sh0", before[:, :1], after[:, :1]
        numbers |= vector(f"movement-{name}", (after - before) * firmness[group])
    for step in range(len(run.cameras)):
        run.step(step)
    return {**numbers, **vector("screen-gradient", run.state["grad2d"] / run.state["count"])}


def late_steps(device: str) -> Numbers:
    """How steps with harmonics above degree 0 move every group."""
    run = started(device)
    firmness = _firmness(run)
    before = {name: parameter.detach().clone() for name, parameter in run.params.items()}
    for step in LATE:
        run.step(step)
    numbers: dict[str, tuple[float, ...]] = {}
    for name in GROUPS:
        numbers |= vector(f"late-{name}", (run.params[name] - before[name]) * firmness[name])
    return numbers


def started(device: str, recipe: Recipe | None = None) -> Optimisation:
    """The optimiser on disturbed veils."""
    start = Start(photographs(device), background().to(device), recipe or RECIPES[RECIPE], 0)
    return Optimisation(disturbed(veils()).to(device), start)


def photographs(device: str) -> Views:
    """Images of the disturbed veils, lighter by 0.1 to 0.2 in broad bands and darker between them."""
    cameras = veil_cameras()
    rgb = rasterise(disturbed(veils()).to(device), cameras.to(device), background().to(device)).rgb
    waves = bands("residuals", *rgb.shape).to(device)
    return Views(rgb + waves.sign() * (0.1 + 0.1 * waves.abs()), None, cameras.to(device))


def _loss(run: Optimisation) -> Tensor:
    """Summed over the views."""
    return torch.stack([run.loss(view, run.recipe.sh_degree)[0] for view in range(len(run.cameras))]).sum()


def _of_the_step(run: Optimisation) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients as the optimiser's own steps have them, summed over the views."""
    total, sums = 0.0, {name: torch.zeros_like(run.params[name]) for name in GROUPS}
    for view in range(len(run.cameras)):
        loss, gradients, _ = run.gradients(view, run.recipe.sh_degree)
        total += loss
        for name in GROUPS:
            gradient = gradients[name]
            if gradient is not None:
                sums[name] = sums[name] + gradient
    return total, {name: value.detach() for name, value in sums.items()}


class _Outputs:
    """Everything the renderer makes of the optimiser's parameters, as one sum weighted in bands, in float64."""

    def __init__(self, run: Optimisation) -> None:
        self.run = run
        shape = (len(run.cameras), run.cameras.height, run.cameras.width)
        self.weights = bands("outputs", *shape, 5).to(run.background.device)

    def sum(self) -> Tensor:
        run = self.run
        raster = rasterise(run.gaussians(run.recipe.sh_degree), run.cameras, run.background, run.raster)
        outputs = torch.cat([raster.rgb, raster.alpha[..., None], raster.depth[..., None]], dim=-1)
        return (outputs.double() * self.weights).sum()

    @torch.no_grad()
    def at(self, parameter: torch.nn.Parameter, offset: Tensor) -> float:
        """The sum with one group moved; it is back in its place afterwards."""
        kept = parameter.detach().clone()
        parameter.add_(offset.to(parameter))
        total = float(self.sum())
        parameter.copy_(kept)
        return total


def _gradients(run: Optimisation, total: Tensor) -> dict[str, Tensor]:
    """Of a sum, by group; 0 where nothing leads there."""
    found = torch.autograd.grad(total, [run.params[name] for name in GROUPS], allow_unused=True, materialize_grads=True)
    return dict(zip(GROUPS, found, strict=True))


def _firmness(run: Optimisation) -> dict[str, Tensor]:
    """Weights in [0, 1) of all parameters: small where some view's gradient is small beside its group's others.

    Adam moves every entry as far, one whose gradient is rounding dust too.
    """
    degree, views = run.recipe.sh_degree, range(len(run.cameras))
    by_view = [_gradients(run, run.loss(view, degree)[0]) for view in views]
    sizes = {name: torch.stack([gradients[name].abs() for gradients in by_view]) for name in GROUPS}
    return {name: (g / (g + 0.1 * g.square().mean().sqrt())).amin(dim=0) for name, g in sizes.items()}


@torch.no_grad()
def _round_trip(run: Optimisation, device: str) -> float:
    """Largest difference between the Gaussians that went in and those that come out before the first step."""
    given, found = disturbed(veils()).to(device), run.gaussians(run.recipe.sh_degree)
    return max(float((getattr(given, f.name) - getattr(found, f.name)).abs().max()) for f in fields(Gaussians))
