"""What each metric means: unit, direction, version and contract. Free of torch, so gates and report can read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalsuite.core.registry import Registry


@dataclass(frozen=True)
class MetricSpec:
    """Declaration of a metric.

    Attributes:
        direction: which way is better; ``none``: any change is for the worse.
        version: rises when the same images would give another value.
        floor: smallest change, in ``unit``, that a gate will ever call a change.
        contract: what the number is computed from, in words.
        optional: needs data that a machine may lack; without it the metric is ``missing-data``, which is said and does
            not block.
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
