"""What each metric means: unit, direction, version and contract. Free of torch, so gates and report can read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalsuite.core.registry import Registry


@dataclass(frozen=True)
class MetricSpec:
    """Declaration of a metric.

    Attributes:
        direction: which way is better.
        version: rises when the same images would give another value.
        floor: smallest change, in ``unit``, that a gate will ever call a change.
        contract: what the number is computed from, in words.
        optional: it needs data that this machine may lack: ``missing-data`` is then named, and blocks nothing.
    """

    id: str
    unit: str
    direction: Literal["higher", "lower"]
    version: int
    floor: float
    contract: str
    optional: bool = False

    def drop(self, golden: float, value: float) -> float:
        """How much worse than ``golden`` the value is, in ``unit``: > 0 means worse whatever the direction."""
        return golden - value if self.direction == "higher" else value - golden


METRICS: Registry[MetricSpec] = Registry("metric")

_LPIPS = (
    "LPIPS 0.1 (Zhang et al. 2018) with its linear layers, by the lpips package, over torchvision's {}; sRGB over the "
    "background, mapped from [0, 1] to [-1, 1]; sum over layers of the mean over positions, then mean over views"
)

_SPECS = (
    MetricSpec(
        "psnr",
        "dB",
        "higher",
        1,
        0.05,
        "sRGB over the background, 8-bit if the protocol says so; MSE over all pixels and channels of a view, peak 1; "
        "at most 100 dB, which is also the value of identical images; mean over views of per-view dB",
    ),
    MetricSpec(
        "psnr-fg",
        "dB",
        "higher",
        1,
        0.1,
        "psnr over the pixels whose true alpha > 0.5; a view with no such pixel is left out of per_view and of the "
        "mean; unsupported without true alpha, or if every view is left out",
    ),
    MetricSpec(
        "ssim",
        "1",
        "higher",
        1,
        0.001,
        "Wang et al. 2004: 11 x 11 Gaussian window, sigma 1.5, K1 0.01, K2 0.03, range 1, population covariance, only "
        "where the window fits; per sRGB channel, then mean over pixels, channels and views",
    ),
    MetricSpec(
        "flip-67",
        "1",
        "lower",
        1,
        0.002,
        "LDR-FLIP (Andersson et al. 2020) of sRGB over the background, by the authors' flip-evaluator, at 67.02 pixels "
        "per degree (3840 px on 0.7 m, seen from 0.7 m); mean over pixels, then over views",
    ),
    MetricSpec(
        "lpips-alex",
        "1",
        "lower",
        1,
        0.002,
        _LPIPS.format("AlexNet (image sides >= 31 px)"),
        optional=True,
    ),
    MetricSpec(
        "lpips-vgg",
        "1",
        "lower",
        1,
        0.002,
        _LPIPS.format("VGG16 (image sides >= 16 px)"),
        optional=True,
    ),
    MetricSpec(
        "alpha-iou",
        "1",
        "higher",
        1,
        0.002,
        "intersection over union of alpha > 0.5 of render and truth, 1 where both are empty; mean over views; "
        "unsupported without true alpha",
    ),
)
for _spec in _SPECS:
    METRICS.add(_spec.id, _spec)
