"""What the optimiser's schedules come to at single steps, read from the optimiser after each."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from evalsuite.execution.probes.descent import started
from evalsuite.execution.probes.stage import Numbers
from evalsuite.metrics.spec import DEGREE_STEPS, GROUPS, RATE_STEPS
from evalsuite.splats.optimise import Optimisation
from evalsuite.splats.recipes import RECIPES


def schedules(device: str) -> Numbers:
    """Learning rate of every group, and the degree up to which harmonics move, by recipe and step."""
    numbers: dict[str, tuple[float, ...]] = {}
    for recipe, at in RATE_STEPS.items():
        run = started(device, replace(RECIPES[recipe], refine_stop=0))  # the same Gaussians before and after a step
        for step in at:
            run.step(step)
            for name in GROUPS:
                (group,) = run.optimisers[name].param_groups
                numbers[f"rate-{name}.{recipe}-{step}"] = (math.log(group["lr"]),)
    for recipe, at in DEGREE_STEPS.items():
        for step in at:
            run = started(device, replace(RECIPES[recipe], refine_stop=0))
            numbers[f"degree.{recipe}-{step}"] = (_degree_moved(run, step),)
    return numbers


def _degree_moved(run: Optimisation, step: int) -> float:
    """The highest degree with a coefficient that the step changed; the constant colour alone is 0, nothing -1."""
    before = torch.cat([run.params["sh0"], run.params["sh_rest"]], dim=1).detach().clone()
    run.step(step)
    moved = (torch.cat([run.params["sh0"], run.params["sh_rest"]], dim=1) != before).any(dim=2).any(dim=0).nonzero()
    return float(math.isqrt(int(moved.max()))) if len(moved) else -1.0
