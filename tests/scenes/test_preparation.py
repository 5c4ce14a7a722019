"""`evalsuite prepare`: what is whole is kept, what is damaged or missing is made, what cannot be made is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalsuite.cli import main
from evalsuite.core.protocol import PROTOCOLS, Protocol, Rig
from evalsuite.core.suites import Suite
from evalsuite.scenes import preparation
from evalsuite.scenes.catalogue import SUITES
from evalsuite.scenes.preparation import prepare

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
