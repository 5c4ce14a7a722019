"""Whom density control clones, splits, prunes and resets: its decisions on a made-up state at single steps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from evalsuite.execution.probes.stage import Numbers, direction, uniform
from evalsuite.splats.density import AdaptiveDensity
from evalsuite.splats.recipes import RECIPES, Recipe

EXTENT = 2.0
_GRADIENTS = (1e-4, 1.8e-4, 2.2e-4, 3.8e-4)
_SCALES = (0.01, 0.018, 0.022, 0.18, 0.22)
_OPACITIES = (0.0045, 0.0055, 0.3, 0.6)
"""Values around the published thresholds, written out: 2e-4 half-images; 0.01 and 0.1 of the extent; 0.005."""

_COMBINATIONS = tuple(itertools.product(_GRADIENTS, _SCALES, _OPACITIES))


@dataclass(frozen=True)
class _Scene:
    """One call of density control.

    Attributes:
        step: when it is called.
        copies: of every combination of values that there are.
    """

    recipe: Recipe
    step: int
    copies: int = 1


def _scenes() -> dict[str, _Scene]:
    short, long = RECIPES["3dgs"], RECIPES["3dgs-30k"]
    return {
        "before": _Scene(short, 500),
        "between": _Scene(short, 650),
        "first": _Scene(short, 600),
        "last": _Scene(short, 1400),
        "after": _Scene(short, 1500),
        "capped": _Scene(short, 700, copies=16_384 // len(_COMBINATIONS)),
        "absolute": _Scene(replace(short, absgrad=True), 600),
        "reset": _Scene(long, 3000),
        "large": _Scene(long, 3100),
        "long-last": _Scene(long, 14_900),
        "long-after": _Scene(long, 15_000),
    }


def decisions(device: str) -> Numbers:
    """Per scene: how many Gaussians are left, which (with repetitions), and with what parameters."""
    numbers: dict[str, tuple[float, ...]] = {}
    for name, scene in _scenes().items():
        left = _after(scene, device)
        origin = left["sh0"][:, 0, 0].round().long().cpu()
        codes = direction("decisions", 0, (len(_COMBINATIONS) * scene.copies, 8))[origin]
        state = torch.cat(
            [left["means"], left["scales"].exp(), left["opacities"].sigmoid()[:, None]], dim=1
        )  # [left, 7]
        numbers |= {
            f"density-{name}-count": (float(len(origin)),),
            f"density-{name}-who": (float(codes[:, 0].sum()),),
            f"density-{name}-state": (float((codes[:, 1:] * state.double().cpu()).sum()),),
        }
    return numbers


def made_up(copies: int) -> tuple[dict[str, Tensor], Tensor]:
    """Parameters of one Gaussian for each combination of values, and their gradients on the screen, [N, 2].

    ``sh0`` holds their index. Of equal gradients each is larger than the one before, by 1e-5 of itself.
    """
    lengths, scales, opacities = (torch.tensor(values).repeat(copies) for values in zip(*_COMBINATIONS, strict=True))
    count, draw = len(lengths), uniform("density")
    thin = scales[:, None] * torch.tensor([0.3, 1.0, 0.5])  # the largest of three decides
    params = {
        "means": draw(count, 3, low=-0.5, high=0.5),
        "scales": thin.log(),
        "quats": draw(count, 4, low=0.1, high=1.0),
        "opacities": torch.logit(opacities),
        "sh0": torch.arange(float(count)).view(-1, 1, 1).repeat(1, 1, 3),
        "sh_rest": torch.zeros(count, 15, 3),
    }
    lengths = lengths * (1 + 1e-5 * torch.arange(count))
    angles = draw(count, low=0.0, high=6.28)
    return params, torch.stack([lengths * angles.cos() / 32, lengths * angles.sin() / 24], dim=1)


def _after(scene: _Scene, device: str) -> dict[str, Tensor]:
    """Parameters after two quiet steps, each of which saw other Gaussians, and the scene's own."""
    values, gradients = made_up(scene.copies)
    params: dict[str, Any] = {name: torch.nn.Parameter(value.to(device)) for name, value in values.items()}
    optimisers: dict[str, Any] = {name: torch.optim.Adam([parameter]) for name, parameter in params.items()}
    control = AdaptiveDensity(scene.recipe, seed=0)
    state = control.initialize_state(scene_scale=EXTENT)
    count, gradients = len(gradients), gradients.to(device)
    for step in (scene.step - 2, scene.step - 1, scene.step):
        means2d = torch.zeros(1, count, 2, device=device, requires_grad=True)
        if scene.recipe.absgrad:
            means2d.grad, means2d.absgrad = torch.zeros_like(means2d), gradients[None]  # type: ignore[attr-defined]
        else:
            means2d.grad = gradients[None].clone()
        seen = (torch.arange(count, device=device) + step) % 3 < 2 if step < scene.step else torch.ones(count) > 0
        radii = seen.to(device).int()[None, :, None].repeat(1, 1, 2)
        info = {
            "means2d": means2d, "radii": radii, "width": 64, "height": 48, "n_cameras": 1, "gaussian_ids": None,
        }  # fmt: skip
        control.step_post_backward(params, optimisers, state, step, info)
    return {name: parameter.detach() for name, parameter in params.items()}
