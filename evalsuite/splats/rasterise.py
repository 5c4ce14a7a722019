"""One `rasterise` for every arm: gsplat on CUDA, our Numba engine with gsplat's semantics on CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from evalsuite.core.errors import NonFiniteError, ShapeError
from evalsuite.core.types import Cameras, Gaussians
from evalsuite.splats.cpu import compositor, harmonics, projection
from evalsuite.splats.cpu.blending import Image, TableMemory, blend, gradient_tables, tile_count


@dataclass(frozen=True)
class RasterSettings:
    """Constants of the image formation; the defaults are gsplat's.

    Attributes:
        near_plane, far_plane: Gaussians whose centre is outside this range of camera z are culled.
        eps2d: variance in pixels squared added to every projected Gaussian (its low-pass filter).
        antialiased: scale opacity so that the low-pass filter keeps the total (Yu et al. 2024, Mip-Splatting).
        absgrad: the backward pass also leaves, as ``means2d.absgrad``, the sums over pixels of the absolute screen
            gradients (Ye et al. 2024, AbsGS).
    """

    near_plane: float = 0.01
    far_plane: float = 1e10
    eps2d: float = 0.3
    antialiased: bool = False
    absgrad: bool = False


@dataclass(frozen=True)
class Raster:
    """Images and what density control needs to know of them.

    Attributes:
        rgb: over the background, not clamped.
        depth: expected camera z, alpha-normalised; 0 where alpha is 0.
        means2d: projected centres in pixels, part of the autograd graph (call ``retain_grad``).
        radii: half-width and half-height in whole pixels of the box a Gaussian can reach; 0 if culled.
    """

    rgb: Float[Tensor, "V H W 3"]
    alpha: Float[Tensor, "V H W"]
    depth: Float[Tensor, "V H W"]
    means2d: Float[Tensor, "V N 2"]
    radii: Int[Tensor, "V N 2"]


def rasterise(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"],
    settings: RasterSettings = RasterSettings(),
) -> Raster:
    """Render Gaussians from every camera; differentiable in all fields of ``gaussians`` and in ``background``.

    Kerbl et al. 2023 with the semantics of gsplat 1.5.3: 2D covariance + eps2d, alpha cut 1/255 and ceiling 0.999,
    a pixel stops before the Gaussian that would take its transmittance to 1e-4 or below, ties in depth by index.

    Raises:
        ShapeError: a field has a shape or dtype other than documented in `Gaussians`.
        NonFiniteError: a field holds NaN or infinity.
    """
    _check(gaussians, background)
    if gaussians.means.is_cuda:
        return _rasterise_cuda(gaussians, cameras, background, settings)
    return _rasterise_cpu(gaussians, cameras, background, settings)


def _check(gaussians: Gaussians, background: Tensor) -> None:
    n = gaussians.means.shape[0]
    k = gaussians.sh.shape[1] if gaussians.sh.ndim == 3 else -1
    expected = {"means": (n, 3), "quats": (n, 4), "scales": (n, 3), "opacities": (n,), "sh": (n, k, 3)}
    for name, shape in expected.items():
        value = getattr(gaussians, name)
        if tuple(value.shape) != shape or (name == "sh" and k not in (1, 4, 9, 16)):
            raise ShapeError(f"{name} has shape {tuple(value.shape)}, expected {shape} with K in 1, 4, 9, 16")
        if value.dtype != torch.float32:
            raise ShapeError(f"{name} is {value.dtype}, expected torch.float32: call .float()")
        if not _finite(value):
            raise NonFiniteError(f"{name} holds NaN or infinity, expected finite values: check the last update")
    if tuple(background.shape) != (3,) or background.dtype != torch.float32:
        raise ShapeError(f"background is {background.dtype} {tuple(background.shape)}, expected 3 torch.float32 values")
    if not _finite(background):
        raise NonFiniteError("background holds NaN or infinity, expected sRGB values: check the protocol")


def _finite(values: Tensor) -> bool:
    # one fast pass: a sum is finite only if all terms are; if not, it may still have overflowed
    return math.isfinite(float(values.detach().sum())) or bool(torch.isfinite(values).all())


def _rasterise_cuda(
    gaussians: Gaussians, cameras: Cameras, background: Tensor, settings: RasterSettings
) -> Raster:  # pragma: no cover  (needs a GPU)
    from gsplat import rasterization  # compiles its extension on first use

    image, alpha, info = rasterization(
        means=gaussians.means,
        quats=gaussians.quats,
        scales=gaussians.scales,
        opacities=gaussians.opacities,
        colors=gaussians.sh,
        viewmats=cameras.cam_from_world,
        Ks=cameras.intrinsics,
        width=cameras.width,
        height=cameras.height,
        near_plane=settings.near_plane,
        far_plane=settings.far_plane,
        eps2d=settings.eps2d,
        sh_degree=gaussians.sh_degree,
        packed=False,
        backgrounds=background.expand(len(cameras), 3),
        render_mode="RGB+ED",
        rasterize_mode="antialiased" if settings.antialiased else "classic",
        absgrad=settings.absgrad,
    )
    return Raster(image[..., :3], alpha[..., 0], image[..., 3], info["means2d"], info["radii"])


def _rasterise_cpu(gaussians: Gaussians, cameras: Cameras, background: Tensor, settings: RasterSettings) -> Raster:
    lens = _Lens.of(cameras)
    g = gaussians
    means2d, splats = _Project.apply(g.means, g.quats, g.scales, g.opacities, g.sh, lens, settings)
    rgb, alpha, depth = _Composite.apply(means2d, splats, background, lens, settings)
    radii = splats.detach()[..., projection.HALF_WIDTH :].ceil().int()
    return Raster(rgb, alpha, depth / alpha.clamp(min=1e-10), means2d, radii)


@dataclass(frozen=True)
class _Lens:
    """Cameras as the kernels read them: float64 arrays and sizes."""

    views: np.ndarray
    positions: np.ndarray
    focal: np.ndarray
    centre: np.ndarray
    width: int
    height: int

    @classmethod
    def of(cls, cameras: Cameras) -> _Lens:
        def array(t: Tensor) -> np.ndarray:
            return t.detach().double().contiguous().numpy()

        views = array(cameras.cam_from_world)
        rotation, translation = views[:, :3, :3], views[:, :3, 3]
        positions = -np.einsum("vji,vj->vi", rotation, translation)
        return cls(views, positions, array(cameras.focal_px), array(cameras.centre_px), cameras.width, cameras.height)


def _np(t: Tensor) -> np.ndarray:
    return t.detach().contiguous().numpy()


class _Project(torch.autograd.Function):
    """Gaussians to splats of every camera (see `evalsuite.splats.cpu.projection` and `.harmonics`)."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, sh: Tensor,
                lens: _Lens, settings: RasterSettings) -> tuple[Tensor, Tensor]:  # fmt: skip
        splats = torch.empty(len(lens.views), len(means), projection.COLUMNS)
        s = settings
        for i, view in enumerate(lens.views):
            projection.project_forward(
                _np(means), _np(quats), _np(scales), _np(opacities), view, lens.focal[i], lens.centre[i],
                lens.width, lens.height, s.near_plane, s.far_plane, s.eps2d, s.antialiased, splats[i].numpy(),
            )  # fmt: skip
            harmonics.colours_forward(_np(means), _np(sh), lens.positions[i], splats[i].numpy())
        ctx.save_for_backward(means, quats, scales, opacities, sh, splats)
        ctx.lens, ctx.settings = lens, settings
        return splats[..., : projection.MEAN_Y + 1].clone(), splats

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        means, quats, scales, opacities, sh, splats = ctx.saved_tensors
        v_means2d, v_splats = (_np(c) for c in cotangents)
        grads = [torch.zeros(t.shape) for t in (means, quats, scales, opacities, sh)]
        v_means, v_quats, v_scales, v_opacities, v_sh = (g.numpy() for g in grads)
        lens, s = ctx.lens, ctx.settings
        for i, view in enumerate(lens.views):
            projection.project_backward(
                _np(means), _np(quats), _np(scales), _np(opacities), view, lens.focal[i], lens.centre[i],
                lens.width, lens.height, s.eps2d, s.antialiased, splats[i].numpy(), v_means2d[i], v_splats[i],
                v_means, v_quats, v_scales, v_opacities,
            )  # fmt: skip
            harmonics.colours_backward(
                _np(means), _np(sh), lens.positions[i], splats[i].numpy(), v_splats[i], v_sh, v_means
            )
        return *grads, None, None


