"""COLMAP's text form, held against what it says of itself (https://colmap.github.io/format.html).

COLMAP writes "# Number of points: 40, mean track length: 10" and ends every line; other writers need do neither. A
count that is there must be right; where there is none, the other file must not refer to more. Every line must have its
fields, and a last line that is not ended must agree with the other file: half a number still looks like a number.
"""

from __future__ import annotations

import re
from pathlib import Path

TEXT_FILES = ("cameras.txt", "images.txt", "points3D.txt", "rigs.txt", "frames.txt")

_COUNT = re.compile(rb"^#\s*Number of [\w ]+:\s*(\d+)", re.MULTILINE)
_MEAN_TRACK = re.compile(rb"^#.*mean track length:\s*(\d+(?:\.(\d*))?)\s*$", re.MULTILINE)
_BOM = b"\xef\xbb\xbf"


class CutError(ValueError):
    """A file that contradicts itself or its neighbour; the message names it."""


def rewrite(files: dict[str, bytes], folder: Path) -> dict[int, str]:
    """Check the files of a text model, and write them so that COLMAP takes them right; returns names by image id.

    Args:
        files: contents by name, some or all of `TEXT_FILES`.
        folder: an empty one; in it, images are named by their ids.

    Raises:
        CutError: a file is cut.
    """
    rows = {name: _rows(data) for name, data in files.items()}
    pairs = _image_rows(files["images.txt"])
    names = {_image_id(header): _name(header) for header, _ in pairs}
    if len(names) < len(pairs):
        raise CutError("images.txt gives one id to two images")
    for name in rows:
        _check_count(name, files[name], len(pairs) if name == "images.txt" else len(rows[name]))
    _check_tracks(files["points3D.txt"], rows["points3D.txt"])
    _check_references(files, pairs, rows["points3D.txt"])
    _check_last_lines(files, pairs, rows["points3D.txt"])
    for name in files:
        (folder / name).write_bytes(b"".join(row + b"\n" for row in rows[name]))
    lines = [b" ".join([*header[:9], header[0]]) + b"\n" + points + b"\n" for header, points in pairs]
    (folder / "images.txt").write_bytes(b"".join(lines))
    return names


def image_names(data: bytes) -> dict[int, str]:
    """Names by image id in the contents of ``images.txt``; a name ends where its line ends.

    Raises:
        CutError: a line has too few fields.
    """
    return {_image_id(header): _name(header) for header, _ in _image_rows(data)}


def _rows(data: bytes) -> list[bytes]:
    lines = (line.strip() for line in data.removeprefix(_BOM).split(b"\n"))
    return [line for line in lines if line and not line.startswith(b"#")]


def _image_rows(data: bytes) -> list[tuple[list[bytes], bytes]]:
    """Ten fields of each image, and the line of its points, which may be empty: the last may then be missing."""
    lines = iter([line.strip() for line in data.removeprefix(_BOM).split(b"\n")])
    pairs = []
    for line in lines:
        if not line or line.startswith(b"#"):
            continue
        header, points = line.split(maxsplit=9), next(lines, b"")
        if len(header) < 10:
            raise CutError(
                f"images.txt: line {line[:60].decode(errors='replace')!r} has {len(header)} fields, an image's has 10"
            )
        if len(points.split()) % 3:
            raise CutError(
                f"images.txt: the line after image {_name(header)} does not hold x, y and id of points; it is cut, or "
                "empty lines, which images without points need, were removed"
            )
        pairs.append((header, points))
    return pairs


def _image_id(header: list[bytes]) -> int:
    try:
        return int(header[0])
    except ValueError as error:
        raise CutError(f"images.txt: {header[0].decode(errors='replace')!r} is no id of an image") from error


def _name(header: list[bytes]) -> str:
    try:
        return header[9].decode()
    except UnicodeDecodeError as error:
        raise CutError(f"images.txt: the name of image {header[0].decode()} is no UTF-8") from error


def _check_count(name: str, data: bytes, found: int) -> None:
    said = _COUNT.search(data)
    if said is not None and int(said[1]) != found:
        raise CutError(f"{name} holds {found} entries, its header counts {int(said[1])}")


def _check_tracks(data: bytes, rows: list[bytes]) -> None:
    """Eight fields and pairs of image and point in every line, as many as the mean track length in the header asks."""
    fields = [len(row.split()) for row in rows]
    short = next((row for row, count in zip(rows, fields, strict=True) if count < 8 or count % 2), None)
    if short is not None:
        raise CutError(f"points3D.txt: the line of point {short.split()[0].decode(errors='replace')} is cut")
    said = _MEAN_TRACK.search(data)
    elements = (sum(fields) - 8 * len(fields)) // 2
    if said is None or not rows:
        return
    rounding = 0.5 * 10.0 ** -len(said[2] or b"") * len(rows)
    if abs(float(said[1]) * len(rows) - elements) > max(rounding, 0.5):
        raise CutError(
            f"points3D.txt holds tracks of {elements / len(rows):.6g} images on average, its header says "
            f"{float(said[1]):.6g}"
        )


def _check_references(files: dict[str, bytes], pairs: list[tuple[list[bytes], bytes]], points: list[bytes]) -> None:
    """Where a file says no count, the other must not refer to what it does not hold."""
    if _COUNT.search(files["points3D.txt"]) is None:
        asked = {key for _, line in pairs for key in line.split()[2::3]} - {b"-1"}
        if missing := asked - {row.split(maxsplit=1)[0] for row in points}:
            raise CutError(f"images.txt refers to {len(asked)} points, of which points3D.txt lacks {len(missing)}")
    if _COUNT.search(files["images.txt"]) is None:
        asked = {key for row in points for key in row.split()[8::2]}
        if missing := asked - {header[0] for header, _ in pairs}:
            raise CutError(f"points3D.txt refers to {len(asked)} images, of which images.txt lacks {len(missing)}")


def _check_last_lines(files: dict[str, bytes], pairs: list[tuple[list[bytes], bytes]], points: list[bytes]) -> None:
    """Hold a last line without line break against the other file, where that says anything."""
    if _COUNT.search(files["cameras.txt"]) is not None and not files["cameras.txt"].endswith(b"\n"):
        raise CutError("cameras.txt does not end its last line, as COLMAP does: its last number may be cut")
    seen = [(header[0], line.split()[2::3]) for header, line in pairs]
    tracks = {row.split(maxsplit=1)[0]: row.split()[8:] for row in points}
    if points and not files["points3D.txt"].endswith(b"\n") and any(ids for _, ids in seen):
        number = points[-1].split(maxsplit=1)[0]
        observed = {(image, b"%d" % index) for image, ids in seen for index, key in enumerate(ids) if key == number}
        if observed != _pairs(tracks[number]):
            raise CutError(f"points3D.txt ends within the line of point {number.decode()}: images.txt says otherwise")
    if seen and seen[-1][1] and not files["images.txt"].endswith(b"\n") and any(tracks.values()):
        image, ids = seen[-1]
        if ids[-1] != b"-1" and (image, b"%d" % (len(ids) - 1)) not in _pairs(tracks.get(ids[-1], [])):
            raise CutError(f"images.txt ends within the points of image {image.decode()}: points3D.txt says otherwise")


def _pairs(track: list[bytes]) -> set[tuple[bytes, bytes]]:
    return set(zip(track[::2], track[1::2], strict=True))
