"""Equal Gaussians on one scene are measured once; whatever differs is measured anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from evalsuite.arms.floors import MeanColour
from evalsuite.core.protocol import GeometryRule, Protocol, Rig
from evalsuite.core.types import Gaussians, Scene
from evalsuite.execution import evaluation
from evalsuite.execution.evaluation import KEPT, Evaluation, measured
from evalsuite.execution.truth import truth_of
from evalsuite.scenes.procedural import procedural_mesh
from evalsuite.scenes.rig import object_scene
from evalsuite.splats.field import GaussianField

TINY = Protocol(
    "tiny",
    Rig(resolution=32, capture_views=8, heldout_per_elevation=1, supersample=2),
    geometry=GeometryRule(views=8, resolution=32, voxels=24, samples=500, icp_samples=250),
)
HASH = "0123456789ab"


@pytest.fixture(scope="module")
def scene() -> Scene:
    return object_scene("tiny.blob", "organic", procedural_mesh("blob", 1), TINY)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every call of the metrics from here on."""
    made: list[Any] = []
    evaluate = evaluation.evaluate

    def counted(*arguments: Any) -> Any:
        made.append(arguments)
        return evaluate(*arguments)

    evaluation._KEPT.clear()
    monkeypatch.setattr(evaluation, "evaluate", counted)
    yield made
    evaluation._KEPT.clear()


def ball(radius: float = 0.3) -> Gaussians:
    draw = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(200, 3, generator=draw), dim=1)
    return Gaussians(
        means=radius * directions,
        quats=torch.randn(200, 4, generator=draw),
        scales=torch.full((200, 3), 0.05),
        opacities=torch.full((200,), 0.9),
        sh=torch.zeros(200, 1, 3),
    )


def same(a: Evaluation, b: Evaluation) -> bool:
    return a.metrics == b.metrics and bool((a.images == b.images).all())


def test_equal_gaussians_are_measured_once(scene: Scene, calls: list[Any]) -> None:
    first, again = (measured(GaussianField(ball()), scene, truth_of(scene, TINY), TINY, HASH) for _ in range(2))
    assert again is first
    assert len(calls) == 1
    assert {"evaluate", "render"} == set(first.seconds)


def test_what_was_kept_is_what_would_be_measured(scene: Scene, calls: list[Any]) -> None:
    kept = measured(GaussianField(ball()), scene, truth_of(scene, TINY), TINY, HASH)
    evaluation._KEPT.clear()
    assert same(measured(GaussianField(ball()), scene, truth_of(scene, TINY), TINY, HASH), kept)
    assert len(calls) == 2


def test_a_bit_more_is_another_result(scene: Scene, calls: list[Any]) -> None:
    for field in ("means", "quats", "scales", "opacities", "sh"):
        moved = ball()
        getattr(moved, field).view(-1)[-1] += 1e-6
        measured(GaussianField(moved), scene, truth_of(scene, TINY), TINY, HASH)
    measured(GaussianField(ball()), scene, truth_of(scene, TINY), TINY, HASH)
    assert len(calls) == 6


def test_another_scene_and_another_protocol_are_measured_anew(scene: Scene, calls: list[Any]) -> None:
    measured(GaussianField(ball()), scene, truth_of(scene, TINY), TINY, HASH)
    measured(GaussianField(ball()), scene, truth_of(scene, TINY), TINY, HASH[::-1])
    other = replace(TINY, eight_bit=False)
    measured(GaussianField(ball()), scene, truth_of(scene, other), other, HASH)
    assert len(calls) == 3


def test_only_the_last_few_are_kept(scene: Scene, calls: list[Any]) -> None:
    for step in range(KEPT + 1):
        measured(GaussianField(ball(0.2 + 0.01 * step)), scene, truth_of(scene, TINY), TINY, HASH)
    assert len(evaluation._KEPT) == KEPT
    measured(GaussianField(ball(0.2)), scene, truth_of(scene, TINY), TINY, HASH)
    assert len(calls) == KEPT + 2


def test_other_results_have_no_bytes_to_be_known_by(scene: Scene, calls: list[Any]) -> None:
    floor = MeanColour.of(scene.inputs, scene.background)
    for _ in range(2):
        measured(floor, scene, truth_of(scene, TINY), TINY, HASH)
    assert len(calls) == 2
