"""How published numbers came to disagree: each choice, by how much it moves the number, and which one is ours.

The sources of the disagreements are user reports and evaluators' code: JPEG or float, pooled or averaged decibels,
borders of SSIM, white canvas, premultiplied alpha, LPIPS' range and net, resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import flip_evaluator
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from torchmetrics.functional.image import structural_similarity_index_measure

from evalsuite.core.errors import ShapeError
from evalsuite.core.protocol import PROTOCOLS, Rig
from evalsuite.core.types import Cameras, Render, Views
from evalsuite.metrics.evaluate import evaluate
from evalsuite.metrics.heldout import HeldOut
from evalsuite.metrics.image import flip, psnr, psnr_fg, ssim
from evalsuite.records.schema import Reading
from evalsuite.scenes.rig import orbit_cameras

WHITE = torch.ones(3)


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def photograph(seed: int = 0, views: int = 1, size: int = 64) -> Tensor:
    """Structure at several scales, well inside [0, 1]; not on the 8-bit grid."""
    planes = [interpolate(random(seed + k, views, 3, 2**k, 2**k), (size, size), mode="bilinear") for k in (1, 3, 5)]
    return (0.1 + 0.8 * torch.stack(planes).mean(dim=0)).permute(0, 2, 3, 1).contiguous()


def disc(size: int = 64, share: float = 0.25) -> Tensor:
    """Silhouette of a disc that covers about ``share`` of the image, soft at its edge, [1, H, W]."""
    y, x = torch.meshgrid(*2 * [torch.arange(size) + 0.5 - size / 2], indexing="ij")
    return (size * math.sqrt(share / math.pi) + 0.5 - (x**2 + y**2).sqrt()).clamp(0, 1)[None]


@dataclass(frozen=True)
class Shown:
    """A result that shows one image after the other, as `evaluate` asks for view after view."""

    rgb: Tensor
    alpha: Tensor
    cameras: Cameras
    primitives: int = 1
    bytes: int = 0

    def render(self, cameras: Cameras, background: Tensor) -> Render:
        same = (self.cameras.cam_from_world == cameras.cam_from_world).all(dim=(1, 2))
        return Render(self.rgb[same], self.alpha[same], torch.zeros_like(self.alpha[same]))


def measured(pred: Tensor, true: Tensor, alpha: Tensor | None = None, eight_bit: bool = True) -> dict[str, Reading]:
    """Readings of images against a truth over white, as the suite takes them."""
    views, size = true.shape[0], true.shape[1]
    cameras = orbit_cameras(torch.arange(views) * 9.0, torch.zeros(views), radius=1.5, fov_y_deg=49.1, resolution=size)
    alpha = torch.ones(true.shape[:3]) if alpha is None else alpha
    return evaluate(Shown(pred, alpha, cameras), HeldOut(Views(true, alpha, cameras), WHITE, eight_bit))[0]


def at_decibels(true: Tensor, levels: Sequence[float]) -> Tensor:
    """Each view off by white noise of the given PSNR."""
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(5))
    return true + noise * 10 ** (-torch.tensor(levels) / 20)[:, None, None, None]


def test_mean_of_decibels_is_not_decibels_of_the_mean() -> None:
    """An uneven set of views: 26.6 dB or 23.6 dB of the same five images."""
    levels = (34.0, 30.0, 22.0, 28.0, 19.0)
    true = photograph(views=5)
    reading = measured(true + 10 ** (-torch.tensor(levels) / 20)[:, None, None, None] * 0.999, true, eight_bit=False)
    found = reading["psnr"]
    assert found.per_view == pytest.approx(levels, abs=0.02)
    assert found.value == pytest.approx(sum(levels) / 5, abs=0.02)
    pooled = -10 * math.log10(sum(10 ** (-level / 10) for level in found.per_view) / 5)
    assert found.value - pooled == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize(("level", "cost"), [(30.0, 0.0056), (40.0, 0.056)])
def test_eight_bits_cost_little_at_thirty_decibels_and_more_above(level: float, cost: float) -> None:
    """Rounding one side adds noise of variance 1 / (12 x 255^2): a ceiling of 58.9 dB. Ours rounds both sides."""
    assert 10 * math.log10(12 * 255**2) == pytest.approx(58.92, abs=0.01)
    true = photograph(size=512)
    pred = at_decibels(true, [level]).clamp(0, 1)
    stored, truth = ((image * 255).round() / 255 for image in (pred, true))
    floats = psnr(pred, true).item()
    assert floats - psnr(stored, true).item() == pytest.approx(cost, rel=0.15)
    assert floats - psnr(stored, truth).item() == pytest.approx(2 * cost, rel=0.15)
    corner = slice(None), slice(32), slice(32)
    ours = measured(pred[corner], true[corner])["psnr"].value
    assert ours == pytest.approx(psnr(stored[corner], truth[corner]).item(), abs=1e-9)
    assert ours != pytest.approx(psnr(pred[corner], true[corner]).item(), abs=1e-3)


def test_a_perfect_float_image_scores_the_ceiling_where_only_one_side_was_stored() -> None:
    true = photograph(size=160)
    assert psnr((true * 255).round() / 255, true).item() == pytest.approx(58.92, abs=0.1)
    assert measured(true, true)["psnr"].value == 100


def zero_padded_ssim(pred: Tensor, true: Tensor) -> float:
    """As the 3DGS evaluator has it: the window hangs over the border, where there are zeros."""
    g = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = (torch.outer(g, g) / g.sum() ** 2).expand(3, 1, 11, 11)

    def blur(t: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(t, window, padding=5, groups=3)

    x, y = (t.double().permute(0, 3, 1, 2) for t in (pred, true))
    mx, my = blur(x), blur(y)
    upper = (2 * mx * my + 1e-4) * (2 * (blur(x * y) - mx * my) + 9e-4)
    lower = (mx**2 + my**2 + 1e-4) * (blur(x * x) - mx**2 + blur(y * y) - my**2 + 9e-4)
    return float((upper / lower).mean())


def skimage_ssim(pred: Tensor, true: Tensor, **settings: Any) -> tuple[float, np.ndarray]:
    """scikit-image's mean and its field."""
    mean, field = structural_similarity(  # type: ignore[no-untyped-call]
        pred[0].double().numpy(), true[0].double().numpy(), channel_axis=2, data_range=1, full=True, **settings
    )
    return float(mean), field


