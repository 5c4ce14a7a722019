"""Provenance: what machine, what commit, what sources."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from evalsuite.core import machine


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Each test computes anew, and leaves nothing faked behind."""
    cached = (machine.fingerprint, machine.commit, machine.source_hash)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of three files, of which ``machine`` believes to be part."""
    root = tmp_path / "evalsuite"
    (root / "core").mkdir(parents=True)
    for name in ("__init__.py", "core/machine.py", "core/other.py"):
        (root / name).write_text(f"# {name}\n")
    monkeypatch.setattr(machine, "__file__", str(root / "core" / "machine.py"))
    return root


def fresh_hash() -> str:
    machine.source_hash.cache_clear()
    return machine.source_hash()


def test_the_device_class_is_an_id() -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", machine.device_class())
    if not torch.cuda.is_available():
        assert machine.device_class() == f"cpu-{platform.machine().lower().replace('_', '-')}"


def test_a_gpu_names_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert machine.device_class() == "cuda-sm90"


def test_the_fingerprint_is_json_and_names_versions() -> None:
    found = machine.fingerprint()
    assert json.loads(json.dumps(found)) == found
    assert found["device_class"] == machine.device_class()
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert set(found["versions"]) == set(machine.VERSIONED)
    assert found["cpu"]


def test_the_fingerprint_names_nobody() -> None:
    words = json.dumps(machine.fingerprint())
    assert platform.node() not in words or not platform.node()
    assert str(Path.home()) not in words
    assert f'"{getpass.getuser()}"' not in words


def test_the_source_hash_is_stable(package: Path) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", fresh_hash())
    assert fresh_hash() == fresh_hash()


def test_the_source_hash_follows_the_sources(package: Path) -> None:
    before = fresh_hash()
    other = package / "core" / "other.py"
    text = other.read_text()
    other.write_text(text + "x = 1\n")
    assert fresh_hash() != before
    other.write_text(text)
    assert fresh_hash() == before
    renamed = other.rename(package / "core" / "renamed.py")
    assert fresh_hash() != before
    renamed.rename(other)
    (package / "extra.py").write_text("")
    assert fresh_hash() != before


@pytest.mark.parametrize(
    "reader", ["gates/golden.py", "report/page.py", "plugin/hooks.py", "fetch/x.py", "commands/x.py", "cli.py"]
)
def test_what_only_reads_records_is_not_in_the_hash(package: Path, reader: str) -> None:
    before = fresh_hash()
    path = package / reader
    path.parent.mkdir(exist_ok=True)
    path.write_text("x = 1\n")
    assert fresh_hash() == before


def test_uncommitted_files_of_the_package_are_named(package: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        subprocess.run(["git", "-C", str(package.parent), *who, *arguments], check=True, capture_output=True)

    git("init")
    (package.parent / "README.md").write_text("not of the package")
    assert len(machine.uncommitted() or ()) == 3
    git("add", "evalsuite")
    git("commit", "-m", "all")
    assert machine.uncommitted() == ()
    (package / "core" / "other.py").write_text("x = 1\n")
    (package / "core" / "new.py").write_text("")
    assert machine.uncommitted() == ("evalsuite/core/other.py", "evalsuite/core/new.py")


def test_outside_git_nothing_is_committed(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(package.parents[1]))
    assert machine.uncommitted() is None


def test_what_is_no_source_is_not_in_the_hash(package: Path) -> None:
    before = fresh_hash()
    (package / "core" / "__pycache__").mkdir()
    (package / "core" / "__pycache__" / "other.pyc").write_bytes(b"x")
    assert fresh_hash() == before


def test_outside_git_there_is_no_commit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(package.parents[1]))
    assert machine.commit() == {"commit": None, "dirty": None}
