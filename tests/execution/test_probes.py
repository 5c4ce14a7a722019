"""Probes repeat to the bit, forgive rounding, and see every defect of the engine that they are there for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numba
import pytest
import torch
from torch import Tensor

from evalsuite.core.errors import NonFiniteError
from evalsuite.core.types import Cameras, Gaussians
from evalsuite.execution.probes import PROBE_CASES, density, descent, photometry, probe, rendering, stage
from evalsuite.gates.golden import Approved, Golden, compare
from evalsuite.metrics.spec import DIRECTIONS, FIELDS, GROUPS, PROBES
from evalsuite.records.schema import Record
from evalsuite.splats import loss as loss_module
from evalsuite.splats import optimise as optimise_module
from evalsuite.splats.descent import FusedDescent, Seen
from evalsuite.splats.optimise import Optimisation, scene_extent
from evalsuite.splats.rasterise import Raster, rasterise
from evalsuite.splats.recipes import RECIPES, Recipe

Rasterise = Callable[..., Raster]
DRAWING = {"engine/forward", "engine/backward", "engine/slopes"}
"""Probes that render; on the CPU, steps do without the renderer."""

LEARNING = ("engine/loss", "engine/steps", "engine/late-steps", "engine/schedules", "engine/density")
"""Probes that read recipes."""


def golden_of(record: Record) -> Golden:
    metrics = {name: Approved(r.value or 0.0, r.version, views=len(r.per_view)) for name, r in record.metrics.items()}
    return Golden(record.case, record.protocol_hash, (record.seed,), metrics)


@pytest.fixture(scope="module")
def approved() -> dict[str, Golden]:
    return {case: golden_of(probe(case, "cpu")) for case in PROBE_CASES}


def moved(approved: dict[str, Golden], *cases: str) -> dict[str, str]:
    """Probes, of these or of all, that are not `same`, with their verdict."""
    found = {case: compare(case, probe(case, "cpu"), approved[case]).verdict for case in cases or approved}
    return {case: verdict for case, verdict in found.items() if verdict != "same"}


def value(case: str, number: str) -> float:
    found = probe(case, "cpu").value(number)
    assert found is not None
    return found


@pytest.mark.parametrize("case", PROBE_CASES)
def test_a_probe_repeats_to_the_bit(case: str) -> None:
    first = probe(case, "cpu")
    assert first.status == "ok", first.reason
    assert probe(case, "cpu").metrics == first.metrics
    assert all(math.isfinite(reading.value or 0.0) for reading in first.metrics.values())


def test_together_they_give_every_declared_number_once() -> None:
    found = [name for case in PROBE_CASES for name in probe(case, "cpu").metrics]
    assert sorted(found) == sorted(PROBES)
    for name in [f"gradient-{name}" for name in FIELDS] + [f"slope-{name}" for name in GROUPS]:
        assert {f"{name}-{index}" for index in range(1, DIRECTIONS + 1)} <= set(found)


# nothing is wrong


def test_threads_change_no_verdict(approved: dict[str, Golden]) -> None:
    threads = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(3 - min(threads[0], 2))
    numba.set_num_threads(1)
    try:
        assert moved(approved) == {}
    finally:
        torch.set_num_threads(threads[0])
        numba.set_num_threads(threads[1])


@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_forgiven(seed: int, approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value that goes in is off by up to 1e-7 of itself, about what another order of summation would do."""
    draw = torch.Generator().manual_seed(seed)

    def shaken(make: Callable[[], Gaussians]) -> Callable[[], Gaussians]:
        def shake(values: Tensor) -> Tensor:
            return values * (1 + 1e-7 * (2 * torch.rand(values.shape, generator=draw, dtype=torch.float64) - 1)).float()

        return lambda: Gaussians(*(shake(getattr(make(), f.name)) for f in fields(Gaussians)))

    monkeypatch.setattr(rendering, "crowd", shaken(stage.crowd))
    monkeypatch.setattr(descent, "veils", shaken(stage.veils))
    assert moved(approved) == {}


