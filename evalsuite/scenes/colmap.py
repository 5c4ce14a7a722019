"""COLMAP models from disk, refused when they are not whole.

COLMAP's own reader (4.2 still) believes the counts in a truncated binary file: it loops for minutes, asks for all
memory, or takes what is there for the whole. So the chain of counts is followed first; layouts as in COLMAP's
``scene/reconstruction_io_binary.cc``. Of text it reads what is there: `colmap_text` holds it against its own header.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pycolmap

from evalsuite.core.errors import BadDataError, MissingDataError
from evalsuite.scenes.colmap_text import TEXT_FILES, CutError, image_names, rewrite

PLACES = ("sparse/0", "sparse", "colmap/sparse/0")
"""Where a capture keeps its model: COLMAP's mapper, its undistorter, nerfstudio."""

_WHOLE_TEXT = "a whole one: copy it again from where it is whole, or correct the line or the count by hand"
_PARTS = ("cameras", "images", "points3D")
_MODELS = {int(model): model for name, model in pycolmap.CameraModelId.__members__.items() if name != "INVALID"}


def find_model(root: Path) -> Path | None:
    """The folder of a capture's model, though it may be damaged; None if there is none in any of `PLACES`."""
    for place in PLACES:
        if any((root / place / f"{part}{kind}").is_file() for part in _PARTS for kind in (".bin", ".txt")):
            return root / place
    return None


def model_files(folder: Path) -> list[Path]:
    """The files that `read_model` opens.

    Raises:
        MissingDataError: cameras, images or points3D is not there.
    """
    for names in (tuple(_WALKS), TEXT_FILES):
        if all((folder / name).is_file() for name in names[:3]):
            return [folder / name for name in names if (folder / name).is_file()]
    raise MissingDataError(
        f"{folder} holds no COLMAP model; expected {', '.join(_PARTS)} as .bin or .txt: copy the missing files there, "
        "or fetch the capture again"
    )


def listed_images(folder: Path) -> list[str]:
    """Names of all images in a model, with or without a pose, from ``images`` alone.

    Raises:
        MissingDataError, BadDataError: as `read_model`.
    """
    path = model_files(folder)[1]
    data = path.read_bytes()
    if path.suffix == ".bin":
        _check_length(path, _end_of_images)
        return _names_of_images(path, data)
    try:
        return list(image_names(data).values())
    except CutError as error:
        raise _unreadable(path, str(error), _WHOLE_TEXT) from error


def read_model(folder: Path) -> pycolmap.Reconstruction:
    """Read a COLMAP model, binary or text.

    Args:
        folder: holds ``cameras``, ``images`` and ``points3D``, all ``.bin`` or all ``.txt``.

    Raises:
        MissingDataError: one of the three files is not there.
        BadDataError: a file is truncated, has bytes or lines too many, or contradicts another.
    """
    files = model_files(folder)
    if files[0].suffix == ".txt":
        return _read_text(folder, files)
    for path in files:
        _check_length(path, _WALKS[path.name])
    return _parsed(folder, folder)


def _read_text(folder: Path, files: list[Path]) -> pycolmap.Reconstruction:
    """COLMAP takes a name to end at a space, and drops an image whose empty last line is not there."""
    with tempfile.TemporaryDirectory() as copy:
        try:
            names = rewrite({path.name: path.read_bytes() for path in files}, Path(copy))
        except CutError as error:
            raise _unreadable(folder, str(error), _WHOLE_TEXT) from error
        model = _parsed(Path(copy), folder)
    for key, name in names.items():
        model.images[key].name = name
    return model


def _parsed(folder: Path, source: Path) -> pycolmap.Reconstruction:
    try:
        return pycolmap.Reconstruction(folder)
    except (ValueError, IndexError, RuntimeError, MemoryError) as error:  # what COLMAP raises at contradictions
        reason = f"COLMAP {pycolmap.__version__} says: {str(error).splitlines()[0]}"
        raise _unreadable(
            source, reason, "a line or value that COLMAP takes: correct it, or write the model anew"
        ) from (error)


def _check_length(path: Path, end_of: Callable[[bytes], int]) -> None:
    data = path.read_bytes()
    try:
        end = end_of(data)
    except KeyError as error:
        known = f"one that COLMAP {pycolmap.__version__} knows: convert the model with the COLMAP that wrote it"
        raise _unreadable(path, f"camera model {error} is none of COLMAP's", known) from error
    except (struct.error, ValueError) as error:
        raise _unreadable(path, f"{len(data)} bytes, its counts ask for more ({error})") from error
    if end != len(data):
        raise _unreadable(path, f"{len(data)} bytes, its counts ask for {end}")


def _unreadable(
    path: Path, reason: str, expected: str = "a whole one: copy it again from where it is whole"
) -> BadDataError:
    return BadDataError(f"{path} is not a readable COLMAP model ({reason}); expected {expected}")


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


def _names_of_images(path: Path, data: bytes) -> list[str]:
    names, at = [], 8
    try:
        for _ in range(_count(data, 0)):
            end = data.index(b"\0", at + 64)
            names.append(data[at + 64 : end].decode())
            at = end + 9 + 24 * _count(data, end + 1)
    except UnicodeDecodeError as error:
        raise _unreadable(path, f"a name of an image is no UTF-8: {error}", "UTF-8: rename the image") from error
    return names


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
