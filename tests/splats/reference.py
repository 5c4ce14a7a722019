"""The rasteriser once more, to hold the engines to: float64, plain torch, autograd, all pixels x all Gaussians.

Written from gsplat 1.5.3's CUDA sources (``ProjectionEWA3DGSFused.cu``, ``Utils.cuh``, ``IntersectTile.cu``,
``RasterizeToPixels3DGS{Fwd,Bwd}.cu``) and shares no code with either engine. Memory grows with N x H x W.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from evalsuite.core.types import Cameras, Gaussians
from evalsuite.splats.rasterise import RasterSettings

ALPHA_CUT = 1 / 255
ALPHA_CEILING = 0.999
TRANSMITTANCE_STOP = 1e-4
EXTENT_CAP = 3.33
TILE = 16
DOUBT = 3e-4
"""Relative distance from a hard threshold at which float32 may decide otherwise than float64."""


@dataclass
class Picture:
    """What the engine's ``Raster`` holds, in float64; ``means2d`` is a node of the graph that leads to the pixels.

    Attributes:
        settled: pixels where no Gaussian is within `DOUBT` of a hard threshold: there float32 has no excuse.
    """

    rgb: Float[Tensor, "V H W 3"]
    alpha: Float[Tensor, "V H W"]
    depth: Float[Tensor, "V H W"]
    means2d: Float[Tensor, "V N 2"]
    radii: Int[Tensor, "V N 2"]
    settled: Bool[Tensor, "V H W"]


@dataclass
class Footprints:
    """Gaussians as one camera sees them.

    Attributes:
        conics: inverse 2D covariances (xx, xy, yy), px^-2.
        opacities: compensated if antialiased.
        depths: along the camera's z.
        radii: half sides of the bounding rectangle in whole pixels, 0 where culled.
    """

    means2d: Float[Tensor, "N 2"]
    conics: Float[Tensor, "N 3"]
    opacities: Float[Tensor, "N"]
    depths: Float[Tensor, "N"]
    radii: Int[Tensor, "N 2"]


def render(gaussians: Gaussians, cameras: Cameras, background: Float[Tensor, "3"], settings: RasterSettings) -> Picture:
    """Render the reference images; differentiable in every field of ``gaussians`` and in ``background``."""
    gaussians = Gaussians(*(getattr(gaussians, name).double() for name in gaussians.__dataclass_fields__))
    seen = [project(gaussians, cameras, view, settings) for view in range(len(cameras))]
    means2d = torch.stack([footprints.means2d for footprints in seen])
    images = []
    for view, footprints in enumerate(seen):
        footprints.means2d = means2d[view]
        rgb = colours(gaussians, cameras.positions[view].double())
        images.append(composite(footprints, rgb, background.double(), cameras.width, cameras.height))
    rgb, alpha, depth, settled = (torch.stack(channel) for channel in zip(*images, strict=True))
    return Picture(rgb, alpha, depth, means2d, torch.stack([footprints.radii for footprints in seen]), settled)


def rotation_matrices(quats: Float[Tensor, "N 4"]) -> Float[Tensor, "N 3 3"]:
    """Rotations of quaternions (real part first) of any length: R v = q v q* / |q|^2."""
    w, x, y, z = (quats / quats.norm(dim=1, keepdim=True)).unbind(1)
    zero = torch.zeros_like(w)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(-1, 3, 3)
    rotation: Tensor = torch.eye(3, dtype=quats.dtype) + 2 * w[:, None, None] * cross + 2 * cross @ cross
    return rotation


def project(gaussians: Gaussians, cameras: Cameras, view: int, settings: RasterSettings) -> Footprints:
    """EWA projection (Zwicker et al. 2001) with the culling of gsplat's fused kernel."""
    pose = cameras.cam_from_world[view].double()
    focal, centre = cameras.focal_px[view].double(), cameras.centre_px[view].double()
    size = torch.tensor([cameras.width, cameras.height], dtype=torch.float64)

    points = gaussians.means @ pose[:3, :3].T + pose[:3, 3]
    depths = points[:, 2]
    visible = (depths >= settings.near_plane) & (depths <= settings.far_plane)
    z = torch.where(visible, depths, 1.0)  # culled below; 1 keeps their unused branch finite
    slope = points[:, :2] / z[:, None]
    means2d = focal * slope + centre

    # The Jacobian is taken at a direction clamped to the image and 15 % of its size beyond each edge.
    margin = 0.15 * size / focal
    held = slope.clamp(-centre / focal - margin, (size - centre) / focal + margin)
    jacobian = torch.zeros(len(gaussians), 2, 3, dtype=torch.float64)
    jacobian[:, 0, 0], jacobian[:, 1, 1] = focal[0] / z, focal[1] / z
    jacobian[:, :, 2] = -focal * held / z[:, None]
    axes = jacobian @ pose[:3, :3] @ rotation_matrices(gaussians.quats) * gaussians.scales[:, None, :]
    sharp = axes @ axes.transpose(1, 2)
    xx, xy, yy = sharp[:, 0, 0] + settings.eps2d, sharp[:, 0, 1], sharp[:, 1, 1] + settings.eps2d
    determinant = xx * yy - xy**2
    visible = visible & (determinant > 0)
    determinant = torch.where(visible, determinant, 1.0)
    conics = torch.stack([yy, -xy, xx], dim=1) / determinant[:, None]

    opacities = gaussians.opacities
    if settings.antialiased:
        ratio = (sharp[:, 0, 0] * sharp[:, 1, 1] - sharp[:, 0, 1] ** 2) / determinant
        opacities = opacities * torch.where(ratio > 0, ratio, 1.0).sqrt() * (ratio > 0)
    visible = visible & (opacities >= ALPHA_CUT)
    radii = _radii(opacities.detach(), xx.detach(), yy.detach())
    off = (means2d + radii <= 0) | (means2d - radii >= size)
    visible = visible & ~off.any(dim=1) & (radii > 0).all(dim=1)
    return Footprints(means2d, conics, opacities, depths, torch.where(visible[:, None], radii, 0).int())


