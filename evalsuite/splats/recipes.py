"""Recipes: everything about the optimisation but the initial Gaussians. Arms B and C always share one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from evalsuite.core.registry import Registry


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of per-scene photometric optimisation (Kerbl et al. 2023, released values unless noted).

    The horizon does not depend on N: every N of the ladder is a checkpoint of one and the same trajectory.

    Attributes:
        horizon: steps over which the learning rate of positions decays; published 30,000.
        lr_means, lr_means_final: initial and final learning rate of positions, both times the scene's extent.
        sh_every: steps after which one more degree of spherical harmonics is fitted; published horizon / 30.
        refine_start, refine_stop, refine_every: steps of adaptive density control; published stop is horizon / 2.
        grow_gradient: mean screen-space gradient (in half-images) above which a Gaussian is cloned or split.
        absgrad: that gradient is the sum of absolute values over pixels (Ye et al. 2024, AbsGS), which does not cancel
            inside a large Gaussian; it is larger, so ``grow_gradient`` should be (gsplat advises 8e-4).
        grow_scale, prune_scale: split above, and (after the first reset) prune above, this share of the extent.
        reset_every: opacities are capped at twice ``prune_opacity`` at every multiple of this before ``refine_stop``;
            large Gaussians are pruned only after the first such step. At this horizon neither happens.
        cap: no more Gaussians than this, in B and C alike: density control grows up to it. By default what LGM mini can
            emit at most, so that no start is above it.
    """

    name: str
    horizon: int = 3000
    lr_means: float = 1.6e-4
    lr_means_final: float = 1.6e-6
    lr_scales: float = 5e-3
    lr_quats: float = 1e-3
    lr_opacities: float = 5e-2
    lr_sh0: float = 2.5e-3
    lr_sh_rest: float = 2.5e-3 / 20
    ssim_weight: float = 0.2
    sh_degree: int = 3
    sh_every: int = 100
    refine_start: int = 500
    refine_stop: int = 1500
    refine_every: int = 100
    grow_gradient: float = 2e-4
    absgrad: bool = False
    grow_scale: float = 0.01
    prune_scale: float = 0.1
    prune_opacity: float = 0.005
    reset_every: int = 3000
    cap: int = 16_384

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits over every field but the name."""
        fields = dataclasses.asdict(self)
        del fields["name"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


RECIPES: Registry[Recipe] = Registry("recipe")
RECIPES.add("3dgs", Recipe("3dgs"))
RECIPES.add("3dgs-30k", Recipe("3dgs-30k", horizon=30_000, sh_every=1000, refine_stop=15_000, cap=1_000_000))
"""As published, but for the cap: for GPUs, and for scenes that 3,000 steps do not bring to convergence."""
