"""Gaussians as a `Renderable`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from evalsuite.core.types import Cameras, Gaussians, Render
from evalsuite.splats.ply import ply_bytes
from evalsuite.splats.rasterise import rasterise


@dataclass(frozen=True)
class GaussianField:
    """Gaussians behind the interface that metrics see."""

    gaussians: Gaussians

    @torch.no_grad()
    def render(self, cameras: Cameras, background: Float[Tensor, "3"]) -> Render:
        """Images from every camera, over the background, not clamped."""
        raster = rasterise(self.gaussians, cameras, background)
        return Render(raster.rgb, raster.alpha, raster.depth)

    @property
    def primitives(self) -> int:
        """Number of Gaussians."""
        return len(self.gaussians)

    @property
    def bytes(self) -> int:
        """Size of the 3DGS PLY."""
        return ply_bytes(self.gaussians)
