"""The prepared form of a scene: one folder in formats that other programs read, equal to the scene bit for bit.

=====================  ================================================================================================
``transforms.json``    nerfstudio's dialect; each frame also holds ``cam_from_world`` (OpenCV), exact in float32
``images/*.png``       8-bit sRGB, RGBA with straight alpha for object scenes; views have no finer values anywhere
``split.json``         file names of ``inputs``, ``capture`` and ``heldout``
``points.ply``         points of captures
``mesh.glb``           true surface of object scenes, with its texture
``surface.ply``        samples of its visible part, with normals
``scene.json``         everything else, what the scene was made from, and the sha256 of every other file
=====================  ================================================================================================
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from evalsuite.core.conventions import opengl_from_opencv
from evalsuite.core.errors import ShapeError
from evalsuite.core.types import Cameras, Mesh, Points, Scene, SurfaceSamples, Views
from evalsuite.scenes.colours import linear_from_srgb
from evalsuite.scenes.meshes import load_mesh
from evalsuite.scenes.origin import FACTS, SCHEMA, UNREADABLE, Origin, damaged, file_hash, read_json

_COLOURS = "_COLOURS"

_ABANDONED_SECONDS = 86_400.0
"""Age of a folder in the making that nobody can still be at work on; the slowest scene takes minutes."""

_SURFACE_HEADER = "\n".join(
    [
        "ply",
        "format binary_little_endian 1.0",
        "element vertex {}",
        *(f"property float {name}" for name in ("x", "y", "z", "nx", "ny", "nz")),
        "end_header\n",
    ]
)


def write_scene(scene: Scene, origin: Origin, folder: Path) -> None:
    """Write a scene; the folder appears whole or not at all, in place of an earlier one.

    What a process that was killed at it left behind is removed once it is a day old: until then, another process may
    be writing there.

    Raises:
        ShapeError: an image or a colour is not a multiple of 1/255.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    # a dot in front: nobody takes a folder in the making for a scene
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write_parts(scene, fresh)
        facts = {
            "schema": SCHEMA,
            "id": scene.id,
            "stratum": scene.stratum,
            "centre": scene.centre.tolist(),
            "radius": scene.radius,
            "background": scene.background.tolist(),
            "notes": list(scene.notes),
            "points": None if scene.points is None else len(scene.points),
            "origin": asdict(origin),
            "files": {name: file_hash(fresh / name) for name in _names(fresh)},
        }
        _write_json(fresh / FACTS, facts)
        fresh.chmod(0o755)
        _replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def read_scene(folder: Path) -> Scene:
    """The scene in a folder that `write_scene` made, the same bits.

    Raises:
        BadDataError: a file is missing, unknown, or differs from its hash.
    """
    try:
        facts = read_json(folder / FACTS)
        _verify(folder, facts["files"])
        split, frames = read_json(folder / "split.json"), read_json(folder / "transforms.json")["frames"]
        views = _read_views(folder, frames)
        place = {Path(frame["file_path"]).name: index for index, frame in enumerate(frames)}
        inputs, capture, heldout = (
            views[[place[name] for name in split[part]]] for part in ("inputs", "capture", "heldout")
        )
        return Scene(
            id=facts["id"],
            stratum=facts["stratum"],
            inputs=inputs,
            capture=capture,
            heldout=heldout,
            centre=torch.tensor(facts["centre"]),
            radius=facts["radius"],
            background=torch.tensor(facts["background"]),
            points=_read_points(folder, facts["points"]),
            mesh=_read_mesh(folder / "mesh.glb"),
            surface=_read_surface(folder / "surface.ply"),
            notes=tuple(facts["notes"]),
            source=facts["origin"]["source"],
        )
    except UNREADABLE as error:
        raise damaged(folder, repr(error)) from error


def _verify(folder: Path, listed: dict[str, str]) -> None:
    found = set(_names(folder)) - {FACTS}
    for name in sorted(found ^ set(listed)):
        raise damaged(folder, f"{name} is {'unknown' if name in found else 'missing'}")
    for name, digest in listed.items():
        if file_hash(folder / name) != digest:
            raise damaged(folder, f"{name} differs from its hash")


def _write_parts(scene: Scene, folder: Path) -> None:
    names = [f"capture-{i:04d}.png" for i in range(len(scene.capture))]
    heldout = [f"heldout-{i:04d}.png" for i in range(len(scene.heldout))]
    (folder / "images").mkdir()
    frames = _write_views(scene.capture, names, folder) + _write_views(scene.heldout, heldout, folder)
    paths = [f"images/{name}" for name in (*names, *heldout)]
    train, test = paths[: len(names)], paths[len(names) :]
    document = {
        "camera_model": "OPENCV",
        "frames": frames,
        "train_filenames": train,
        "val_filenames": test,
        "test_filenames": test,
    }
    if scene.points is not None and len(scene.points):
        document["ply_file_path"] = "points.ply"
        colours = _eight_bit(scene.points.rgb, "points.rgb")
        trimesh.PointCloud(scene.points.xyz.numpy(), colours).export(folder / "points.ply")
    if scene.mesh is not None:
        _write_mesh(scene.mesh, folder / "mesh.glb")
    if scene.surface is not None:
        _write_surface(scene.surface, folder / "surface.ply")
    _write_json(folder / "transforms.json", document)
    inputs = [names[i] for i in _positions(scene.inputs, scene.capture)]
    _write_json(folder / "split.json", {"inputs": inputs, "capture": names, "heldout": heldout})


