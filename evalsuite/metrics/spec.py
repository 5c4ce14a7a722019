"""What each metric means: unit, direction, version and contract. Free of torch, so gates and report can read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalsuite.core.protocol import GeometryRule
from evalsuite.core.registry import Registry


@dataclass(frozen=True)
class MetricSpec:
    """Declaration of a metric.

    Attributes:
        direction: which way is better; ``none``: any change is for the worse.
        version: rises when the same images, or surfaces, would give another value.
        floor: smallest change, in ``unit``, that a gate will ever call a change.
        contract: what the number is computed from, in words.
        optional: it needs data that this machine may lack: ``missing-data`` is then named, and blocks nothing.
    """

    id: str
    unit: str
    direction: Literal["higher", "lower", "none"]
    version: int
    floor: float
    contract: str
    optional: bool = False

    def drop(self, golden: float, value: float) -> float:
        """How much worse than ``golden`` the value is, in ``unit``: > 0 means worse whatever the direction."""
        if self.direction == "none":
            return abs(value - golden)
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
IMAGE_METRICS = tuple(spec.id for spec in _SPECS)
"""What `evalsuite.metrics.evaluate` measures on held-out views; the other `METRICS` are of geometry."""

F_SCORE_PERCENTS = ("0.5", "1", "2")
"""Thresholds of the F-scores, in percent of the diagonal."""

_SURFACES = (
    "{samples} points (seed {seed}) on the visible part of the surface that core.protocol.GeometryRule takes from "
    "expected depth, and on that of the true mesh"
)


def geometry_metrics(rule: GeometryRule) -> dict[str, MetricSpec]:
    """What is measured on surfaces under a rule, by quantity; sample count and seed are in the ids.

    Quantities: ``chamfer``, ``chamfer.icp``, ``f-score-0.5``, ``f-score-1``, ``f-score-2``, ``normals``.
    """
    count = f"{rule.samples // 1000}k" if rule.samples % 1000 == 0 else str(rule.samples)
    tag = f"{count}-s{rule.seed}"
    surfaces = _SURFACES.format(samples=rule.samples, seed=rule.seed)
    contract = f"mean of both directions' mean distances to the nearest point, not squared, no alignment; {surfaces}"
    specs = {
        "chamfer": MetricSpec(f"chamfer.{tag}", "diagonal", "lower", 1, 1e-4, contract),
        "chamfer.icp": MetricSpec(
            f"chamfer.{tag}.icp",
            "diagonal",
            "lower",
            1,
            2e-4,
            f"chamfer after rigid point-to-point ICP from the identity, both measured at every k-th point, about "
            f"{rule.icp_samples} of either side, against all of the other; {surfaces}",
        ),
        "normals": MetricSpec(
            f"normals.{tag}",
            "1",
            "higher",
            1,
            0.003,
            f"mean absolute cosine between the normals of nearest points, both directions averaged; {surfaces}",
        ),
    }
    for percent in F_SCORE_PERCENTS:
        specs[f"f-score-{percent}"] = MetricSpec(
            f"f-score-{percent}.{tag}",
            "1",
            "higher",
            1,
            0.005,
            f"harmonic mean of the shares of predicted and of true points within {percent} % of the diagonal of the "
            f"true mesh's bounding box from the other side, no alignment; {surfaces}",
        )
    return dict(sorted(specs.items()))


for _spec in (*_SPECS, *geometry_metrics(GeometryRule()).values()):
    METRICS.add(_spec.id, _spec)


ENGINE = "engine"
"""Name of the suite of probes: numbers of the renderer and optimiser themselves, on a splat made from a seed."""

PROBES: Registry[MetricSpec] = Registry("number of an engine probe")
"""What probes give, by id. No direction is better; floors are ten times what another CPU or GPU moves."""

_FORWARD = {
    "mean-red": ("1", 1e-5, "mean of the red channel over pixels, then views"),
    "mean-green": ("1", 1e-5, "mean of the green channel over pixels, then views"),
    "mean-blue": ("1", 1e-5, "mean of the blue channel over pixels, then views"),
    "mean-alpha": ("1", 1e-5, "mean of alpha over pixels, then views"),
    "mean-depth": ("1", 1e-4, "mean depth over pixels with alpha > 0.5, then views; world units"),
    "contrast": ("1", 1e-5, "standard deviation of a view over pixels and channels, mean over views"),
    "centre-x": ("px", 1e-3, "alpha-weighted mean column, mean over views"),
    "centre-y": ("px", 1e-3, "alpha-weighted mean row, mean over views"),
}
FIELDS = ("means", "quats", "scales", "opacities", "sh")
for _id, (_unit, _floor, _contract) in _FORWARD.items():
    PROBES.add(_id, MetricSpec(_id, _unit, "none", 1, _floor, _contract))
for _field in FIELDS:
    _text = f"natural log of the mean absolute gradient with respect to {_field}"
    PROBES.add(f"gradient-{_field}", MetricSpec(f"gradient-{_field}", "ln", "none", 1, 1e-3, _text))
    _text = f"natural log of the root mean square change of {_field} in the first steps of the recipe"
    PROBES.add(f"movement-{_field}", MetricSpec(f"movement-{_field}", "ln", "none", 1, 1e-2, _text))
