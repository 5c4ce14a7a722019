"""Kept structures: read for the same views, made for any others, never believed when damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evalsuite.core.conventions import look_at, orbit_position
from evalsuite.core.machine import libraries
from evalsuite.core.types import Cameras, Points, Views
from evalsuite.scenes import sfm, structures
from evalsuite.scenes.sfm import SfmResult
from evalsuite.scenes.structures import structure_of

WHITE = torch.ones(3)


@pytest.fixture
def views() -> Views:
    generator = torch.Generator().manual_seed(0)
    poses = torch.stack([look_at(orbit_position(azimuth, 10.0, 1.5)) for azimuth in (0.0, 90.0, 180.0)])
    cameras = Cameras(poses, torch.full((3, 2), 8.0), torch.full((3, 2), 4.0), 8, 8)
    rgb = torch.randint(0, 256, (3, 8, 8, 3), generator=generator) / 255
    return Views(rgb, torch.ones(3, 8, 8), cameras)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[SfmResult]:
    """What a stand-in for the triangulation has made so far: other points and seconds each time."""
    found: list[SfmResult] = []

    def fake(views: Views, background: Tensor, seed: int = 0) -> SfmResult:
        generator = torch.Generator().manual_seed(len(found))
        points = Points(torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator))
        found.append(SfmResult(points, 2.25, 1 / 3, 9.1 + len(found)))
        return found[-1]

    monkeypatch.setattr(structures, "triangulate", fake)
    return found


def same(a: SfmResult, b: SfmResult) -> bool:
    numbers = [(r.mean_track_length, r.reprojection_error_px, r.seconds) for r in (a, b)]
    return torch.equal(a.points.xyz, b.points.xyz) and torch.equal(a.points.rgb, b.points.rgb) and len({*numbers}) == 1


def test_a_structure_is_made_once_and_read_to_the_bit(views: Views, made: list[SfmResult], tmp_path: Path) -> None:
    found = [structure_of(views, WHITE, tmp_path / "kept") for _ in range(3)]
    assert len(made) == 1
    assert all(same(one, made[0]) for one in found), "its seconds too"
    (file,) = (tmp_path / "kept").iterdir()
    assert file.suffix == ".safetensors"


def test_no_points_are_kept_as_well(views: Views, tmp_path: Path) -> None:
    first, again = (structure_of(views[:1], WHITE, tmp_path) for _ in range(2))
    assert len(first.points) == len(again.points) == 0
    assert same(first, again)


def test_without_a_folder_nothing_is_kept(views: Views, made: list[SfmResult], tmp_path: Path) -> None:
    structure_of(views, WHITE, None)
    structure_of(views, WHITE, None)
    assert len(made) == 2


def _other_picture(views: Views) -> Views:
    rgb = views.rgb.clone()
    rgb[1, 2, 3, 0] = (rgb[1, 2, 3, 0] + 0.5) % 1
    return replace(views, rgb=rgb)


def _other_pose(views: Views) -> Views:
    poses = views.cameras.cam_from_world.clone()
    poses[0, 0, 3] += 1e-6
    return replace(views, cameras=replace(views.cameras, cam_from_world=poses))


def _other_lens(views: Views) -> Views:
    return replace(views, cameras=replace(views.cameras, focal_px=views.cameras.focal_px * 1.01))


@pytest.mark.parametrize("change", [_other_picture, _other_pose, _other_lens, lambda views: views[[0, 1]]])
def test_other_views_make_another(
    views: Views, made: list[SfmResult], tmp_path: Path, change: Callable[[Views], Views]
) -> None:
    structure_of(views, WHITE, tmp_path)
    assert same(structure_of(change(views), WHITE, tmp_path), made[1])
    assert same(structure_of(views, WHITE, tmp_path), made[0]), "both are kept"
    assert len(made) == 2


def test_the_background_behind_alpha_makes_another(views: Views, made: list[SfmResult], tmp_path: Path) -> None:
    assert views.alpha is not None
    glass = replace(views, alpha=views.alpha / 2)
    structure_of(glass, WHITE, tmp_path)
    structure_of(glass, torch.zeros(3), tmp_path)
    assert len(made) == 2


@pytest.mark.parametrize("what", ["code", "pycolmap"])
def test_other_code_or_libraries_make_another(
    views: Views, made: list[SfmResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    structures._maker.cache_clear()
    structure_of(views, WHITE, tmp_path / "kept")
    if what == "code":
        changed = tmp_path / "sfm.py"
        changed.write_text("MAX_FEATURES = 99\n")
        monkeypatch.setattr(sfm, "__file__", str(changed))
    else:
        others = {**libraries(), what: "99.0 00000000"}
        monkeypatch.setattr(structures, "libraries", lambda: others)
    structures._maker.cache_clear()
    structure_of(views, WHITE, tmp_path / "kept")
    structures._maker.cache_clear()
    assert len(made) == 2


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _emptied(path: Path) -> None:
    path.write_bytes(b"")


def _one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _of_something_else(path: Path) -> None:
    save_file({"weights": torch.zeros(3)}, path)


def _without_seconds(path: Path) -> None:
    save_file(load_file(path), path, metadata={"sha256": "0"})


@pytest.mark.parametrize("damage", [_cut, _emptied, _one_bit, _of_something_else, _without_seconds])
def test_a_damaged_file_is_made_anew(
    views: Views, made: list[SfmResult], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    structure_of(views, WHITE, tmp_path)
    (file,) = tmp_path.iterdir()
    damage(file)
    with pytest.warns(UserWarning, match=f"{file.name} holds no structure from motion .*made anew"):
        assert same(structure_of(views, WHITE, tmp_path), made[1])
    assert same(structure_of(views, WHITE, tmp_path), made[1]), "and kept"
    assert list(tmp_path.iterdir()) == [file]


def test_a_killed_writer_leaves_no_file_of_that_name(
    views: Views, made: list[SfmResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(structures, "save_file", half)
        with pytest.raises(KeyboardInterrupt):
            structure_of(views, WHITE, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert same(structure_of(views, WHITE, tmp_path), made[1])
