"""`evalsuite prepare`: what is whole is kept, what is damaged or missing is made, what cannot be made is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from capture_factories import PROTOCOL, lens_camera, write_transforms
from PIL import Image

from evalsuite.cli import main
from evalsuite.core.errors import BadDataError
from evalsuite.core.protocol import PROTOCOLS, Protocol, Rig
from evalsuite.core.suites import Suite
from evalsuite.scenes import preparation
from evalsuite.scenes.catalogue import SCENES, SUITES
from evalsuite.scenes.preparation import prepare
from evalsuite.scenes.prepared import write_scene

SMALL = Protocol("small", rig=Rig(resolution=16, supersample=1, capture_views=5))


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A suite of two small scenes, registered for the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    monkeypatch.setitem(PROTOCOLS._items, "small", SMALL)
    monkeypatch.setitem(SUITES._items, "two", Suite("two", ("smoke.blob", "smoke.truck"), "small"))
    return "two"


def outcomes(suite: str, workers: int = 1) -> dict[str, str]:
    return {done.scene: done.outcome for done in prepare(suite, Path("data/prepared"), workers)}


def test_what_is_whole_is_kept_and_what_is_damaged_is_made_anew(suite: str) -> None:
    assert outcomes(suite) == {"smoke.blob": "prepared", "smoke.truck": "prepared"}
    assert outcomes(suite) == {"smoke.blob": "kept", "smoke.truck": "kept"}
    Path("data/prepared/small/smoke.truck/split.json").write_text("{}")
    assert outcomes(suite) == {"smoke.blob": "kept", "smoke.truck": "prepared"}
    assert outcomes(suite) == {"smoke.blob": "kept", "smoke.truck": "kept"}


def _repaint(folder: Path) -> None:
    for path in folder.iterdir():
        Image.new("RGB", (144, 96), "red").save(path)


@pytest.mark.parametrize("images", ["rgb", "images", "../elsewhere"])
def test_a_capture_of_other_pictures_is_made_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: str) -> None:
    """Wherever the transforms say that the pictures are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setitem(PROTOCOLS._items, "small", replace(PROTOCOL, name="small"))
    monkeypatch.setitem(SUITES._items, "one", Suite("one", ("capture.fox",), "small"))
    root = tmp_path / "mirror/captures/fox"
    document = write_transforms(root, lens_camera("PINHOLE"), 12)
    (root / "images").rename(root / images)
    for frame in document["frames"]:
        frame["file_path"] = frame["file_path"].replace("images", images)
    (root / "transforms.json").write_text(json.dumps(document))
    assert outcomes("one") == {"capture.fox": "prepared"}
    (root / "unrelated.png").touch()
    assert outcomes("one") == {"capture.fox": "kept"}
    _repaint(root / images)
    assert outcomes("one") == {"capture.fox": "prepared"}
    assert SCENES["capture.fox"].load(PROTOCOLS["small"]).capture.rgb[..., 0].min() == 1


def test_faults_of_the_source_are_told_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Preparing again would not mend them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path / "mirror"))
    root, protocol = tmp_path / "mirror/captures/fox", replace(PROTOCOL, name="small")
    write_transforms(root, lens_camera("PINHOLE"), 12)
    entry = SCENES["capture.fox"]
    write_scene(entry.generate(protocol), entry.origin(protocol), Path("data/prepared/small/capture.fox"))
    (root / "transforms.json").write_text("{")
    with pytest.raises(BadDataError, match=r"transforms\.json cannot be used") as caught:
        entry.load(protocol)
    assert "evalsuite prepare" not in str(caught.value)


def test_one_failure_does_not_stop_the_rest(
    suite: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SUITES._items, "two", Suite("two", ("gso.dino-3", "smoke.blob"), "small"))
    assert main(["prepare", "two", "--workers", "1"]) == 2
    printed = capsys.readouterr()
    assert "smoke.blob: prepared" in printed.out
    assert printed.err.startswith("evalsuite: scan Dino_3 is not in data/gso/Dino_3")
    assert printed.err.count("\n") == 1


def test_processes_make_the_same_bytes(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [done.outcome for done in prepare(suite, tmp_path / "one", 1)] == ["prepared"] * 2
    monkeypatch.setattr(preparation, "write_scene", None)  # not in this process: workers import it anew
    assert sorted((done.scene, done.outcome) for done in prepare(suite, tmp_path / "two", 2)) == [
        ("smoke.blob", "prepared"),
        ("smoke.truck", "prepared"),
    ]
    one, two = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert len(one) > 20
    assert one == two


def test_unknown_suite_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "smok"]) == 2
    assert "Did you mean 'smoke'?" in capsys.readouterr().err
