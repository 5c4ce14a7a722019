"""Every scene by id, and the suites made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evalsuite.core.cases import Stratum
from evalsuite.core.errors import BadDataError, MissingDataError
from evalsuite.core.mirror import places
from evalsuite.core.protocol import Protocol
from evalsuite.core.registry import Registry
from evalsuite.core.suites import Part, Suite
from evalsuite.core.types import Scene
from evalsuite.scenes.captures import capture_files, colmap_files, load_capture, load_colmap
from evalsuite.scenes.gso import SCANS, gso_scene, scan_files
from evalsuite.scenes.meshes import normalised
from evalsuite.scenes.prepared import Origin, origin_of, read_origin, read_scene
from evalsuite.scenes.procedural import KINDS, procedural_mesh
from evalsuite.scenes.rig import object_scene

_PROCEDURAL_SEED = 1
MIPNERF360 = {
    "room": "images_2",
    "counter": "images_2",
    "kitchen": "images_2",
    "bonsai": "images_2",
    "garden": "images_4",
}
"""Scenes of Mip-NeRF 360 in suite `paper`, and the publisher's reduced images that published numbers are made of."""

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
    generate: Callable[[Protocol], Scene]
    files: Callable[[], Sequence[tuple[str, Path]]] = tuple

    def load(self, protocol: Protocol) -> Scene:
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

    def prepared(self, folder: Path, protocol: Protocol) -> Scene | None:
        """The prepared scene in a folder; None if there is none, or it was made from something else.

        Raises:
            BadDataError: it is damaged, or the publisher's files are.
        """
        here = self.origin(protocol) if folder.is_dir() else None
        if here is None:
            return None
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


def _procedural(kind: str, protocol: Protocol) -> Scene:
    mesh = normalised(procedural_mesh(kind, _PROCEDURAL_SEED), protocol.rig.object_radius)
    return object_scene(f"smoke.{kind}", KINDS[kind], mesh, protocol)


def _capture(name: str, protocol: Protocol) -> Scene:
    return load_capture(_locate_capture(name), f"capture.{name}", protocol)


def _files_of_capture(name: str) -> tuple[tuple[str, Path], ...]:
    return capture_files(_locate_capture(name))


def _locate_capture(name: str) -> Path:
    folders = places(Path("captures") / name)
    for folder in folders:
        if folder.is_dir():
            return folder
    raise MissingDataError(
        f"capture {name} is not in {' nor in '.join(map(str, folders))}; expected its images and poses there: set "
        f"EVALSUITE_MIRROR to a mirror that has it and run: evalsuite fetch captures/{name}"
    )


def _mipnerf360(name: str, protocol: Protocol) -> Scene:
    return load_colmap(_locate_mipnerf360(name), f"mipnerf360.{name}", protocol, MIPNERF360[name])


def _files_of_mipnerf360(name: str) -> tuple[tuple[str, Path], ...]:
    return colmap_files(_locate_mipnerf360(name), MIPNERF360[name])


def _locate_mipnerf360(name: str) -> Path:
    folders = places(Path("mipnerf360") / name)
    for folder in folders:
        if (folder / MIPNERF360[name]).is_dir():
            return folder
    raise MissingDataError(
        f"{MIPNERF360[name]} of {name} is not in {' nor in '.join(map(str, folders))}; expected it and sparse/0 there, "
        "as the publisher packs them; run: evalsuite fetch mipnerf360, or set EVALSUITE_MIRROR to a folder that holds "
        f"mipnerf360/{name}"
    )


SCENES: Registry[SceneEntry] = Registry("scene")
for _kind, _stratum in KINDS.items():
    SCENES.add(f"smoke.{_kind}", SceneEntry(f"smoke.{_kind}", _stratum, partial(_procedural, _kind)))
for _id, (_, _stratum) in SCANS.items():
    SCENES.add(_id, SceneEntry(_id, _stratum, partial(gso_scene, _id), partial(scan_files, _id)))
for _name in ("beer", "fox", "bonsai"):
    _make, _files = partial(_capture, _name), partial(_files_of_capture, _name)
    SCENES.add(f"capture.{_name}", SceneEntry(f"capture.{_name}", "unbounded", _make, _files))
for _name in MIPNERF360:
    _make, _files = partial(_mipnerf360, _name), partial(_files_of_mipnerf360, _name)
    SCENES.add(f"mipnerf360.{_name}", SceneEntry(f"mipnerf360.{_name}", "unbounded", _make, _files))

SUITES: Registry[Suite] = Registry("suite")
SUITES.add("smoke", Suite("smoke", tuple(f"smoke.{kind}" for kind in KINDS)))
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
