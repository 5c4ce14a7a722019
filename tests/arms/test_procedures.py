"""What the arms say of their start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from evalsuite.arms import procedures
from evalsuite.arms.arm import ArmSettings
from evalsuite.arms.procedures import scratch, warmstart
from evalsuite.arms.seeding import gaussians_from_points
from evalsuite.core.clock import Clock
from evalsuite.core.conventions import look_at, orbit_position
from evalsuite.core.types import Cameras, Evidence, Gaussians, Points, Views
from evalsuite.splats.recipes import RECIPES

COUNT = 120


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """Two small views with points; nothing is optimised, and the network hands out the points."""
    generator = torch.Generator().manual_seed(0)
    points = Points(torch.rand(COUNT, 3, generator=generator), torch.rand(COUNT, 3, generator=generator))

    def no_steps(initial: Gaussians, *arguments: Any, **options: Any) -> Iterator[tuple[int, Gaussians]]:
        yield 50, initial

    monkeypatch.setattr(procedures, "optimise", no_steps)
    monkeypatch.setattr(procedures, "_forward", lambda *_: (gaussians_from_points(points), ("from the network",)))
    poses = torch.stack([look_at(orbit_position(angle, 10.0, 1.5)) for angle in (0.0, 180.0)])
    cameras = Cameras(poses, torch.full((2, 2), 8.0), torch.full((2, 2), 4.0), 8, 8)
    views = Views(torch.rand(2, 8, 8, 3, generator=generator), None, cameras)
    return Evidence(views, views, points, torch.zeros(3), 0.5, torch.zeros(3))


@pytest.mark.parametrize("arm", [scratch, warmstart])
@pytest.mark.parametrize("room", [-1, 0, 1])
def test_a_start_above_the_cap_is_said(evidence: Evidence, arm: Any, room: int) -> None:
    recipe = replace(RECIPES["3dgs"], cap=COUNT + room)
    settings = ArmSettings(recipe=recipe, steps=(50,), seed=0, model="lgm-mini", weights=None)
    (checkpoint,) = arm(evidence, settings, Clock())
    note = (
        "start of 120 Gaussians is above the cap 119 of recipe 3dgs: density control only prunes while there are more"
    )
    assert (note in checkpoint.notes) == (room < 0)
    assert len(checkpoint.notes) == (2 if room < 0 else 1)
