"""The visual hull of four silhouettes, as the network of `lgm-mini` reads it: an interval on every pixel's ray.

The true surface seen by a pixel lies between where its ray first enters the hull (Laurentini 1994) and where it last
leaves it. `hull_input` finds both and looks at the other views from a few points in between; the head
(`network._activate_on_rays`) keeps splats inside the interval.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from evalsuite.core.protocol import FOV_Y_DEG
from evalsuite.core.types import Cameras
from evalsuite.models.lgm.config import CUE_FRACTIONS, HULL_CHANNELS, INPUT_VIEWS
from evalsuite.models.lgm.network import IMAGENET_MEAN, IMAGENET_STD

FOLD = 2
"""Input pixels per side of a cell: one splat per cell."""

REACH = 0.66
"""Half of the searched stretch of each ray around its point nearest to the origin, LGM units. An object that fits the
view of every camera lies in a sphere of radius 0.623."""

STEPS = 96
"""Samples in the searched stretch."""

_COVERED = 0.1
"""A cell with less coverage has no surface of its own."""

_EMPTY = 1e-3
"""Weight of an uncovered pixel in the mean ray of its cell, so that empty cells have one too."""

_INSIDE = 0.5
"""Interpolated alpha above which another view agrees that a point may be solid."""

_HALF_WIDTH = math.tan(math.radians(FOV_Y_DEG) / 2)


def hull_input(
    images: Float[Tensor, "4 S S 3"], alpha: Float[Tensor, "4 S S"], rays: Float[Tensor, "4 6 S S"], cameras: Cameras
) -> Float[Tensor, "4 C s s"]:
    """Input of a network with the hull stem, one cell for every 2 x 2 pixels (s = S / 2).

    Args:
        images: over white, at LGM's field of view.
        alpha: coverage of the same pixels.
        rays: ray moment and unit direction through every pixel; see `inputs.plucker`.
        cameras: in LGM's frame; only their poses are read.

    Returns:
        Channels: mean straight colour, ImageNet-normalised (0:3); the ray through what the cell covers (3:9), so that
        splats of thin things stand on them and not beside them; coverage (9); where the ray enters
        and leaves the hull, signed distances from its point nearest to the origin, 0 where it misses (10:12); the
        four pixels' colour less the mean, and alpha (12:28); then, for each of `CUE_FRACTIONS` of the interval and
        each other view in turn, the colour it sees there less the cell's own and how far that point lies behind
        the view's own hull surface.
    """
    planes = images.permute(0, 3, 1, 2)
    coverage = F.avg_pool2d(alpha[:, None], FOLD)
    size = coverage.shape[-1]
    rays = F.avg_pool2d(rays * (alpha[:, None] + _EMPTY), FOLD)
    rays = rays / rays[:, 3:].norm(dim=1, keepdim=True)
    straight = ((F.avg_pool2d(planes, FOLD) - (1 - coverage)) / coverage.clamp(min=1e-3)).clamp(0, 1)
    fine = torch.cat([planes - F.interpolate(straight, scale_factor=FOLD), alpha[:, None]], dim=1)

    view, row, column = torch.nonzero(coverage[:, 0] > _COVERED, as_tuple=True)
    moment, direction = rays[view, :, row, column].split(3, dim=1)
    nearest = torch.linalg.cross(direction, moment)
    enter, leave = _interval(alpha, cameras, view, nearest, direction)
    maps = rays.new_zeros(INPUT_VIEWS, 2, size, size)
    maps[view, :, row, column] = torch.stack([enter, leave], dim=1)

    own = straight[view, :, row, column]
    cues = rays.new_zeros(INPUT_VIEWS, HULL_CHANNELS - 28, size, size)
    seen = [
        _look(images, maps[:, 0], cameras, view, nearest + (enter + (leave - enter) * f)[:, None] * direction, own)
        for f in CUE_FRACTIONS
    ]
    cues[view, :, row, column] = torch.cat(seen, dim=1)
    mean, std = (images.new_tensor(c)[:, None, None] for c in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.cat([(straight - mean) / std, rays, coverage, maps, F.pixel_unshuffle(fine, FOLD), cues], dim=1)


def _in_cameras(cameras: Cameras, points: Float[Tensor, "P 3"], position: bool) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and z of positions, or of directions, in every camera: each [V, P]."""
    pose = cameras.cam_from_world.to(points)
    local = points @ pose[:, :3, :3].mT + (pose[:, None, :3, 3] if position else 0.0)
    x, y, z = local.unbind(-1)
    return x, y, z


def _project(x: Float[Tensor, "*P"], y: Float[Tensor, "*P"], z: Float[Tensor, "*P"]) -> Float[Tensor, "*P 2"]:
    """Image coordinates at LGM's field of view, from -1 to 1 across the image; points behind land far outside."""
    scale = 1 / (_HALF_WIDTH * z.clamp(min=1e-6))
    return torch.stack([x * scale, y * scale], dim=-1)


def _interval(
    alpha: Float[Tensor, "4 S S"],
    cameras: Cameras,
    view: Int[Tensor, "R"],
    nearest: Float[Tensor, "R 3"],
    direction: Float[Tensor, "R 3"],
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """First entry into and last exit from the hull along each ray; what is out of a view's frame is outside.

    Where no sample is inside (a thin part between two samples), the interval is the one sample the views like best.
    """
    step = 2 * REACH / STEPS
    along = (torch.arange(STEPS, device=nearest.device, dtype=nearest.dtype) + 0.5) * step - REACH
    starts, slopes = _in_cameras(cameras, nearest, True), _in_cameras(cameras, direction, False)
    where = _project(
        *(start[..., None] + along * slope[..., None] for start, slope in zip(starts, slopes, strict=True))
    )
    votes = F.grid_sample(alpha[:, None], where, align_corners=False)[:, 0]
    votes[view, torch.arange(len(view), device=view.device)] = 1.0  # its own pixel is covered
    vote = votes.amin(0)
    inside = vote > _INSIDE
    inside = torch.where(inside.any(1, keepdim=True), inside, vote == vote.amax(1, keepdim=True)).to(along.dtype)
    first, last = inside.argmax(1), STEPS - 1 - inside.flip(1).argmax(1)
    return along[first] - step / 2, along[last] + step / 2


def _look(
    images: Float[Tensor, "4 S S 3"],
    enter: Float[Tensor, "4 s s"],
    cameras: Cameras,
    view: Int[Tensor, "R"],
    points: Float[Tensor, "R 3"],
    own: Float[Tensor, "R 3"],
) -> Float[Tensor, "R 12"]:
    """What the three other views of each ray see at its point: colour less its own, distance behind their hull."""
    where = _project(*_in_cameras(cameras, points, True))[:, :, None]
    colour = F.grid_sample(images.permute(0, 3, 1, 2), where, align_corners=False, padding_mode="border")[..., 0]
    surface = F.grid_sample(enter[:, None], where, align_corners=False, mode="nearest")[:, 0, :, 0]
    towards = F.normalize(points - cameras.positions.to(points)[:, None], dim=-1)
    behind = (points * towards).sum(-1) - surface
    ray = torch.arange(len(view), device=view.device)
    others = [(view + turn) % INPUT_VIEWS for turn in range(1, INPUT_VIEWS)]
    parts = [torch.cat([colour[j, :, ray] - own, behind[j, ray][:, None]], dim=1) for j in others]
    return torch.cat(parts, dim=1)
