"""All metrics of one result on held-out views."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from evalsuite.core.errors import NonFiniteError, ShapeError
from evalsuite.core.types import Renderable, Views
from evalsuite.metrics.image import ALPHA_THRESHOLD, alpha_iou, psnr, psnr_fg, require_image, ssim
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Reading


@torch.no_grad()
def evaluate(
    result: Renderable, truth: Views, background: Float[Tensor, "3"], eight_bit: bool
) -> tuple[dict[str, Reading], UInt8[np.ndarray, "V H W 3"]]:
    """Render the held-out cameras one at a time and measure each render against the truth.

    The truth is composited over the background; both sides are clamped to [0, 1] and, if ``eight_bit``, rounded to
    multiples of 1/255. Constant or empty renders are legal and measured as they are. Metrics run on the truth's device.

    Args:
        result: what an arm made.
        truth: held-out views; without alpha (photographs) ``psnr-fg`` and ``alpha-iou`` are unsupported.
        background: sRGB in [0, 1].
        eight_bit: the protocol's rule.

    Returns:
        Readings by metric id, one for each of `METRICS`, and the renders rounded to 8 bits. Views without true
        foreground are left out of ``psnr-fg``: its ``per_view`` is then shorter than the other metrics', the same
        way for every arm since only the truth decides; if none is left its status is ``unsupported``.

    Raises:
        ShapeError: there is no view, one is smaller than 11 px, or the truth is not an image in [0, 1].
        NonFiniteError: a render, or the truth, holds NaN or infinity.
    """
    if len(truth) == 0:
        raise ShapeError("truth holds 0 views, expected at least one: check the scene's held-out split")
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    images = []
    for index in range(len(truth)):
        view = truth[[index]]
        require_image("truth.rgb", view.rgb, (1, None, None, 3))
        pred, pred_alpha = _shown(result, view, background, index)
        true = view.over(background.to(view.rgb)).clamp(0, 1)
        images.append((pred[0] * 255).round().to(torch.uint8).cpu().numpy())
        if eight_bit:
            pred, true = _rounded(pred), _rounded(true)
        values["psnr"] += psnr(pred, true).tolist()
        values["ssim"] += ssim(pred, true).tolist()
        if view.alpha is not None:
            values["psnr-fg"] += psnr_fg(pred, true, view.alpha > ALPHA_THRESHOLD).tolist()
            values["alpha-iou"] += alpha_iou(pred_alpha, view.alpha).tolist()
    return {name: _reading(name, per_view) for name, per_view in values.items()}, np.stack(images)


def _shown(
    result: Renderable, view: Views, background: Float[Tensor, "3"], index: int
) -> tuple[Float[Tensor, "1 H W 3"], Float[Tensor, "1 H W"]]:
    """Colour and alpha of one held-out view, in [0, 1], where and as the truth is stored."""
    render = result.render(view.cameras, background)
    rgb, alpha = render.rgb.detach().to(view.rgb), render.alpha.detach().to(view.rgb)
    for name, plane in (("rgb", rgb), ("alpha", alpha)):
        bad = int((~torch.isfinite(plane)).sum())
        if bad:
            raise NonFiniteError(
                f"{name} rendered for held-out view {index} holds {bad} NaN or infinite values, expected none: "
                "the arm diverged, look at its checkpoint"
            )
    return rgb.clamp(0, 1), alpha.clamp(0, 1)


def _rounded(image: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V H W 3"]:
    """Rounded to 8 bits, as an image file would hold it."""
    return (image * 255).round() / 255


def _reading(name: str, per_view: Sequence[float]) -> Reading:
    version = METRICS[name].version
    if not per_view:
        return Reading(None, (), version, "unsupported")
    # fsum: the mean does not depend on the order of the views
    return Reading(math.fsum(per_view) / len(per_view), tuple(per_view), version)
