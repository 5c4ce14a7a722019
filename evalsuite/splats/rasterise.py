"""One `rasterise` for every arm: gsplat on CUDA, our Numba engine with gsplat's semantics on CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from evalsuite.core.errors import NonFiniteError, ShapeError
from evalsuite.core.types import Cameras, Gaussians
from evalsuite.splats.cpu import compositor, harmonics, projection, tiles


@dataclass(frozen=True)
class RasterSettings:
    """Constants of the image formation; the defaults are gsplat's.

    Attributes:
        near_plane, far_plane: Gaussians whose centre is outside this range of camera z are culled.
        eps2d: variance in pixels squared added to every projected Gaussian (its low-pass filter).
        antialiased: scale opacity so that the low-pass filter keeps the total (Yu et al. 2024, Mip-Splatting).
    """

    near_plane: float = 0.01
    far_plane: float = 1e10
    eps2d: float = 0.3
    antialiased: bool = False


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
        if not torch.isfinite(value).all():
            raise NonFiniteError(f"{name} holds NaN or infinity, expected finite values: check the last update")
    if tuple(background.shape) != (3,) or background.dtype != torch.float32:
        raise ShapeError(f"background is {background.dtype} {tuple(background.shape)}, expected 3 torch.float32 values")
    if not torch.isfinite(background).all():
        raise NonFiniteError("background holds NaN or infinity, expected sRGB values: check the protocol")


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
    )
    return Raster(image[..., :3], alpha[..., 0], image[..., 3], info["means2d"], info["radii"])


def _rasterise_cpu(gaussians: Gaussians, cameras: Cameras, background: Tensor, settings: RasterSettings) -> Raster:
    lens = _Lens.of(cameras)
    means2d, depths, conics, compensations, extents = _Project.apply(
        gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, lens, settings
    )
    colours = _Colour.apply(gaussians.means, gaussians.sh, lens, extents)
    opacities = gaussians.opacities.expand(len(cameras), -1)
    if settings.antialiased:
        opacities = opacities * compensations
    rgb, alpha, depth = _Composite.apply(means2d, conics, opacities, colours, depths, background, extents, lens)
    return Raster(rgb, alpha, depth / alpha.clamp(min=1e-10), means2d, extents.ceil().int())


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
    """EWA projection into every camera (see `evalsuite.splats.cpu.projection`)."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor,
                lens: _Lens, settings: RasterSettings) -> tuple[Tensor, ...]:  # fmt: skip
        v, n = len(lens.views), means.shape[0]
        means2d, depths, conics = torch.empty(v, n, 2), torch.empty(v, n), torch.empty(v, n, 3)
        extents, compensations = torch.empty(v, n, 2), torch.empty(v, n)
        s = settings
        for i in range(v):
            projection.project_forward(
                _np(means), _np(quats), _np(scales), _np(opacities),
                lens.views[i], lens.focal[i], lens.centre[i], lens.width, lens.height,
                s.near_plane, s.far_plane, s.eps2d, s.antialiased,
                means2d[i].numpy(), depths[i].numpy(), conics[i].numpy(), extents[i].numpy(), compensations[i].numpy(),
            )  # fmt: skip
        ctx.save_for_backward(means, quats, scales, conics, extents, compensations)
        ctx.lens, ctx.settings = lens, settings
        ctx.mark_non_differentiable(extents)
        return means2d, depths, conics, compensations, extents

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        means, quats, scales, conics, extents, compensations = ctx.saved_tensors
        v_means2d, v_depths, v_conics, v_compensations = (_np(c) for c in cotangents[:4])
        v_means, v_quats, v_scales = torch.zeros_like(means), torch.zeros_like(quats), torch.zeros_like(scales)
        lens, s = ctx.lens, ctx.settings
        for i in range(len(lens.views)):
            projection.project_backward(
                _np(means), _np(quats), _np(scales),
                lens.views[i], lens.focal[i], lens.centre[i], lens.width, lens.height, s.eps2d, s.antialiased,
                conics[i].numpy(), extents[i].numpy(), compensations[i].numpy(),
                v_means2d[i], v_depths[i], v_conics[i], v_compensations[i],
                v_means.numpy(), v_quats.numpy(), v_scales.numpy(),
            )  # fmt: skip
        return v_means, v_quats, v_scales, None, None, None


