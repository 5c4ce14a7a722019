"""Ctrl-C, and worse: real processes, real signals; no worker computes on for nobody, and nothing claims a verdict."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalsuite.execution.probes import PROBE_CASES

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 240.0
"""Seconds until a process that ought to start, or to end, is given up on; they take a few."""

SLEEPER = """
import os, signal, time
from pathlib import Path

def sleep(trajectory, *_):
    Path(f"worker-{os.getpid()}").write_text(str(signal.getsignal(signal.SIGINT)))
    time.sleep(3600)
"""
CONFTEST = """
import signal
import evalsuite.execution.local as local
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a script's background is born deaf to it
from sleeper import sleep
local._run_in_worker = sleep
pytest_plugins = ["evalsuite.plugin"]
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A study, in a process group of its own, whose two workers have begun with what never ends."""
    for name in ("test_ablation.py", "claims.toml"):
        shutil.copy(REPOSITORY / "tests" / "ablation" / name, tmp_path / name)
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -m 'not gpu' -p no:cacheprovider -p no:randomly\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "GITHUB_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--scene", "smoke.blob", "--arm", "c", "--workers", "2", "-q"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(workers(tmp_path)) == 2 or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        yield process
    finally:
        for pid in (process.pid, *workers(tmp_path)):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def workers(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("worker-")) for path in folder.glob("worker-*")]


def alive(pid: int) -> bool:
    """Whether a process computes; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(happened: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)


@pytest.mark.parametrize("whole_group", [False, True], ids=["process", "terminal"])
def test_an_interrupted_study_ends_its_workers_and_gives_no_verdict(
    running: subprocess.Popen[str], tmp_path: Path, whole_group: bool
) -> None:
    found = workers(tmp_path)
    summary = tmp_path / "out" / "summary.md"
    assert not summary.exists()
    if whole_group:
        os.killpg(running.pid, signal.SIGINT)
    else:
        os.kill(running.pid, signal.SIGINT)
    output, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == pytest.ExitCode.INTERRUPTED, output
    assert not [pid for pid in found if alive(pid)]
    probes = len(PROBE_CASES)  # they came first
    line = f"interrupted: no verdict, {probes} of {probes + 8} cases recorded; --resume goes on"
    assert line in output.splitlines()
    assert summary.read_text().strip() == line
    assert "cases expected" not in output
    assert "Traceback" not in output
    heeded = {path.read_text() for path in tmp_path.glob("worker-*")}
    assert heeded == {str(signal.SIG_IGN)}, "what becomes of a worker is for its parent to say"


def test_workers_of_a_killed_study_end_too(running: subprocess.Popen[str], tmp_path: Path) -> None:
    running.kill()
    wait_for(lambda: not [pid for pid in workers(tmp_path) if alive(pid)])
