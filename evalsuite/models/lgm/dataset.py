"""Training views: every object ray-traced once into a cache, training items drawn from it.

Objects are the mirror's scans (``train_meshes/*.glb``) and procedural ones without end. An object's views are
four input rings of four cameras (the study's own rig first, then freer ones), then single cameras anywhere.
"""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from evalsuite.core.errors import BadDataError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG, OBJECT_RADIUS
from evalsuite.core.types import Cameras, Views
from evalsuite.models.lgm.config import INPUT_VIEWS, LGMConfig
from evalsuite.models.lgm.inputs import assemble, cameras_in_frame, lgm_frame, plucker
from evalsuite.models.lgm.settings import training_scans
from evalsuite.scenes.meshes import load_mesh, normalised
from evalsuite.scenes.procedural import random_mesh
from evalsuite.scenes.raytrace import render_mesh
from evalsuite.scenes.rig import orbit_cameras

CACHE_RESOLUTION = 128
SUPERSAMPLE = 2
RINGS = 4
FREE_VIEWS = 20

PROCEDURAL = "random-"
"""Names of procedural objects begin so; the seed follows."""

HELD_OUT = (
    "gso_Schleich_Hereford_Bull",
    "gso_Sootheze_Toasty_Orca",
    "hope_ketchup",
    "ocrtoc_doraemon_bowl",
    "ocrtoc_mini_claw_hammer_1",
    "random-0",
    "random-1",
    "random-2",
    "random-3",
    "ycb_019_pitcher_base",
    "ycb_025_mug",
    "ycb_035_power_drill",
)
"""Objects that are scored and never trained on; none has a twin among the others."""


@dataclass(frozen=True)
class ObjectViews:
    """All cached views of one object: ``RINGS`` rings of four, then the free ones.

    Attributes:
        rgba: straight, 8 bits.
        depth: along the camera's z, of the rings' views only; 0 where nothing is hit.
    """

    name: str
    rgba: UInt8[Tensor, "V H W 4"]
    depth: Float[Tensor, "R H W"]
    cameras: Cameras


@dataclass(frozen=True)
class Item:
    """One training sample, everything in LGM's frame.

    Attributes:
        x: network input.
        target: supervision views; ``rgb`` is already over white, so ``over`` must not be called again.
        surface: the point of the true surface that each splat's pixel sees, in the splats' order.
        seen: share of each splat's pixel that shows the surface.
    """

    x: Float[Tensor, "4 Cin S S"]
    target: Views
    surface: Float[Tensor, "N 3"]
    seen: Float[Tensor, "N"]

    def to(self, device: torch.device | str) -> Item:
        """The same sample on another device."""
        alpha = None if self.target.alpha is None else self.target.alpha.to(device)
        target = Views(self.target.rgb.to(device), alpha, self.target.cameras.to(device))
        return Item(self.x.to(device), target, self.surface.to(device), self.seen.to(device))


def _cameras(azimuth_deg: Tensor, elevation_deg: Tensor, resolution: int) -> Cameras:
    return orbit_cameras(azimuth_deg, elevation_deg, radius=CAMERA_RADIUS, fov_y_deg=FOV_Y_DEG, resolution=resolution)


def training_cameras(seed: int, resolution: int = CACHE_RESOLUTION) -> Cameras:
    """Cameras of one object: `RINGS` rings of four, then free ones; all at radius 1.5 and fov 49.1 degrees.

    Ring 0 is the study's rig (elevation 20, azimuth 0, 90, 180, 270); the others have a random start and a common
    elevation in 0..40, every second one jitter of each camera too. Free cameras cover elevations -20..60.
    """
    rng = np.random.default_rng(seed)
    quarter = np.arange(INPUT_VIEWS) * 90.0
    azimuth, elevation = [quarter], [np.full(INPUT_VIEWS, 20.0)]
    for ring in range(1, RINGS):
        jitter = 1.0 - ring % 2
        azimuth.append(quarter + rng.uniform(0, 360) + jitter * rng.uniform(-12, 12, INPUT_VIEWS))
        elevation.append(rng.uniform(0, 40) + jitter * rng.uniform(-10, 10, INPUT_VIEWS))
    azimuth.append(rng.uniform(0, 360, FREE_VIEWS))
    elevation.append(rng.uniform(-20, 60, FREE_VIEWS))
    return _cameras(torch.from_numpy(np.concatenate(azimuth)), torch.from_numpy(np.concatenate(elevation)), resolution)


def _render_object(source: str, target: Path) -> None:
    """Ray-trace one object (a .glb path, or ``random-<seed>``) into ``target``."""
    name = target.stem
    mesh = random_mesh(int(source.removeprefix(PROCEDURAL))) if source == name else load_mesh(Path(source))
    cameras = training_cameras(zlib.crc32(name.encode()))
    views, depth = render_mesh(normalised(mesh, OBJECT_RADIUS), cameras, SUPERSAMPLE)
    assert views.alpha is not None
    rgba = torch.cat([views.rgb, views.alpha[..., None]], dim=-1)
    tensors = {
        "rgba": (rgba * 255).round().to(torch.uint8),
        "depth": depth[: RINGS * INPUT_VIEWS].half(),
        "cam_from_world": cameras.cam_from_world,
    }
    partial = target.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(target)


