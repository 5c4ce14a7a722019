"""Adaptive density control: gsplat's `DefaultStrategy` with a working opacity reset and a cap."""

from __future__ import annotations

from typing import Any

import torch
from gsplat.strategy import DefaultStrategy
from gsplat.strategy.ops import reset_opa

from evalsuite.splats.recipes import Recipe


class AdaptiveDensity(DefaultStrategy):
    """gsplat 1.5.3's strategy, mended in three places, fed by autograd or by a step that has no graph.

    - 1.5.3 never resets opacity: ``step % reset_every == 0 & step > 0`` is a chained comparison that is always
      false (introduced by its PR 735, fixed on its development branch by PR 776).
    - Splits draw from a generator seeded by run and step: what happens elsewhere between two steps changes nothing.
    - Growth stops at ``cap``: of the candidates, those with the largest screen gradient are kept.

    Where ``info`` has ``screen``, that is the length of every Gaussian's gradient on the screen in half-images [N],
    and ``seen`` [N] says who was seen; else they are taken from ``means2d`` and ``radii`` (gsplat's own).
    """

    def __init__(self, recipe: Recipe, seed: int) -> None:
        super().__init__(
            prune_opa=recipe.prune_opacity,
            grow_grad2d=recipe.grow_gradient,
            grow_scale3d=recipe.grow_scale,
            prune_scale3d=recipe.prune_scale,
            refine_start_iter=recipe.refine_start,
            refine_stop_iter=recipe.refine_stop,
            refine_every=recipe.refine_every,
            reset_every=recipe.reset_every,
            absgrad=recipe.absgrad,
        )
        self.cap, self.seed = recipe.cap, seed

    def step_post_backward(
        self, params: Any, optimizers: Any, state: dict[str, Any], step: int, info: Any, packed: bool = False
    ) -> None:
        """Accumulate gradients, and grow, prune and reset when it is time (gsplat's signature)."""
        super().step_post_backward(params, optimizers, state, step, info, packed)
        if 0 < step < self.refine_stop_iter and step % self.reset_every == 0:
            reset_opa(params=params, optimizers=optimizers, state=state, value=2 * self.prune_opa)

    def _update_state(self, params: Any, state: dict[str, Any], info: Any, packed: bool = False) -> None:
        if "screen" not in info:
            super()._update_state(params, state, info, packed)
            return
        for name, seen in (("grad2d", info["screen"]), ("count", info["seen"])):
            state[name] = seen.float() if state[name] is None else state[name].add_(seen)

    @torch.no_grad()
    def _grow_gs(self, params: Any, optimizers: Any, state: dict[str, Any], step: int) -> tuple[int, int]:
        room = self.cap - len(params["means"])
        mean_gradient = state["grad2d"] / state["count"].clamp_min(1)
        if int((mean_gradient > self.grow_grad2d).sum()) > room:
            # each candidate adds one Gaussian: silence all but the `room` strongest
            keep = torch.topk(mean_gradient, max(room, 0)).indices
            gradient = torch.zeros_like(state["grad2d"])
            gradient[keep] = state["grad2d"][keep]
            state["grad2d"] = gradient
        with torch.random.fork_rng():
            torch.manual_seed(self.seed * 1_000_003 + step)
            grown: tuple[int, int] = super()._grow_gs(params, optimizers, state, step)
        return grown
