"""pytest hooks and fixtures of a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from evalsuite.core.errors import EvalsuiteError
from evalsuite.core.machine import fingerprint
from evalsuite.execution.selection import find_suite, select
from evalsuite.gates.claims import load_claims
from evalsuite.plugin.study import Study, StudySettings
from evalsuite.plugin.summary import summary_lines, write_outputs

_STUDY = pytest.StashKey[Study]()
_GPU_SELECTED = re.compile(r"(?<!not )\bgpu\b")
CPU_SUITE, GPU_SUITE = "smoke", "scan"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the study; the same names as `evalsuite run`."""
    group = parser.getgroup("evalsuite", "feed-forward or per-scene optimisation")
    group.addoption("--suite", help=f"suite to run (default: {CPU_SUITE}, or {GPU_SUITE} with -m gpu)")
    group.addoption("--model", help="network of arms A and B instead of the suite's, e.g. lgm-big")
    group.addoption("--weights", type=Path, help="its weights (safetensors); default: the mirror's, or data/weights")
    group.addoption("--scene", action="append", default=[], help="run this scene only; may be repeated")
    group.addoption("--arm", action="append", default=[], help="run this arm only; may be repeated")
    group.addoption("--steps", action="append", default=[], type=int, help="run this N only; may be repeated")
    group.addoption("--out", default="out", type=Path, help="folder for records, images and the page (default: out)")
    group.addoption("--workers", type=int, help="processes of the study (default: one per core; 1 on a GPU)")
    group.addoption("--resume", action="store_true", help="keep cases that this very code has already finished")


def pytest_configure(config: pytest.Config) -> None:
    """Register markers, and fix what the study expects before anything is collected."""
    config.addinivalue_line("markers", "gpu: needs a CUDA device")
    config.addinivalue_line("markers", "data: needs the data mirror (EVALSUITE_MIRROR)")
    option = config.option
    on_gpu = bool(_GPU_SELECTED.search(option.markexpr or ""))
    settings = StudySettings(
        out=option.out,
        golden=config.rootpath / "golden",
        device="cuda" if on_gpu else "cpu",
        workers=option.workers,
        resume=option.resume,
    )
    try:
        suite = find_suite(option.suite or (GPU_SUITE if on_gpu else CPU_SUITE), option.model, option.weights)
        selection = select(suite, option.scene, option.arm, option.steps)
    except EvalsuiteError as error:
        raise pytest.UsageError(str(error)) from None
    config.stash[_STUDY] = Study(selection, settings, Console(stderr=True))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case, per warm-start budget and per claim, named by the case id."""
    names = set(metafunc.fixturenames)
    if not names & {"case", "warmstart", "claim"}:
        return
    study = metafunc.config.stash[_STUDY]
    if "case" in names:
        cases = study.selection.cases
        metafunc.parametrize("case", [pytest.param(case, id=case.id) for case in cases])
    if "warmstart" in names:
        arms = {(t.scene, t.arm) for t in study.selection.trajectories}
        pairs = [t for t in study.selection.trajectories if t.arm == "b" and 0 in t.steps and (t.scene, "a") in arms]
        metafunc.parametrize("warmstart", [pytest.param(t, id=t.id) for t in pairs])
    if "claim" in names:
        claims = load_claims(Path(str(metafunc.definition.path)).parent / "claims.toml")
        metafunc.parametrize("claim", [pytest.param(claim, id=claim.id) for claim in claims])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``-m gpu`` the whole study is a GPU study: mark its tests before pytest picks by marks."""
    if config.stash[_STUDY].settings.device != "cuda":
        return
    skip = pytest.mark.skip(reason="no CUDA device: torch.cuda.is_available() is False on this machine")
    for item in items:
        if "study" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(skip)


@pytest.fixture(scope="session")
def study(pytestconfig: pytest.Config) -> Study:
    """The session's study, run to its end with the terminal free for its progress bar."""
    running = pytestconfig.stash[_STUDY]
    if not running.ran:
        with pytestconfig.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            running.records()
    return running


class ReplayClock:
    """A timer that shows the seconds a case measured itself: pytest-benchmark's own would time a file being read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def benchmark_clock(request: pytest.FixtureRequest) -> ReplayClock:
    """Clock of the ``benchmark`` fixture; must be requested before it."""
    clock = ReplayClock()
    request.node.add_marker(pytest.mark.benchmark(timer=clock))
    return clock


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Our fingerprint instead of the host's name."""
    machine_info.pop("node", None)
    machine_info["evalsuite"] = fingerprint()


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Keep the file small: one round needs no raw data, and the case id says all that parameters would."""
    for benchmark in output_json["benchmarks"]:
        for redundant in ("params", "options"):
            benchmark.pop(redundant, None)
        benchmark["stats"].pop("data", None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Table of cases, counts, and where the page is."""
    if _STUDY in config.stash and config.stash[_STUDY].ran:
        for line in summary_lines(config.stash[_STUDY], terminalreporter._tw.fullwidth):
            terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the page of whatever ran."""
    if _STUDY in session.config.stash and session.config.stash[_STUDY].ran:
        write_outputs(session.config.stash[_STUDY])
