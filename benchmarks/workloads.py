"""What is timed: clouds of Gaussians of any number, and one real capture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from evalsuite.arms.seeding import gaussians_from_points
from evalsuite.core.clock import Clock
from evalsuite.core.conventions import focal_from_fov, look_at, orbit_position
from evalsuite.core.protocol import FOV_Y_DEG
from evalsuite.core.types import Cameras, Gaussians, Points, Views
from evalsuite.scenes.catalogue import SCENES, SUITES
from evalsuite.splats.cpu import harmonics, projection, tiles
from evalsuite.splats.optimise import optimise
from evalsuite.splats.rasterise import rasterise
from evalsuite.splats.recipes import RECIPES, Recipe

WHITE = torch.ones(3)
FIXED = replace(RECIPES["3dgs"], refine_start=10**9)
"""The study's recipe without growth, so that every step does the same work."""


def ball(count: int, seed: int = 0) -> Gaussians:
    """Uniform in a ball of radius 0.45; as wide as the gaps between them (as 3DGS starts), turned and stretched."""
    draw = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=draw), dim=1)
    radius = 0.45 * torch.rand(count, 1, generator=draw) ** (1 / 3)
    cloud = gaussians_from_points(Points(radius * direction, torch.rand(count, 3, generator=draw)))
    return replace(
        cloud,
        quats=torch.randn(count, 4, generator=draw),
        scales=cloud.scales * (0.5 + torch.rand(count, 3, generator=draw)),
        opacities=0.1 + 0.8 * torch.rand(count, generator=draw),
    )


def orbit(views: int, size: int) -> Cameras:
    """Square cameras round the ball, which fills most of the image."""
    poses = [look_at(orbit_position(360.0 * i / views, 20.0, 1.5)) for i in range(views)]
    focal = torch.full((views, 2), focal_from_fov(FOV_Y_DEG, size))
    return Cameras(torch.stack(poses), focal, torch.full((views, 2), size / 2), size, size)


@torch.no_grad()
def photographs(count: int, size: int, views: int = 4) -> Views:
    """Images of another ball: something to optimise towards."""
    cameras = orbit(views, size)
    return Views(rasterise(ball(count, seed=1), cameras, WHITE).rgb.clamp(0, 1), None, cameras)


def steps(initial: Gaussians, target: Views, recipe: Recipe = FIXED, warm: int = 3) -> Iterator[float]:
    """Milliseconds of training steps, without end: project, sort, blend, loss, backward, Adam."""
    clock, before = Clock(), 0.0
    for n, _ in optimise(initial, target, WHITE, recipe, range(1, recipe.horizon), seed=0, clock=clock):
        after = clock.snapshot()["optimise"]
        if n > warm:
            yield 1e3 * (after - before)
        before = after


@dataclass(frozen=True)
class Listed:
    """A cloud, projected and put into tile lists: what the compositor is given.

    Attributes:
        pairs: (pixel, Gaussian in the list of its tile), whether or not it is looked at.
        visited: pairs that are looked at if no pixel stops early: rows of the tile under the ellipse.
    """

    splats: np.ndarray
    order: np.ndarray
    lists: tuple[np.ndarray, ...]
    size: int

    @property
    def pairs(self) -> int:
        return len(self.lists[1]) * tiles.TILE**2

    @property
    def visited(self) -> int:
        spans = self.lists[2].astype(np.int64)
        return int(((spans & 15) - (spans >> 4) + 1).sum()) * tiles.TILE


def listed(cloud: Gaussians, size: int) -> Listed:
    """The cloud seen by the first camera of `orbit`."""
    camera = orbit(1, size)
    view = camera.cam_from_world[0].double().numpy()
    splats = np.empty((len(cloud), projection.COLUMNS), np.float32)
    means, quats, scales, opacities, sh = (
        t.numpy() for t in (cloud.means, cloud.quats, cloud.scales, cloud.opacities, cloud.sh)
    )
    focal, centre = (t[0].double().numpy() for t in (camera.focal_px, camera.centre_px))
    projection.project_forward(
        means, quats, scales, opacities, view, focal, centre, size, size, 0.01, 1e10, 0.3, False, splats
    )
    harmonics.colours_forward(means, sh, -view[:3, :3].T @ view[:3, 3], splats)
    order = tiles.depth_order(splats)
    bounds = tiles.ellipse_bounds(splats, size, size)
    counts = tiles.count_entries(order, splats, bounds, size, size)
    return Listed(splats, order, tiles.tile_lists(order, splats, bounds, size, size, counts, 0, counts.shape[1]), size)


def capture(name: str) -> tuple[Gaussians, Views]:
    """A real capture of the mirror and the Gaussians of its SfM points.

    Raises:
        MissingDataError: there is no mirror.
    """
    scene = SCENES[f"capture.{name}"].load(SUITES["captures"].protocol)
    assert scene.points is not None
    return gaussians_from_points(scene.points), scene.capture


def random_weights(shape: tuple[int, ...]) -> Tensor:
    """Cotangents of about the size that a mean over the image has."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)) / math.prod(shape)
