"""Image metrics: pure functions of float32 images in [0, 1], one value per view, computed in float64.

Every function refuses a wrong shape, dtype or range with `ShapeError` and NaN or infinity with `NonFiniteError`;
the message names the argument. What the suite promises about each number is in `evalsuite.metrics.spec`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d

from evalsuite.core.errors import NonFiniteError, ShapeError

PSNR_CAP_DB = 100.0
"""Value of identical images, and the largest any pair gets."""

ALPHA_THRESHOLD = 0.5

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_SLACK = 1e-5


def require_image(name: str, image: Float[Tensor, "*axes"], shape: tuple[int | None, ...]) -> None:
    """Check one argument: float32, finite, in [0, 1] to within rounding, of the given shape (None: any size).

    Raises:
        ShapeError: wrong dtype, shape or range.
        NonFiniteError: NaN or infinity.
    """
    if image.dtype != torch.float32:
        raise ShapeError(f"{name} is {image.dtype}, expected torch.float32 in [0, 1]: convert it first")
    if image.ndim != len(shape) or any(want not in (None, have) for have, want in zip(image.shape, shape, strict=True)):
        wanted = " x ".join("any" if size is None else str(size) for size in shape)
        raise ShapeError(
            f"{name} has shape {tuple(image.shape)}, expected {wanted}: give both images of the same views and size"
        )
    if image.numel() == 0:
        raise ShapeError(f"{name} has shape {tuple(image.shape)}, expected at least one view and one pixel")
    if not torch.isfinite(image).all():
        raise NonFiniteError(f"{name} holds NaN or infinity, expected finite values in [0, 1]: look at what made it")
    low, high = (float(limit) for limit in image.aminmax())
    if low < -_SLACK or high > 1 + _SLACK:
        raise ShapeError(f"{name} ranges over [{low:.6g}, {high:.6g}], expected [0, 1]: clamp or rescale it first")


def psnr(pred: Float[Tensor, "V H W 3"], true: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V"]:
    """Peak signal-to-noise ratio, dB, peak 1: -10 log10 of the MSE over all pixels and channels of a view.

    Identical images, and any pair beyond it, have `PSNR_CAP_DB`.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    _require_pair(pred, true)
    return _decibels((pred.double() - true.double()).square().mean(dim=(1, 2, 3)))


def psnr_fg(
    pred: Float[Tensor, "V H W 3"], true: Float[Tensor, "V H W 3"], mask: Bool[Tensor, "V H W"]
) -> Float[Tensor, "F"]:
    """`psnr` over the masked pixels of each view, dB.

    Returns:
        One value per view whose mask is not empty, in the order of the views; possibly none.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    _require_pair(pred, true)
    if mask.dtype != torch.bool or mask.shape != true.shape[:3]:
        raise ShapeError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of {tuple(true.shape[:3])}: "
            "threshold the true alpha"
        )
    pixels = mask.sum(dim=(1, 2))
    squared = (pred.double() - true.double()).square().mean(dim=3)
    total = torch.where(mask, squared, 0.0).sum(dim=(1, 2))
    return _decibels((total / pixels)[pixels > 0])


def ssim(pred: Float[Tensor, "V H W 3"], true: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V"]:
    """Structural similarity, in [-1, 1] (Wang et al. 2004, eq. 13): mean over channels and the window's valid region.

    Gaussian window 11 x 11 of sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, population covariance.

    Raises:
        ShapeError: also if an image is smaller than the window.
        NonFiniteError: see the module.
    """
    _require_pair(pred, true)
    views, height, width, _ = true.shape
    if min(height, width) < _WINDOW:
        raise ShapeError(f"true is {width} x {height} px, expected at least {_WINDOW} x {_WINDOW}: SSIM's window")
    x, y = (image.double().permute(0, 3, 1, 2).reshape(-1, 1, height, width) for image in (pred, true))
    mx, my = _blur(x), _blur(y)
    sxx, syy, sxy = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    luminance = (2 * mx * my + _C1) / (mx * mx + my * my + _C1)
    structure = (2 * sxy + _C2) / (sxx + syy + _C2)
    return (luminance * structure).reshape(views, -1).mean(dim=1)


def alpha_iou(pred_alpha: Float[Tensor, "V H W"], true_alpha: Float[Tensor, "V H W"]) -> Float[Tensor, "V"]:
    """Intersection over union of the silhouettes alpha > 0.5, in [0, 1]; 1 where both are empty.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    require_image("true_alpha", true_alpha, (None, None, None))
    require_image("pred_alpha", pred_alpha, tuple(true_alpha.shape))
    pred, true = pred_alpha > ALPHA_THRESHOLD, true_alpha > ALPHA_THRESHOLD
    shared, union = (area.sum(dim=(1, 2)).double() for area in (pred & true, pred | true))
    return torch.where(union > 0, shared / union.clamp_min(1), 1.0)


def _require_pair(pred: Tensor, true: Tensor) -> None:
    require_image("true", true, (None, None, None, 3))
    require_image("pred", pred, tuple(true.shape))


def _decibels(mse: Float[Tensor, "V"]) -> Float[Tensor, "V"]:
    return (-10 * mse.log10()).clamp_max(PSNR_CAP_DB)


def _blur(planes: Float[Tensor, "C 1 H W"]) -> Float[Tensor, "C 1 h w"]:
    """Gaussian window where it fits, one axis after the other."""
    offset = torch.arange(_WINDOW, dtype=planes.dtype, device=planes.device) - _WINDOW // 2
    window = torch.exp(-offset.square() / (2 * _SIGMA**2))
    window = window / window.sum()
    return conv2d(conv2d(planes, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
