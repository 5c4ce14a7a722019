"""Probes: what renderer and optimiser do to one small splat made from a seed. A second in all, no scene, no network.

A golden of a whole run sees a change of the engine through the noise of an optimisation. These see it bare: a render
and its gradients repeat but for the last bits of the hardware, so their tolerances are a thousand times tighter.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from evalsuite.core.clock import Clock
from evalsuite.core.conventions import SH_C0, focal_from_fov, look_at, orbit_position
from evalsuite.core.errors import EvalsuiteError
from evalsuite.core.machine import commit, fingerprint, libraries, source_hash
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG
from evalsuite.core.types import Cameras, Gaussians, Views
from evalsuite.metrics.spec import ENGINE, PROBES
from evalsuite.records.schema import Reading, Record
from evalsuite.splats.optimise import optimise
from evalsuite.splats.rasterise import Raster, rasterise
from evalsuite.splats.recipes import RECIPES

PROTOCOL = "probe-1"
"""Rises when splat, cameras or numbers of a probe change: older goldens are then stale."""

_SPLATS, _WIDTH, _HEIGHT, _STEPS = 400, 64, 48, 10
_RECIPE = "3dgs"

Numbers = Mapping[str, tuple[float, ...]]
"""By id of `PROBES`: one value per view, or a single one."""


def forward(device: str) -> Numbers:
    """Colour, coverage, depth and place of the rendered splat, per view."""
    raster = rasterise(splat().to(device), cameras().to(device), background().to(device))
    numbers = {f"mean-{name}": raster.rgb[..., i].mean(dim=(1, 2)) for i, name in enumerate(("red", "green", "blue"))}
    weight = raster.alpha / raster.alpha.sum(dim=(1, 2), keepdim=True)
    column = torch.arange(_WIDTH, device=device) + 0.5
    row = torch.arange(_HEIGHT, device=device) + 0.5
    solid = raster.alpha > 0.5
    numbers |= {
        "mean-alpha": raster.alpha.mean(dim=(1, 2)),
        "mean-depth": (raster.depth * solid).sum(dim=(1, 2)) / solid.sum(dim=(1, 2)),
        "contrast": raster.rgb.flatten(1).std(dim=1),
        "centre-x": (weight * column).sum(dim=(1, 2)),
        "centre-y": (weight * row[:, None]).sum(dim=(1, 2)),
    }
    return {name: tuple(values.tolist()) for name, values in numbers.items()}


def backward(device: str) -> Numbers:
    """Size of the gradient of a fixed sum over colour, alpha and depth, per field of the splat."""
    leaves = {f.name: getattr(splat().to(device), f.name).requires_grad_() for f in fields(Gaussians)}
    raster = rasterise(Gaussians(**leaves), cameras().to(device), background().to(device))
    _weighted_sum(raster).backward()
    sizes = {name: float(leaf.grad.abs().mean()) for name, leaf in leaves.items() if leaf.grad is not None}
    return {f"gradient-{name}": (math.log(size),) for name, size in sizes.items()}


def steps(device: str) -> Numbers:
    """How far the first steps of the recipe move every field of a disturbed splat."""
    target = rasterise(splat().to(device), cameras().to(device), background().to(device)).rgb.clamp(0, 1)
    views = Views(target, None, cameras().to(device))
    start = disturbed(splat()).to(device)
    ((_, end),) = optimise(start, views, background().to(device), RECIPES[_RECIPE], (_STEPS,), seed=0, clock=Clock())
    moved = {}
    for f in fields(Gaussians):
        before, after = getattr(start, f.name), getattr(end, f.name)
        if f.name == "quats":  # the optimiser hands out unit quaternions
            before = torch.nn.functional.normalize(before, dim=-1)
        if f.name == "sh":
            before, after = before[:, 0], after[:, 0]
        moved[f"movement-{f.name}"] = (math.log(float((after - before).square().mean().sqrt())),)
    return moved


PROBE_CASES: Mapping[str, Callable[[str], Numbers]] = {
    f"{ENGINE}/forward": forward,
    f"{ENGINE}/backward": backward,
    f"{ENGINE}/steps": steps,
}
"""Case id to probe."""


def probe(case: str, device: str) -> Record:
    """Run one probe; a failure becomes the record's status."""
    blank = Record(
        case=case,
        scene=ENGINE,
        stratum=ENGINE,
        arm=case.split("/")[1],
        budget=None,
        steps=0,
        seed=0,
        suite=ENGINE,
        protocol=PROTOCOL,
        protocol_hash=PROTOCOL,
        machine={**fingerprint(device), "threads": torch.get_num_threads()},
        git=commit(),
        source=source_hash(),
        libraries=libraries(),
    )
    try:
        numbers = PROBE_CASES[case](device)
    except Exception as error:  # the record is where it goes: nothing is swallowed
        if isinstance(error, EvalsuiteError):
            return replace(blank, status=error.status, reason=str(error))
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
        return replace(blank, status="crashed", reason=reason)
    if not all(math.isfinite(value) for values in numbers.values() for value in values):
        bad = next(name for name, values in numbers.items() if not all(map(math.isfinite, values)))
        return replace(blank, status="nonfinite", reason=f"{bad} is {numbers[bad]}, expected finite numbers")
    readings = {
        name: Reading(math.fsum(values) / len(values), values, PROBES[name].version) for name, values in numbers.items()
    }
    return replace(blank, metrics=readings)


