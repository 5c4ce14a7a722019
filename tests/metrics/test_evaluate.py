"""`evaluate`: what is rendered, what is measured, what is said when it cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import UInt8
from torch import Tensor

from evalsuite.core.errors import NonFiniteError, ShapeError, WrongHashError
from evalsuite.core.types import Cameras, Render, Renderable, Views
from evalsuite.metrics import heldout as heldout_module
from evalsuite.metrics.evaluate import evaluate
from evalsuite.metrics.heldout import HeldOut
from evalsuite.metrics.image import flip, psnr, ssim
from evalsuite.metrics.perceptual import ALEX, BACKBONES, VGG, Backbone, lpips_distance
from evalsuite.metrics.spec import IMAGE_METRICS, METRICS
from evalsuite.records.schema import Reading, Record, loads
from evalsuite.scenes.rig import orbit_cameras

SIZE, VIEWS = 16, 4
BACKGROUND = torch.tensor([0.9, 0.5, 0.2])


@dataclass
class Shown:
    """A result that shows given images to `cameras`, whichever of them it is asked for."""

    cameras: Cameras
    rgb: Tensor
    alpha: Tensor
    asked: list[int] = field(default_factory=list)
    primitives: int = 1
    bytes: int = 0

    def render(self, cameras: Cameras, background: Tensor) -> Render:
        self.asked.append(len(cameras))
        assert torch.equal(background, BACKGROUND)
        poses = self.cameras.cam_from_world
        which = [int((poses == pose).all(dim=(1, 2)).nonzero()[0]) for pose in cameras.cam_from_world]
        return Render(self.rgb[which], self.alpha[which], torch.zeros_like(self.alpha[which]))


def measured(
    result: Renderable, views: Views, eight_bit: bool = True, backbones: Mapping[str, Backbone] = BACKBONES
) -> tuple[dict[str, Reading], UInt8[np.ndarray, "V H W 3"]]:
    return evaluate(result, HeldOut(views, BACKGROUND, eight_bit), backbones)


@pytest.fixture
def truth() -> Views:
    azimuth = torch.arange(VIEWS) * 70.0
    cameras = orbit_cameras(azimuth, torch.zeros(VIEWS), radius=1.5, fov_y_deg=49.1, resolution=SIZE)
    draw = torch.Generator().manual_seed(0)
    alpha = (3 * torch.rand(VIEWS, SIZE, SIZE, generator=draw) - 1).clamp(0, 1)
    return Views(torch.rand(VIEWS, SIZE, SIZE, 3, generator=draw), alpha, cameras)


def enlarged(truth: Views) -> Views:
    """Each pixel twice as wide and high: large enough for AlexNet."""
    assert truth.alpha is not None
    rgb, alpha = (t.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2) for t in (truth.rgb, truth.alpha))
    cameras = replace(truth.cameras, width=2 * SIZE, height=2 * SIZE)
    return Views(rgb, alpha, cameras)


def noisy(truth: Views, seed: int = 1) -> Shown:
    """The truth with noise that leaves [0, 1] in places."""
    draw = torch.Generator().manual_seed(seed)
    rgb = truth.over(BACKGROUND) + 0.3 * torch.randn(truth.rgb.shape, generator=draw)
    return Shown(truth.cameras, rgb, torch.rand(truth.rgb.shape[:3], generator=draw))


def test_a_perfect_result(truth: Views) -> None:
    assert truth.alpha is not None
    readings, images = measured(Shown(truth.cameras, truth.over(BACKGROUND), truth.alpha), truth)
    assert {name: reading.value for name, reading in readings.items()} == {
        "psnr": 100.0,
        "psnr-fg": 100.0,
        "ssim": pytest.approx(1.0),
        "alpha-iou": 1.0,
        "flip-67": 0.0,
        "lpips-alex": None,
        "lpips-vgg": None,
    }
    assert images.dtype == np.uint8
    assert np.array_equal(images, (truth.over(BACKGROUND) * 255).round().byte().numpy())


@pytest.mark.parametrize("eight_bit", [True, False])
def test_values_are_those_of_clamped_and_rounded_images(truth: Views, eight_bit: bool) -> None:
    result = noisy(truth)
    pred, true = result.rgb.clamp(0, 1), truth.over(BACKGROUND)
    if eight_bit:
        pred, true = ((image * 255).round() / 255 for image in (pred, true))
    readings, images = measured(result, truth, eight_bit)
    assert readings["psnr"].per_view == pytest.approx(psnr(pred, true).tolist(), abs=1e-9)
    assert readings["ssim"].per_view == pytest.approx(ssim(pred, true).tolist(), abs=1e-9)
    assert readings["flip-67"].per_view == pytest.approx(flip(pred, true).tolist(), abs=1e-9)
    assert readings["psnr"].value == pytest.approx(psnr(pred, true).mean().item(), abs=1e-9)
    assert np.array_equal(images, (result.rgb.clamp(0, 1) * 255).round().byte().numpy())


def test_eight_bits_hide_what_a_file_would_hide(truth: Views) -> None:
    grid = Views((truth.rgb * 255).round() / 255, torch.ones(truth.rgb.shape[:3]), truth.cameras)
    nearly = Shown(truth.cameras, grid.rgb + 0.4 / 255, torch.ones(truth.rgb.shape[:3]))
    assert measured(nearly, grid)[0]["psnr"].value == 100
    whole = measured(nearly, grid, eight_bit=False)[0]["psnr"].value
    assert whole == pytest.approx(-20 * math.log10(0.4 / 255), abs=0.1)


def test_views_are_rendered_one_at_a_time(truth: Views) -> None:
    result = noisy(truth)
    measured(result, truth)
    assert result.asked == [1] * VIEWS


def test_every_metric_is_read_with_its_version(truth: Views) -> None:
    readings, _ = measured(noisy(truth), truth)
    assert set(readings) == set(IMAGE_METRICS)
    for name, reading in readings.items():
        assert reading.version == METRICS[name].version
        if not METRICS[name].optional:
            assert (reading.status, reading.reason) == ("ok", "")
            assert len(reading.per_view) == VIEWS


def test_photographs_have_no_foreground(truth: Views) -> None:
    readings, _ = measured(noisy(truth), replace(truth, alpha=None))
    for name in ("psnr-fg", "alpha-iou"):
        assert readings[name] == Reading(None, (), METRICS[name].version, "unsupported", readings[name].reason)
        assert readings[name].reason.startswith("photographs have no true alpha")
    assert readings["psnr"].status == readings["ssim"].status == readings["flip-67"].status == "ok"


@pytest.mark.parametrize("name", BACKBONES)
def test_without_weights_lpips_is_missing_and_the_rest_goes_on(truth: Views, name: str) -> None:
    large = enlarged(truth)
    reading = measured(noisy(large), large)[0][name]
    assert (reading.value, reading.per_view, reading.status) == (None, (), "missing-data")
    assert reading.reason.endswith("run `evalsuite fetch lpips`")


def test_lpips_is_measured_on_what_an_image_file_would_hold(truth: Views, nets: Mapping[str, Backbone]) -> None:
    large = enlarged(truth)
    result = noisy(large)
    backbones = {name: nets[backbone.net] for name, backbone in BACKBONES.items()}
    readings, _ = measured(result, large, backbones=backbones)
    pred, true = ((image * 255).round() / 255 for image in (result.rgb.clamp(0, 1), large.over(BACKGROUND)))
    for name, backbone in backbones.items():
        assert readings[name].status == "ok"
        expected = lpips_distance(backbone, pred, true).tolist()
        assert readings[name].per_view == pytest.approx(expected, rel=1e-5)
        assert readings[name].value == pytest.approx(sum(expected) / VIEWS)


def test_views_too_small_for_a_backbone_are_unsupported(truth: Views, nets: Mapping[str, Backbone]) -> None:
    backbones = {"lpips-alex": nets["alex"], "lpips-vgg": nets["vgg"]}
    readings, _ = measured(noisy(truth), truth, backbones=backbones)
    assert readings["lpips-alex"].status == "unsupported"
    assert "16 x 16 px, expected at least 31 px" in readings["lpips-alex"].reason
    assert readings["lpips-vgg"].status == "ok"


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("backbone", [ALEX, VGG])
def test_look_alike_weights_are_an_error(truth: Views, backbone: Backbone) -> None:
    large = enlarged(truth)
    with pytest.raises(WrongHashError, match=backbone.file):
        measured(noisy(large), large, backbones={f"lpips-{backbone.net}": backbone})


def test_views_without_foreground_are_left_out(truth: Views) -> None:
    assert truth.alpha is not None
    alpha = truth.alpha.clone()
    alpha[1] = 0.5
    result = noisy(truth)
    whole = measured(result, truth)[0]["psnr-fg"]
    some = measured(result, replace(truth, alpha=alpha))[0]
    assert some["psnr-fg"].per_view == tuple(whole.per_view[k] for k in (0, 2, 3))
    assert some["psnr-fg"].value == pytest.approx(sum(some["psnr-fg"].per_view) / 3)
    assert len(some["psnr"].per_view) == VIEWS
    none = measured(result, replace(truth, alpha=alpha * 0))[0]
    assert (none["psnr-fg"].value, none["psnr-fg"].status) == (None, "unsupported")
    assert none["psnr-fg"].reason.startswith("no held-out view shows the object")
    assert none["alpha-iou"].status == "ok"


@given(order=st.permutations(range(VIEWS)))
@settings(max_examples=8, deadline=None)
def test_order_of_the_views_moves_no_mean(order: list[int]) -> None:
    cameras = orbit_cameras(torch.arange(VIEWS) * 70.0, torch.zeros(VIEWS), radius=1.5, fov_y_deg=49.1, resolution=SIZE)
    draw = torch.Generator().manual_seed(3)
    views = Views(
        torch.rand(VIEWS, SIZE, SIZE, 3, generator=draw), torch.rand(VIEWS, SIZE, SIZE, generator=draw), cameras
    )
    straight, images = measured(noisy(views), views)
    shuffled, moved = measured(noisy(views), views[order])
    for name in set(straight) - set(BACKBONES):
        assert shuffled[name].value == straight[name].value
        assert shuffled[name].per_view == tuple(straight[name].per_view[k] for k in order)
    assert np.array_equal(moved, images[order])


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_constant_and_empty_renders_are_legal(truth: Views, level: float) -> None:
    flat = Shown(truth.cameras, torch.full_like(truth.rgb, level), torch.zeros(VIEWS, SIZE, SIZE))
    readings, images = measured(flat, truth)
    assert all(reading.status == "ok" for name, reading in readings.items() if name not in BACKBONES)
    assert readings["alpha-iou"].value == 0
    assert (images == int(level * 255)).all()


@pytest.mark.parametrize("plane", ["rgb", "alpha"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_render_is_an_error(truth: Views, plane: str, bad: float) -> None:
    result = noisy(truth)
    getattr(result, plane)[2].view(-1)[7] = bad
    with pytest.raises(NonFiniteError, match=f"^{plane} rendered for held-out view 2 holds 1 NaN") as caught:
        measured(result, truth)
    assert caught.value.status == "nonfinite"


def test_a_result_may_carry_gradients_and_double_precision(truth: Views) -> None:
    result = noisy(truth)
    same = measured(result, truth)[0]
    result.rgb = result.rgb.double().requires_grad_()
    assert measured(result, truth)[0] == same


def test_a_render_of_another_size_is_refused(truth: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    # as installed: the annotations' runtime checker would answer first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    small = noisy(truth)
    small.rgb = small.rgb[:, 1:]
    with pytest.raises(ShapeError, match=r"^pred has shape"):
        measured(small, truth)


def test_truth_in_bytes_is_refused(truth: Views) -> None:
    with pytest.raises(ShapeError, match=r"^truth\.rgb ranges over"):
        measured(noisy(truth), replace(truth, rgb=truth.rgb * 255))


def test_truth_without_views_is_refused(truth: Views) -> None:
    with pytest.raises(ShapeError, match=r"^truth holds 0 views"):
        measured(noisy(truth), truth[:0])


def test_readings_survive_a_record(truth: Views) -> None:
    readings, _ = measured(noisy(truth), replace(truth, alpha=None))
    record = Record("x/a", "x", "thin", "a", None, 0, 0, "smoke", "p", "0" * 12, metrics=readings)
    assert loads(record.dumps(), "memory").metrics == readings


def test_a_truth_made_once_or_for_every_result_gives_the_same(truth: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results one after the other leave nothing behind in the truth; views too large to keep are made anew."""
    made: list[int] = []
    prepare = HeldOut._prepared

    def watched(self: HeldOut, number: int) -> heldout_module.TrueView:
        made.append(number)
        return prepare(self, number)

    monkeypatch.setattr(HeldOut, "_prepared", watched)
    expected = [measured(noisy(truth, seed), truth)[0] for seed in (1, 2)]
    made.clear()
    kept = HeldOut(truth, BACKGROUND, True)
    assert [evaluate(noisy(truth, seed), kept)[0] for seed in (1, 2)] == expected
    assert made == list(range(VIEWS))
    monkeypatch.setattr(heldout_module, "KEPT_BYTES", 32 * VIEWS * SIZE * SIZE - 1)
    large = HeldOut(truth, BACKGROUND, True)
    assert [evaluate(noisy(truth, seed), large)[0] for seed in (1, 2)] == expected
    assert made == list(range(VIEWS)) * 3
