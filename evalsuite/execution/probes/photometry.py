"""The loss of two fixed images, and its gradient beside finite differences."""

from __future__ import annotations

import torch
from torch import Tensor

from evalsuite.execution.probes.stage import Numbers, slope_error, uniform, vector
from evalsuite.splats.loss import photometric_loss
from evalsuite.splats.recipes import RECIPES

HEIGHT, WIDTH = 48, 64


def loss(device: str) -> Numbers:
    """L1 alone, D-SSIM alone and the recipe's mixture; the gradient of the mixture in the image."""
    image, target = (each.to(device) for each in photographs())
    weights = {"l1": 0.0, "dssim": 1.0, "mixture": RECIPES["3dgs"].ssim_weight}
    numbers = {f"loss-{name}": (float(photometric_loss(image, target, weight)),) for name, weight in weights.items()}
    leaf = image.clone().requires_grad_()
    photometric_loss(leaf, target, weights["mixture"]).backward()
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad

    def value(offset: Tensor) -> float:
        return float(photometric_loss(image + offset.to(image), target, weights["mixture"]))

    error = slope_error("loss-gradient", gradient, 8e-3, value)
    return {**numbers, **vector("loss-gradient", gradient), "loss-gradient-error": (error,)}


def photographs() -> tuple[Tensor, Tensor]:
    """Two images that differ by 0.05 to 0.2 in every value: no difference changes its sign along a small step."""
    draw = uniform("photographs")
    column, row = torch.arange(WIDTH) / WIDTH, torch.arange(HEIGHT)[:, None] / HEIGHT
    waves = torch.stack(
        [torch.sin(7 * column + 5 * row), torch.cos(9 * row - 4 * column), torch.sin(11 * column * row)]
    )
    image = 0.5 + 0.2 * waves.permute(1, 2, 0) + draw(HEIGHT, WIDTH, 3, low=-0.05, high=0.05)
    sign = torch.where(draw(HEIGHT, WIDTH, 3, low=-1.0, high=1.0) > 0, 1.0, -1.0)
    return image, image + sign * draw(HEIGHT, WIDTH, 3, low=0.05, high=0.2)
