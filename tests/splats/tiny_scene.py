"""A scene of a few hundred Gaussians seen by a few small cameras: enough to optimise in milliseconds."""

from __future__ import annotations

from dataclasses import replace

import torch

from evalsuite.core.conventions import focal_from_fov, look_at, orbit_position, sh0_from_rgb
from evalsuite.core.types import Cameras, Gaussians, Views
from evalsuite.splats.rasterise import rasterise
from evalsuite.splats.recipes import Recipe

SIZE = 24
WHITE = torch.ones(3)
SHORT = Recipe("test", horizon=200, refine_start=1000, refine_stop=0)
"""No density control: the same Gaussians from the first step to the last."""


def ring(views: int = 6, size: int = SIZE) -> Cameras:
    poses = [look_at(orbit_position(360.0 * i / views, 15.0, 1.5)) for i in range(views)]
    return Cameras(
        torch.stack(poses),
        torch.full((views, 2), focal_from_fov(49.1, size)),
        torch.full((views, 2), size / 2),
        size,
        size,
    )


def cloud(seed: int, count: int = 60, scale: float = 0.08) -> Gaussians:
    draw = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=0.2 * torch.randn(count, 3, generator=draw),
        quats=torch.randn(count, 4, generator=draw),
        scales=scale * (0.5 + torch.rand(count, 3, generator=draw)),
        opacities=0.3 + 0.6 * torch.rand(count, generator=draw),
        sh=sh0_from_rgb(torch.rand(count, 3, generator=draw))[:, None],
    )


def supervision(seed: int = 0, views: int = 6, size: int = SIZE) -> Views:
    """Images of a cloud; opaque photographs over white."""
    cameras = ring(views, size)
    with torch.no_grad():
        return Views(rasterise(cloud(seed), cameras, WHITE).rgb.clamp(0, 1), None, cameras)


def start(seed: int = 1, count: int = 60) -> Gaussians:
    """Grey Gaussians at other places than those of `supervision`."""
    return replace(cloud(seed, count), opacities=torch.full((count,), 0.5), sh=torch.zeros(count, 1, 3))
