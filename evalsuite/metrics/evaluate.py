"""All metrics of one result on held-out views."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from evalsuite.core.errors import MissingDataError, NonFiniteError, UnsupportedError
from evalsuite.core.types import Renderable, Views
from evalsuite.metrics.heldout import HeldOut
from evalsuite.metrics.image import ALPHA_THRESHOLD, alpha_iou, flip, psnr, psnr_fg, ssim
from evalsuite.metrics.perceptual import BACKBONES, Backbone, find_backbone, lpips_distance, require_size
from evalsuite.metrics.spec import METRICS
from evalsuite.records.schema import Reading

Gap = UnsupportedError | MissingDataError
"""Why one metric has no value here, while the others do."""

_PAIR_METRICS = ("psnr", "ssim", "flip-67")
_ALPHA_METRICS = ("psnr-fg", "alpha-iou")


@torch.no_grad()
def evaluate(
    result: Renderable, truth: HeldOut, backbones: Mapping[str, Backbone] = BACKBONES
) -> tuple[dict[str, Reading], UInt8[np.ndarray, "V H W 3"]]:
    """Render the held-out cameras one at a time and measure each render against the truth.

    Both sides lie over the truth's background, are clamped to [0, 1] and, if its rule says so, rounded to multiples of
    1/255. Constant or empty renders are legal and measured as they are. Metrics run on the truth's device, FLIP on the
    host.

    Args:
        result: what an arm made.
        truth: held-out views; without alpha (photographs) ``psnr-fg`` and ``alpha-iou`` are unsupported.
        backbones: of each LPIPS metric; one whose weights are not on this machine is ``missing-data``.

    Returns:
        Readings by id, one for each image metric of `METRICS`, and the renders rounded to 8 bits. Views without true
        foreground are left out of ``psnr-fg``: its ``per_view`` is then shorter than the other metrics', the same
        way for every arm since only the truth decides; if none is left its status is ``unsupported``.

    Raises:
        ShapeError: a view is smaller than 11 px, or the truth is not an image in [0, 1].
        NonFiniteError: a render, or the truth, holds NaN or infinity.
        WrongHashError, BadWeightsError: a backbone's file is there and is not the right one.
    """
    values: dict[str, list[float]] = {name: [] for name in (*_PAIR_METRICS, *backbones, *_ALPHA_METRICS)}
    gaps = _gaps(truth.views, backbones)
    images = []
    for index, view in enumerate(truth):
        pred, pred_alpha = _shown(result, view.given, truth.background, index)
        images.append((pred[0] * 255).round().to(torch.uint8).cpu().numpy())
        pred, true = truth.as_stored(pred), view.image
        values["psnr"] += psnr(pred, true).tolist()
        values["ssim"] += ssim(pred, true).tolist()
        values["flip-67"] += flip(pred, true, None if view.appearance is None else [view.appearance]).tolist()
        for name in backbones.keys() - gaps.keys():
            values[name] += lpips_distance(backbones[name], pred, true).tolist()
        if view.given.alpha is not None and view.foreground is not None:
            values["psnr-fg"] += psnr_fg(pred, true, view.foreground).tolist()
            values["alpha-iou"] += alpha_iou(pred_alpha, view.given.alpha).tolist()
    return {name: _reading(name, values[name], gaps.get(name)) for name in values}, np.stack(images)


def _gaps(truth: Views, backbones: Mapping[str, Backbone]) -> dict[str, Gap]:
    """Metrics that these views, or what lies on this machine, do not allow."""
    gaps: dict[str, Gap] = {}
    if truth.alpha is None:
        for name in _ALPHA_METRICS:
            gaps[name] = UnsupportedError("photographs have no true alpha, expected one: use an object scene")
    elif not (truth.alpha > ALPHA_THRESHOLD).any():
        gaps["psnr-fg"] = UnsupportedError("no held-out view shows the object, expected one: check the scene's cameras")
    for name, backbone in backbones.items():
        try:
            require_size(backbone, truth.cameras.width, truth.cameras.height)
            find_backbone(backbone)
        except (UnsupportedError, MissingDataError) as gap:
            gaps[name] = gap
    return gaps


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


def _reading(name: str, per_view: Sequence[float], gap: Gap | None) -> Reading:
    version = METRICS[name].version
    if gap is not None:
        return Reading(None, (), version, gap.status, str(gap))
    # fsum: the mean does not depend on the order of the views
    return Reading(math.fsum(per_view) / len(per_view), tuple(per_view), version)
