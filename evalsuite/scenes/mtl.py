"""Wavefront's material libraries (MTL): colour and texture of each material.

Grammar as in Alias|Wavefront's "MTL material format" (Object Files, appendix B1 and B2, version 4.2), read as liberally
as exporters write it: keywords in any case, any white space, CRLF, a byte order mark, names and file names with spaces.

A texture's options are skipped where they cannot change a colour on a surface, and refused by name where they can.
``d`` and ``Tr`` are ignored: every surface is opaque.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from evalsuite.core.errors import BadDataError

_NEUTRAL = {"-blendu": 1, "-blendv": 1, "-boost": 1, "-bm": 1, "-texres": 1, "-type": 1, "-imfchan": 1}
"""Options with their number of words that leave a colour texture where and as it is."""

_IDENTITY: dict[str, tuple[float, ...]] = {
    "-s": (1.0, 1.0, 1.0),
    "-o": (0.0, 0.0, 0.0),
    "-t": (0.0, 0.0, 0.0),
    "-mm": (0.0, 1.0),
}
"""Options with the values at which they do nothing; later values may be left out."""

_WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Material:
    """One material.

    Attributes:
        kd: diffuse colour, sRGB in [0, 1]; white if the file says none.
        texture: name of the diffuse texture as the file says it; None if there is none.
        clamped: the texture is not to repeat outside its square.
    """

    kd: tuple[float, float, float] = _WHITE
    texture: str | None = None
    clamped: bool = False


def text_of(path: Path) -> str:
    """Text of an OBJ or MTL: UTF-8 with or without mark, else Windows' Western code page; continued lines joined."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\\\n", " ")


def read_mtl(path: Path) -> dict[str, Material]:
    """Name to material.

    Raises:
        BadDataError: a colour is no three numbers, or a texture has an option that is not read here.
    """
    materials: dict[str, Material] = {}
    name: str | None = None
    ambient: dict[str, str] = {}
    for line in text_of(path).split("\n"):
        keyword, _, rest = line.replace("\t", " ").strip().partition(" ")
        keyword, rest = keyword.lower(), rest.strip()
        if keyword == "newmtl":
            name = rest
            materials[name] = Material()
            ambient.pop(name, None)
        elif name is None:
            continue
        elif keyword == "kd":
            materials[name] = replace(materials[name], kd=_colour(rest, name, path))
        elif keyword == "map_kd":
            texture, clamped = _texture(rest, name, path)
            materials[name] = replace(materials[name], texture=texture, clamped=clamped)
        elif keyword == "map_ka":
            ambient[name] = rest
    for name, named in ambient.items():
        if materials[name].texture is None:
            raise BadDataError(
                f"{path} names a texture of material {name} in map_Ka only ({named}); expected map_Kd: rename it"
            )
    return materials


def _colour(rest: str, name: str, path: Path) -> tuple[float, float, float]:
    try:
        values = [float(word) for word in rest.partition("#")[0].split()]
        red, green, blue = values * 3 if len(values) == 1 else values[:3]
        if not all(map(math.isfinite, (red, green, blue))):
            raise ValueError("not finite")
    except ValueError as error:
        raise BadDataError(
            f"{path} gives material {name} the colour {rest!r}; expected Kd with three numbers: convert it to RGB"
        ) from error
    return red, green, blue


def _texture(rest: str, name: str, path: Path) -> tuple[str | None, bool]:
    """File name, and whether it is clamped."""
    clamped = False
    while rest.startswith("-"):
        option, _, following = rest.partition(" ")
        key, words = option.lower(), following.split()
        if key == "-clamp":
            clamped, count = words[:1] == ["on"], 1
        elif key in _NEUTRAL:
            count = _NEUTRAL[key]
        elif key in _IDENTITY:
            count = _numbers(words, len(_IDENTITY[key]))
            if [float(word) for word in words[:count]] != list(_IDENTITY[key][:count]):
                raise _unread(path, name, " ".join([option, *words[:count]]))
        elif key == "-cc":
            count = 1
            if words[:1] == ["on"]:
                raise _unread(path, name, "-cc on")
        else:
            break  # a file name may begin so
        rest = following.lstrip()
        for _ in range(count):
            rest = rest.partition(" ")[2].lstrip()
    return rest.strip('"') or None, clamped


def _numbers(words: list[str], most: int) -> int:
    """How many of the first words are numbers."""
    for count, word in enumerate(words[:most]):
        try:
            float(word)
        except ValueError:
            return count
    return min(len(words), most)


def _unread(path: Path, name: str, option: str) -> BadDataError:
    return BadDataError(
        f"{path} changes the texture of material {name} by {option}; expected it plain: "
        "bake the option into the image or the texture coordinates"
    )
