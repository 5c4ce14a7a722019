"""OBJ and its material libraries: one row per way of writing the same thing, and one per thing that is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evalsuite.core.errors import BadDataError, EvalsuiteError, MissingDataError
from evalsuite.scenes.meshes import TexturedMesh, load_mesh

SKIN = (200, 90, 10)
QUAD = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
FACES = "f 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
OBJ = f"mtllib a.mtl\n{QUAD}usemtl m\n{FACES}"
MTL = "newmtl m\nKd 0.8 0.8 0.8\nmap_Kd tex.png\n"


def _load(root: Path, obj: str = OBJ, mtl: str | bytes | None = MTL, texture: str = "tex.png") -> TexturedMesh:
    """A mesh, its library, its texture in orange, and a blue image that nothing names."""
    for name, colour in ((texture, SKIN), ("zz-normal.png", (128, 128, 255))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), colour).save(root / name)
    (root / "a.obj").write_bytes(obj.encode())
    if mtl is not None:
        (root / "a.mtl").write_bytes(mtl if isinstance(mtl, bytes) else mtl.encode())
    return load_mesh(root / "a.obj")


TEXTURED: dict[str, tuple[str, str | bytes, str]] = {
    "plain": (OBJ, MTL, "tex.png"),
    "map_kd": (OBJ, MTL.replace("map_Kd", "map_kd"), "tex.png"),
    "MAP_KD": (OBJ, MTL.replace("map_Kd", "MAP_KD"), "tex.png"),
    "tabs": (OBJ, MTL.replace(" ", "\t").replace("\nK", "\n\tK"), "tex.png"),
    "indented": (OBJ, MTL.replace("\n", "\n    "), "tex.png"),
    "CRLF": (OBJ.replace("\n", "\r\n"), MTL.replace("\n", "\r\n"), "tex.png"),
    "CR": (OBJ, MTL.replace("\n", "\r"), "tex.png"),
    "byte order marks": ("\ufeff" + OBJ, "\ufeff" + MTL, "tex.png"),
    "code page": (OBJ.replace("usemtl m", "usemtl \u00fc"), "newmtl \u00fc\nmap_Kd tex.png".encode(), "tex.png"),
    "Latin library": (OBJ, "# \u00fcber\n".encode("cp1252") + MTL.encode(), "tex.png"),
    "trailing blanks": (OBJ.replace("usemtl m", "usemtl m  "), MTL.replace("\n", "  \n"), "tex.png"),
    "space in file name": (OBJ, MTL.replace("tex.png", "my tex 1.png"), "my tex 1.png"),
    "quotes": (OBJ, MTL.replace("tex.png", '"my tex.png"'), "my tex.png"),
    "space in material": (OBJ.replace("usemtl m", "usemtl m 1"), MTL.replace("newmtl m", "newmtl m 1"), "tex.png"),
    "backslashes": (OBJ, MTL.replace("tex.png", "maps\\tex.png"), "maps/tex.png"),
    "someone's drive": (OBJ, MTL.replace("tex.png", "C:\\Users\\me\\tex.png"), "tex.png"),
    "letters of another case": (OBJ, MTL.replace("tex.png", "Tex.PNG"), "tex.png"),
    "options": (OBJ, MTL.replace("tex.png", "-s 1 1 1 -clamp on tex.png"), "tex.png"),
    "options, short": (OBJ, MTL.replace("tex.png", "-s 1 1 -o 0 -t 0 0 tex.png"), "tex.png"),
    "options, all": (
        OBJ,
        MTL.replace("tex.png", "-blendu on -blendv off -bm 1 -boost 2 -cc off -mm 0 1 -texres 64 -imfchan l tex.png"),
        "tex.png",
    ),
    "options and spaces": (OBJ, MTL.replace("tex.png", "-s 1 1 1 2 my tex.png"), "2 my tex.png"),
    "option in capitals, tabs": (OBJ, MTL.replace("tex.png", "-S\t1 1 1\ttex.png"), "tex.png"),
    "name that begins with a dash": (OBJ, MTL.replace("tex.png", "-tex.png"), "-tex.png"),
    "texture before Kd": (OBJ, "newmtl m\nmap_Kd tex.png\nKd 0 0 0\nd 0.5\nTr 1\nillum 2\n", "tex.png"),
    "statements before the first material": (OBJ, "Kd 1 0 0\nmap_Kd no.png\n" + MTL, "tex.png"),
    "other maps": (OBJ, MTL + "map_Ks no.png\nmap_Bump -bm 0.3 no.png\nnorm no.png\nmap_d no.png\n", "tex.png"),
    "map_Ka beside it": (OBJ, "newmtl m\nmap_Ka no.png\nmap_Kd tex.png\n", "tex.png"),
    "mtllib, tab": (OBJ.replace("mtllib ", "mtllib\t"), MTL, "tex.png"),
    "mtllib, indented": ("  " + OBJ, MTL, "tex.png"),
    "mtllib, case": (OBJ.replace("mtllib", "MTLLIB"), MTL, "tex.png"),
    "mtllib, two on a line": (OBJ.replace("a.mtl", "other.mtl a.mtl"), MTL, "tex.png"),
    "mtllib, two lines": ("mtllib other.mtl\n" + OBJ, MTL, "tex.png"),
    "mtllib, after the faces": (OBJ.replace("mtllib a.mtl\n", "") + "mtllib a.mtl\n", MTL, "tex.png"),
    "mtllib in a comment": ("# mtllib none.mtl\n" + OBJ, MTL, "tex.png"),
    "mtllib with a path": (OBJ.replace("a.mtl", "C:\\me\\a.mtl"), MTL, "tex.png"),
    "usemtl, tab": (OBJ.replace("usemtl ", "\tusemtl\t"), MTL, "tex.png"),
    "no usemtl": (OBJ.replace("usemtl m\n", ""), MTL, "tex.png"),
    "usemtl without name": (OBJ.replace("usemtl m\n", "usemtl\n"), MTL, "tex.png"),
    "faces, tabs": (OBJ.replace("f ", "f\t").replace("v 1", "v\t1"), MTL, "tex.png"),
    "a continued line": (OBJ.replace("2/2 3/3", "2/2 \\\n3/3"), MTL, "tex.png"),
}


@pytest.mark.parametrize(("obj", "mtl", "texture"), TEXTURED.values(), ids=TEXTURED.keys())
def test_the_texture_that_is_named_is_found(obj: str, mtl: str | bytes, texture: str, tmp_path: Path) -> None:
    mesh = _load(tmp_path, obj, mtl, texture)
    assert mesh.image is not None
    assert mesh.image.shape == (4, 4, 3)
    assert (mesh.image == SKIN).all()
    np.testing.assert_array_equal(mesh.vertices[mesh.faces[:, 0]], np.zeros((2, 3)))


def test_a_file_name_with_spaces_can_be_a_library(tmp_path: Path) -> None:
    (tmp_path / "my own.mtl").write_text(MTL)
    mesh = _load(tmp_path, OBJ.replace("a.mtl", "my own.mtl"), None)
    assert mesh.image is not None
    assert (mesh.image == SKIN).all()


def test_the_first_library_that_knows_a_material_counts(tmp_path: Path) -> None:
    (tmp_path / "b.mtl").write_text("newmtl m\nKd 1 0 0\nnewmtl n\nKd 0 0 1\n")
    image = _load(tmp_path, OBJ.replace("a.mtl", "a.mtl b.mtl")).image
    assert image is not None
    assert (image == SKIN).all()
    image = _load(tmp_path, OBJ.replace("a.mtl", "a.mtl b.mtl").replace("usemtl m", "usemtl n")).image
    assert image is not None
    assert image.tolist() == [[[0, 0, 255]]]


@pytest.mark.parametrize(
    ("mtl", "expected"),
    [
        ("newmtl m\nKd 0.2 0.4 0.6\n", [51, 102, 153]),
        ("newmtl m\nkd\t0.2\t0.4\t0.6 # comment\n", [51, 102, 153]),
        ("newmtl m\nKd 0.2\n", [51, 51, 51]),
        ("newmtl m\n", [255, 255, 255]),
        ("newmtl m\nKd 1 0 0\nnewmtl n\nKd 0 1 0\n", [255, 0, 0]),
    ],
)
def test_a_material_without_texture_is_its_colour(mtl: str, expected: list[int], tmp_path: Path) -> None:
    image = _load(tmp_path, mtl=mtl).image
    assert image is not None
    assert image.tolist() == [[expected]]


def test_a_coloured_kd_tints_the_texture_and_a_grey_one_does_not(tmp_path: Path) -> None:
    image = _load(tmp_path, mtl=MTL.replace("0.8 0.8 0.8", "1 1 0")).image
    assert image is not None
    assert image[0, 0].tolist() == [200, 90, 0]
    image = _load(tmp_path, mtl=MTL.replace("0.8 0.8 0.8", "0 0 0")).image
    assert image is not None
    assert image[0, 0].tolist() == list(SKIN)


def test_colours_behind_vertices_are_srgb(tmp_path: Path) -> None:
    text = "v 0 0 0 0.2 0.4 0.6\nv 1 0 0 0.2 0.4 0.6\nv 1 1 0 0.2 0.4 0.6\nf 1 2 3\n"
    rgb = _load(tmp_path, text, None).vertex_rgb
    assert rgb is not None
    np.testing.assert_allclose(rgb * 255, np.tile([51, 102, 153], (3, 1)), atol=1e-9)


REFUSED: dict[str, tuple[str, str, type[EvalsuiteError], str]] = {
    "texture gone": (OBJ, MTL.replace("tex.png", "gone 1.png"), MissingDataError, r"no texture gone 1\.png for mesh"),
    "-s": (OBJ, MTL.replace("tex.png", "-s 2 2 1 tex.png"), BadDataError, r"material m by -s 2 2 1"),
    "-o": (OBJ, MTL.replace("tex.png", "-o 0.5 tex.png"), BadDataError, r"by -o 0\.5"),
    "-t": (OBJ, MTL.replace("tex.png", "-t 0.1 0.1 tex.png"), BadDataError, r"by -t 0\.1 0\.1"),
    "-mm": (OBJ, MTL.replace("tex.png", "-mm 0 2 tex.png"), BadDataError, r"by -mm 0 2"),
    "-cc": (OBJ, MTL.replace("tex.png", "-cc on tex.png"), BadDataError, r"by -cc on"),
    "-clamp beyond the border": (
        OBJ.replace("vt 1 0", "vt 2 0"),
        MTL.replace("tex.png", "-clamp on tex.png"),
        BadDataError,
        r"-clamp on, material m",
    ),
    "map_Ka only": (OBJ, "newmtl m\nmap_Ka tex.png\n", BadDataError, r"material m in map_Ka only \(tex\.png\)"),
    "Kd as spectrum": (OBJ, "newmtl m\nKd spectral a.rfl\n", BadDataError, r"colour 'spectral a\.rfl'"),
    "unknown material": (OBJ.replace("usemtl m", "usemtl k"), MTL, BadDataError, r"uses material k, .* none of m;"),
    "unknown, a library gone": (
        OBJ.replace("usemtl m", "usemtl k").replace("a.mtl", "a.mtl b.mtl"),
        MTL,
        BadDataError,
        r"none of m \(b\.mtl not there\)",
    ),
    "no usemtl, two materials": (
        OBJ.replace("usemtl m\n", ""),
        MTL + "newmtl n\n",
        BadDataError,
        r"has faces without material \(usemtl\), which is none of m, n",
    ),
}


@pytest.mark.parametrize(("obj", "mtl", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_read_is_refused_by_name(
    obj: str, mtl: str, error: type[EvalsuiteError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        _load(tmp_path, obj, mtl)
    assert "fetch" not in str(caught.value)
    assert "; expected " in str(caught.value)
