"""Every scene by id, and the suites made of them. Names cost nothing: what loads a scene is imported when it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evalsuite.core.cases import Stratum
from evalsuite.core.errors import BadDataError, MissingDataError, NonFiniteError
from evalsuite.core.mirror import places
from evalsuite.core.protocol import Protocol
from evalsuite.core.registry import Registry
from evalsuite.core.suites import Part, Suite
from evalsuite.scenes.origin import Origin, origin_of, read_origin
from evalsuite.scenes.sources import (
    KINDS,
    MIPNERF360,
    SCANS,
    locate_capture,
    locate_mipnerf360,
    scan_files,
)

if TYPE_CHECKING:  # written out where it is used: run-time checkers find a name by its whole path
    import evalsuite.core.types

_PROCEDURAL_SEED = 1

PREPARED = Path("prepared")
"""Where prepared scenes lie below a mirror and below ``data``: one folder per protocol, in it one per scene."""


@dataclass(frozen=True)
class SceneEntry:
    """How to come by a scene; nothing is read before a method is called.

    Attributes:
        generate: makes the scene from nothing or from the publisher's files.
        files: name and place of every file it is read from; raises `MissingDataError` if they are not at hand.
    """

    id: str
    stratum: Stratum
    generate: Callable[[Protocol], evalsuite.core.types.Scene]
    files: Callable[[], Sequence[tuple[str, Path]]] = tuple

    def load(self, protocol: Protocol) -> evalsuite.core.types.Scene:
        """The scene: prepared, if a prepared one was made by this very code from these very files, else generated.

        A prepared scene serves on its own where the publisher's files are not at hand.

        Raises:
            MissingDataError: neither prepared nor at hand.
            BadDataError: a damaged prepared scene, or damaged files.
        """
        for folder in places(PREPARED / protocol.name / self.id):
            scene = self.prepared(folder, protocol)
            if scene is not None:
                return scene
        return replace(self.generate(protocol), source=self.origin(protocol).source)

    def require_at_hand(self, protocol: Protocol) -> None:
        """Tell what `load` would lack, without loading anything.

        Raises:
            MissingDataError: neither prepared nor at hand.
        """
        try:
            self.files()
        except MissingDataError:
            bare = origin_of(protocol, ())
            if not any(_may_serve(folder, bare) for folder in places(PREPARED / protocol.name / self.id)):
                raise
        except (BadDataError, NonFiniteError):
            pass  # files are there; loading them will say what is wrong, in the records of this scene alone

    def prepared(self, folder: Path, protocol: Protocol) -> evalsuite.core.types.Scene | None:
        """The prepared scene in a folder; None if there is none, or it was made from something else.

        Raises:
            BadDataError: it is damaged, or the publisher's files are.
        """
        here = self.origin(protocol) if folder.is_dir() else None
        if here is None:
            return None
        from evalsuite.scenes.prepared import read_scene

        try:
            origin = read_origin(folder)
            if origin is None or not origin.matches(here):
                return None
            scene = read_scene(folder)
            if scene.id != self.id:
                raise BadDataError(f"prepared scene {folder} is {scene.id}, expected {self.id}")
            return scene
        except BadDataError as error:
            suites = [name for name in SUITES if self.id in SUITES[name].scenes]
            suites.sort(key=lambda name: SUITES[name].of(self.id).protocol_name != protocol.name)
            remedy = f"run `evalsuite prepare {suites[0]}`" if suites else f"delete {folder}"
            raise BadDataError(f"{error}: {remedy}") from error

    def source(self, protocol: Protocol) -> str:
        """Hash of the files that `load` would read the scene from, at hand or when it was prepared; empty if unknown.

        Raises:
            BadDataError: a damaged prepared scene.
        """
        own = self.origin(protocol)
        prepared = (read_origin(folder) for folder in places(PREPARED / protocol.name / self.id))
        return next((found.source for found in (own, *prepared) if found and found.source and found.matches(own)), "")

    def origin(self, protocol: Protocol) -> Origin:
        """What the scene would be made from, here and now."""
        try:
            return origin_of(protocol, self.files())
        except MissingDataError:
            return origin_of(protocol, ())


def _may_serve(folder: Path, bare: Origin) -> bool:
    """Whether a folder holds a prepared scene of this code and protocol; a damaged one says so when it is loaded."""
    try:
        origin = read_origin(folder)
    except BadDataError:
        return True
    return origin is not None and origin.matches(bare)


def _procedural(kind: str, protocol: Protocol) -> evalsuite.core.types.Scene:
    from evalsuite.scenes.meshes import normalised
    from evalsuite.scenes.procedural import procedural_mesh
    from evalsuite.scenes.rig import object_scene

    mesh = normalised(procedural_mesh(kind, _PROCEDURAL_SEED), protocol.rig.object_radius)
    return object_scene(f"smoke.{kind}", KINDS[kind], mesh, protocol)


def _scan(scene_id: str, protocol: Protocol) -> evalsuite.core.types.Scene:
    from evalsuite.scenes.gso import gso_scene

    return gso_scene(scene_id, protocol)


def _capture(name: str, protocol: Protocol) -> evalsuite.core.types.Scene:
    from evalsuite.scenes.captures import load_capture

    return load_capture(locate_capture(name), f"capture.{name}", protocol)


def _mipnerf360(name: str, protocol: Protocol) -> evalsuite.core.types.Scene:
    from evalsuite.scenes.captures import load_colmap

    return load_colmap(locate_mipnerf360(name), f"mipnerf360.{name}", protocol, MIPNERF360[name])


def _files_of_capture(name: str) -> tuple[tuple[str, Path], ...]:
    folder = locate_capture(name)
    from evalsuite.scenes.captures import capture_files

    return capture_files(folder)


def _files_of_mipnerf360(name: str) -> tuple[tuple[str, Path], ...]:
    folder = locate_mipnerf360(name)
    from evalsuite.scenes.captures import colmap_files

    return colmap_files(folder, MIPNERF360[name])


SCENES: Registry[SceneEntry] = Registry("scene")
for _kind, _stratum in KINDS.items():
    SCENES.add(f"smoke.{_kind}", SceneEntry(f"smoke.{_kind}", _stratum, partial(_procedural, _kind)))
for _id, (_, _stratum) in SCANS.items():
    SCENES.add(_id, SceneEntry(_id, _stratum, partial(_scan, _id), partial(scan_files, _id)))
for _name in ("beer", "fox", "bonsai"):
    _make, _files = partial(_capture, _name), partial(_files_of_capture, _name)
    SCENES.add(f"capture.{_name}", SceneEntry(f"capture.{_name}", "unbounded", _make, _files))
for _name in MIPNERF360:
    _make, _files = partial(_mipnerf360, _name), partial(_files_of_mipnerf360, _name)
    SCENES.add(f"mipnerf360.{_name}", SceneEntry(f"mipnerf360.{_name}", "unbounded", _make, _files))

SUITES: Registry[Suite] = Registry("suite")
SUITES.add("smoke", Suite("smoke", tuple(f"smoke.{kind}" for kind in KINDS)))
SUITES.add(
    "quality",
    Suite(
        "quality",
        SUITES["smoke"].scenes,
        "object-128-images",
        settings=(("b", "capture"), ("b", "inputs"), ("c", "capture")),
    ),
)
SUITES.add("scan", Suite("scan", tuple(SCANS)))
SUITES.add("captures", Suite("captures", ("capture.beer", "capture.fox"), floors=("mean-colour",)))
_unbounded = tuple(f"mipnerf360.{name}" for name in MIPNERF360)
SUITES.add(
    "paper",
    Suite(
        "paper",
        (*SCANS, *_unbounded),
        "object-256",
        model="lgm-big",
        recipe="3dgs-30k",
        parts=(Part(_unbounded, "capture-published", ("mean-colour",)),),
    ),
)