@pytest.mark.parametrize(("eps", "cases"), [(1e-8, set()), (1e-6, {"engine/steps", "engine/late-steps"})])
def test_the_epsilon_of_adam(
    eps: float, cases: set[str], approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1e-15 or 1e-8 is a matter of taste, 1e-6 holds small gradients back."""
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda *a, **named: adam(*a, **{**named, "eps": eps}))
    assert set(moved(approved, *LEARNING)) == cases


# truth


def test_finite_differences_agree_with_every_gradient() -> None:
    numbers = {**probe("engine/slopes", "cpu").metrics, **probe("engine/loss", "cpu").metrics}
    errors = {name: reading.value for name, reading in numbers.items() if name.endswith("-error")}
    assert len(errors) == len(GROUPS) + 1
    assert max(error or 0.0 for error in errors.values()) < 2e-4


def test_a_slope_is_held_to_its_function() -> None:
    at = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64)
    error = stage.slope_error("cube", 3 * at**2, 1e-3, lambda offset: float(((at + offset) ** 3).sum()))
    assert error < 1e-9
    with pytest.raises(stage.WrongGradientError, match=r"cube: the gradient along direction 1 is .*, finite differ"):
        stage.slope_error("cube", -3 * at**2, 1e-3, lambda offset: float(((at + offset) ** 3).sum()))


def test_a_vector_is_held_with_signs_and_places() -> None:
    values = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    base = stage.vector("v", values)
    flipped, swapped, longer = values.clone(), values[:, [1, 0, 2, 3]], stage.vector("v", 3 * values)
    flipped[:, 2] *= -1
    for other in (flipped, swapped):
        found = stage.vector("v", other)
        assert found["v-size"] == pytest.approx(base["v-size"])
        assert max(abs(found[f"v-{i}"][0] - base[f"v-{i}"][0]) for i in range(1, DIRECTIONS + 1)) > 0.1
    assert longer["v-size"][0] == pytest.approx(base["v-size"][0] + math.log(3))
    assert longer["v-1"] == pytest.approx(base["v-1"])


def test_the_crowd_is_seen_from_every_side() -> None:
    raster = rasterise(stage.crowd(), stage.crowd_cameras(), stage.background())
    assert ((raster.alpha > 0.5).float().mean(dim=(1, 2)) > 0.2).all()
    assert (raster.radii > 0).all(dim=-1).float().mean() > 0.9


def test_no_residual_changes_its_sign_along_a_small_step() -> None:
    run = descent.started("cpu")
    rgb = rasterise(run.gaussians(3), run.cameras, run.background).rgb
    assert float((rgb - run.targets).detach().abs().min()) > 0.09
    image, target = photometry.photographs()
    assert float((image - target).abs().min()) > 0.049


def test_l1_is_the_mean_difference() -> None:
    image, target = photometry.photographs()
    assert value("engine/loss", "loss-l1") == pytest.approx(float((image - target).abs().double().mean()), rel=1e-6)
    mixture = 0.8 * value("engine/loss", "loss-l1") + 0.2 * value("engine/loss", "loss-dssim")
    assert value("engine/loss", "loss-mixture") == pytest.approx(mixture, rel=1e-6)


def test_rates_are_those_of_the_recipe() -> None:
    numbers = probe("engine/schedules", "cpu").metrics
    extent = scene_extent(descent.photographs("cpu"))
    for recipe, ends in (("3dgs", (0, 500, 3000)), ("3dgs-30k", (0, 5000, 30_000))):
        means = [math.exp(numbers[f"rate-means.{recipe}-{step}"].value or 0.0) for step in ends]
        assert means == pytest.approx([1.6e-4 * extent, 1.6e-4 * extent * 0.01 ** (1 / 6), 1.6e-6 * extent])
        for name, rate in (("scales", 5e-3), ("quats", 1e-3), ("opacities", 5e-2), ("sh0", 2.5e-3)):
            found = [math.exp(numbers[f"rate-{name}.{recipe}-{step}"].value or 0.0) for step in ends]
            assert found == pytest.approx([rate] * 3)
    degrees = {name: reading.value for name, reading in numbers.items() if name.startswith("degree.3dgs-")}
    steps = (0, 99, 100, 199, 200, 299, 300, 2999)
    assert [degrees[f"degree.3dgs-{step}"] for step in steps] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_density_control_decides_as_counted_by_hand() -> None:
    """80 Gaussians: half of them grow, 2 of 5 scales by cloning; a quarter, before and after, is too faint."""
    numbers = probe("engine/density", "cpu").metrics
    counts = {name.split("-", 1)[1][:-6]: r.value for name, r in numbers.items() if name.endswith("-count")}
    assert counts == {
        **dict.fromkeys(("before", "between", "after", "long-after"), 80.0),
        **dict.fromkeys(("first", "last", "absolute", "reset"), 90.0),
        "capped": (204 * 80 + 64) - (204 * 20 + counts_of_faint_growth()),
        # scale 0.22 is above 0.1 of the extent: split, its halves of 0.1375 are not; those that do not grow go
        **dict.fromkeys(("large", "long-last"), 90.0 - 6),
    }


def counts_of_faint_growth() -> int:
    """Of the 64 Gaussians with the largest gradients under the cap, those that are too faint to stay."""
    params, gradients = density.made_up(204)
    strongest = (gradients * torch.tensor([32.0, 24.0])).norm(dim=1).topk(64).indices
    return int((params["opacities"][strongest].sigmoid() < 0.005).sum())


# something is wrong


def rendering_with(monkeypatch: pytest.MonkeyPatch, defect: Rasterise) -> None:
    for module in (rendering, descent, optimise_module):
        monkeypatch.setattr(module, "rasterise", defect)


def changed_render(change: Callable[[Raster], Raster]) -> Rasterise:
    return lambda *arguments, **named: change(rasterise(*arguments, **named))


def shifted(gaussians: Gaussians, cameras: Cameras, *rest: Any) -> Raster:
    return rasterise(gaussians, replace(cameras, centre_px=cameras.centre_px + torch.tensor([0.5, 0.0])), *rest)


def without_last_band(gaussians: Gaussians, *rest: Any) -> Raster:
    return rasterise(replace(gaussians, sh=gaussians.sh[:, :9]), *rest)


class _Wrong(torch.autograd.Function):
    """The identity with another gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.change(gradients[0].clone()), None


def wrong_gradient(name: str, change: Callable[[Tensor], Tensor]) -> Rasterise:
    def render(gaussians: Gaussians, *rest: Any) -> Raster:
        return rasterise(replace(gaussians, **{name: _Wrong.apply(getattr(gaussians, name), change)}), *rest)

    return render


def scaled(column: int, factor: float) -> Callable[[Tensor], Tensor]:
    def change(gradient: Tensor) -> Tensor:
        gradient[:, column] *= factor
        return gradient

    return change


@pytest.mark.parametrize(
    ("defect", "cases"),
    [
        (changed_render(lambda raster: replace(raster, rgb=raster.rgb.flip(-1))), DRAWING),
        (changed_render(lambda raster: replace(raster, rgb=raster.rgb.flip(2))), {"engine/forward"}),
        (changed_render(lambda raster: replace(raster, depth=raster.depth.flip(0))), {"engine/forward"}),
        (shifted, DRAWING),
        (without_last_band, {"engine/forward", "engine/slopes"}),
    ],
    ids=["blue-and-red-swapped", "mirrored", "depths-of-other-views", "half-a-pixel", "a-band-ignored"],
)
def test_a_defect_of_the_pictures_is_worse(
    defect: Rasterise, cases: set[str], approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering_with(monkeypatch, defect)
    assert set(moved(approved, *cases)) == cases


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("quats", scaled(1, -1.0)),
        ("scales", lambda gradient: gradient[:, [1, 0, 2]]),
        ("scales", scaled(0, 0.9)),
        ("means", scaled(2, -1.0)),
        ("opacities", lambda gradient: -gradient),
        ("sh", scaled(12, 0.0)),
        ("sh", lambda gradient: gradient.flip(-1)),
    ],
    ids=["quaternion-sign", "scales-swapped", "scale-0.9", "z-sign", "opacity-sign", "no-harmonic-12", "channels"],
)
def test_a_wrong_gradient_is_seen_and_no_golden_makes_it_right(
    name: str, change: Callable[[Tensor], Tensor], approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering_with(monkeypatch, wrong_gradient(name, change))
    found = moved(approved, "engine/backward", "engine/slopes")
    assert found["engine/backward"] == "worse"
    assert found["engine/slopes"] == "failed"
    record = probe("engine/slopes", "cpu")
    assert record.status == "crashed"
    assert "finite differences say" in record.reason


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("quats", scaled(1, -1.0)),
        ("scales", lambda gradient: gradient[:, [1, 0, 2]]),
        ("opacities", lambda gradient: 1.001 * gradient),
        ("sh_rest", scaled(12, 0.0)),
    ],
    ids=["quaternion-sign", "scales-swapped", "opacity-1.001", "no-harmonic-13"],
)
def test_a_step_that_descends_another_gradient_is_seen(
    name: str, change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = FusedDescent.gradients

    def wrong(self: FusedDescent, *arguments: Any) -> Seen:
        seen = right(self, *arguments)
        gradient = seen.gradients[name]
        assert gradient is not None
        return replace(seen, gradients={**seen.gradients, name: change(gradient.clone())})

    monkeypatch.setattr(FusedDescent, "gradients", wrong)
    record = probe("engine/slopes", "cpu")
    assert record.status == "crashed"
    assert f"slope-{name}: the training step's own gradient is" in record.reason


@pytest.mark.parametrize(
    "rate", ["lr_means", "lr_means_final", "lr_scales", "lr_quats", "lr_opacities", "lr_sh0", "lr_sh_rest"]
)
def test_a_tenth_off_a_learning_rate_is_worse(
    rate: str, approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_recipes(monkeypatch, **{rate: lambda value: 0.9 * value})
    steps = {"engine/steps"} if rate not in ("lr_means_final", "lr_sh_rest") else set()
    assert set(moved(approved, *LEARNING)) - {"engine/late-steps"} == {"engine/schedules"} | steps


def with_recipes(monkeypatch: pytest.MonkeyPatch, **changes: Callable[[Any], Any]) -> None:
    for name, recipe in list(RECIPES._items.items()):
        changed = {field: change(getattr(recipe, field)) for field, change in changes.items()}
        monkeypatch.setitem(RECIPES._items, name, replace(recipe, **changed))


@pytest.mark.parametrize("field", [field.name for field in fields(Recipe) if field.name != "name"])
def test_every_entry_of_a_recipe_is_seen(
    field: str, approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(value: Any) -> Any:
        if isinstance(value, bool):
            return not value
        if field == "sh_degree":
            return value - 1
        return value + 100 if isinstance(value, int) else 1.5 * value

    with_recipes(monkeypatch, **{field: change})
    assert "worse" in moved(approved, *LEARNING).values()


def test_harmonics_that_never_move_are_seen(approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch) -> None:
    move = FusedDescent.move

    def still(self: FusedDescent) -> bool:
        kept = self.params["sh_rest"].detach().clone()
        finite = move(self)
        self.params["sh_rest"].detach().copy_(kept)
        return finite

    monkeypatch.setattr(FusedDescent, "move", still)
    assert {"engine/late-steps", "engine/schedules"} <= set(moved(approved, *LEARNING))


def test_a_position_rate_that_never_decays_is_seen(
    approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Optimisation.__init__

    def undecayed(self: Optimisation, *arguments: Any) -> None:
        begin(self, *arguments)
        self.decay = 1.0

    monkeypatch.setattr(Optimisation, "__init__", undecayed)
    assert {"engine/schedules", "engine/steps"} <= set(moved(approved, *LEARNING))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("scales", lambda scales: scales * 1.001),
        ("opacities", lambda opacities: (opacities * 1.001).clamp(max=1)),
        ("quats", lambda quats: quats.roll(1, dims=1)),
    ],
)
def test_another_activation_is_seen(
    field: str, change: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    activated = Optimisation.gaussians

    def wrong(self: Optimisation, sh_degree: int) -> Gaussians:
        right = activated(self, sh_degree)
        return replace(right, **{field: change(getattr(right, field))})

    monkeypatch.setattr(Optimisation, "gaussians", wrong)
    assert descent._round_trip(descent.started("cpu"), "cpu") > 1e-4
    record = probe("engine/slopes", "cpu")
    assert record.status == "crashed", "the step activates by itself"
    assert "the training step's own gradient is" in record.reason


@pytest.mark.parametrize("sigma", [1.4, 1.6])
def test_another_window_is_seen(sigma: float, approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "SIGMA", sigma)
    monkeypatch.setattr(loss_module, "_WINDOW", loss_module.gaussian_window().numpy())
    assert set(moved(approved, "engine/loss", "engine/slopes")) == {"engine/loss", "engine/slopes"}


def test_another_background_is_seen(approved: dict[str, Golden], monkeypatch: pytest.MonkeyPatch) -> None:
    def over_white(gaussians: Gaussians, cameras: Cameras, background: Tensor, *rest: Any) -> Raster:
        return rasterise(gaussians, cameras, torch.ones_like(background), *rest)

    rendering_with(monkeypatch, over_white)
    assert set(moved(approved, "engine/forward", "engine/slopes")) == {"engine/forward", "engine/slopes"}


# failures


@pytest.mark.parametrize(
    ("error", "status"), [(NonFiniteError("rgb holds NaN"), "nonfinite"), (ZeroDivisionError("oh"), "crashed")]
)
def test_a_failure_becomes_the_status(error: Exception, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Raster:
        raise error

    monkeypatch.setattr(rendering, "rasterise", fail)
    found = probe("engine/forward", "cpu")
    assert (found.status, found.metrics) == (status, {})
    assert str(error) in found.reason


def test_a_number_that_is_not_finite_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "rasterise", changed_render(lambda r: replace(r, rgb=r.rgb * math.nan)))
    found = probe("engine/forward", "cpu")
    assert (found.status, found.metrics) == ("nonfinite", {})
    assert "mean-red is (nan" in found.reason