def _radii(opacities: Float[Tensor, "N"], xx: Float[Tensor, "N"], yy: Float[Tensor, "N"]) -> Float[Tensor, "N 2"]:
    """Half sides of the rectangle round the ellipse alpha >= 1/255 (arXiv 2402.00525, appendix B.2), rounded up."""
    extent = (2 * (opacities / ALPHA_CUT).clamp_min(1).log()).sqrt().clamp_max(EXTENT_CAP)
    return (extent[:, None] * torch.stack([xx, yy], dim=1).sqrt()).ceil()


def harmonics(direction: Float[Tensor, "N 3"]) -> Float[Tensor, "N 16"]:
    """Real spherical harmonics of unit directions up to degree 3, in the order and sign of 3DGS."""
    x, y, z = direction.unbind(1)

    def root(value: float) -> float:
        return math.sqrt(value / math.pi)

    return torch.stack(
        [
            root(1 / 4) * torch.ones_like(x),
            -root(3 / 4) * y,
            root(3 / 4) * z,
            -root(3 / 4) * x,
            root(15 / 4) * x * y,
            -root(15 / 4) * y * z,
            root(5 / 16) * (3 * z**2 - 1),
            -root(15 / 4) * x * z,
            root(15 / 16) * (x**2 - y**2),
            -root(35 / 32) * y * (3 * x**2 - y**2),
            root(105 / 4) * x * y * z,
            -root(21 / 32) * y * (5 * z**2 - 1),
            root(7 / 16) * z * (5 * z**2 - 3),
            -root(21 / 32) * x * (5 * z**2 - 1),
            root(105 / 16) * z * (x**2 - y**2),
            -root(35 / 32) * x * (x**2 - 3 * y**2),
        ],
        dim=1,
    )