def splat() -> Gaussians:
    """The splat of every probe: overlapping, anisotropic, view-dependent Gaussians in a ball of radius 0.5."""
    uniform = np.random.default_rng(20261120).random  # of all of NumPy's streams the one that is promised to stay

    def draw(*shape: int, low: float, high: float) -> torch.Tensor:
        return torch.from_numpy((low + (high - low) * uniform(shape)).astype(np.float32))

    directions = torch.nn.functional.normalize(draw(_SPLATS, 3, low=-1.0, high=1.0), dim=-1)
    sh = draw(_SPLATS, 16, 3, low=-0.15, high=0.15)
    sh[:, 0] = (draw(_SPLATS, 3, low=0.1, high=0.9) - 0.5) / SH_C0
    return Gaussians(
        means=directions * draw(_SPLATS, 1, low=0.1, high=0.5),
        quats=torch.nn.functional.normalize(draw(_SPLATS, 4, low=-1.0, high=1.0), dim=-1),
        scales=draw(_SPLATS, 3, low=0.01, high=0.09),
        opacities=draw(_SPLATS, low=0.1, high=0.95),
        sh=sh,
    )


def disturbed(gaussians: Gaussians) -> Gaussians:
    """The same splat, smaller, darker and thinner, all by fixed amounts."""
    return replace(
        gaussians,
        means=gaussians.means * 0.97,
        scales=gaussians.scales * 0.9,
        opacities=gaussians.opacities * 0.8,
        sh=gaussians.sh - 0.1,
    )


def cameras() -> Cameras:
    """Four views around the splat, from two elevations; not square, so that axes cannot be confused."""
    poses = [
        look_at(orbit_position(azimuth, 25.0 if azimuth else -10.0, CAMERA_RADIUS))
        for azimuth in (0.0, 80.0, 170.0, 260.0)
    ]
    focal = focal_from_fov(FOV_Y_DEG, _HEIGHT)
    count = len(poses)
    principal = torch.tensor([_WIDTH / 2, _HEIGHT / 2]).expand(count, 2).contiguous()
    return Cameras(torch.stack(poses), torch.full((count, 2), focal), principal, _WIDTH, _HEIGHT)


def background() -> torch.Tensor:
    """Three different levels: a mix-up of channels shows in empty pixels too."""
    return torch.tensor([1.0, 0.8, 0.6])


def _weighted_sum(raster: Raster) -> torch.Tensor:
    """Every pixel of every output counts, each with another weight."""
    v, h, w, _ = raster.rgb.shape
    weights = torch.cos(torch.arange(v * h * w * 5, device=raster.rgb.device, dtype=torch.float32) * 0.37)
    outputs = torch.cat([raster.rgb, raster.alpha[..., None], raster.depth[..., None]], dim=-1)
    return (outputs * weights.view(v, h, w, 5)).sum()
