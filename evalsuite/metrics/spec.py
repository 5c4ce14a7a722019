"""What each metric means: unit, direction, version and contract. Free of torch, so gates and report can read it."""

from __future__ import annotations

from collections.abc import Mapping
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
        "LDR-FLIP (Andersson et al. 2020) of sRGB over the background, as the authors' flip-evaluator 1.7 has it, at "
        "67.02 pixels per degree (3840 px on 0.7 m, seen from 0.7 m); mean over pixels, then over views",
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
            4e-4,  # ICP's matches flip with rounding: 1e-4 lies between two processors of one class
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
"""What probes give, by id. No direction is better; floors are ten times, or more, what hardware or rounding moves."""

FIELDS = ("means", "quats", "scales", "opacities", "sh")
"""Of a splat, as the renderer takes it."""

GROUPS = ("means", "scales", "quats", "opacities", "sh0", "sh_rest")
"""Of parameters, as the optimiser moves them."""

DIRECTIONS = 3
"""Fixed random directions along which probes hold a vector."""

RATE_STEPS: Mapping[str, tuple[int, ...]] = {"3dgs": (0, 500, 3000), "3dgs-30k": (0, 5000, 30_000)}
DEGREE_STEPS: Mapping[str, tuple[int, ...]] = {
    "3dgs": (0, 99, 100, 199, 200, 299, 300, 2999),
    "3dgs-30k": (999, 1000, 29_999),
}
"""By recipe, where schedules are read."""

DENSITY_SCENES = (
    "before", "between", "first", "last", "after", "capped", "absolute", "reset", "large", "long-last", "long-after",
)  # fmt: skip
"""Calls of density control: see `evalsuite.execution.probes.density`."""


def _declare(id: str, unit: str, floor: float, contract: str) -> None:
    PROBES.add(id, MetricSpec(id, unit, "none", 1, floor, contract))


def _declare_vector(id: str, floor: float, what: str) -> None:
    _declare(f"{id}-size", "ln", floor, f"natural log of the root mean square of {what}")
    for index in range(1, DIRECTIONS + 1):
        text = f"projection of {what}, scaled to length 1, on fixed direction {index} of entries with variance 1"
        _declare(f"{id}-{index}", "1", floor, text)


def _declare_rendering() -> None:
    for channel in ("red", "green", "blue"):
        _declare(f"mean-{channel}", "1", 1e-5, f"mean of the {channel} channel over pixels, then views")
    _declare("mean-alpha", "1", 1e-5, "mean of alpha over pixels, then views")
    _declare("mean-depth", "1", 1e-4, "mean depth over pixels with alpha > 0.5, then views; world units")
    _declare("contrast", "1", 1e-5, "standard deviation of a view over pixels and channels, mean over views")
    _declare("centre-x", "px", 1e-3, "alpha-weighted mean column, mean over views")
    _declare("centre-y", "px", 1e-3, "alpha-weighted mean row, mean over views")
    _declare_vector("image-rgb", 1e-4, "colour in all pixels of all views")
    _declare_vector("image-alpha", 1e-4, "alpha in all pixels of all views")
    _declare_vector("image-depth", 1e-4, "depth times alpha in all pixels of all views")
    for name in (*FIELDS, "background", "screen"):
        _declare_vector(f"gradient-{name}", 2e-3, f"the gradient of a fixed sum over all images in {name}")


def _declare_optimiser() -> None:
    for name, text in (("l1", "L1 alone"), ("dssim", "1 - SSIM alone"), ("mixture", "the recipe's mixture")):
        _declare(f"loss-{name}", "1", 1e-5, f"loss of two fixed images, {text}")
    error = "largest difference of directional derivatives from central finite differences, over the gradient's length"
    _declare_vector("loss-gradient", 1e-4, "the gradient of the recipe's loss of two fixed images in the first")
    _declare("loss-gradient-error", "1", 1e-3, error)
    _declare("slope-loss", "1", 1e-5, "loss that the optimiser sees, summed over the views of the veils")
    _declare("round-trip", "1", 1e-5, "largest difference of Gaussians that went through the optimiser's parameters")
    firm = "entries with a small first gradient weighted down"
    for name in GROUPS:
        _declare_vector(f"slope-{name}", 1e-3, f"the gradient of the optimiser's loss in group {name}")
        _declare(f"slope-{name}-error", "1", 1e-3, error)
        _declare_vector(f"late-{name}", 2e-3, f"the change of group {name} in steps 2997 to 3002 of the recipe, {firm}")
    for name in FIELDS:
        _declare_vector(f"movement-{name}", 2e-3, f"the change of {name} in the recipe's first ten steps, {firm}")
    _declare_vector("screen-gradient", 1e-3, "what density control has summed up after a round, per sighting")


def _declare_decisions() -> None:
    for recipe, steps in RATE_STEPS.items():
        for step in steps:
            for name in GROUPS:
                text = f"natural log of the learning rate of group {name} that step {step} of {recipe} used"
                _declare(f"rate-{name}.{recipe}-{step}", "ln", 1e-6, text)
    for recipe, steps in DEGREE_STEPS.items():
        for step in steps:
            _declare(f"degree.{recipe}-{step}", "1", 0.01, f"highest degree of harmonics that step {step} moved")
    for name in DENSITY_SCENES:
        _declare(f"density-{name}-count", "1", 0.01, "Gaussians left by one call of density control")
        _declare(f"density-{name}-who", "1", 1e-3, "sum over those left of a fixed random number of their origin")
        _declare(f"density-{name}-state", "1", 1e-3, "sum of their places, scales and opacities, randomly weighted")


_declare_rendering()
_declare_optimiser()
_declare_decisions()
