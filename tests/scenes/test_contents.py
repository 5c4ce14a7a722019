"""A scene's content is told apart from any other, whatever it is called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from evalsuite.core.protocol import Protocol, Rig
from evalsuite.core.types import Points, Scene
from evalsuite.scenes.contents import content_hash
from evalsuite.scenes.procedural import procedural_mesh
from evalsuite.scenes.rig import object_scene

PROTOCOL = Protocol("tiny", Rig(resolution=24, capture_views=6, heldout_per_elevation=1, supersample=1))


@pytest.fixture(scope="module")
def castle() -> Scene:
    return object_scene("tiny.castle", "blocky", procedural_mesh("castle", 1), PROTOCOL)


def moved(views: Any) -> Any:
    pose = views.cameras.cam_from_world.clone()
    pose[0, 0, 3] += 1e-6
    return replace(views, cameras=replace(views.cameras, cam_from_world=pose))


def repainted(views: Any) -> Any:
    rgb = views.rgb.clone()
    rgb[-1, 3, 3, 0] = (rgb[-1, 3, 3, 0] + 1 / 255) % 1
    return replace(views, rgb=rgb)


CHANGES: dict[str, Any] = {
    "a pixel": lambda s: replace(s, heldout=repainted(s.heldout)),
    "a pose": lambda s: replace(s, capture=moved(s.capture)),
    "an input": lambda s: replace(s, inputs=repainted(s.inputs)),
    "no alpha": lambda s: replace(s, heldout=replace(s.heldout, alpha=None)),
    "the radius": lambda s: replace(s, radius=s.radius * 1.001),
    "the background": lambda s: replace(s, background=torch.zeros(3)),
    "points": lambda s: replace(s, points=Points(torch.zeros(1, 3), torch.zeros(1, 3))),
    "the true mesh": lambda s: replace(s, mesh=replace(s.mesh, vertices=s.mesh.vertices * 1.001)),
    "its samples": lambda s: replace(s, surface=replace(s.surface, points=np.flip(s.surface.points, 0))),
    "no truth": lambda s: replace(s, mesh=None, surface=None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_other_makes_another_hash(castle: Scene, change: str) -> None:
    assert content_hash(CHANGES[change](castle)) != content_hash(castle)


def test_neither_its_name_nor_a_second_making_does(castle: Scene) -> None:
    again = object_scene("tiny.other", "thin", procedural_mesh("castle", 1), PROTOCOL)
    assert content_hash(replace(again, notes=("a note",), source="f11e5")) == content_hash(castle)
