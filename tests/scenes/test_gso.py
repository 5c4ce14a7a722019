"""Scanned objects: the table of ids, where files are looked for, and what a scene is made of."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import trimesh
from PIL import Image

from evalsuite.core.cases import Stratum
from evalsuite.core.errors import MissingDataError, UnknownNameError
from evalsuite.core.protocol import Protocol, Rig
from evalsuite.scenes.gso import gso_scene
from evalsuite.scenes.sources import SCANS, locate

TINY = Protocol("test", rig=Rig(resolution=32, supersample=2))


def _unpack(root: Path, name: str) -> Path:
    """A pillar, tall along z, in the publisher's layout."""
    folder = root / "gso" / name
    (folder / "meshes").mkdir(parents=True)
    (folder / "materials/textures").mkdir(parents=True)
    Image.new("RGB", (4, 4), (200, 40, 40)).save(folder / "materials/textures/texture.png")
    box = trimesh.creation.box((0.1, 0.1, 0.6))
    lines = [f"v {x} {y} {z}" for x, y, z in box.vertices] + ["vt 0.5 0.5"]
    lines += [f"f {a + 1}/1 {b + 1}/1 {c + 1}/1" for a, b, c in box.faces]
    (folder / "meshes/model.obj").write_text("\n".join(lines))
    return folder


def test_table_of_scans() -> None:
    assert len(SCANS) == 20
    assert len({name for name, _ in SCANS.values()}) == 20
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", scene_id) for scene_id in SCANS)
    strata = Counter(stratum for _, stratum in SCANS.values())
    assert set(strata) == set(get_args(Stratum)) - {"unbounded"}
    assert min(strata.values()) >= 5, "of fewer scenes no claim could be judged (docs/gate.md)"


def test_mirror_comes_before_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    _unpack(tmp_path / "data", "Dino_3")
    assert locate("Dino_3") == Path("data/gso/Dino_3")
    mirrored = _unpack(tmp_path / "mirror", "Dino_3")
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path / "mirror"))
    assert locate("Dino_3") == mirrored
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path / "elsewhere"))
    assert locate("Dino_3") == Path("data/gso/Dino_3")


def test_missing_scan_says_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    with pytest.raises(MissingDataError, match=r"SCHOOL_BUS is not in data/gso/.*run: evalsuite fetch gso/SCHOOL_BUS"):
        gso_scene("gso.school-bus", TINY)


def test_unknown_scan_names_a_near_one() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'gso\.dino-3'"):
        gso_scene("gso.dino3", TINY)


def test_scan_stands_upright(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _unpack(tmp_path, "Schleich_Bald_Eagle")
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path))
    scene = gso_scene("gso.schleich-bald-eagle", TINY)
    assert (scene.id, scene.stratum) == ("gso.schleich-bald-eagle", "thin")
    assert scene.mesh is not None
    assert np.ptp(scene.mesh.vertices, axis=0).argmax() == 1
    assert scene.inputs.alpha is not None
    rows, columns = scene.inputs.alpha[0].nonzero().max(0).values - scene.inputs.alpha[0].nonzero().min(0).values
    assert rows > 3 * columns
    assert (scene.inputs.rgb[scene.inputs.alpha == 1] * 255).round().unique(dim=0).tolist() == [[200, 40, 40]]


@pytest.mark.data
def test_table_agrees_with_the_mirror() -> None:
    listed = json.loads((Path(os.environ["EVALSUITE_MIRROR"]) / "gso/strata.json").read_text())
    assert {stratum: sorted(names) for stratum, names in listed.items()} == {
        stratum: sorted(name for name, s in SCANS.values() if s == stratum) for stratum in listed
    }
    assert all((locate(name) / "materials/textures/texture.png").is_file() for name, _ in SCANS.values())


@pytest.mark.data
def test_dinosaur_is_seen_from_all_sides() -> None:
    scene = gso_scene("gso.dino-3", TINY)
    assert scene.capture.alpha is not None
    assert (scene.capture.alpha.mean(dim=(1, 2)) > 0.02).all()
    assert (scene.capture.rgb[scene.capture.alpha == 1].std(dim=0) > 0.03).all()