class _Composite(torch.autograd.Function):
    """Tile lists and blending (see `evalsuite.splats.cpu.blending`).

    The gradient of the projected centres leaves through ``means2d``, whose values are in ``splats`` too, so that
    density control can look at it.
    """

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, splats: Tensor, background: Tensor,
                lens: _Lens, settings: RasterSettings) -> tuple[Tensor, ...]:  # fmt: skip
        v, (h, w) = len(lens.views), (lens.height, lens.width)
        rgb, alpha, depth = torch.empty(v, h, w, 3), torch.empty(v, h, w), torch.empty(v, h, w)
        images = [Image(*(t[i].numpy() for t in (rgb, alpha, depth))) for i in range(v)]
        ctx.lists = [blend(splats[i].numpy(), _np(background), image) for i, image in enumerate(images)]
        ctx.save_for_backward(means2d, splats, background, rgb, alpha, depth)
        ctx.lens, ctx.settings = lens, settings
        return rgb, alpha, depth

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        means2d, splats, background, rgb, alpha, depth = ctx.saved_tensors
        images, v_images = ([Image(*(_np(t[i]) for t in some)) for i in range(len(splats))]
                            for some in ((rgb, alpha, depth), cotangents))  # fmt: skip
        v_splats, v_background = torch.zeros(splats.shape), torch.zeros(3)
        v_absolute = torch.zeros(*splats.shape[:2], 2)
        memory = TableMemory()
        for i, lists in enumerate(ctx.lists):
            rows, by_tile = splats[i].numpy(), np.zeros((tile_count(images[i]), 3), np.float32)
            for offsets, table in gradient_tables(
                rows, _np(background), images[i], v_images[i], lists, ctx.settings.absgrad, by_tile, memory
            ):
                compositor.reduce_table(offsets, table, rows, v_splats[i].numpy(), v_absolute[i].numpy())
            v_background += torch.from_numpy(by_tile.sum(axis=0))
        if ctx.settings.absgrad:
            means2d.absgrad = v_absolute  # where gsplat's density control looks for it
        return v_splats[..., : projection.MEAN_Y + 1], v_splats, v_background, None, None
