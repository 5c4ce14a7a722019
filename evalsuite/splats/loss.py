"""The photometric loss of 3DGS, L1 + D-SSIM, as one fused CPU kernel or plain torch on CUDA.

SSIM is Wang et al. 2004 with an 11 x 11 Gaussian window (sigma 1.5), per channel, only where the window fits
("valid", as fused-ssim in gsplat's trainer). An image smaller than the window has no SSIM: L1 alone is used.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from evalsuite.splats.cpu import photometric

WINDOW = photometric.TAPS
MIN_FUSED_WIDTH = 16
"""Below it a row of SSIM values (3 per pixel where the window fits) does not fill a vector."""

SIGMA = 1.5


def gaussian_window() -> Float[Tensor, "11"]:
    """The one-dimensional window, summing to 1."""
    x = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    g = torch.exp(-(x**2) / (2 * SIGMA**2))
    return (g / g.sum()).float()


_WINDOW = gaussian_window().numpy()


def photometric_loss(
    rgb: Float[Tensor, "H W 3"], target: Float[Tensor, "H W 3"], ssim_weight: float
) -> Float[Tensor, ""]:
    """(1 - w) |rgb - target| + w (1 - SSIM), averaged over pixels and channels (Kerbl et al. 2023, eq. 7)."""
    if min(rgb.shape[:2]) < WINDOW:
        return (rgb - target).abs().mean()
    if rgb.is_cuda or rgb.shape[1] < MIN_FUSED_WIDTH:
        return loss_torch(rgb, target, ssim_weight)
    return _FusedLoss.apply(rgb, target, ssim_weight)


def loss_torch(rgb: Tensor, target: Tensor, ssim_weight: float) -> Tensor:
    window = gaussian_window().to(rgb)
    x, y = (t.permute(2, 0, 1)[:, None] for t in (rgb, target))

    def blur(t: Tensor) -> Tensor:
        return conv2d(conv2d(t, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))

    mx, my = blur(x), blur(y)
    sxx, syy, sxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = photometric.K1_SQ, photometric.K2_SQ
    ssim = (2 * mx * my + c1) * (2 * sxy + c2) / ((mx * mx + my * my + c1) * (sxx + syy + c2))
    return (1 - ssim_weight) * (rgb - target).abs().mean() + ssim_weight * (1 - ssim.mean())


def photometric_gradient(
    image: Float[np.ndarray, "H W 3"], target: Float[np.ndarray, "H W 3"], ssim_weight: float
) -> tuple[float, Float[np.ndarray, "H W 3"]]:
    """`photometric_loss` of an image on the CPU, and its gradient in the image, without a graph."""
    if min(image.shape[:2]) >= WINDOW and image.shape[1] >= MIN_FUSED_WIDTH:
        return _loss_and_gradient(image, target, ssim_weight)
    leaf = torch.from_numpy(image).detach().requires_grad_()
    loss = photometric_loss(leaf, torch.from_numpy(target), ssim_weight)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.item(), gradient.numpy()


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rgb: Tensor, target: Tensor, ssim_weight: float) -> Tensor:
        image = rgb.detach().contiguous().numpy()
        loss, gradient = _loss_and_gradient(image, target.detach().contiguous().numpy(), ssim_weight)
        ctx.save_for_backward(torch.from_numpy(gradient))
        return torch.tensor(loss, dtype=rgb.dtype)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * cotangents[0], None, None


@lru_cache(maxsize=2)
def _workspace(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Window sums, and derivatives of SSIM between margins of zeros; kept, since fresh memory takes time."""
    return np.empty((height, 5, width), np.float32), np.zeros((height + WINDOW - 1, 3, width), np.float32)


def _loss_and_gradient(image: np.ndarray, target: np.ndarray, weight: float) -> tuple[float, np.ndarray]:
    """The loss and its gradient. Images are [H, W, 3] float32, contiguous.

    Rows stay interleaved: a horizontal tap is then a shift by 3 floats and every loop runs over contiguous memory.
    """
    height, width3 = image.shape[0], image.shape[1] * 3
    gradient = np.empty_like(image)
    x, y, g = (a.reshape(height, width3) for a in (image, target, gradient))
    out_h, out_w = height - WINDOW + 1, width3 - 3 * (WINDOW - 1)
    across, partial = _workspace(height, out_w)
    ssim_rows, l1_rows = np.zeros(out_h), np.zeros(height)
    photometric.blur_rows(x, y, _WINDOW, across)
    photometric.ssim_rows(across, _WINDOW, np.float32(-weight / (out_h * out_w)), partial, ssim_rows)
    photometric.gradient_rows(x, y, partial, _WINDOW, np.float32((1 - weight) / (height * width3)), g, l1_rows)
    l1, ssim = float(l1_rows.sum()) / (height * width3), float(ssim_rows.sum()) / (out_h * out_w)
    return (1 - weight) * l1 + weight * (1 - ssim), gradient
