"""The pipeline in `dvc.yaml`: killed half-way and repeated it loses nothing, repeated once more it computes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import evalsuite

ROOT = Path(__file__).parents[1]
PART = "--scene smoke.blob --arm mean-colour --arm c --steps 0 --steps 50 --workers 1"
"""Three short cases, the floor's first."""

KILLED_AFTER_ONE_RECORD = """
import os, signal, sys
from evalsuite.cli import main
from evalsuite.records.store import RecordStore

write = RecordStore.write


def last_act(store, record):
    write(store, record)
    os.killpg(0, signal.SIGKILL)  # this process, and DVC above it


RecordStore.write = last_act
main(sys.argv[1:])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC project with the real stage `ablation`, cut down to `PART`; it depends on a copy of one package."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(evalsuite.__file__).parents[1]))
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], check=True)
    stage = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["ablation"]
    stage |= {"cmd": f"{stage['cmd']} {PART}", "deps": ["evalsuite/core"]}
    YAML().dump({"stages": {"ablation": stage}}, Path("dvc.yaml"))
    for name in ("params.yaml", ".dvcignore"):
        shutil.copyfile(ROOT / name, name)
    shutil.copytree(ROOT / "evalsuite/core", "evalsuite/core", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def repro() -> str:
    done = subprocess.run(["dvc", "repro"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [("repro", "--dry"), ("exp", "run", "--dry")], ids=" ".join)
def test_a_fresh_clone_shows_what_it_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    for folder in ("evalsuite", "golden"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for act in (("init", "--quiet"), ("add", "--all"), (*who, "commit", "--quiet", "-m", "all")):
        subprocess.run(["git", *act], cwd=tmp_path, check=True)
    done = subprocess.run(["dvc", *command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]:
        assert f"'{stage}'" in done.stdout
    assert not (tmp_path / "out").exists()


def test_no_stage_approves() -> None:
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert not [name for name, stage in stages.items() if "approve" in str(stage["cmd"])]


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every record."""
    records = sorted(folder.rglob("*.json"))
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in records}


def test_killed_half_way_and_repeated_no_finished_case_is_lost(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = project / "out/records/smoke"
    Path("evalsuite-killed").mkdir()
    Path("evalsuite-killed/evalsuite").write_text(f"#!{sys.executable}\n{KILLED_AFTER_ONE_RECORD}")
    Path("evalsuite-killed/evalsuite").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{project}/evalsuite-killed{os.pathsep}{os.environ['PATH']}")
        killed = subprocess.run(["dvc", "repro"], start_new_session=True, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not Path("dvc.lock").exists()
    finished = state(records)
    assert list(finished) == ["mean-colour.json"]

    repro()
    whole = state(records)
    assert list(whole) == ["c-capture-n50.json", "c-inputs-n50.json", "mean-colour.json"]
    assert whole["mean-colour.json"] == finished["mean-colour.json"]

    bytecode = project / "evalsuite/core/__pycache__/made.cpython-311.pyc"
    bytecode.parent.mkdir()
    bytecode.write_bytes(b"a run leaves bytecode behind")
    repro()
    assert state(records) == whole, "every case was kept"
    assert list((project / ".dvc/cache").rglob("*")), "records, renders and splats go to DVC's cache"
