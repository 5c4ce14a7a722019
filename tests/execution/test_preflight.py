"""What a run would lack is said before it starts; what only some scenes lack is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evalsuite.core.errors import MissingDataError, OptionError
from evalsuite.core.protocol import PROTOCOLS, Protocol, Rig
from evalsuite.core.suites import Suite
from evalsuite.execution.preflight import require_device, require_folder, require_ready
from evalsuite.execution.selection import Selection, select
from evalsuite.scenes.catalogue import SCENES
from evalsuite.scenes.origin import origin_of
from evalsuite.scenes.prepared import write_scene

SMALL = Protocol("small", rig=Rig(resolution=16, supersample=1, capture_views=5))
SCANS = Suite("made", ("gso.dino-3", "gso.android-lego"), "small")


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    monkeypatch.setitem(PROTOCOLS._items, "small", SMALL)


def floors(suite: Suite) -> Selection:
    return select(suite, arms=["mean-colour"])


def scan_in(folder: Path, name: str = "Dino_3") -> None:
    mesh = folder / "gso" / name / "meshes/model.obj"
    mesh.parent.mkdir(parents=True)
    mesh.touch()


def prepared_blob(folder: Path) -> None:
    entry = SCENES["smoke.blob"]
    write_scene(entry.generate(SMALL), origin_of(SMALL, ()), folder)


def test_a_suite_that_needs_nothing_is_ready() -> None:
    require_ready(select("smoke"), "cpu")


def test_nothing_at_hand_is_said_with_the_command_that_brings_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none of the 2 scenes .* run: evalsuite fetch made, or set"):
        require_ready(floors(SCANS), "cpu")
    one = replace(SCANS, scenes=("gso.dino-3",))
    with pytest.raises(MissingDataError, match="scan Dino_3 is not in data/gso/Dino_3"):
        require_ready(floors(one), "cpu")
    scan_in(tmp_path / "data")
    require_ready(floors(one), "cpu")


def test_one_scene_at_hand_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan_in(tmp_path / "mirror")
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path / "mirror"))
    require_ready(floors(SCANS), "cpu")
    with pytest.raises(MissingDataError, match="Android_Lego"):
        require_ready(select(SCANS, scenes=["gso.android-lego"], arms=["mean-colour"]), "cpu")


def test_a_prepared_scene_is_at_hand_if_this_code_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data/prepared/small/gso.dino-3"
    prepared_blob(folder)
    require_ready(floors(SCANS), "cpu")
    monkeypatch.setattr("evalsuite.scenes.origin._code_hash", lambda: "f" * 12)
    with pytest.raises(MissingDataError, match="none of the 2 scenes"):
        require_ready(floors(SCANS), "cpu")
    (folder / "scene.json").write_text("{")
    require_ready(floors(SCANS), "cpu")  # damaged: its own record says so


def test_weights_are_asked_for_only_where_an_arm_reads_them() -> None:
    suite = select("smoke").suite.with_network("lgm-big", None)
    with pytest.raises(MissingDataError, match=r"arms a, b cannot run: no weights of lgm-big .* evalsuite fetch lgm"):
        require_ready(select(suite), "cpu")
    require_ready(select(suite, arms=["c", "visual-hull"]), "cpu")


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(OptionError, match=r"device cuda was asked for and torch .* sees no GPU; expected one"):
        require_ready(select("smoke"), "cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    require_ready(select("smoke"), "cuda")
    require_device("cpu")


def test_a_folder_may_be_made_but_not_below_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_folder(Path("not/yet/there"), "--out")
    require_folder(tmp_path, "--out")
    assert not (tmp_path / "not").exists()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for path in ("file", "file/below", "dangling"):
        with pytest.raises(OptionError, match=rf"--out {path}: .* is a file, expected a folder"):
            require_folder(Path(path), "--out")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(OptionError, match="nothing can be written in"):
        require_folder(tmp_path / "new", "--out")
