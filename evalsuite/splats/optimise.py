"""Per-scene photometric optimisation of Gaussians: one trajectory, seen at several N.

The trajectory is a generator. It stops at every checkpoint and hands out the Gaussians; what the caller does with
them (rendering, metrics) happens while the generator rests and so outside the optimisation's clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from evalsuite.core.clock import Clock
from evalsuite.core.errors import NonFiniteError, OptionError
from evalsuite.core.types import Gaussians, Views
from evalsuite.splats.density import AdaptiveDensity
from evalsuite.splats.descent import FusedDescent
from evalsuite.splats.loss import photometric_loss
from evalsuite.splats.rasterise import Raster, RasterSettings, rasterise
from evalsuite.splats.recipes import Recipe

_TINY = 1e-6  # keeps logit and log finite at the ends of their ranges
_EXTENT_MARGIN = 1.1


def scene_extent(views: Views) -> float:
    """1.1 x the largest distance of a camera from the mean camera: the length learning rates scale with (3DGS)."""
    positions = views.cameras.positions
    return _EXTENT_MARGIN * float((positions - positions.mean(dim=0)).norm(dim=1).max())


def optimise(
    initial: Gaussians,
    supervision: Views,
    background: Float[Tensor, "3"],
    recipe: Recipe,
    checkpoints: Sequence[int],
    *,
    seed: int,
    clock: Clock,
) -> Iterator[tuple[int, Gaussians]]:
    """Yield (n, Gaussians after n steps) for every n of ``checkpoints``, in order; one step renders one view.

    n = 0 yields ``initial`` itself, untouched by any parameterisation.

    Raises:
        OptionError: no checkpoints, or one that is negative or beyond the recipe's horizon.
        NonFiniteError: the loss became NaN or infinite.
    """
    ladder = sorted(set(checkpoints))
    if not ladder or ladder[0] < 0 or ladder[-1] > recipe.horizon:
        raise OptionError(
            f"checkpoints are {ladder}, expected one or more from 0 to {recipe.horizon}, the horizon of recipe "
            f"{recipe.name!r}; change the ladder or choose a recipe with another horizon"
        )
    return _states(initial, Start(supervision, background, recipe, seed), ladder, clock)


@dataclass(frozen=True)
class Start:
    """What a trajectory is given beside its initial Gaussians."""

    supervision: Views
    background: Tensor
    recipe: Recipe
    seed: int


def _states(initial: Gaussians, start: Start, ladder: list[int], clock: Clock) -> Iterator[tuple[int, Gaussians]]:
    if ladder[0] == 0:
        yield 0, initial
        ladder = ladder[1:]
    if not ladder:
        return
    recipe = start.recipe
    with clock.phase("optimise"):
        run = Optimisation(initial, start)
    step = 0
    for n in ladder:
        with clock.phase("optimise"):
            while step < n:
                run.step(step)
                step += 1
            snapshot = run.gaussians(recipe.sh_degree).detach()
        yield n, snapshot


class Optimisation:
    """Parameters, optimisers and density control of one run.

    What a step does depends on its number and on parameters and moments, not on how many steps came before.

    Attributes:
        params: unconstrained, by group: means, scales, quats, opacities, sh0, sh_rest.
        optimisers: one per group.
        state: what density control has summed up since it last acted.
    """

    def __init__(self, initial: Gaussians, start: Start) -> None:
        recipe, seed = start.recipe, start.seed
        self.recipe = recipe
        self.background = start.background
        self.cameras = start.supervision.cameras
        self.targets = start.supervision.over(start.background).contiguous()
        extent = scene_extent(start.supervision)
        self.params: dict[str, torch.nn.Parameter] = _parameters(initial, recipe.sh_degree)
        rates = {
            "means": recipe.lr_means * extent,
            "scales": recipe.lr_scales,
            "quats": recipe.lr_quats,
            "opacities": recipe.lr_opacities,
            "sh0": recipe.lr_sh0,
            "sh_rest": recipe.lr_sh_rest,
        }
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam([{"params": [self.params[name]], "lr": lr, "name": name}], eps=1e-15, fused=True)
            for name, lr in rates.items()
        }
        self.rate_of_means = rates["means"]
        self.fused: FusedDescent | None = None
        self.decay = (recipe.lr_means_final / recipe.lr_means) ** (1 / recipe.horizon)
        self.raster = RasterSettings(absgrad=recipe.absgrad)
        if not self.targets.is_cuda:
            self.fused = FusedDescent(
                self.params, self.optimisers, self.cameras, self.targets, self.background, self.raster
            )
        self.density = AdaptiveDensity(recipe, seed)
        self.state: dict[str, Any] = self.density.initialize_state(scene_scale=extent)
        self.order = torch.Generator().manual_seed(seed)
        self.queue: list[int] = []

    def gaussians(self, sh_degree: int) -> Gaussians:
        """Activated parameters with harmonics up to ``sh_degree``."""
        p = self.params
        rest = p["sh_rest"][:, : (sh_degree + 1) ** 2 - 1]
        return Gaussians(
            means=p["means"],
            quats=torch.nn.functional.normalize(p["quats"], dim=-1),
            scales=torch.exp(p["scales"]),
            opacities=torch.sigmoid(p["opacities"]),
            sh=torch.cat([p["sh0"], rest], dim=1) if rest.shape[1] else p["sh0"],
        )

    def loss(self, view: int, degree: int) -> tuple[Float[Tensor, ""], Raster]:
        """The photometric loss of one view, with harmonics up to ``degree``, and what was rendered for it, as a graph.

        What CUDA descends, and what the fused step is held to.
        """
        raster = rasterise(self.gaussians(degree), self.cameras[[view]], self.background, self.raster)
        return photometric_loss(raster.rgb[0], self.targets[view], self.recipe.ssim_weight), raster

    def gradients(self, view: int, degree: int) -> tuple[float, dict[str, Tensor | None], dict[str, Any]]:
        """Loss of one view, its gradient by group (None where nothing leads), and what density control reads of it."""
        if self.fused is not None:
            seen = self.fused.gradients(view, degree, self.recipe.ssim_weight)
            return seen.loss, seen.gradients, {"screen": seen.screen, "seen": seen.visible}
        for parameter in self.params.values():
            parameter.grad = None
        loss, raster = self.loss(view, degree)
        raster.means2d.retain_grad()
        loss.backward()
        info = {
            "means2d": raster.means2d,
            "radii": raster.radii,
            "width": self.cameras.width,
            "height": self.cameras.height,
            "n_cameras": 1,
            "gaussian_ids": None,
        }
        return loss.item(), {name: parameter.grad for name, parameter in self.params.items()}, info

    def step(self, step: int) -> None:
        """Render one view, move all parameters, control density."""
        if not self.queue:
            self.queue = torch.randperm(len(self.cameras), generator=self.order).tolist()
        degree = min(step // self.recipe.sh_every, self.recipe.sh_degree)
        loss, _, info = self.gradients(self.queue.pop(), degree)
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the loss became {loss} at step {step} of recipe {self.recipe.name!r}, expected a finite "
                "number: look for extreme views or lower the learning rates"
            )
        self.optimisers["means"].param_groups[0]["lr"] = self.rate_of_means * self.decay**step
        self._move(step)
        self.density.step_post_backward(self.params, self.optimisers, self.state, step, info)

    def _move(self, step: int) -> None:
        if self.fused is None:
            for optimiser in self.optimisers.values():
                optimiser.step()
        elif not self.fused.move():
            raise NonFiniteError(
                f"a parameter became NaN or infinite at step {step} of recipe {self.recipe.name!r}, expected finite "
                "values: look for extreme views or lower the learning rates"
            )


def _parameters(initial: Gaussians, sh_degree: int) -> dict[str, torch.nn.Parameter]:
    """Unconstrained parameters of activated Gaussians; harmonics are padded with zeros up to ``sh_degree``."""
    sh = torch.zeros(len(initial), (sh_degree + 1) ** 2, 3, device=initial.means.device)
    kept = min(sh.shape[1], initial.sh.shape[1])
    sh[:, :kept] = initial.sh[:, :kept]
    values = {
        "means": initial.means,
        "scales": initial.scales.clamp_min(_TINY).log(),
        "quats": initial.quats,
        "opacities": torch.logit(initial.opacities, eps=_TINY),
        "sh0": sh[:, :1],
        "sh_rest": sh[:, 1:],
    }
    return {name: torch.nn.Parameter(value.detach().clone().contiguous()) for name, value in values.items()}
