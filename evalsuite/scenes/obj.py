"""Wavefront OBJ with its material libraries, in the layouts that scans are published in.

trimesh reads vertices and faces; which material a face has, and what that material is, is read here, since trimesh
looks at the first ``mtllib`` only. What is decided where the format leaves it open:

- A texture is looked for at its path beside the mesh, in ``../materials/textures``, ``../textures`` and ``textures``
  (Gazebo Fuel: ``meshes/model.obj``, ``materials/textures/texture.png``), then there by its file name alone, in any
  case of letters. One that is named and not there is refused.
- Where no library is there, the texture is ``texture.png`` or the only image in one of these folders.
- Faces without ``usemtl`` have the only material of the libraries, as in MeshLab; with several they are refused.
- A grey ``Kd`` beside a texture is an exporter's default (0.8, 0.64, even 0) and is ignored, as in Blender and MeshLab;
  a coloured one is a tint and multiplies, as the format says.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import UInt8

from evalsuite.core.errors import BadDataError, MissingDataError
from evalsuite.scenes.colours import linear_from_srgb
from evalsuite.scenes.mtl import Material, read_mtl, text_of
from evalsuite.scenes.parts import Part
from evalsuite.scenes.pixels import decode

_FOLDERS = (".", "../materials/textures", "../textures", "textures")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_CLAMP_SLACK = 1e-3
_LIBRARY_LINE = re.compile(r"^mtllib (.*)$", re.MULTILINE | re.IGNORECASE)
_MATERIAL_LINE = re.compile(r"^usemtl(?: (.*))?$", re.MULTILINE | re.IGNORECASE)


def read_obj(path: Path) -> list[Part]:
    """All triangles, one part per material.

    Raises:
        MissingDataError: a texture is not there.
        BadDataError: the file or one beside it is malformed, or leaves open what colour a face has.
    """
    text = re.sub(r"^ +|^#.*$", "", text_of(path).replace("\t", " "), flags=re.MULTILINE)
    materials = _Materials(path, _LIBRARY_LINE.findall(text))
    names: dict[str, str] = {}

    def numbered(line: re.Match[str]) -> str:
        return f"usemtl {names.setdefault((line[1] or '').strip(), str(len(names)))}"

    text = _MATERIAL_LINE.sub(numbered, _LIBRARY_LINE.sub("", text))
    library = "".join(f"newmtl {number}\n" for number in names.values())
    try:
        scene = trimesh.load_scene(
            io.BytesIO(f"mtllib all\n{text}".encode()),
            file_type="obj",
            process=False,
            resolver={"all": library.encode()},
        )
        solids = [solid for solid in scene.dump() if isinstance(solid, trimesh.Trimesh) and len(solid.faces)]
    except Exception as error:  # trimesh's reader raises whatever it stumbles over
        raise BadDataError(
            f"cannot read mesh {path} ({error!r}); expected a whole OBJ: fetch it anew, or export it again"
        ) from error
    by_number = {number: name for name, number in names.items()}
    return [_part(solid, by_number, materials) for solid in solids]


def _part(solid: trimesh.Trimesh, names: dict[str, str], materials: _Materials) -> Part:
    visual: Any = solid.visual
    vertices, faces = np.asarray(solid.vertices), np.asarray(solid.faces)
    white = np.ones(3)
    if visual.kind == "vertex":
        rgb = np.asarray(visual.vertex_colors)[:, :3] / 255
        return Part(vertices, faces, None, None, white, linear_from_srgb(rgb))
    name = names.get(getattr(getattr(visual, "material", None), "name", None) or "", "")
    material, image = materials.look(name)
    uv = getattr(visual, "uv", None)
    kd = np.clip(material.kd, 0, 1)
    if image is None:
        return Part(vertices, faces, None, None, linear_from_srgb(kd), None)
    if uv is None:
        raise BadDataError(
            f"mesh {materials.path} has a texture but no coordinates in it; expected both: export it again"
        )
    uv = np.asarray(uv, dtype=np.float64)
    if material.clamped and (np.abs(uv - 0.5) > 0.5 + _CLAMP_SLACK).any():
        raise BadDataError(
            f"mesh {materials.path} looks beyond the border of a texture that is clamped (-clamp on, material {name}); "
            "expected coordinates in [0, 1]: clip them, or take the option away"
        )
    return Part(vertices, faces, uv, image, white if np.ptp(kd) == 0 else linear_from_srgb(kd), None)


class _Materials:
    """The materials that an OBJ's libraries hold, and the textures they name, each decoded once."""

    def __init__(self, path: Path, libraries: list[str]) -> None:
        self.path, self.named = path, libraries
        self.absent: list[str] = []
        self.known: dict[str, Material] | None = None
        self.images: dict[str | None, UInt8[np.ndarray, "h w 3"]] = {}
        for line in libraries:
            for name in [line.strip()] if self._file(line.strip(), (".",)) else line.split():
                file = self._file(name, (".",))
                if file is None:
                    self.absent.append(name)
                else:  # a material is looked for in the first library first
                    self.known = read_mtl(file) | (self.known or {})

    def look(self, name: str) -> tuple[Material, UInt8[np.ndarray, "h w 3"] | None]:
        """Material and texture of the faces under ``usemtl name``, "" for those without."""
        if self.known is None:
            return Material(), self._image(None)
        if name == "" and len(self.known) == 1:
            material = next(iter(self.known.values()))
        elif name in self.known:
            material = self.known[name]
        else:
            found = f"uses material {name}, which" if name else "has faces without material (usemtl), which"
            absent = f" ({', '.join(self.absent)} not there)" if self.absent else ""
            raise BadDataError(
                f"mesh {self.path} {found} is none of {', '.join(self.known) or 'nothing'}{absent}; expected it in one "
                "of its libraries: correct usemtl, or add the .mtl"
            )
        return material, None if material.texture is None else self._image(material.texture)

    def _image(self, named: str | None) -> UInt8[np.ndarray, "h w 3"]:
        """Texture of this name, or the usual one."""
        if named not in self.images:
            file = self._usual() if named is None else self._file(named, _FOLDERS)
            if file is None:
                what = f"texture {named}" if named else "texture.png, nor a single image,"
                why = f" ({', '.join(self.absent)} is not there either)" if self.absent and not named else ""
                raise MissingDataError(
                    f"no {what} for mesh {self.path}{why}; expected it in ../materials/textures or beside the mesh: "
                    "unpack the whole model folder"
                )
            self.images[named] = np.array(decode(file, f"texture {file}").convert("RGB"))
        return self.images[named]

    def _file(self, name: str, folders: tuple[str, ...]) -> Path | None:
        """A file by its path, or by its file name alone (an exporter's own paths are of no use here)."""
        slashed = name.replace("\\", "/")
        for tail in (name, slashed, slashed.rsplit("/", 1)[-1]):
            for folder in folders:
                file = self.path.parent / folder / tail
                if file.is_file():
                    return file
                alike = [f for f in _listed(file.parent) if f.name.lower() == file.name.lower() and f.is_file()]
                if len(alike) == 1:
                    return alike[0]
        return None

    def _usual(self) -> Path | None:
        folders = [self.path.parent / folder for folder in _FOLDERS]
        found = [folder / "texture.png" for folder in folders if (folder / "texture.png").is_file()]
        for folder in folders:
            images = [file for file in _listed(folder) if file.suffix.lower() in _IMAGE_SUFFIXES]
            found += images if len(images) == 1 else []
        return found[0] if found else None


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
