"""Gaussians to and from the PLY layout of 3DGS (Kerbl et al. 2023), which every splat viewer reads.

Written: binary little endian, one ``vertex`` element of float32: ``x y z nx ny nz f_dc_0..2 f_rest_* opacity scale_0..2
rot_0..3``. ``f_rest`` is channel-major (all of red, then green, then blue), ``opacity`` a logit, ``scale`` a natural
logarithm, ``rot`` real part first. Normals are written as zeros and ignored when read.

Read: either byte order, ASCII, any line ends, any order of properties, and elements before ``vertex`` if they hold no
lists.

A logit and a logarithm cannot hold 0 (nor 1): they are clamped to `LOGIT_LIMIT` and `LOG_SCALE_FLOOR`, far outside
what a renderer can tell apart, and the clamped values read back as exactly 0 (or 1).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from evalsuite.core.errors import BadDataError, MissingDataError, NonFiniteError, ShapeError
from evalsuite.core.types import Gaussians

LOGIT_LIMIT = 30.0
"""Opacities are stored within +-30: the sigmoid of 30 is 1 in float32, that of -30 is 9e-14."""

LOG_SCALE_FLOOR = -80.0
"""Scales below e^-80 = 1.8e-35 are stored as that; their square is 0 in float32 anyway."""

DTYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
"""PLY scalar types by both of their names."""

ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
"""Formats of a PLY to numpy's sign of their byte order."""

SH_REST = {0: 1, 9: 4, 24: 9, 45: 16}
"""Number of ``f_rest`` properties to number of SH coefficients per channel (degrees 0 to 3)."""

_XYZ = ["x", "y", "z"]
_NORMAL = ["nx", "ny", "nz"]
_DC = [f"f_dc_{i}" for i in range(3)]
_SCALE = [f"scale_{i}" for i in range(3)]
_ROT = [f"rot_{i}" for i in range(4)]


def save_ply(gaussians: Gaussians, path: Path) -> None:
    """Write Gaussians as a 3DGS PLY; the file appears whole or not at all.

    Args:
        gaussians: activated parameters, on any device; opacities in [0, 1], scales >= 0.
        path: the file to write or replace; missing folders are made.

    Raises:
        NonFiniteError: a field holds NaN or infinity.
        ShapeError: an opacity lies outside [0, 1] or a scale below 0.
    """
    fields = _checked(gaussians)
    count, terms = fields["sh"].shape[:2]
    rest = fields["sh"][:, 1:].transpose(0, 2, 1).reshape(count, 3 * (terms - 1))
    names = [*_XYZ, *_NORMAL, *_DC, *(f"f_rest_{i}" for i in range(rest.shape[1])), "opacity", *_SCALE, *_ROT]
    table = np.column_stack(
        [
            fields["means"],
            np.zeros((count, 3)),
            fields["sh"][:, 0],
            rest,
            _logit(fields["opacities"]),
            np.log(np.maximum(fields["scales"], np.exp(LOG_SCALE_FLOOR))),
            fields["quats"],
        ]
    )
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [*(f"property float {name}" for name in names), "end_header", ""]
    _replace(path, "\n".join(header).encode("ascii") + table.astype("<f4").tobytes())


def ply_bytes(gaussians: Gaussians) -> int:
    """Size of the vertex data of `save_ply`'s file; the header adds about a kilobyte."""
    properties = len(_XYZ + _NORMAL + _SCALE + _ROT) + 1 + 3 * gaussians.sh.shape[1]
    return 4 * properties * len(gaussians)


