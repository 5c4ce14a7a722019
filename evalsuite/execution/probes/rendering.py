"""Images of the crowd, and their gradients as the renderer gives them."""

from __future__ import annotations

import torch
from torch import Tensor

from evalsuite.core.types import Gaussians
from evalsuite.execution.probes.stage import Numbers, background, crowd, crowd_cameras, leaves, vector
from evalsuite.splats.rasterise import Raster, rasterise


def forward(device: str) -> Numbers:
    """Colour, coverage, depth and place of the rendered splat, per view; the images themselves as vectors."""
    cameras = crowd_cameras()
    raster = rasterise(crowd().to(device), cameras.to(device), background().to(device))
    numbers = {f"mean-{name}": raster.rgb[..., i].mean(dim=(1, 2)) for i, name in enumerate(("red", "green", "blue"))}
    weight = raster.alpha / raster.alpha.sum(dim=(1, 2), keepdim=True)
    column = torch.arange(cameras.width, device=device) + 0.5
    row = torch.arange(cameras.height, device=device) + 0.5
    solid = raster.alpha > 0.5
    numbers |= {
        "mean-alpha": raster.alpha.mean(dim=(1, 2)),
        "mean-depth": (raster.depth * solid).sum(dim=(1, 2)) / solid.sum(dim=(1, 2)),
        "contrast": raster.rgb.flatten(1).std(dim=1),
        "centre-x": (weight * column).sum(dim=(1, 2)),
        "centre-y": (weight * row[:, None]).sum(dim=(1, 2)),
    }
    per_view = {name: tuple(values.tolist()) for name, values in numbers.items()}
    depth = raster.depth * raster.alpha
    return {
        **per_view,
        **vector("image-rgb", raster.rgb),
        **vector("image-alpha", raster.alpha),
        **vector("image-depth", depth),
    }


def backward(device: str) -> Numbers:
    """Gradient of a fixed sum over colour, alpha and depth in every field, in the background and in screen places."""
    fields, ground = leaves(crowd().to(device)), background().to(device).requires_grad_()
    raster = rasterise(Gaussians(**fields), crowd_cameras().to(device), ground)
    raster.means2d.retain_grad()
    weighted_sum(raster).backward()
    numbers: dict[str, tuple[float, ...]] = {}
    for name, leaf in {**fields, "background": ground, "screen": raster.means2d}.items():
        numbers |= vector(f"gradient-{name}", torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
    return numbers


def weighted_sum(raster: Raster) -> Tensor:
    """Every pixel of every output counts, each with another weight."""
    v, h, w, _ = raster.rgb.shape
    outputs = torch.cat([raster.rgb, raster.alpha[..., None], raster.depth[..., None]], dim=-1)
    weights = torch.cos(torch.arange(v * h * w * 5, device=outputs.device, dtype=torch.float64) * 0.37)
    return (outputs * weights.to(outputs.dtype).view(v, h, w, 5)).sum()
