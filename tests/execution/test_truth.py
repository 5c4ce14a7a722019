"""What depends on the truth alone is made once per scene, however many results are measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_evaluation import TINY, ball

from evalsuite.core.types import Scene
from evalsuite.execution.evaluation import _measured
from evalsuite.execution.truth import truth_of
from evalsuite.metrics import geometry, heldout
from evalsuite.scenes.procedural import procedural_mesh
from evalsuite.scenes.rig import object_scene
from evalsuite.splats.field import GaussianField


@pytest.fixture(scope="module")
def scene() -> Scene:
    return object_scene("tiny.blob", "organic", procedural_mesh("blob", 1), TINY)


def test_results_share_what_depends_on_the_truth(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed, seen = [], []
    index, appearance = geometry._checked, heldout.flip_appearance

    def checked(name: str, samples: Any) -> Any:
        indexed.append(name)
        return index(name, samples)

    def looked_at(image: Any) -> Any:
        seen.append(image)
        return appearance(image)

    monkeypatch.setattr(geometry, "_checked", checked)
    monkeypatch.setattr(heldout, "flip_appearance", looked_at)
    truth = truth_of(scene, TINY)
    for radius in (0.2, 0.25, 0.3):
        _measured(GaussianField(ball(radius)), scene, truth, TINY)
    assert indexed == ["true", "pred", "pred", "pred"]
    assert len(seen) == len(scene.heldout)


def test_a_scene_without_a_mesh_has_no_true_surface(scene: Scene) -> None:
    assert truth_of(replace(scene, mesh=None, surface=None), TINY).surface is None
