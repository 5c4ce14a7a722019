"""Laws of mesh reading, packing and normalisation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Float
from PIL import Image

from evalsuite.core.errors import BadDataError, MissingDataError, ShapeError
from evalsuite.scenes.meshes import TexturedMesh, load_mesh, normalised, packed, sample_texture

QUAD = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])
UV = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)
OBJ = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def _image(path: Path, pixels: np.ndarray = COLOURS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lossy = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    Image.fromarray(pixels).save(path, **lossy)


def _fuel(root: Path, mtl: str | None = None, texture: str = "materials/textures/texture.png") -> Path:
    path = root / "thing" / "meshes" / "model.obj"
    path.parent.mkdir(parents=True)
    path.write_text("mtllib model.mtl\nusemtl skin\n" + OBJ + "f 1/1 2/2 3/3\nf 1/1 3/3 4/4\n")
    if mtl is not None:
        (path.parent / "model.mtl").write_text(mtl)
    _image(root / "thing" / texture)
    return path


def _corners(mesh: TexturedMesh) -> Float[np.ndarray, "4 3"]:
    """Colours at the texels of the quad's corners, in the order of QUAD, by the mesh's own texture coordinates."""
    assert mesh.uv is not None
    assert mesh.image is not None
    order = [int(np.linalg.norm(mesh.vertices - corner, axis=1).argmin()) for corner in QUAD]
    uv = mesh.uv[order]
    return sample_texture(mesh.image, uv + 0.5 * (uv.mean(axis=0) - uv))


@pytest.mark.parametrize(
    ("mtl", "texture"),
    [
        (None, "materials/textures/texture.png"),
        (None, "meshes/whatever.jpg"),
        ("newmtl skin\nmap_Kd texture.png\n", "materials/textures/texture.png"),
        ("newmtl skin\nmap_Kd ../materials/textures/texture.png\n", "materials/textures/texture.png"),
        ("newmtl skin\nmap_Kd C:\\scans\\skin.png\n", "textures/skin.png"),
        ("newmtl skin\nmap_Kd skin.png\n", "meshes/textures/Skin.PNG"),
    ],
)
def test_texture_is_found_in_the_usual_places(tmp_path: Path, mtl: str | None, texture: str) -> None:
    mesh = load_mesh(_fuel(tmp_path, mtl, texture))
    assert mesh.image is not None
    assert mesh.image.shape == (2, 2, 3)
    assert np.abs(mesh.image.astype(int) - COLOURS).max() <= (8 if texture.endswith("jpg") else 0)


def test_texture_rows_run_downwards(tmp_path: Path) -> None:
    # v = 0 is the last row: QUAD's lower left corner is blue
    expected = COLOURS[[1, 1, 0, 0], [0, 1, 1, 0]] / 255
    np.testing.assert_allclose(_corners(load_mesh(_fuel(tmp_path))), expected, atol=1e-3)


def test_missing_files_are_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no mesh at .*nowhere\.glb; .*unpack"):
        load_mesh(tmp_path / "nowhere.glb")
    path = _fuel(tmp_path)
    (tmp_path / "thing/materials/textures/texture.png").unlink()
    with pytest.raises(
        MissingDataError,
        match=r"no texture\.png, .* for mesh .*model\.obj \(model\.mtl is not there",
    ):
        load_mesh(path)


def test_broken_files_are_bad_data(tmp_path: Path) -> None:
    path = _fuel(tmp_path)
    texture = tmp_path / "thing/materials/textures/texture.png"
    _image(texture, np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    texture.write_bytes(texture.read_bytes()[:4000])
    with pytest.raises(BadDataError, match=r"texture .*texture\.png"):
        load_mesh(path)
    path.write_text("# nothing\n")
    with pytest.raises(BadDataError, match=r"model\.obj"):
        load_mesh(path)
    _image(texture)
    path.write_text(OBJ.replace("v 1 1 0", "v nan 1 0") + "f 1/1 2/2 3/3\n")
    with pytest.raises(BadDataError, match=r"model\.obj holds NaN"):
        load_mesh(path)
    (tmp_path / "cut.glb").write_bytes(b"glTF" + bytes(30))
    with pytest.raises(BadDataError, match=r"cut\.glb"):
        load_mesh(tmp_path / "cut.glb")


def test_glb_keeps_texture_and_transform(tmp_path: Path) -> None:
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(COLOURS))
    visual = trimesh.visual.TextureVisuals(uv=UV, material=material)
    scene = trimesh.Scene()
    part = trimesh.Trimesh(QUAD, FACES, visual=visual, process=False)
    scene.add_geometry(part, transform=trimesh.transformations.translation_matrix([5, 0, 0]))
    scene.export(tmp_path / "quad.glb")
    mesh = load_mesh(tmp_path / "quad.glb")
    np.testing.assert_allclose(sorted(mesh.vertices[:, 0]), [5, 5, 6, 6])
    assert mesh.image is not None
    np.testing.assert_array_equal(mesh.image, COLOURS)


def test_glb_factors_are_linear(tmp_path: Path) -> None:
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[0.2158605, 1.0, 0.0, 1.0])
    visual = trimesh.visual.TextureVisuals(uv=UV, material=material)
    trimesh.Trimesh(QUAD, FACES, visual=visual, process=False).export(tmp_path / "flat.glb")
    image = load_mesh(tmp_path / "flat.glb").image
    assert image is not None
    np.testing.assert_allclose(image.reshape(3), [128, 255, 0], atol=1)


@pytest.mark.parametrize("suffix", ["gltf", "ply", "GLTF", ""])
def test_other_kinds_of_files_are_refused_by_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mesh.{suffix}".rstrip(".")
    path.write_text("{}")
    with pytest.raises(BadDataError, match=r"expected \.obj or \.glb: (pack it|export it)"):
        load_mesh(path)


def test_materials_of_an_obj_share_one_atlas(tmp_path: Path) -> None:
    path = tmp_path / "two.obj"
    path.write_text(
        "mtllib two.mtl\n" + OBJ + "v 3 0 0\nv 4 0 0\nv 4 1 0\n"
        "usemtl skin\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\nusemtl paint\nf 5/1 6/2 7/3\n"
    )
    (tmp_path / "two.mtl").write_text("newmtl skin\nmap_Kd skin.png\nnewmtl paint\nKd 0.2 0.4 0.6\n")
    _image(tmp_path / "skin.png")
    mesh = load_mesh(path)
    np.testing.assert_allclose(_corners(mesh), COLOURS[[1, 1, 0, 0], [0, 1, 1, 0]] / 255, atol=1e-3)
    assert mesh.uv is not None
    assert mesh.image is not None
    painted = sample_texture(mesh.image, mesh.uv[mesh.vertices[:, 0] >= 3])
    np.testing.assert_allclose(painted, np.tile([0.2, 0.4, 0.6], (3, 1)), atol=0.003)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=6),
    reach=st.floats(0.1, 2.9),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_packing_keeps_every_texel(sizes: list[tuple[int, int]], reach: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    meshes = [
        TexturedMesh(QUAD, FACES, uv=rng.uniform(0, reach, (4, 2)), image=rng.integers(0, 255, (*size, 3), np.uint8))
        for size in sizes
    ]
    atlas = packed(meshes)
    assert atlas.uv is not None
    assert atlas.image is not None
    np.testing.assert_array_equal(atlas.faces[-1], FACES[-1] + 4 * (len(sizes) - 1))
    for k, mesh in enumerate(meshes):
        assert mesh.uv is not None
        assert mesh.image is not None
        h, w = mesh.image.shape[:2]
        # away from the repeat's seam, where the atlas has no neighbour to blend with
        inside = (mesh.uv * (w, h) % (w, h) >= 0.5).all(axis=1) & (mesh.uv * (w, h) % (w, h) <= (w - 0.5, h - 0.5)).all(
            1
        )
        found = sample_texture(atlas.image, atlas.uv[4 * k : 4 * k + 4])[inside]
        np.testing.assert_allclose(found, sample_texture(mesh.image, mesh.uv)[inside], atol=2e-3)


def test_packing_with_vertex_colours_samples_textures() -> None:
    painted = TexturedMesh(QUAD, FACES, vertex_rgb=np.full((4, 3), 0.25))
    flat = TexturedMesh(QUAD, FACES, uv=UV, image=np.full((2, 2, 3), 51, dtype=np.uint8))
    both = packed([painted, flat])
    assert both.vertex_rgb is not None
    np.testing.assert_allclose(both.vertex_rgb, np.repeat([[0.25], [0.2]], 4, axis=0) * np.ones(3), atol=1e-6)


def test_packing_keeps_a_texture_beside_vertex_colours() -> None:
    painted = TexturedMesh(QUAD, FACES, vertex_rgb=np.full((4, 3), 0.25))
    textured = TexturedMesh(QUAD, FACES, uv=UV, image=COLOURS)
    both = packed([painted, textured])
    assert both.vertex_rgb is not None
    assert both.uv is not None
    assert both.image is not None
    np.testing.assert_array_equal(both.vertex_rgb, np.repeat([[0.25], [1.0]], 4, axis=0) * np.ones(3))
    np.testing.assert_allclose(sample_texture(both.image, both.uv[:4]), 1)
    inner = TexturedMesh(QUAD, FACES, uv=both.uv[4:], image=both.image)
    np.testing.assert_allclose(_corners(inner), COLOURS[[1, 1, 0, 0], [0, 1, 1, 0]] / 255, atol=1e-3)


CLOUDS = hnp.arrays(np.float64, (9, 3), elements=st.floats(-50, 50)).filter(lambda x: np.ptp(x, axis=0).max() > 1e-3)


@given(cloud=CLOUDS, radius=st.floats(0.01, 10), z_up=st.booleans())
def test_normalised_fills_the_sphere(cloud: np.ndarray, radius: float, z_up: bool) -> None:
    faces = np.arange(9).reshape(3, 3)
    mesh = normalised(TexturedMesh(cloud, faces, vertex_rgb=np.zeros((9, 3))), radius, z_up)
    distance = np.linalg.norm(mesh.vertices, axis=1)
    assert distance.max() == pytest.approx(radius, rel=1e-9)
    # a ball whose far points all lie on one side could be made smaller
    reach = mesh.vertices[distance > 0.97 * radius]
    assert np.linalg.norm(reach.mean(axis=0)) < 0.999 * radius
    again = normalised(TexturedMesh(3 * cloud + (1, 2, 3), faces, vertex_rgb=np.zeros((9, 3))), radius, z_up)
    np.testing.assert_allclose(again.vertices, mesh.vertices, atol=0.02 * radius)


def test_normalised_turns_z_up_to_y_up_without_mirroring() -> None:
    tetrahedron = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 3]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    mesh = normalised(TexturedMesh(tetrahedron, faces, vertex_rgb=np.zeros((4, 3))), 1.0, z_up=True)
    assert mesh.vertices[:, 1].argmax() == 3
    volume = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).volume
    assert volume > 0


def test_normalised_drops_unused_vertices() -> None:
    vertices = np.concatenate([[[99.0, 99, 99]], QUAD])
    mesh = normalised(TexturedMesh(vertices, FACES + 1, uv=np.concatenate([[[0, 0]], UV]), image=COLOURS), 0.5)
    assert mesh.vertices.shape == (4, 3)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 0.5)
    np.testing.assert_array_equal(mesh.uv, UV)


def test_normalised_refuses_a_point() -> None:
    with pytest.raises(BadDataError, match="coincide"):
        normalised(TexturedMesh(np.ones((3, 3)), np.array([[0, 1, 2]]), vertex_rgb=np.zeros((3, 3))), 1.0)


def test_colour_is_texture_or_vertices() -> None:
    TexturedMesh(QUAD, FACES, uv=UV, image=COLOURS, vertex_rgb=np.zeros((4, 3)))
    with pytest.raises(ShapeError, match="uv and image together"):
        TexturedMesh(QUAD, FACES)
    with pytest.raises(ShapeError, match="uv and image together"):
        TexturedMesh(QUAD, FACES, uv=UV)


@pytest.mark.data
def test_all_scans_of_the_mirror_load() -> None:
    mirror = Path(os.environ["EVALSUITE_MIRROR"])
    paths = [*sorted((mirror / "train_meshes").glob("*.glb")), *sorted((mirror / "gso").glob("*/meshes/model.obj"))]
    assert len(paths) == 150
    for path in paths:
        mesh = load_mesh(path)
        assert mesh.image is not None, path
        assert min(mesh.image.shape[:2]) >= 256, path
        assert mesh.image.std() > 3, path
