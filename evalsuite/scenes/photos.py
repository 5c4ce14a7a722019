"""Photographs that a capture's files name: what a name means on this machine, and which of them are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pycolmap
from jaxtyping import Float

from evalsuite.core.errors import BadDataError, MissingDataError

Matrix = Float[np.ndarray, "4 4"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".tga")
"""What a name without one may stand for, in this order: NeRF's synthetic scenes leave out ``.png``."""


@dataclass(frozen=True)
class Photo:
    """One posed image file, not yet decoded; ``camera`` may be of another size than the file, of the same aspect."""

    name: str
    path: Path
    camera: pycolmap.Camera
    cam_from_world: Matrix


@dataclass(frozen=True)
class Cloud:
    """Structure-from-motion points in the publisher's world: positions, and sRGB colours in [0, 1]."""

    xyz: Float[np.ndarray, "P 3"]
    rgb: Float[np.ndarray, "P 3"]


def portable(folder: Path, name: str) -> str:
    r"""A name as it is spelled here: ``images\a.png`` and ``./images/a.png`` are ``images/a.png``."""
    return PurePosixPath(name if (folder / name).is_file() else name.replace("\\", "/")).as_posix()


def unique(source: Path, names: Iterable[str]) -> list[str]:
    """The names in order, if there are any and no two are the same.

    Raises:
        BadDataError: there is none, or one is there twice.
    """
    ordered = sorted(names)
    if not ordered:
        raise BadDataError(f"{source} lists no image with a pose; expected one pose per image: compute the poses anew")
    twice = next((name for name, following in pairwise(ordered) if name == following), None)
    if twice is not None:
        raise BadDataError(f"{source} lists image {twice} twice; expected one pose per image: remove one of the two")
    return ordered


def present(source: Path, folder: Path, names: Iterable[str]) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The images on disk by name, in the order of the names, and a note on the others.

    Args:
        source: what lists them, for messages.
        folder: what relative names are relative to.
        names: as `portable` spells them.

    Raises:
        MissingDataError: none is on disk.
        BadDataError: two names are one file.
    """
    found = {name: _locate(folder / name) for name in names}
    there = {name: path for name, path in found.items() if path is not None}
    absent = [name for name in found if name not in there]
    if not there:
        raise MissingDataError(_none_there(source, folder, absent))
    by_file: dict[Path, str] = {}
    for name, path in there.items():
        other = by_file.setdefault(path.resolve(), name)
        if other != name:
            raise BadDataError(
                f"{source} lists image {other} twice, the second time as {name}; expected one pose per image: "
                "remove one of the two"
            )
    if not absent:
        return there, ()
    return there, (f"{len(absent)} of {len(found)} listed frames have no file: {some(absent)}",)


def some(names: list[str]) -> str:
    """The first three names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _none_there(source: Path, folder: Path, names: list[str]) -> str:
    fault = f"none of the {len(names)} images of {source} is on disk; expected e.g. {some(names)}"
    if PurePosixPath(names[0]).is_absolute() or PureWindowsPath(names[0]).is_absolute():
        return f"{fault}: these paths are of another machine: write them relative to {folder}"
    return f"{fault} in {folder}: copy the images there, or fetch the capture again"


def _locate(path: Path) -> Path | None:
    """The file of a name; its suffix may be left out, or be in other letters (``.PNG``)."""
    if path.is_file():
        return path
    wanted = [path.name, *(path.name + suffix for suffix in _SUFFIXES if path.suffix.lower() not in _SUFFIXES)]
    for name in wanted:
        if (path.parent / name).is_file():
            return path.parent / name
    if not path.parent.is_dir():
        return None
    beside = sorted(path.parent.iterdir())
    for name in wanted:
        same = [file for file in beside if file.name.casefold() == name.casefold() and file.is_file()]
        if len(same) == 1:
            return same[0]
    return None
