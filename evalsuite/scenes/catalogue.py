"""Every scene by id, and the suites made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evalsuite.core.cases import Stratum
from evalsuite.core.errors import MissingDataError
from evalsuite.core.mirror import places
from evalsuite.core.protocol import Protocol
from evalsuite.core.registry import Registry
from evalsuite.core.suites import Suite
from evalsuite.core.types import Scene
from evalsuite.scenes.captures import load_colmap, load_transforms
from evalsuite.scenes.gso import SCANS, gso_scene
from evalsuite.scenes.meshes import normalised
from evalsuite.scenes.procedural import KINDS, procedural_mesh
from evalsuite.scenes.rig import object_scene

_PROCEDURAL_SEED = 1


@dataclass(frozen=True)
class SceneEntry:
    """How to come by a scene; nothing is read before ``load`` is called."""

    id: str
    stratum: Stratum
    load: Callable[[Protocol], Scene]


def _procedural(kind: str, protocol: Protocol) -> Scene:
    mesh = normalised(procedural_mesh(kind, _PROCEDURAL_SEED), protocol.rig.object_radius)
    return object_scene(f"smoke.{kind}", KINDS[kind], mesh, protocol)


def _capture(name: str, loader: Callable[[Path, str, Protocol], Scene], protocol: Protocol) -> Scene:
    folders = places(Path("captures") / name)
    for folder in folders:
        if folder.is_dir():
            return loader(folder, f"capture.{name}", protocol)
    raise MissingDataError(
        f"capture {name} is not in {' nor in '.join(map(str, folders))}; expected its images and poses there: set "
        f"EVALSUITE_MIRROR to a mirror that has it and run: evalsuite fetch captures/{name}"
    )


SCENES: Registry[SceneEntry] = Registry("scene")
for _kind, _stratum in KINDS.items():
    SCENES.add(f"smoke.{_kind}", SceneEntry(f"smoke.{_kind}", _stratum, partial(_procedural, _kind)))
for _id, (_, _stratum) in SCANS.items():
    SCENES.add(_id, SceneEntry(_id, _stratum, partial(gso_scene, _id)))
for _name, _loader in (("beer", load_colmap), ("fox", load_transforms), ("bonsai", load_colmap)):
    SCENES.add(f"capture.{_name}", SceneEntry(f"capture.{_name}", "unbounded", partial(_capture, _name, _loader)))

SUITES: Registry[Suite] = Registry("suite")
SUITES.add("smoke", Suite("smoke", tuple(f"smoke.{kind}" for kind in KINDS)))
SUITES.add("scan", Suite("scan", tuple(SCANS)))
SUITES.add("captures", Suite("captures", ("capture.beer", "capture.fox"), floors=("mean-colour",)))