def _positions(inputs: Views, capture: Views) -> list[int]:
    """Where each input stands among the capture views."""
    poses, images = capture.cameras.cam_from_world, capture.rgb
    found = []
    for pose, image in zip(inputs.cameras.cam_from_world, inputs.rgb, strict=True):
        same = (i for i in range(len(capture)) if torch.equal(poses[i], pose) and torch.equal(images[i], image))
        found.append(next(same))
    return found


def _write_views(views: Views, names: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    planes = [_eight_bit(views.rgb, "rgb")]
    if views.alpha is not None:
        planes.append(_eight_bit(views.alpha, "alpha")[..., None])
    for name, image in zip(names, np.concatenate(planes, axis=-1), strict=True):
        Image.fromarray(image).save(folder / "images" / name)
    cameras = views.cameras
    world_from_cam = opengl_from_opencv(cameras.cam_from_world.double())
    return [
        {
            "file_path": f"images/{name}",
            "transform_matrix": world_from_cam[i].tolist(),
            "cam_from_world": cameras.cam_from_world[i].tolist(),
            "fl_x": cameras.focal_px[i, 0].item(),
            "fl_y": cameras.focal_px[i, 1].item(),
            "cx": cameras.centre_px[i, 0].item(),
            "cy": cameras.centre_px[i, 1].item(),
            "w": cameras.width,
            "h": cameras.height,
        }
        for i, name in enumerate(names)
    ]


def _eight_bit(values: Float[Tensor, "..."], name: str) -> UInt8[np.ndarray, "..."]:
    rounded = (values.clamp(0, 1) * 255).round()
    if not torch.equal(rounded / 255, values):
        raise ShapeError(
            f"{name} of a scene holds values between the steps of 1/255; expected 8-bit images: round them"
        )
    return rounded.to(torch.uint8).cpu().numpy()


def _read_views(folder: Path, frames: Sequence[dict[str, Any]]) -> Views:
    images = []
    for frame in frames:
        with Image.open(folder / frame["file_path"]) as image:
            images.append(np.array(image))
    stacked = torch.from_numpy(np.stack(images)).float() / 255
    cameras = Cameras(
        torch.tensor([frame["cam_from_world"] for frame in frames]),
        torch.tensor([[frame["fl_x"], frame["fl_y"]] for frame in frames]),
        torch.tensor([[frame["cx"], frame["cy"]] for frame in frames]),
        frames[0]["w"],
        frames[0]["h"],
    )
    alpha = stacked[..., 3].contiguous() if stacked.shape[-1] == 4 else None
    return Views(stacked[..., :3].contiguous(), alpha, cameras)


def _read_points(folder: Path, count: int | None) -> Points | None:
    if not count:
        return None if count is None else Points(torch.zeros(0, 3), torch.zeros(0, 3))
    cloud: Any = trimesh.load(folder / "points.ply", process=False)
    rgb = np.asarray(cloud.colors)[:, :3].astype(np.float32) / 255
    return Points(torch.from_numpy(np.asarray(cloud.vertices)).float(), torch.from_numpy(rgb))


def _read_mesh(path: Path) -> Mesh | None:
    if not path.is_file():
        return None
    mesh = load_mesh(path)
    return Mesh(mesh.vertices, mesh.faces, mesh.uv, mesh.image, mesh.vertex_rgb)


def _write_mesh(mesh: Mesh, path: Path) -> None:
    """Write a GLB with the colours that it can hold: sRGB in the texture, linear float32 at the vertices."""
    visual = None
    if mesh.image is not None or mesh.vertex_rgb is not None:
        texture = None if mesh.image is None else Image.fromarray(mesh.image)
        material = PBRMaterial(baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0)
        visual = TextureVisuals(uv=mesh.uv, material=material)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, visual=visual, process=False)
    if mesh.vertex_rgb is not None:
        # trimesh writes COLOR_0 in 8 bits, too few for linear colours, but attributes of one's own as they are
        solid.vertex_attributes[_COLOURS] = linear_from_srgb(mesh.vertex_rgb).astype(np.float32)
    solid.export(path, tree_postprocessor=_name_colours)


def _name_colours(tree: dict[str, Any]) -> None:
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            attributes = primitive["attributes"]
            if _COLOURS in attributes:
                attributes["COLOR_0"] = attributes.pop(_COLOURS)


def _write_surface(samples: SurfaceSamples, path: Path) -> None:
    rows = np.hstack([samples.points, samples.normals]).astype("<f4")
    path.write_bytes(_SURFACE_HEADER.format(len(rows)).encode() + rows.tobytes())


def _read_surface(path: Path) -> SurfaceSamples | None:
    if not path.is_file():
        return None
    _, _, body = path.read_bytes().partition(b"end_header\n")
    rows = np.frombuffer(body, "<f4").reshape(-1, 6)
    return SurfaceSamples(rows[:, :3].copy(), rows[:, 3:].copy())


def _remove_abandoned(folder: Path) -> None:
    for draft in folder.parent.glob(f".{folder.name}.*"):
        with suppress(FileNotFoundError):  # another process was quicker
            if time.time() - draft.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(draft)


def _replace(fresh: Path, folder: Path) -> None:
    """Put ``fresh`` in the place of ``folder``; a process that does the same at the same time wins or loses whole."""
    if folder.exists():
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as aside:
            folder.rename(Path(aside) / folder.name)
    try:
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was quicker, with the same scene
            raise


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    path.write_text(json.dumps(tree, sort_keys=True, indent=1, allow_nan=False) + "\n", encoding="utf-8")