GAUSSIAN: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5}


def test_ssim_depends_on_what_lies_beyond_the_border() -> None:
    true = photograph(3)
    pred = (true + 0.2 * (random(9, *true.shape) - 0.5)).clamp(0, 1)
    ours = ssim(pred, true).item()
    _, field = skimage_ssim(pred, true, **GAUSSIAN, use_sample_covariance=False)
    assert ours == pytest.approx(field[5:-5, 5:-5].mean(), abs=1e-10), "only where the window fits"
    assert zero_padded_ssim(pred, true) - ours == pytest.approx(0.069, abs=0.001)
    first, second = (image.permute(0, 3, 1, 2) for image in (pred, true))
    reflected = structural_similarity_index_measure(first, second, data_range=1.0)
    assert abs(reflected.item() - ours) > 5e-4


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_zero_padding_flatters_an_object_on_a_plain_background(level: float) -> None:
    """An object's error on a background that is right: borders beyond the image add nothing but perfect terms."""
    alpha = disc()[..., None]
    true = photograph() * alpha + level * (1 - alpha)
    pred = true + 0.2 * (random(9, *true.shape) - 0.5) * alpha
    assert zero_padded_ssim(pred, true) - ssim(pred, true).item() == pytest.approx(0.0276, abs=0.001)


