"""COLMAP models from disk, refused when they are not whole.

COLMAP's own reader (4.2 still) believes the counts in a truncated binary file: it loops for minutes, asks for all
memory, or takes what is there for the whole. So the chain of counts is followed first; layouts as in COLMAP's
``scene/reconstruction_io_binary.cc``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pycolmap

from evalsuite.core.errors import BadDataError, MissingDataError

_MODELS = {int(model): model for name, model in pycolmap.CameraModelId.__members__.items() if name != "INVALID"}


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """Read a COLMAP model, binary or text.

    Args:
        folder: holds ``cameras``, ``images`` and ``points3D``, all ``.bin`` or all ``.txt``.

    Raises:
        MissingDataError: one of the three files is not there.
        BadDataError: a file is truncated, has bytes too many, or contradicts another.
    """
    parts = ("cameras", "images", "points3D")
    if not any(all((folder / f"{part}{kind}").is_file() for part in parts) for kind in (".bin", ".txt")):
        raise MissingDataError(
            f"{folder} holds no COLMAP model; expected {', '.join(parts)} as .bin or .txt: "
            "fetch the capture, or point EVALSUITE_MIRROR at a mirror that has it"
        )
    for name, end_of in _WALKS.items():
        path = folder / name
        if path.is_file():
            _check_length(path, end_of)
    try:
        return pycolmap.Reconstruction(folder)
    except (ValueError, IndexError, RuntimeError, MemoryError) as error:  # what COLMAP raises at contradictions
        raise _unreadable(folder, str(error).splitlines()[0]) from error


def _check_length(path: Path, end_of: Callable[[bytes], int]) -> None:
    data = path.read_bytes()
    try:
        end = end_of(data)
    except KeyError as error:
        raise _unreadable(path, f"camera model {error} is none of COLMAP's") from error
    except (struct.error, ValueError) as error:
        raise _unreadable(path, f"{len(data)} bytes, its counts ask for more ({error})") from error
    if end != len(data):
        raise _unreadable(path, f"{len(data)} bytes, its counts ask for {end}")


def _unreadable(path: Path, reason: str) -> BadDataError:
    return BadDataError(f"{path} is not a readable COLMAP model ({reason}); expected a whole one: fetch it again")


def _count(data: bytes, at: int, code: str = "Q") -> int:
    return int(struct.unpack_from(f"<{code}", data, at)[0])


def _end_of_cameras(data: bytes) -> int:
    at = 8
    for _ in range(_count(data, 0)):
        model = _MODELS[_count(data, at + 4, "i")]
        at += 24 + 8 * len(pycolmap.Camera.create_from_model_id(1, model, 1.0, 1, 1).params)
    return at


def _end_of_images(data: bytes) -> int:
    at = 8
    for _ in range(_count(data, 0)):
        at = data.index(b"\0", at + 64) + 1  # id, rotation, translation, camera; then the name
        at += 8 + 24 * _count(data, at)
    return at


def _end_of_points(data: bytes) -> int:
    at = 8
    for _ in range(_count(data, 0)):
        at += 51 + 8 * _count(data, at + 43)  # id, position, colour, error; then the track
    return at


def _end_of_rigs(data: bytes) -> int:
    at = 8
    for _ in range(_count(data, 0)):
        sensors = _count(data, at + 4, "I")
        at += 8 + 8 * min(sensors, 1)  # the first sensor is the reference and has no pose
        for _ in range(sensors - 1):
            at += 9 + 56 * _count(data, at + 8, "?")
    return at


def _end_of_frames(data: bytes) -> int:
    at = 8
    for _ in range(_count(data, 0)):
        at += 68 + 16 * _count(data, at + 64, "I")  # ids, pose; then one entry per image
    return at


_WALKS: dict[str, Callable[[bytes], int]] = {
    "cameras.bin": _end_of_cameras,
    "images.bin": _end_of_images,
    "points3D.bin": _end_of_points,
    "rigs.bin": _end_of_rigs,
    "frames.bin": _end_of_frames,
}
