"""Image metrics: pure functions of float32 images in [0, 1], one value per view, in float64 but for FLIP's filters.

Every function refuses a wrong shape, dtype or range with `ShapeError` and NaN or infinity with `NonFiniteError`;
the message names the argument. What the suite promises about each number is in `evalsuite.metrics.spec`.
Intermediate values of all pixels of a photograph would take gigabytes, so images are worked through in bands of rows
that stay below `BAND_BYTES`; sums over bands are exact to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from evalsuite.core.errors import NonFiniteError, ShapeError
from evalsuite.metrics.kernels import flip as flip_kernels

PSNR_CAP_DB = 100.0
"""Value of identical images, and the largest any pair gets."""

ALPHA_THRESHOLD = 0.5

BAND_BYTES = 64 << 20
"""Most that a metric's intermediate values take at a time (at least one row of them)."""

PIXELS_PER_DEGREE = math.radians(0.7 * 3840 / 0.7)
"""Of FLIP: 3840 px on a monitor 0.7 m wide, seen from 0.7 m (Andersson et al. 2020, section 4.1)."""

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_SLACK = 1e-5

_FLIP_FILTERS = flip_kernels.filters(PIXELS_PER_DEGREE)
_FLIP_REACH = flip_kernels.reach(PIXELS_PER_DEGREE)
"""Rows around a pixel that FLIP looks at."""

# bytes of intermediate values per pixel, measured on 1600 x 200 px
_PSNR_BYTES, _SSIM_BYTES, _FLIP_BYTES = 72, 350, 130


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
    low, high = (float(limit) for limit in image.aminmax())  # NaN is both
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NonFiniteError(f"{name} holds NaN or infinity, expected finite values in [0, 1]: look at what made it")
    if low < -_SLACK or high > 1 + _SLACK:
        raise ShapeError(f"{name} ranges over [{low:.6g}, {high:.6g}], expected [0, 1]: clamp or rescale it first")


def require_pair(pred: Tensor, true: Tensor) -> None:
    """Check two images of the same views.

    Raises:
        ShapeError, NonFiniteError: see `require_image`.
    """
    require_image("true", true, (None, None, None, 3))
    require_image("pred", pred, tuple(true.shape))


def psnr(pred: Float[Tensor, "V H W 3"], true: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V"]:
    """Peak signal-to-noise ratio, dB, peak 1: -10 log10 of the MSE over all pixels and channels of a view.

    Identical images, and any pair beyond it, have `PSNR_CAP_DB`.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    require_pair(pred, true)
    total = torch.stack([error.sum(dim=(1, 2)) for _, error in _squared(pred, true)]).sum(dim=0)
    return _decibels(total / true[0, ..., 0].numel())


def psnr_fg(
    pred: Float[Tensor, "V H W 3"], true: Float[Tensor, "V H W 3"], mask: Bool[Tensor, "V H W"]
) -> Float[Tensor, "F"]:
    """`psnr` over the masked pixels of each view, dB.

    Returns:
        One value per view whose mask is not empty, in the order of the views; possibly none.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    require_pair(pred, true)
    if mask.dtype != torch.bool or mask.shape != true.shape[:3]:
        raise ShapeError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of {tuple(true.shape[:3])}: "
            "threshold the true alpha"
        )
    pixels = mask.sum(dim=(1, 2))
    sums = [torch.where(mask[:, rows], error, 0.0).sum(dim=(1, 2)) for rows, error in _squared(pred, true)]
    return _decibels((torch.stack(sums).sum(dim=0) / pixels)[pixels > 0])