def test_ssim_depends_on_covariance_window_and_range() -> None:
    true = photograph(3)
    pred = (true + 0.2 * (random(9, *true.shape) - 0.5)).clamp(0, 1)
    ours = ssim(pred, true).item()
    sample, _ = skimage_ssim(pred, true, **GAUSSIAN, use_sample_covariance=True)
    population, _ = skimage_ssim(pred, true, **GAUSSIAN, use_sample_covariance=False)
    uniform, _ = skimage_ssim(pred, true, win_size=7)
    assert ours == pytest.approx(population, abs=1e-10), "scikit-image crops its borders already"
    assert abs(sample - population) > 1e-5
    assert abs(uniform - ours) > 5e-3
    first, second = (image.permute(0, 3, 1, 2) for image in (0.5 * pred, 0.5 * true))
    guessed = structural_similarity_index_measure(first, second)  # the range is taken from the batch
    stated = structural_similarity_index_measure(first, second, data_range=1.0)
    assert abs(guessed.item() - stated.item()) > 0.02
    with pytest.raises(ShapeError, match="ranges over"):
        ssim(pred * 255, true * 255)


@pytest.mark.parametrize(("share", "gain"), [(0.15, 8.2), (0.25, 6.0), (0.38, 4.2)])
def test_a_white_canvas_raises_psnr_by_its_share(share: float, gain: float) -> None:
    """-10 log10 of the object's share, when the canvas is exactly right: 6 dB for nothing at a quarter."""
    mask = disc(128, share) > 0.5
    covered = mask.float().mean().item()
    true = torch.where(mask[..., None], photograph(size=128), 1.0)
    pred = torch.where(mask[..., None], (true + 0.1 * (random(8, *true.shape) - 0.5)).clamp(0, 1), 1.0)
    readings = measured(pred, true, mask.float())
    full, inside = readings["psnr"].value, readings["psnr-fg"].value
    assert full is not None
    assert inside is not None
    assert full - inside == pytest.approx(-10 * math.log10(covered), abs=0.01)
    assert full - inside == pytest.approx(gain, abs=0.1)
    assert inside == pytest.approx(psnr_fg((pred * 255).round() / 255, (true * 255).round() / 255, mask).item())


def test_premultiplied_colours_read_as_straight_leave_a_dark_rim() -> None:
    alpha = disc(share=0.3)
    straight = photograph() * 0.3 + 0.6
    shown = straight * alpha[..., None] + 1 - alpha[..., None]
    assert measured(shown, straight, alpha)["psnr"].value == 100, "truth is straight, composited once"
    twice = measured(shown, straight * alpha[..., None], alpha)
    assert twice["psnr"].value == pytest.approx(32.0, abs=0.1)
    rim = (alpha > 0) & (alpha < 1)
    composited = (straight * alpha[..., None]) * alpha[..., None] + 1 - alpha[..., None]
    assert (composited < shown - 0.05)[rim].any(), "darker"
    assert torch.equal(composited[~rim], shown[~rim])


def test_another_background_on_one_side_is_another_number() -> None:
    alpha = disc(share=0.3)
    straight = photograph()
    on_black = straight * alpha[..., None]
    reading = measured(on_black, straight, alpha)
    assert reading["psnr"].value == pytest.approx(-10 * math.log10(0.7), abs=0.2)
    assert reading["psnr-fg"].value is not None
    assert reading["psnr-fg"].value > 20, "the object itself is right but for its rim"


def test_a_smaller_image_is_an_easier_one() -> None:
    """Box-averaging by two quarters the variance of white noise: 6 dB; so resolution is part of the protocol."""
    true = photograph(size=256)
    pred = at_decibels(true, [25.0])
    small = [avg_pool2d(image.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1) for image in (pred.clamp(0, 1), true)]
    assert psnr(*small).item() - psnr(pred.clamp(0, 1), true).item() == pytest.approx(6.02, abs=0.1)
    protocol = PROTOCOLS["object-128"]
    assert replace(protocol, rig=Rig(resolution=64)).hash != protocol.hash


def test_flip_depends_on_the_distance_to_the_screen() -> None:
    true = photograph(3)
    pred = (true + 0.3 * (random(9, *true.shape) - 0.5)).clamp(0, 1)
    near = flip_evaluator.evaluate(true[0].numpy(), pred[0].numpy(), "LDR", applyMagma=False, parameters={"ppd": 30.0})[
        1
    ]
    ours = flip(pred, true).item()
    assert abs(near - ours) > 0.1 * ours