class _Colour(torch.autograd.Function):
    """View-dependent colours (see `evalsuite.splats.cpu.harmonics`)."""

    @staticmethod
    def forward(ctx: Any, means: Tensor, sh: Tensor, lens: _Lens, extents: Tensor) -> Tensor:
        colours = torch.empty(*extents.shape[:2], 3)
        for i in range(len(lens.views)):
            harmonics.colours_forward(_np(means), _np(sh), lens.positions[i], extents[i].numpy(), colours[i].numpy())
        ctx.save_for_backward(means, sh, extents, colours)
        ctx.lens = lens
        return colours

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        means, sh, extents, colours = ctx.saved_tensors
        v_colours = _np(cotangents[0])
        v_means, v_sh = torch.zeros_like(means), torch.zeros(sh.shape)
        for i in range(len(ctx.lens.views)):
            harmonics.colours_backward(
                _np(means), _np(sh), ctx.lens.positions[i], extents[i].numpy(), colours[i].numpy(), v_colours[i],
                v_sh.numpy(), v_means.numpy(),
            )  # fmt: skip
        return v_means, v_sh, None, None


class _Composite(torch.autograd.Function):
    """Tile lists and blending (see `evalsuite.splats.cpu.tiles` and `.compositor`)."""

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, conics: Tensor, opacities: Tensor, colours: Tensor, depths: Tensor,
                background: Tensor, extents: Tensor, lens: _Lens) -> tuple[Tensor, ...]:  # fmt: skip
        v, (h, w) = len(lens.views), (lens.height, lens.width)
        splats = torch.cat(
            [means2d, conics, opacities[..., None], colours, depths[..., None], extents[..., 1:], extents[..., :1]], -1
        )
        rgb, alpha, depth = torch.empty(v, h, w, 3), torch.empty(v, h, w), torch.empty(v, h, w)
        ctx.lists = []
        for i in range(v):
            order = tiles.depth_order(_np(depths[i]), extents[i].numpy())
            starts, entries, slots, offsets = tiles.tile_lists(order, _np(means2d[i]), extents[i].numpy(), w, h)
            compositor.composite_forward(
                starts, entries, splats[i].numpy(), _np(background), w, h,
                rgb[i].numpy(), alpha[i].numpy(), depth[i].numpy(),
            )  # fmt: skip
            ctx.lists.append((order, starts, entries, slots, offsets))
        ctx.save_for_backward(splats, background, rgb, alpha, depth)
        ctx.lens = lens
        return rgb, alpha, depth

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        splats, background, rgb, alpha, depth = ctx.saved_tensors
        v_rgb, v_alpha, v_depth = (_np(c) for c in cotangents)
        v_splats = torch.zeros(*splats.shape[:2], compositor.SUMS)
        v_background = torch.zeros(3)
        for i, (order, starts, entries, slots, offsets) in enumerate(ctx.lists):
            table = np.empty((len(entries), compositor.SUMS), np.float32)
            by_tile = np.zeros((len(starts) - 1, 3), np.float32)
            compositor.composite_backward(
                starts, entries, slots, splats[i].numpy(), _np(background), ctx.lens.width, ctx.lens.height,
                rgb[i].numpy(), alpha[i].numpy(), depth[i].numpy(), v_rgb[i], v_alpha[i], v_depth[i], table, by_tile,
            )  # fmt: skip
            compositor.reduce_table(order, offsets, table, v_splats[i].numpy())
            v_background += torch.from_numpy(by_tile.sum(axis=0))
        return (
            v_splats[..., 0:2], v_splats[..., 2:5], v_splats[..., 5], v_splats[..., 6:9], v_splats[..., 9],
            v_background, None, None,
        )  # fmt: skip
