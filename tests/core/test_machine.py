"""Provenance: what machine, what commit, what sources."""

from __future__ import annotations

import getpass
import importlib
import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from evalsuite.core import machine


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """Each test computes anew, and leaves nothing faked behind."""
    cached = (machine.fingerprint, machine.libraries, machine.commit, machine._own_sources)
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
    machine._own_sources.cache_clear()
    return machine.source_hash()


def test_the_device_class_is_an_id() -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", machine.device_class("cpu"))
    assert machine.device_class("cpu") == f"cpu-{platform.machine().lower().replace('_', '-')}"


def test_a_gpu_names_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert machine.device_class("cuda") == machine.device_class("cuda:1") == "cuda-sm90"


def test_a_case_that_ran_on_the_cpu_is_of_the_cpu_whatever_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert machine.device_class("cpu").startswith("cpu-")
    assert machine.fingerprint("cpu")["gpu"] is None


def test_a_gpu_that_is_not_there_has_no_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.device_class("cuda") == "cuda"
    assert machine.fingerprint("cuda")["gpu"] is None


def test_the_fingerprint_is_json_and_names_versions() -> None:
    found = machine.fingerprint("cpu")
    assert json.loads(json.dumps(found)) == found
    assert found["device_class"] == machine.device_class("cpu")
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert set(found["versions"]) == set(machine.VERSIONED)
    assert found["cpu"]


def test_the_fingerprint_names_nobody() -> None:
    words = json.dumps(machine.fingerprint("cpu"))
    assert not platform.node() or not re.search(rf"\b{re.escape(platform.node())}\b", words)
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
    "reader", ["gates/golden.py", "report/page.py", "plugin/hooks.py", "fetch/x.py", "cli.py", "commands/run.py"]
)
def test_what_only_reads_records_is_not_in_the_hash(package: Path, reader: str) -> None:
    before = fresh_hash()
    path = package / reader
    path.parent.mkdir(exist_ok=True)
    path.write_text("x = 1\n")
    assert fresh_hash() == before


def test_uncommitted_files_of_the_package_are_named(package: Path) -> None:
    git(package.parent, "init")
    (package.parent / "README.md").write_text("not of the package")
    git(package.parent, "add", "evalsuite")
    assert len(machine.uncommitted() or ()) == 3
    git(package.parent, "commit", "-m", "all")
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
    found = machine.commit()
    assert (found["commit"], found["dirty"]) == (None, None)
    assert re.fullmatch(r"[0-9a-f]{12}", found["package"])


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_a_repository_that_does_not_track_the_package_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment in somebody's project: its commit is not ours, and nobody could review what is approved there."""
    package = tmp_path / ".venv" / "lib" / "evalsuite"
    (package / "core").mkdir(parents=True)
    (package / "core" / "machine.py").write_text("")
    (tmp_path / ".gitignore").write_text(".venv\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "-m", "somebody's")
    monkeypatch.setattr(machine, "__file__", str(package / "core" / "machine.py"))
    before = machine.commit()
    assert before["commit"] is None
    assert machine.uncommitted() is None
    (package / "core" / "machine.py").write_text("x = 1\n")
    machine.commit.cache_clear()
    assert machine.commit()["package"] != before["package"]


def test_a_machine_without_git_has_no_commit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert machine.commit()["commit"] is None
    assert machine.uncommitted() is None


# --- libraries, and code outside the package


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of two files that the package knows."""
    root = tmp_path / "site" / "evalsuitetestlib"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "kernel.cu").write_bytes(b"k" * 100)
    monkeypatch.syspath_prepend(str(root.parent))
    monkeypatch.setattr(machine, "VERSIONED", ("evalsuitetestlib",))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    return root


def fresh_libraries() -> str:
    machine.libraries.cache_clear()
    return machine.libraries()["evalsuitetestlib"]


def test_a_fork_that_keeps_its_number_is_told_apart(installed: Path) -> None:
    before = fresh_libraries()
    assert re.fullmatch(r"1\.0 [0-9a-f]{8}", before)
    assert fresh_libraries() == before
    (installed / "__pycache__").mkdir()
    (installed / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert fresh_libraries() == before
    (installed / "kernel.cu").write_bytes(b"k" * 99 + b"j")
    assert fresh_libraries() != before


@pytest.mark.parametrize("place", [0, -1])
def test_large_files_count_by_their_ends(installed: Path, place: int) -> None:
    large = bytearray(5 << 20)
    (installed / "_C.so").write_bytes(large)
    before = fresh_libraries()
    large[place] = 1
    (installed / "_C.so").write_bytes(large)
    assert fresh_libraries() != before


def test_every_library_that_is_known_here_has_a_hash() -> None:
    found = machine.libraries()
    assert set(found) == set(machine.VERSIONED)
    assert all(re.fullmatch(r"\S+ [0-9a-f]{8}", said) for said in found.values())
    assert len({said.split()[1] for said in found.values()}) == len(found)


def test_the_code_of_a_method_outside_the_package_joins_the_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = tmp_path / "evalsuitetestmethod"
    method.mkdir()
    (method / "__init__.py").write_text("def arm(): ...\n")
    (method / "kernel.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    arm = importlib.import_module("evalsuitetestmethod").arm
    before = machine.source_hash(arm)
    assert before == machine.source_hash(arm) == machine.source_hash(partial(arm))
    assert before != machine.source_hash() == machine.source_hash(machine.commit)
    (method / "kernel.py").write_text("x = 2\n")
    assert machine.source_hash(arm) != before
