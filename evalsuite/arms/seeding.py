"""The initial Gaussians of arm C (Kerbl et al. 2023, section 5.1): SfM points, or the declared fallback."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from evalsuite.core.clock import Clock
from evalsuite.core.conventions import sh0_from_rgb
from evalsuite.core.errors import BadDataError
from evalsuite.core.memory import reset_peak
from evalsuite.core.types import Evidence, Gaussians, Points
from evalsuite.scenes.structures import structure_of

MIN_SFM_POINTS = 100
"""Fewer points than this say too little about a shape: the random fallback is added to them."""

FALLBACK_POINTS = 4096
INITIAL_OPACITY = 0.1
_NEIGHBOURS = 3


def seed_gaussians(
    evidence: Evidence, seed: int, clock: Clock, structures: Path | None = None
) -> tuple[Gaussians, tuple[str, ...]]:
    """Gaussians to start from, and a note that says where they come from.

    Points that ship with the scene are used as they are; else they are triangulated from the supervision views with
    known poses. Below `MIN_SFM_POINTS`, the declared fallback adds uniformly random points in the bounding sphere.

    Args:
        seed: of the random points; a triangulation has none.
        clock: charged with the phase ``sfm``, for a kept structure with the seconds that its making took.
        structures: folder where triangulations are kept.
    """
    if evidence.points is not None:
        points, source = evidence.points, f"{len(evidence.points)} points shipped with the scene"
    else:
        sfm = structure_of(evidence.supervision, evidence.background, structures)
        clock.charge("sfm", sfm.seconds)
        reset_peak()  # whether it was made here or read must not show in the arm's memory
        points = _inside(sfm.points, evidence)
        source = f"{len(points)} SfM points, reprojection error {sfm.reprojection_error_px:.2f} px"
    with clock.phase("sfm"):
        if len(points) < MIN_SFM_POINTS:
            points = _joined(points, _random_points(evidence, seed))
            source += f"; fallback: {FALLBACK_POINTS} random points in the bounding sphere"
        return gaussians_from_points(points).to(evidence.supervision.rgb.device), (source,)


def gaussians_from_points(points: Points) -> Gaussians:
    """One isotropic Gaussian per point, as wide as the RMS distance to its 3 nearest neighbours, opacity 0.1."""
    if len(points) <= _NEIGHBOURS:
        raise BadDataError(
            f"{len(points)} points, expected more than {_NEIGHBOURS} to seed Gaussians: check the SfM model"
        )
    xyz = points.xyz.double().numpy()
    distances = cKDTree(xyz).query(xyz, k=_NEIGHBOURS + 1)[0][:, 1:]
    width = torch.from_numpy((distances**2).mean(axis=1)).clamp_min(1e-7).sqrt().float()
    n = len(points)
    return Gaussians(
        means=points.xyz.float().clone(),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        scales=width[:, None].repeat(1, 3),
        opacities=torch.full((n,), INITIAL_OPACITY),
        sh=sh0_from_rgb(points.rgb.float())[:, None],
    )


def _inside(points: Points, evidence: Evidence) -> Points:
    """Points inside the bounding sphere; all of them where the scene is unbounded (its supervision has no alpha)."""
    if evidence.supervision.alpha is None:
        return points
    keep = (points.xyz - evidence.centre.cpu()).norm(dim=1) <= evidence.radius * 1.05
    return Points(points.xyz[keep], points.rgb[keep])


def _random_points(evidence: Evidence, seed: int) -> Points:
    generator = torch.Generator().manual_seed(seed)
    direction: Float[Tensor, "P 3"] = torch.nn.functional.normalize(
        torch.randn(FALLBACK_POINTS, 3, generator=generator), dim=1
    )
    distance = evidence.radius * torch.rand(FALLBACK_POINTS, 1, generator=generator) ** (1 / 3)
    return Points(evidence.centre.cpu() + direction * distance, torch.rand(FALLBACK_POINTS, 3, generator=generator))


def _joined(a: Points, b: Points) -> Points:
    return Points(torch.cat([a.xyz, b.xyz]), torch.cat([a.rgb, b.rgb]))