def colours(gaussians: Gaussians, eye: Float[Tensor, "3"]) -> Float[Tensor, "N 3"]:
    """Colour towards a camera at ``eye``: not negative, not bounded above."""
    basis = harmonics(torch.nn.functional.normalize(gaussians.means - eye, dim=1))
    return ((basis[:, : gaussians.sh.shape[1], None] * gaussians.sh).sum(dim=1) + 0.5).clamp_min(0)


def composite(
    seen: Footprints, rgb: Float[Tensor, "N 3"], background: Float[Tensor, "3"], width: int, height: int
) -> tuple[Float[Tensor, "H W 3"], Float[Tensor, "H W"], Float[Tensor, "H W"], Bool[Tensor, "H W"]]:
    """Front-to-back compositing: colour over the background, alpha, expected depth, settled."""
    alive = (seen.radii > 0).all(dim=1).nonzero()[:, 0]
    order = alive[seen.depths.detach()[alive].argsort(stable=True)]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], dim=2).reshape(-1, 2)

    means2d, conics = seen.means2d[order], seen.conics[order]
    dx, dy = (means2d[:, None, :] - (pixels + 0.5)).unbind(2)
    a, b, c = conics[:, :, None].unbind(1)
    square, skew = 0.5 * (a * dx**2 + c * dy**2), b * dx * dy
    sigma = square + skew
    full = seen.opacities[order, None] * torch.exp(-sigma)
    alpha = full.clamp_max(ALPHA_CEILING)
    drawn = (sigma >= 0) & (alpha >= ALPHA_CUT) & _tile_mask(means2d.detach(), seen.radii[order], pixels)
    alpha = torch.where(drawn, alpha, 0.0)

    # Transmittance never rises, so "stop before the first that leaves <= 1e-4" keeps a prefix.
    left = (1 - alpha.detach()).cumprod(dim=0)
    alpha = torch.where(left > TRANSMITTANCE_STOP, alpha, 0.0)
    after = (1 - alpha).cumprod(dim=0)
    before = torch.cat([torch.ones(1, after.shape[1], dtype=torch.float64), after])
    weights = alpha * before[:-1]
    coverage = 1 - before[-1]
    depth = (weights * seen.depths[order, None]).sum(dim=0) / coverage.clamp_min(1e-10)
    image = (weights[:, :, None] * rgb[order, None, :]).sum(dim=0) + before[-1][:, None] * background

    doubtful = (left / TRANSMITTANCE_STOP - 1).abs() < DOUBT
    reached = before[:-1] > TRANSMITTANCE_STOP
    doubtful |= reached & ((full / ALPHA_CUT - 1).abs() < DOUBT)
    doubtful |= reached & ((full / ALPHA_CEILING - 1).abs() < 0.01 * DOUBT)  # alpha is continuous, its gradient not
    doubtful |= reached & (full >= ALPHA_CUT) & (sigma < 1e-6 * square)
    settled = ~doubtful.any(dim=0)
    shape = (height, width)
    return image.reshape(*shape, 3), coverage.reshape(shape), depth.reshape(shape), settled.reshape(shape)


def _tile_mask(
    means2d: Float[Tensor, "N 2"], radii: Int[Tensor, "N 2"], pixels: Int[Tensor, "P 2"]
) -> Bool[Tensor, "N P"]:
    """Whether a pixel's 16 x 16 tile meets the rectangle of a Gaussian.

    Hides nothing that passes the alpha cut: up to opacity 1 the extent is the ellipse's own (sqrt(2 ln 255) = 3.329 is
    below the cap of 3.33) and the radius is rounded up. Kept because gsplat has it: a test shows that it is idle.
    """
    first = ((means2d - radii) / TILE).floor()
    beyond = ((means2d + radii) / TILE).ceil()
    tile = pixels // TILE
    return ((tile >= first[:, None]) & (tile < beyond[:, None])).all(dim=2)
