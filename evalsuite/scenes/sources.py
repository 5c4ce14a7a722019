"""What scenes there are by name, and where their publishers' files lie. Reads nothing and needs no torch."""

from __future__ import annotations

from pathlib import Path

from evalsuite.core.cases import Stratum
from evalsuite.core.errors import MissingDataError
from evalsuite.core.mirror import places

KINDS: dict[str, Stratum] = {
    "chair": "thin",
    "wheel": "thin",
    "castle": "blocky",
    "truck": "blocky",
    "blob": "organic",
    "creature": "organic",
}
"""Kinds of procedural objects, each with the stratum its scenes belong to."""

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

MIPNERF360 = {
    "room": "images_2",
    "counter": "images_2",
    "kitchen": "images_2",
    "bonsai": "images_2",
    "garden": "images_4",
}
"""Scenes of Mip-NeRF 360 in suite `paper`, and the publisher's reduced images that published numbers are made of."""

MESH = Path("meshes/model.obj")
"""Of a scan, in its folder."""


def locate(name: str) -> Path:
    """Folder of a scan: ``gso/<name>`` under ``$EVALSUITE_MIRROR``, else ``data/gso/<name>`` here.

    Args:
        name: the publisher's name.

    Raises:
        MissingDataError: neither folder holds ``meshes/model.obj``.
    """
    folders = places(Path("gso") / name)
    for folder in folders:
        if (folder / MESH).is_file():
            return folder
    raise MissingDataError(
        f"scan {name} is not in {' nor in '.join(map(str, folders))}; expected {MESH} and its texture there, as the "
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


def locate_capture(name: str) -> Path:
    """Folder of a photo capture: ``captures/<name>`` under ``$EVALSUITE_MIRROR``, else below ``data`` here.

    Raises:
        MissingDataError: neither is there.
    """
    folders = places(Path("captures") / name)
    for folder in folders:
        if folder.is_dir():
            return folder
    raise MissingDataError(
        f"capture {name} is not in {' nor in '.join(map(str, folders))}; expected its images and poses there: set "
        f"EVALSUITE_MIRROR to a mirror that has it and run: evalsuite fetch captures/{name}"
    )


def locate_mipnerf360(name: str) -> Path:
    """Folder of a scene of `MIPNERF360`, on the mirror or below ``data``.

    Raises:
        MissingDataError: neither holds the publisher's reduced images.
    """
    folders = places(Path("mipnerf360") / name)
    for folder in folders:
        if (folder / MIPNERF360[name]).is_dir():
            return folder
    raise MissingDataError(
        f"{MIPNERF360[name]} of {name} is not in {' nor in '.join(map(str, folders))}; expected it and sparse/0 there, "
        "as the publisher packs them; run: evalsuite fetch mipnerf360, or set EVALSUITE_MIRROR to a folder that holds "
        f"mipnerf360/{name}"
    )
