"""The 20 Google Scanned Objects of the suites `scan` and `paper` (Downs et al. 2022, CC BY 4.0)."""

from __future__ import annotations

from evalsuite.core.errors import UnknownNameError
from evalsuite.core.protocol import Protocol
from evalsuite.core.types import Scene
from evalsuite.scenes.meshes import load_mesh, normalised
from evalsuite.scenes.rig import object_scene
from evalsuite.scenes.sources import MESH, SCANS, locate


def gso_scene(scene_id: str, protocol: Protocol) -> Scene:
    """One of `SCANS`, ray-traced; the publisher's z up becomes y up.

    Args:
        scene_id: key of `SCANS`.
        protocol: rig and background.

    Raises:
        UnknownNameError: no such scan.
        MissingDataError: its files are not on this machine.
        BadDataError: its files cannot be read.
    """
    if scene_id not in SCANS:
        raise UnknownNameError("scan", scene_id, SCANS)
    name, stratum = SCANS[scene_id]
    mesh = load_mesh(locate(name) / MESH)
    return object_scene(scene_id, stratum, normalised(mesh, protocol.rig.object_radius, z_up=True), protocol)
