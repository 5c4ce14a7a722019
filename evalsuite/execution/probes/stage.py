"""What probes look at, and how they hold a vector in a few numbers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from evalsuite.core.conventions import SH_C0, focal_from_fov, look_at, orbit_position
from evalsuite.core.errors import EvalsuiteError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG
from evalsuite.core.types import Cameras, Gaussians
from evalsuite.metrics.spec import DIRECTIONS

Numbers = Mapping[str, tuple[float, ...]]
"""By id of `PROBES`: one value per view, or a single one."""

TRUTH = 0.01
"""Relative error of a gradient beyond which no golden makes it right: float32 leaves 1e-4."""

SAME = 1e-4
"""Relative difference of two gradients of one function: float32 leaves 4e-6."""

_VEILS, _GAP = 10, 0.01


class WrongGradientError(EvalsuiteError):
    """A gradient contradicts the finite differences of what it is the gradient of."""


def uniform(name: str) -> Callable[..., Tensor]:
    """Draws ``(*shape, low, high)`` from a stream of its own name, the same on every machine."""
    stream = np.random.default_rng(zlib.crc32(name.encode()))  # its `random` alone: a fixed function of the bits

    def draw(*shape: int, low: float, high: float) -> Tensor:
        return torch.from_numpy((low + (high - low) * stream.random(shape)).astype(np.float32))

    return draw


def direction(name: str, index: int, shape: tuple[int, ...]) -> Tensor:
    """One of the fixed directions, float64, of entries with variance 1."""
    return uniform(f"{name} {index}")(*shape, low=-(3**0.5), high=3**0.5).double()


def vector(name: str, values: Tensor) -> dict[str, tuple[float, ...]]:
    """Natural log of the root mean square, and projections of the vector of length 1 on `DIRECTIONS` directions.

    Projections are about 1, and see signs, swapped entries and shares; any relative change moves them by as much.
    """
    flat = values.detach().double().cpu()
    length = flat.norm()
    numbers: dict[str, tuple[float, ...]] = {f"{name}-size": (float((length / flat.numel() ** 0.5).log()),)}
    for index in range(1, DIRECTIONS + 1):
        along = (flat * direction(name, index, tuple(flat.shape))).sum() / length
        numbers[f"{name}-{index}"] = (float(along),)
    return numbers


def slope_error(name: str, gradient: Tensor, step: float, value: Callable[[Tensor], float]) -> float:
    """Largest difference of a gradient from finite differences, relative to the gradient's length.

    Args:
        step: length of the step along a direction, per entry.
        value: of the function at an offset (float64, of the gradient's shape) from where the gradient was taken.

    Raises:
        WrongGradientError: it is beyond `TRUTH`.
    """
    gradient = gradient.detach().double().cpu()
    length, worst = float(gradient.norm()), 0.0
    for index in range(1, DIRECTIONS + 1):
        along = direction(name, index, tuple(gradient.shape))
        near, far = (value(s * along) - value(-s * along) for s in (step, 2 * step))
        expected, found = (8 * near - far) / (12 * step), float((gradient * along).sum())
        worst = max(worst, abs(found - expected) / max(length, 1e-30))
        if not worst <= TRUTH:
            raise WrongGradientError(
                f"{name}: the gradient along direction {index} is {found:.6g}, finite differences say {expected:.6g} "
                f"(length {length:.3g}); a kernel's backward pass does not belong to its forward pass"
            )
    return worst


def require_same(name: str, found: Tensor, expected: Tensor) -> None:
    """Hold the gradient that a training step uses to the one that autograd gives of the renderer.

    Raises:
        WrongGradientError: they differ by more than `SAME` of the length.
    """
    difference = float((found - expected).double().norm() / expected.double().norm().clamp_min(1e-30))
    if not difference <= SAME:
        raise WrongGradientError(
            f"{name}: the training step's own gradient is {difference:.3g} of its length away from autograd's, "
            f"expected at most {SAME:g}: the fused step does not belong to the renderer"
        )


def bands(name: str, views: int, height: int, width: int, channels: int) -> Tensor:
    """Waves across every channel of every view, [V, H, W, C] in [-1, 1]: broad, so that gradients are large."""
    draw = uniform(name)
    column, row = torch.arange(width)[:, None] / width, torch.arange(height)[:, None, None] / height
    across, down, phase = (draw(views, 1, 1, channels, low=-7.0, high=7.0) for _ in range(3))
    return torch.sin(across * column + down * row + phase)


def crowd() -> Gaussians:
    """Many small, anisotropic, view-dependent Gaussians in a ball of radius 0.5: tiles, cuts and culling matter."""
    count, draw = 400, uniform("crowd")
    directions = torch.nn.functional.normalize(draw(count, 3, low=-1.0, high=1.0), dim=-1)
    sh = draw(count, 16, 3, low=-0.15, high=0.15)
    sh[:, 0] = (draw(count, 3, low=0.1, high=0.9) - 0.5) / SH_C0
    return Gaussians(
        means=directions * draw(count, 1, low=0.1, high=0.5),
        quats=torch.nn.functional.normalize(draw(count, 4, low=-1.0, high=1.0), dim=-1),
        scales=draw(count, 3, low=0.01, high=0.09),
        opacities=draw(count, low=0.1, high=0.95),
        sh=sh,
    )


def veils() -> Gaussians:
    """A dozen wide Gaussians that cover every pixel of `veil_cameras`, apart in depth from each of them.

    No alpha falls below the cut, no pixel stops early, no colour is clamped, and a small change of any parameter alters
    no order: images, and what is computed from them, are smooth.
    """
    draw = uniform("veils")
    sh = draw(_VEILS, 16, 3, low=-0.03, high=0.03)
    sh[:, 0] = (draw(_VEILS, 3, low=0.5, high=0.9) - 0.5) / SH_C0
    return Gaussians(
        means=_apart(draw, veil_cameras()),
        quats=torch.nn.functional.normalize(draw(_VEILS, 4, low=-1.0, high=1.0), dim=-1),
        scales=draw(_VEILS, 3, low=0.25, high=0.6),
        opacities=draw(_VEILS, low=0.15, high=0.45),
        sh=sh,
    )


def _apart(draw: Callable[..., Tensor], seen_from: Cameras) -> Tensor:
    """Places in a cube, no two of which are within `_GAP` in depth from any camera."""
    axes = seen_from.cam_from_world[:, 2, :3]
    chosen: list[Tensor] = []
    while len(chosen) < _VEILS:
        place = draw(3, low=-0.15, high=0.15)
        if all(float((axes @ (place - other)).abs().min()) > _GAP for other in chosen):
            chosen.append(place)
    return torch.stack(chosen)


def disturbed(gaussians: Gaussians) -> Gaussians:
    """The same splat nearer to its centre, smaller, thinner and darker, by fixed amounts."""
    return replace(
        gaussians,
        means=gaussians.means * 0.97,
        scales=gaussians.scales * 0.9,
        opacities=gaussians.opacities * 0.8,
        sh=gaussians.sh - 0.1,
    )


def leaves(gaussians: Gaussians) -> dict[str, Tensor]:
    """Every field by its name, as leaves of a graph."""
    return {f.name: getattr(gaussians, f.name).detach().clone().requires_grad_() for f in fields(Gaussians)}


def crowd_cameras() -> Cameras:
    """Four views of 64 x 48 pixels: not square, so that axes cannot be confused."""
    return _around(64, 48, 1.0)


def veil_cameras() -> Cameras:
    """Four views of 40 x 32 pixels through a longer lens: tiles are cut at one edge, and no veil ends in sight."""
    return _around(40, 32, 2.5)


def _around(width: int, height: int, zoom: float) -> Cameras:
    """Views from two elevations."""
    poses = [
        look_at(orbit_position(azimuth, 25.0 if azimuth else -10.0, CAMERA_RADIUS))
        for azimuth in (0.0, 80.0, 170.0, 260.0)
    ]
    focal, count = zoom * focal_from_fov(FOV_Y_DEG, height), len(poses)
    principal = torch.tensor([width / 2, height / 2]).expand(count, 2).contiguous()
    return Cameras(torch.stack(poses), torch.full((count, 2), focal), principal, width, height)


def background() -> Tensor:
    """Three different levels: a mix-up of channels shows in empty pixels too."""
    return torch.tensor([1.0, 0.8, 0.6])
