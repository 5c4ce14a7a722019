"""What is measured of one result; equal Gaussians on one scene are measured once per process."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import UInt8

from evalsuite.core.clock import Clock
from evalsuite.core.protocol import Protocol
from evalsuite.core.types import Gaussians, Mesh, Renderable, Scene
from evalsuite.execution.geometry import measure_geometry
from evalsuite.execution.speed import TimedRenderable, frames_per_second
from evalsuite.execution.truth import Truth
from evalsuite.metrics.evaluate import evaluate
from evalsuite.records.schema import Reading
from evalsuite.splats.field import GaussianField

KEPT = 4
"""Evaluations that a process remembers: arms A and B (N = 0) of a scene follow one another."""


@dataclass(frozen=True)
class Evaluation:
    """Readings of every metric, and what belongs to them.

    Attributes:
        seconds: of evaluation and rendering, by phase, from when they were taken.
        images: the held-out views as rendered, 8 bits.
        surface: that the geometry was measured on.
    """

    metrics: Mapping[str, Reading]
    seconds: Mapping[str, float]
    frames_per_second: float
    images: UInt8[np.ndarray, "V H W 3"]
    surface: Mesh | None


_KEPT: OrderedDict[tuple[str, str, str, str], Evaluation] = OrderedDict()


def measured(result: Renderable, scene: Scene, truth: Truth, protocol: Protocol, scene_hash: str) -> Evaluation:
    """All metrics of a result.

    Args:
        truth: of the scene, under the protocol.
        scene_hash: of the scene's content.

    Raises:
        NonFiniteError: a render holds NaN or infinity.
    """
    if not isinstance(result, GaussianField):
        return _measured(result, scene, truth, protocol)
    key = (scene_hash, protocol.hash, str(scene.background.device), _digest(result.gaussians))
    if key not in _KEPT:
        _KEPT[key] = _measured(result, scene, truth, protocol)
        while len(_KEPT) > KEPT:
            _KEPT.popitem(last=False)
    return _KEPT[key]


def _measured(result: Renderable, scene: Scene, truth: Truth, protocol: Protocol) -> Evaluation:
    clock = Clock()
    with clock.phase("evaluate"):
        metrics, images = evaluate(TimedRenderable(result, clock), truth.heldout)
        geometry, surface = measure_geometry(result, scene, protocol.geometry, truth.surface)
    speed = frames_per_second(result, scene.heldout.cameras, scene.background)
    return Evaluation({**metrics, **geometry}, clock.snapshot(), speed, images, surface)


def _digest(gaussians: Gaussians) -> str:
    """SHA-256 of every field's bytes."""
    digest = hashlib.sha256()
    for field in fields(gaussians):
        values = getattr(gaussians, field.name).detach().cpu().contiguous()
        digest.update(str(tuple(values.shape)).encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
