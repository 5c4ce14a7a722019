"""Probes repeat to the bit, and every defect of the engine moves one of their numbers beyond its tolerance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from evalsuite.core.errors import NonFiniteError
from evalsuite.core.types import Cameras, Gaussians
from evalsuite.execution import probes
from evalsuite.execution.probes import PROBE_CASES, probe
from evalsuite.gates.golden import Approved, Golden, compare
from evalsuite.metrics.spec import FIELDS, PROBES
from evalsuite.records.schema import Record
from evalsuite.splats.rasterise import Raster, rasterise
from evalsuite.splats.recipes import RECIPES

Rasterise = Callable[..., Raster]


def golden_of(record: Record) -> Golden:
    metrics = {name: Approved(r.value or 0.0, r.version, views=len(r.per_view)) for name, r in record.metrics.items()}
    return Golden(record.case, record.protocol_hash, 1, metrics)


@pytest.fixture(scope="module")
def approved() -> dict[str, Golden]:
    return {case: golden_of(probe(case, "cpu")) for case in PROBE_CASES}


def verdicts(approved: dict[str, Golden]) -> dict[str, str]:
    return {case: compare(case, probe(case, "cpu"), golden).verdict for case, golden in approved.items()}


@pytest.mark.parametrize("case", PROBE_CASES)
def test_a_probe_repeats_to_the_bit(case: str) -> None:
    first = probe(case, "cpu")
    assert first.status == "ok"
    assert probe(case, "cpu").metrics == first.metrics
    assert all(math.isfinite(reading.value or 0.0) for reading in first.metrics.values())


def test_together_they_give_every_declared_number_once() -> None:
    found = [name for case in PROBE_CASES for name in probe(case, "cpu").metrics]
    assert sorted(found) == sorted(PROBES)
    assert {f"gradient-{name}" for name in FIELDS} <= set(found)


def test_the_splat_is_seen_from_every_side() -> None:
    raster = rasterise(probes.splat(), probes.cameras(), probes.background())
    assert ((raster.alpha > 0.5).float().mean(dim=(1, 2)) > 0.2).all()
    assert (raster.radii > 0).all(dim=-1).float().mean() > 0.9


def changed_render(change: Callable[[Raster], Raster]) -> Rasterise:
    return lambda *arguments, **named: change(rasterise(*arguments, **named))


def shifted(gaussians: Gaussians, cameras: Cameras, *rest: Any) -> Raster:
    return rasterise(gaussians, replace(cameras, centre_px=cameras.centre_px + torch.tensor([0.5, 0.0])), *rest)


def without_last_band(gaussians: Gaussians, *rest: Any) -> Raster:
    return rasterise(replace(gaussians, sh=gaussians.sh[:, :9]), *rest)


class _Halved(torch.autograd.Function):
    """The identity with half of the gradient."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient / 2


def half_a_gradient(gaussians: Gaussians, *rest: Any) -> Raster:
    first, others = gaussians.scales[:, :1], gaussians.scales[:, 1:]
    return rasterise(replace(gaussians, scales=torch.cat([_Halved.apply(first), others], dim=1)), *rest)


@pytest.mark.parametrize(
    ("defect", "case"),
    [
        (changed_render(lambda raster: replace(raster, rgb=raster.rgb.flip(-1))), "engine/forward"),
        (shifted, "engine/forward"),
        (without_last_band, "engine/forward"),
        (half_a_gradient, "engine/backward"),
    ],
    ids=["blue-and-red-swapped", "half-a-pixel", "a-band-ignored", "half-of-one-gradient"],
)
def test_a_defect_of_the_renderer_is_worse(
    defect: Rasterise, case: str, approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "rasterise", defect)
    assert compare(case, probe(case, "cpu"), approved[case]).verdict == "worse"


@pytest.mark.parametrize("rate", ["lr_means", "lr_scales", "lr_quats", "lr_opacities", "lr_sh0"])
def test_half_a_learning_rate_is_worse(rate: str, approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["3dgs"]
    monkeypatch.setitem(RECIPES._items, "3dgs", replace(recipe, **{rate: getattr(recipe, rate) / 2}))
    assert verdicts(approved) == {
        "engine/forward": "same",
        "engine/backward": "same",
        "engine/steps": "worse",
    }


@pytest.mark.parametrize(
    ("error", "status"), [(NonFiniteError("rgb holds NaN"), "nonfinite"), (ZeroDivisionError("oh"), "crashed")]
)
def test_a_failure_becomes_the_status(error: Exception, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Raster:
        raise error

    monkeypatch.setattr(probes, "rasterise", fail)
    found = probe("engine/forward", "cpu")
    assert (found.status, found.metrics) == (status, {})
    assert str(error) in found.reason


def test_a_number_that_is_not_finite_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "rasterise", changed_render(lambda r: replace(r, rgb=r.rgb * math.nan)))
    found = probe("engine/forward", "cpu")
    assert (found.status, found.metrics) == ("nonfinite", {})
    assert "mean-red is (nan" in found.reason