def ssim(pred: Float[Tensor, "V H W 3"], true: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V"]:
    """Structural similarity, in [-1, 1] (Wang et al. 2004, eq. 13): mean over channels and the window's valid region.

    Gaussian window 11 x 11 of sigma 1.5, K1 = 0.01, K2 = 0.03, data range 1, population covariance.

    Raises:
        ShapeError: also if an image is smaller than the window.
        NonFiniteError: see the module.
    """
    require_pair(pred, true)
    views, height, width, _ = true.shape
    if min(height, width) < _WINDOW:
        raise ShapeError(f"true is {width} x {height} px, expected at least {_WINDOW} x {_WINDOW}: SSIM's window")
    total = torch.zeros(views, dtype=torch.float64, device=true.device)
    for rows in _bands(height - _WINDOW + 1, views * width * _SSIM_BYTES, halo=_WINDOW - 1):
        seen = slice(rows.start, rows.stop + _WINDOW - 1)
        total += _ssim_field(pred[:, seen], true[:, seen]).sum(dim=(1, 2))
    return total / ((height - _WINDOW + 1) * (width - _WINDOW + 1) * 3)


def flip(
    pred: Float[Tensor, "V H W 3"],
    true: Float[Tensor, "V H W 3"],
    known: Sequence[Float[np.ndarray, "5 H W"]] | None = None,
) -> Float[Tensor, "V"]:
    """Perceived difference of two sRGB images flipped between, in [0, 1] (Andersson et al. 2020): mean over pixels.

    At `PIXELS_PER_DEGREE`, on the host (`evalsuite.metrics.kernels.flip`).

    Args:
        known: `flip_appearance` of every true view, if it has been made before.

    Raises:
        ShapeError, NonFiniteError: see the module.
    """
    require_pair(pred, true)
    values = [
        _mean_flip(pred[view].cpu().numpy(), true[view].cpu().numpy(), known[view] if known else None)
        for view in range(len(true))
    ]
    return torch.tensor(values, dtype=torch.float64, device=true.device)


def flip_appearance(image: Float[Tensor, "H W 3"]) -> Float[np.ndarray, "5 H W"]:
    """All that `flip` compares of one image, for a truth that many images are compared with: 20 bytes per pixel."""
    return flip_kernels.appearance(np.ascontiguousarray(image.cpu().numpy()), *_FLIP_FILTERS)


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


def _bands(rows: int, row_bytes: int, halo: int = 0) -> Iterator[slice]:
    """Cut rows into bands of about equal height whose values, with ``halo`` more rows each, fit into `BAND_BYTES`."""
    most = max(1, BAND_BYTES // row_bytes - halo)
    step = math.ceil(rows / math.ceil(rows / most))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _squared(pred: Tensor, true: Tensor) -> Iterator[tuple[slice, Float[Tensor, "V h W"]]]:
    """Squared difference, mean over channels, band by band."""
    for rows in _bands(true.shape[1], true[:, 0, :, 0].numel() * _PSNR_BYTES):
        yield rows, (pred[:, rows].double() - true[:, rows].double()).square().mean(dim=3)


def _decibels(mse: Float[Tensor, "V"]) -> Float[Tensor, "V"]:
    return (-10 * mse.log10()).clamp_max(PSNR_CAP_DB)


def _ssim_field(pred: Float[Tensor, "V H W 3"], true: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V h w3"]:
    """SSIM where the window fits; rows stay interleaved, so the next pixel of a channel is 3 columns away."""
    x, y = (image.double().flatten(2) for image in (pred, true))
    mx, my, xx, yy, xy = _weighted(_weighted(torch.stack((x, y, x * x, y * y, x * y)), 2, 1), 3, 3)
    product, squares = mx * my, mx * mx + my * my
    numerator = (2 * product + _C1) * (2 * (xy - product) + _C2)
    return numerator / ((squares + _C1) * (xx + yy - squares + _C2))


def _weighted(planes: Float[Tensor, "K V H W"], axis: int, stride: int) -> Float[Tensor, "K V h w"]:
    """Gaussian window along one axis where it fits; elements of one channel are ``stride`` apart.

    Sums of shifted planes: in float64 several times as fast as a convolution of torch.
    """
    reach = _WINDOW // 2
    weights = [math.exp(-(k**2) / (2 * _SIGMA**2)) for k in range(reach + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    length = planes.shape[axis] - 2 * reach * stride
    out = planes.narrow(axis, reach * stride, length) * (weights[0] / total)
    for k in range(1, reach + 1):
        for shift in (reach - k, reach + k):
            out.add_(planes.narrow(axis, shift * stride, length), alpha=weights[k] / total)
    return out


def _mean_flip(pred: np.ndarray, true: np.ndarray, known: np.ndarray | None) -> float:
    """Mean of FLIP's error map, band by band; each band sees as many rows around it as the filters reach."""
    height, width, _ = true.shape
    sums: list[float] = []
    for rows in _bands(height, width * _FLIP_BYTES, halo=2 * _FLIP_REACH):
        start = max(0, rows.start - _FLIP_REACH)
        seen = slice(start, min(height, rows.stop + _FLIP_REACH))
        sides = (
            flip_kernels.appearance(np.ascontiguousarray(pred[seen]), *_FLIP_FILTERS),
            flip_kernels.appearance(np.ascontiguousarray(true[seen]), *_FLIP_FILTERS)
            if known is None
            else np.ascontiguousarray(known[:, seen]),
        )
        sums += flip_kernels.row_errors(*sides, rows.start - start, rows.stop - rows.start).tolist()
    return math.fsum(sums) / (height * width)
