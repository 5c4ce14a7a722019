"""The 20 Google Scanned Objects of the suites `scan` and `paper` (Downs et al. 2022, CC BY 4.0)."""

from __future__ import annotations

from pathlib import Path

from evalsuite.core.cases import Stratum
from evalsuite.core.errors import MissingDataError, UnknownNameError
from evalsuite.core.mirror import places
from evalsuite.core.protocol import Protocol
from evalsuite.core.types import Scene
from evalsuite.scenes.meshes import load_mesh, normalised
from evalsuite.scenes.rig import object_scene

_NAMES: dict[Stratum, tuple[str, ...]] = {
    "thin": (
        "Air_Hogs_Wind_Flyers_Set_Airplane_Red",
        "Cole_Hardware_Hammer_Black",
        "Craftsman_Grip_Screwdriver_Phillips_Cushion",
        "Diamond_Visions_Scissors_Red",
        "Thomas_Friends_Wooden_Railway_Ascending_Track_Riser_Pack",
        "Schleich_Bald_Eagle",
    ),
    "blocky": (
        "Android_Lego",
        "Crayola_Crayons_24_count",
        "Nescafe_Momento_Mocha_Specialty_Coffee_Mix_8_ct",
        "Olive_Kids_Dinosaur_Land_Lunch_Box",
        "Room_Essentials_Mug_White_Yellow",
        "SCHOOL_BUS",
        "Thomas_Friends_Wooden_Railway_Porter_5JzRhMm3a9o",
    ),
    "organic": (
        "Breyer_Horse_Of_The_Year_2015",
        "BUNNY_RACER",
        "Dino_3",
        "Nintendo_Mario_Action_Figure",
        "Nintendo_Yoshi_Action_Figure",
        "Schleich_Lion_Action_Figure",
        "TZX_Runner",
    ),
}

SCANS: dict[str, tuple[str, Stratum]] = {
    f"gso.{name.lower().replace('_', '-')}": (name, stratum) for stratum, names in _NAMES.items() for name in names
}
"""Scene id to the publisher's name and the stratum."""

_MESH = Path("meshes/model.obj")


def locate(name: str) -> Path:
    """Folder of a scan: ``gso/<name>`` under ``$EVALSUITE_MIRROR``, else ``data/gso/<name>`` here.

    Args:
        name: the publisher's name.

    Raises:
        MissingDataError: neither folder holds ``meshes/model.obj``.
    """
    folders = places(Path("gso") / name)
    for folder in folders:
        if (folder / _MESH).is_file():
            return folder
    raise MissingDataError(
        f"scan {name} is not in {' nor in '.join(map(str, folders))}; expected {_MESH} and its texture there, as the "
        f"publisher packs them; run: evalsuite fetch gso/{name}, or set EVALSUITE_MIRROR to a folder that holds "
        f"gso/{name}"
    )


def scan_files(scene_id: str) -> tuple[tuple[str, Path], ...]:
    """Name and place of every file a scan's scene is read from.

    Raises:
        MissingDataError: the scan is not on this machine.
    """
    folder = locate(SCANS[scene_id][0])
    parts = (path for part in ("meshes", "materials/textures") for path in sorted((folder / part).glob("*")))
    return tuple((path.relative_to(folder).as_posix(), path) for path in parts if path.is_file())


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
    mesh = load_mesh(locate(name) / _MESH)
    return object_scene(scene_id, stratum, normalised(mesh, protocol.rig.object_radius, z_up=True), protocol)
