"""`evalsuite prepare`: what is whole is kept, what is damaged or missing is made, what cannot be made is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evalsuite.cli import main
from evalsuite.core.errors import UnknownNameError
from evalsuite.core.protocol import PROTOCOLS, Protocol, Rig
from evalsuite.core.suites import Suite
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


def test_processes_prepare_the_embedded_suites_scenes_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import the package anew, so this suite is one they know."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match="Did you mean 'smoke'"):
        next(prepare("smok", Path("data/prepared"), 2))


def test_unknown_suite_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "smok"]) == 2
    assert "Did you mean 'smoke'?" in capsys.readouterr().err