def build_cache(meshes: Path, cache: Path, procedural: int, workers: int = 2) -> Iterator[str]:
    """Render what the cache lacks; yields each object's name when it is there.

    Args:
        meshes: folder of ``*.glb`` scans.
        cache: folder of one safetensors file per object; made if needed.
        procedural: how many procedural objects (seeds 0, 1, ...).
        workers: processes.

    Raises:
        MissingDataError: no scans in ``meshes``.
    """
    scans = training_scans(meshes)
    cache.mkdir(parents=True, exist_ok=True)
    sources = {path.stem: str(path) for path in scans} | {
        name: name for name in (f"{PROCEDURAL}{i}" for i in range(procedural))
    }
    missing = {name: source for name, source in sources.items() if not (cache / f"{name}.safetensors").is_file()}
    # spawn: forking after torch has started threads can deadlock
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {
            name: pool.submit(_render_object, source, cache / f"{name}.safetensors") for name, source in missing.items()
        }
        for name in sources:
            if name in jobs:
                jobs[name].result()
            yield name


def load_object(path: Path) -> ObjectViews:
    """One object of the cache.

    Raises:
        BadDataError: truncated, or of another layout.
    """
    try:
        tensors = load_file(path)
        rgba, depth, poses = tensors["rgba"], tensors["depth"], tensors["cam_from_world"]
    except (SafetensorError, KeyError) as error:
        raise BadDataError(f"{path}: not a view cache ({error}); delete the file and run the trainer again") from error
    views = RINGS * INPUT_VIEWS + FREE_VIEWS
    if rgba.shape != (views, CACHE_RESOLUTION, CACHE_RESOLUTION, 4) or poses.shape != (views, 4, 4):
        raise BadDataError(
            f"{path}: views {tuple(rgba.shape)}, poses {tuple(poses.shape)}; expected {views} views of "
            f"{CACHE_RESOLUTION} px: delete the file and run the trainer again"
        )
    pattern = _cameras(torch.zeros(views), torch.zeros(views), CACHE_RESOLUTION)
    return ObjectViews(path.stem, rgba, depth, replace(pattern, cam_from_world=poses))


def images_over_white(rgba: UInt8[Tensor, "V H W 4"], size: int) -> tuple[Tensor, Tensor]:
    """Colour over white [V, S, S, 3] and alpha [V, S, S] in [0, 1], area-averaged to ``size``."""
    planes = rgba.float().permute(0, 3, 1, 2) / 255
    rgb, alpha = planes[:, :3], planes[:, 3:]
    small = F.adaptive_avg_pool2d(torch.cat([rgb * alpha + (1 - alpha), alpha], dim=1), size)
    return small[:, :3].permute(0, 2, 3, 1), small[:, 3]


def resized(cameras: Cameras, size: int) -> Cameras:
    """The same square cameras for images of another side length."""
    factor = size / cameras.width
    return replace(
        cameras, focal_px=cameras.focal_px * factor, centre_px=cameras.centre_px * factor, width=size, height=size
    )


def _surface(
    depth: Float[Tensor, "4 H W"], cameras: Cameras, size: int
) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N"]]:
    """Point of the surface in the middle of each of ``size`` x ``size`` cells, and the share of it that shows any."""
    hit = F.adaptive_avg_pool2d((depth > 0).float()[:, None], size)[:, 0]
    z = F.adaptive_avg_pool2d(depth.float()[:, None], size)[:, 0] / hit.clamp(min=1e-6)
    ray = plucker(cameras, size)[:, 3:].permute(0, 2, 3, 1)
    forward = cameras.cam_from_world[:, None, None, 2, :3]
    points = cameras.positions[:, None, None] + ray * (z / (ray * forward).sum(-1))[..., None]
    return points.reshape(-1, 3), hit.flatten()


def make_item(
    views: ObjectViews, inputs: Sequence[int], targets: Sequence[int], config: LGMConfig, target_size: int
) -> Item:
    """Network input and supervision from chosen views, the inputs among the rings'; the first one fixes the frame."""
    frame = lgm_frame(views.cameras[inputs])
    images, coverage = images_over_white(views.rgba[list(inputs)], config.input_size)
    rgb, alpha = images_over_white(views.rgba[list(targets)], target_size)
    posed = cameras_in_frame(views.cameras[inputs], frame)
    return Item(
        assemble(config, images, coverage, posed),
        Views(rgb, alpha, resized(cameras_in_frame(views.cameras[targets], frame), target_size)),
        *_surface(views.depth[list(inputs)], posed, config.splat_size),
    )


def augmented(views: ObjectViews, rng: np.random.Generator) -> ObjectViews:
    """The object with its colour channels permuted and, half of the time, mirrored in x."""
    order = [*rng.permutation(3).tolist(), 3]
    rgba, depth, cameras = views.rgba[..., order], views.depth, views.cameras
    if rng.random() < 0.5:
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        rgba, depth = rgba.flip(2), depth.flip(2)
        cameras = replace(cameras, cam_from_world=mirror @ cameras.cam_from_world @ mirror)
    return ObjectViews(views.name, rgba, depth, cameras)


def draw_item(views: ObjectViews, config: LGMConfig, rng: np.random.Generator) -> Item:
    """A random training item: one ring as input, begun at a random camera; one input and five other views supervise."""
    start, first = int(rng.integers(RINGS)) * INPUT_VIEWS, int(rng.integers(INPUT_VIEWS))
    ring = [start + (first + i) % INPUT_VIEWS for i in range(INPUT_VIEWS)]
    others = [i for i in range(len(views.cameras)) if i not in ring]
    targets = rng.choice(ring, 1).tolist() + rng.choice(others, 5, replace=False).tolist()
    some = ObjectViews(views.name, views.rgba[ring + targets], views.depth[ring], views.cameras[ring + targets])
    inputs, supervision = range(INPUT_VIEWS), range(INPUT_VIEWS, len(ring + targets))
    return make_item(augmented(some, rng), inputs, supervision, config, CACHE_RESOLUTION)
