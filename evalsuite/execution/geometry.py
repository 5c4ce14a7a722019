"""The geometry of a result: its surface, and how far that lies from the true one."""

from __future__ import annotations

from evalsuite.core.protocol import GeometryRule
from evalsuite.core.types import Mesh, Renderable, Scene
from evalsuite.metrics.geometry import IndexedSurface, chamfer, f_score, geometry_readings, neighbours
from evalsuite.records.schema import Reading
from evalsuite.scenes.visibility import visible_samples
from evalsuite.splats.surface import Ball, extract_surface


def measure_geometry(
    result: Renderable, scene: Scene, rule: GeometryRule | None, indexed: IndexedSurface | None = None
) -> tuple[dict[str, Reading], Mesh | None]:
    """Readings of the geometry metrics, and the extracted surface.

    A scene without true mesh gives ``unsupported`` and no surface; a result without surface gives ``no-surface``.

    Args:
        result: what an arm made.
        scene: its truth, on any device.
        rule: of the protocol; None gives no readings and no surface.
        indexed: the scene's true surface, if it has been indexed before.

    Raises:
        NonFiniteError: a render holds NaN or infinity.
    """
    if rule is None:
        return {}, None
    if scene.mesh is None or scene.surface is None:
        return geometry_readings(None, None, 0.0, rule), None
    surface = extract_surface(result, Ball(scene.centre, scene.radius), scene.background, rule)
    samples = None if surface is None else visible_samples(surface, rule, "predicted")
    return geometry_readings(samples, indexed or scene.surface, scene.mesh.diagonal, rule), surface


def geometry_floor(scene: Scene, rule: GeometryRule | None, indexed: IndexedSurface | None = None) -> str:
    """What two independent samplings of the truth give against each other, in words; empty without rule or truth."""
    if rule is None or scene.mesh is None or scene.surface is None:
        return ""
    again = visible_samples(scene.mesh, rule, "predicted")
    if again is None:
        return ""
    pairs = neighbours(again, indexed or scene.surface, scene.mesh.diagonal)
    return (
        f"geometry floor (two samplings of the truth): Chamfer {chamfer(pairs):.5f}, F-score at 0.5 % "
        f"{f_score(pairs, 0.005):.4f}"
    )