def load_ply(path: Path) -> Gaussians:
    """Read a 3DGS PLY of any SH degree from 0 to 3.

    Properties may come in any order and scalar type; unknown ones, and elements other than ``vertex``, are ignored.

    Args:
        path: a PLY, binary or ASCII.

    Returns:
        Activated float32 Gaussians on the CPU; quaternions as stored, not normalised.

    Raises:
        MissingDataError: there is no such file.
        BadDataError: not a PLY, truncated, of another layout than 3DGS (a compressed one, say), or not finite.
    """
    if not path.is_file():
        raise MissingDataError(f"no file {path}; expected a 3DGS PLY: check the path, or write it with save_ply")
    header, body = _parse_header(path.read_bytes(), path)
    rest = _check_properties(header.layout, path)
    vertices, count = _vertices(header, body, path), header.count
    dc = _columns(vertices, _DC)[:, None]
    sh_rest = _columns(vertices, [f"f_rest_{i}" for i in range(rest)]).reshape(count, 3, rest // 3).transpose(0, 2, 1)
    logit = _columns(vertices, ["opacity"])[:, 0]
    log_scale = _columns(vertices, _SCALE)
    with np.errstate(over="ignore"):  # a log beyond float64's range turns infinite and is refused below
        values = {
            "means": _columns(vertices, _XYZ),
            "quats": _columns(vertices, _ROT),
            "scales": np.where(log_scale <= LOG_SCALE_FLOOR, 0.0, np.exp(log_scale)),
            "opacities": np.where(logit <= -LOGIT_LIMIT, 0.0, 1 / (1 + np.exp(-logit))),
            "sh": np.concatenate([dc, sh_rest], axis=1),
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in values.items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise BadDataError(f"{path} holds NaN or infinity in {name}; expected finite values: drop those Gaussians")
    return Gaussians(**tensors)


def _checked(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """Fetch the fields as float64 arrays, once they are known to fit a PLY."""
    fields = {name: getattr(gaussians, name).detach().cpu().double().numpy() for name in gaussians.__dataclass_fields__}
    for name, value in fields.items():
        if not np.isfinite(value).all():
            raise NonFiniteError(f"{name} holds NaN or infinity; a PLY needs finite values: drop those Gaussians first")
    if ((fields["opacities"] < 0) | (fields["opacities"] > 1)).any():
        raise ShapeError("opacities lie outside [0, 1]; expected activated values: apply the sigmoid first")
    if (fields["scales"] < 0).any():
        raise ShapeError("scales lie below 0; expected activated values: apply the exponential first")
    return fields


def _logit(opacity: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Inverse sigmoid, clamped to +-LOGIT_LIMIT."""
    with np.errstate(divide="ignore"):  # the logarithm of 0 is the -inf that the clamp is for
        logit: np.ndarray = np.log(opacity) - np.log1p(-opacity)
    return logit.clip(-LOGIT_LIMIT, LOGIT_LIMIT)


def _columns(vertices: np.ndarray, names: list[str]) -> Float[np.ndarray, "N C"]:
    """Put the named properties side by side, in float64."""
    columns = np.empty((len(vertices), len(names)))
    for i, name in enumerate(names):
        columns[:, i] = vertices[name]
    return columns


@dataclass(frozen=True)
class _Header:
    """Where the vertices of a PLY are: ``skip`` is in bytes, or in lines if it is ``ascii``."""

    ascii: bool
    count: int
    layout: np.dtype
    skip: int


def _parse_header(content: bytes, path: Path) -> tuple[_Header, bytes]:
    """What the header says of the vertices, and the bytes after it."""
    newline = next((end for end in (b"\r\n", b"\n", b"\r") if content.startswith(b"ply" + end)), None)
    head, found, body = content.partition(b"end_header" + (newline or b""))
    if newline is None or not found:
        raise BadDataError(f"{path} has no PLY header; expected a 3DGS PLY: check that it is the right, whole file")
    words = [line.split() for line in head.decode("ascii", "replace").splitlines()[1:]]
    words = [line for line in words if line and line[0] not in ("comment", "obj_info")]
    if not words or words[0][0] != "format" or words[0][1:2] == [] or words[0][1] not in ORDERS:
        said = " ".join(words[0]) if words else "no format line"
        raise BadDataError(f"{path} says {said!r}; expected format {' or '.join(ORDERS)}: export it again")
    kind = words[0][1]
    try:
        return _vertex_element(words[1:], kind, path), body
    except (IndexError, KeyError, ValueError) as error:
        raise BadDataError(
            f"{path} has a malformed PLY header ({error}); expected scalar vertices: export it again"
        ) from None


def _vertex_element(words: list[list[str]], kind: str, path: Path) -> _Header:
    """The vertex element, and the length of those before it."""
    starts = [i for i, line in enumerate(words) if line[0] == "element"]
    skip = 0
    for start, stop in pairwise([*starts, len(words)]):
        name, count = words[start][1], int(words[start][2])
        properties = words[start + 1 : stop]
        if any(line[1] == "list" for line in properties):
            reason = f"a list in its {name} element, at or before the vertices"
            raise BadDataError(f"{path} holds {reason}; expected scalar vertices first: export it as a 3DGS PLY")
        layout = np.dtype([(line[2], ORDERS[kind] + DTYPES[line[1]]) for line in properties])
        if count < 0:
            raise ValueError(f"{count} x {name}")
        if name == "vertex":
            return _Header(kind == "ascii", count, layout, skip)
        skip += count * (1 if kind == "ascii" else layout.itemsize)
    found = ", ".join(words[start][1] for start in starts) or "none"
    raise BadDataError(f"{path} has no vertex element (found: {found}); expected one of Gaussians: export it again")


def _vertices(header: _Header, body: bytes, path: Path) -> np.ndarray:
    """Structured array of the vertices."""
    if not header.ascii:
        wanted = header.count * header.layout.itemsize
        if len(body) - header.skip < wanted:
            raise BadDataError(
                f"{path} is truncated: {max(len(body) - header.skip, 0)} bytes of vertices, its header promises "
                f"{wanted}; expected all of them: copy or write it again"
            )
        return np.frombuffer(body, header.layout, header.count, header.skip)
    lines = [line.split() for line in body.splitlines()[header.skip :]][: header.count]
    if len(lines) < header.count:
        raise BadDataError(
            f"{path} is truncated: {len(lines)} lines of vertices, its header promises {header.count}; "
            "expected all of them: copy or write it again"
        )
    try:
        return np.array([tuple(map(float, line)) for line in lines], header.layout)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadDataError(
            f"{path} has a line that does not fit its header ({error}); expected {len(header.layout.names or ())} "
            "numbers in each: copy or write it again"
        ) from None


def _check_properties(dtype: np.dtype, path: Path) -> int:
    """Count the ``f_rest`` properties, once all that 3DGS needs are there."""
    names = set(dtype.names or ())
    if any(name.startswith("packed_") for name in names):
        raise BadDataError(f"{path} is a compressed PLY; expected the 3DGS properties: export it uncompressed")
    missing = [name for name in (*_XYZ, *_DC, "opacity", *_SCALE, *_ROT) if name not in names]
    rest = sum(name.startswith("f_rest_") for name in names)
    if rest not in SH_REST:
        raise BadDataError(f"{path} has {rest} f_rest properties; expected 0, 9, 24 or 45: export SH of degree 0 to 3")
    missing += [f"f_rest_{i}" for i in range(rest) if f"f_rest_{i}" not in names]
    if missing:
        raise BadDataError(f"{path} lacks {', '.join(missing)}; expected the 3DGS properties: export it as 3DGS PLY")
    return rest


def _replace(path: Path, content: bytes) -> None:
    """Write to a neighbour of ``path`` and rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
