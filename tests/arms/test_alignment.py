"""Wrong poses and wrong predictions are told from poor ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from evalsuite.arms.alignment import (
    MIN_SILHOUETTE_AGREEMENT,
    UNTESTED,
    explanation_db,
    require_agreeing_silhouettes,
    require_explained_inputs,
    silhouette_agreement,
)
from evalsuite.core.conventions import sh0_from_rgb
from evalsuite.core.errors import MisalignedError
from evalsuite.core.protocol import CAMERA_RADIUS, FOV_Y_DEG, OBJECT_RADIUS
from evalsuite.core.types import Evidence, Gaussians, Views
from evalsuite.scenes.meshes import normalised
from evalsuite.scenes.procedural import KINDS, procedural_mesh
from evalsuite.scenes.raytrace import render_mesh
from evalsuite.scenes.rig import orbit_cameras

WHITE = torch.ones(3)
CENTRE = torch.zeros(3)
FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))


def inputs_of(kind: str) -> Views:
    """The study's four input views of a procedural object at 64 px."""
    cameras = orbit_cameras(
        torch.arange(4) * 90.0, torch.full((4,), 20.0), radius=CAMERA_RADIUS, fov_y_deg=FOV_Y_DEG, resolution=64
    )
    return render_mesh(normalised(procedural_mesh(kind, 1), OBJECT_RADIUS), cameras, 2)[0]


def evidence_of(inputs: Views) -> Evidence:
    return Evidence(inputs, inputs, None, CENTRE, OBJECT_RADIUS, WHITE)


def surface_splats(kind: str) -> Gaussians:
    """A decent prediction without a network: grey splats all over the true surface."""
    mesh = normalised(procedural_mesh(kind, 1), OBJECT_RADIUS)
    surface = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    n = 2000
    means = torch.from_numpy(np.asarray(trimesh.sample.sample_surface(surface, n, seed=0)[0])).float()
    quats = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1)
    grey = sh0_from_rgb(torch.full((n, 1, 3), 0.5))
    return Gaussians(means, quats, torch.full((n, 3), 0.02), torch.full((n,), 0.9), grey)


def reordered(order: list[int]) -> Callable[[Views], Views]:
    return lambda views: Views(views[order].rgb, views[order].alpha, views.cameras)


def reposed(change: Callable[[Tensor], Tensor]) -> Callable[[Views], Views]:
    return lambda views: replace(
        views, cameras=replace(views.cameras, cam_from_world=change(views.cameras.cam_from_world))
    )


MISTAKES: dict[str, Callable[[Views], Views]] = {
    "OpenGL axes": reposed(lambda pose: FLIP @ pose),
    "world_from_cam": reposed(lambda pose: torch.linalg.inv(pose)),
    "neighbours swapped": reordered([1, 0, 2, 3]),
    "field of view doubled": lambda views: replace(
        views, cameras=replace(views.cameras, focal_px=views.cameras.focal_px / 2)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_right_poses_agree_with_their_silhouettes(kind: str) -> None:
    agreement = silhouette_agreement(inputs_of(kind), CENTRE, OBJECT_RADIUS)
    assert agreement.shape == (4,)
    assert float(agreement.min()) > 0.97
    require_agreeing_silhouettes(evidence_of(inputs_of(kind)))


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("kind", ["chair", "truck", "creature"])
def test_wrong_poses_are_misaligned(kind: str, mistake: str) -> None:
    views = MISTAKES[mistake](inputs_of(kind))
    assert float(silhouette_agreement(views, CENTRE, OBJECT_RADIUS).min()) < MIN_SILHOUETTE_AGREEMENT
    with pytest.raises(MisalignedError, match=r"input view \d .*IoU 0\.\d\d; expected >= 0\.9: check the order"):
        require_agreeing_silhouettes(evidence_of(views))


def test_a_ring_that_is_turned_as_a_whole_is_no_contradiction() -> None:
    """The first view defines the frame: nothing in the inputs could tell."""
    require_agreeing_silhouettes(evidence_of(reordered([1, 2, 3, 0])(inputs_of("creature"))))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rough_prediction_explains_its_inputs(kind: str) -> None:
    note = require_explained_inputs(surface_splats(kind), evidence_of(inputs_of(kind)))
    assert "dB better than an empty page" in note


@pytest.mark.parametrize("shift", [[0.5, 0.0, 0.0], [0.0, CAMERA_RADIUS, 0.0]])
def test_a_prediction_in_another_frame_is_misaligned(shift: list[float]) -> None:
    splats = surface_splats("chair")
    moved = replace(splats, means=splats.means + torch.tensor(shift))
    with pytest.raises(MisalignedError, match=r"no better than an empty page .*check the network's weights"):
        require_explained_inputs(moved, evidence_of(inputs_of("chair")))


def test_gain_is_zero_for_nothing_and_high_for_the_truth() -> None:
    views, splats = inputs_of("blob"), surface_splats("blob")
    nothing = replace(splats, opacities=torch.zeros_like(splats.opacities))
    assert abs(explanation_db(nothing, views, WHITE)) < 1e-5
    empty = replace(views, alpha=torch.zeros(4, 64, 64))
    assert explanation_db(nothing, empty, WHITE) == 0.0
    assert explanation_db(splats, views, WHITE) > 5.0


def test_photographs_are_not_tested_and_the_note_says_so() -> None:
    photographs = replace(MISTAKES["OpenGL axes"](inputs_of("blob")), alpha=None)
    require_agreeing_silhouettes(evidence_of(photographs))
    assert require_explained_inputs(surface_splats("blob"), evidence_of(photographs)) == UNTESTED
