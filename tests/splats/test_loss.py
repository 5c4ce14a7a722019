"""The fused CPU loss against plain torch, in value and in gradient."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from evalsuite.splats.loss import gaussian_window, loss_torch, photometric_loss

SIZES = ((11, 11), (11, 64), (64, 11), (12, 13), (37, 21), (24, 24), (13, 130))
WEIGHTS = (0.0, 0.2, 1.0)


def images(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An image and a target that resembles it; a part of both is equal, as a background is."""
    draw = torch.Generator().manual_seed(1000 * seed + 50 * height + width)
    rgb = torch.rand(height, width, 3, generator=draw)
    target = (rgb + 0.3 * torch.randn(height, width, 3, generator=draw)).clamp(0, 1)
    target[: height // 3] = rgb[: height // 3]
    return rgb.requires_grad_(), target


def value_and_gradient(loss: Tensor, rgb: Tensor) -> tuple[float, Tensor]:
    (gradient,) = torch.autograd.grad(loss, rgb)
    return loss.item(), gradient


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("size", SIZES)
def test_the_kernel_is_the_formula(size: tuple[int, int], weight: float) -> None:
    rgb, target = images(*size)
    value, gradient = value_and_gradient(photometric_loss(rgb, target, weight), rgb)
    exact = rgb.detach().double().requires_grad_()
    expected, slope = value_and_gradient(loss_torch(exact, target.double(), weight), exact)
    assert value == pytest.approx(expected, rel=1e-5, abs=1e-6)
    # 1e-6 is a thousandth of an ordinary entry: 1 / (H W 3)
    torch.testing.assert_close(gradient.double(), slope, rtol=2e-3, atol=2e-3 * float(slope.abs().mean()))


@pytest.mark.parametrize("weight", WEIGHTS)
def test_plain_black_and_white(weight: float) -> None:
    """No variance anywhere: only the constants keep SSIM defined."""
    rgb, target = torch.zeros(16, 16, 3, requires_grad=True), torch.ones(16, 16, 3)
    value, gradient = value_and_gradient(photometric_loss(rgb, target, weight), rgb)
    assert value == pytest.approx(1 - weight * 0.01**2 / (1 + 0.01**2), rel=1e-5)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("weight", WEIGHTS)
def test_equal_images_have_no_loss_and_no_slope(weight: float) -> None:
    rgb, _ = images(20, 17)
    value, gradient = value_and_gradient(photometric_loss(rgb, rgb.detach().clone(), weight), rgb)
    assert value == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0)


def test_the_slope_is_that_of_the_value() -> None:
    """Central differences of the fused value along random directions."""
    rgb, target = images(15, 19, seed=3)
    target = target + 0.05 * torch.sign(target - rgb.detach() + 1e-3)  # keep |x - y| off its kink
    _, gradient = value_and_gradient(photometric_loss(rgb, target, 0.2), rgb)
    for seed in range(3):
        direction = torch.randn(15, 19, 3, generator=torch.Generator().manual_seed(seed))
        step = 0.01 * direction / direction.abs().max()
        ahead, behind = (photometric_loss(rgb.detach() + s * step, target, 0.2).item() for s in (1, -1))
        assert (ahead - behind) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.02, abs=2e-6)


def test_ssim_is_that_of_scikit_image() -> None:
    rgb, target = (image.detach() for image in images(40, 33))
    _, full = structural_similarity(
        rgb.double().numpy(),
        target.double().numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=2,
        full=True,
    )
    valid = full[5:-5, 5:-5].mean()
    assert photometric_loss(rgb, target, 1.0).item() == pytest.approx(1 - valid, abs=1e-5)


@pytest.mark.parametrize("size", [(10, 64), (64, 10), (1, 1), (10, 10)])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_an_image_smaller_than_the_window_has_l1_alone(size: tuple[int, int], weight: float) -> None:
    rgb, target = images(*size)
    loss = photometric_loss(rgb, target, weight)
    assert loss.item() == pytest.approx((rgb - target).abs().mean().item())
    (gradient,) = torch.autograd.grad(loss, rgb)
    torch.testing.assert_close(gradient, torch.sign(rgb - target).detach() / rgb.numel())


def test_the_weight_mixes_linearly() -> None:
    rgb, target = images(30, 30)
    zero, one, mixed = (photometric_loss(rgb, target, weight).item() for weight in (0.0, 1.0, 0.3))
    assert mixed == pytest.approx(0.7 * zero + 0.3 * one, rel=1e-5)


def test_a_factor_on_the_loss_is_one_on_the_gradient() -> None:
    rgb, target = images(20, 20)
    (plain,) = torch.autograd.grad(photometric_loss(rgb, target, 0.2), rgb)
    (tripled,) = torch.autograd.grad(3 * photometric_loss(rgb, target, 0.2), rgb)
    torch.testing.assert_close(tripled, 3 * plain)


def test_images_need_not_be_contiguous() -> None:
    rgb, target = images(22, 18)
    (straight,) = torch.autograd.grad(photometric_loss(rgb, target, 0.2), rgb)
    flipped = rgb.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    (strided,) = torch.autograd.grad(photometric_loss(flipped, target.flip(0).flip(0), 0.2), flipped)
    torch.testing.assert_close(strided, straight)


def test_arguments_are_not_touched() -> None:
    rgb, target = images(20, 20)
    before = rgb.detach().clone(), target.clone()
    photometric_loss(rgb, target, 0.2).backward()
    assert torch.equal(rgb.detach(), before[0])
    assert torch.equal(target, before[1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_bad_pixel_shows_in_the_loss(bad: float, weight: float) -> None:
    """The kernels are compiled with fastmath, which may assume that there is no NaN; `optimise` relies on one."""
    rgb, target = images(24, 24)
    broken = rgb.detach().clone()
    broken[12, 12, 1] = bad
    assert not math.isfinite(photometric_loss(broken, target, weight).item())


def test_the_window_is_a_gaussian_that_sums_to_one() -> None:
    window = gaussian_window()
    assert window.shape == (11,)
    assert float(window.sum()) == pytest.approx(1)
    assert float(window[5] / window[2]) == pytest.approx(math.exp(9 / (2 * 1.5**2)))
    assert torch.equal(window, window.flip(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is False")
@pytest.mark.parametrize("size", [(11, 11), (37, 21), (10, 40)])
def test_both_devices_agree(size: tuple[int, int]) -> None:
    rgb, target = images(*size)
    value, gradient = value_and_gradient(photometric_loss(rgb, target, 0.2), rgb)
    there = rgb.detach().cuda().requires_grad_()
    on_gpu, slope = value_and_gradient(photometric_loss(there, target.cuda(), 0.2), there)
    assert on_gpu == pytest.approx(value, rel=1e-4)
    torch.testing.assert_close(slope.cpu(), gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().mean()))
