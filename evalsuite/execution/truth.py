"""What results of a scene are measured against: everything that depends on the scene alone, made once."""

from __future__ import annotations

from dataclasses import dataclass

from evalsuite.core.protocol import Protocol
from evalsuite.core.types import Scene
from evalsuite.metrics.geometry import IndexedSurface, index
from evalsuite.metrics.heldout import HeldOut


@dataclass(frozen=True)
class Truth:
    """The true side of every metric.

    Attributes:
        surface: None if the scene has no true mesh.
    """

    heldout: HeldOut
    surface: IndexedSurface | None


def truth_of(scene: Scene, protocol: Protocol) -> Truth:
    """The truth of a scene, on the scene's device.

    Raises:
        ShapeError, NonFiniteError: the scene holds no view, or what is no image or no surface.
    """
    surface = None if scene.mesh is None or scene.surface is None else index(scene.surface)
    return Truth(HeldOut(scene.heldout, scene.background, protocol.eight_bit), surface)
