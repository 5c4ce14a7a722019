"""pytest hooks and fixtures of a study."""

from __future__ import annotations

import argparse
from collections.abc import Generator, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from rich.console import Console

from evalsuite.core.cases import Trajectory
from evalsuite.core.errors import EvalsuiteError, OptionError
from evalsuite.core.suites import Suite
from evalsuite.execution.selection import Selection, find_suite, select
from evalsuite.gates.claims import Claim, load_claims
from evalsuite.metrics.spec import ENGINE
from evalsuite.plugin.benchmark import GPU_SELECTED
from evalsuite.plugin.snapshots import GOLDENS, REFUSAL, GoldenExtension
from evalsuite.plugin.study import Study, StudySettings
from evalsuite.plugin.summary import summary_lines, write_outputs
from evalsuite.plugin.verdict import NO_VERDICT, exit_code

if TYPE_CHECKING:
    from syrupy.assertion import SnapshotAssertion

_STUDY = pytest.StashKey[Study]()
CPU_SUITE, GPU_SUITE = "smoke", "scan"
CLAIMS = "claims.toml"
"""File of claims beside the tests of a study."""

WITHIN_XDIST = (
    "the study was asked for in a worker of pytest-xdist, expected one pytest process: it would run once per worker, "
    "and has processes of its own (--workers); leave -n out"
)
_OVER = frozenset({"case", "probe", "warmstart", "claim"})
_PART = f"; may be repeated; a part of a suite gets no verdict, but exit code {NO_VERDICT} if nothing is wrong"
_NEEDED = {"benchmark": "pytest-benchmark", "syrupy": "syrupy"}
"""Plugins that tests of a study need: name in pytest, name of the package."""

_LOOKING = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan")
"""Options under which pytest runs no test."""

_JUDGED_BY = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
"""How a session ends that has come to its end."""


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Options of the study; the same names as `evalsuite run`."""
    _require_plugin("benchmark", pluginmanager)  # else pytest calls its options in addopts unknown
    group = parser.getgroup("evalsuite", "feed-forward or per-scene optimisation")
    group.addoption(
        "--suite",
        help=f"suite to run (default: {CPU_SUITE}, or {GPU_SUITE} with -m gpu); {ENGINE}: its probes alone, in seconds",
    )
    group.addoption("--model", help="network of arms A and B instead of the suite's, e.g. lgm-big")
    group.addoption("--weights", type=Path, help="its weights (safetensors); default: the mirror's, or data/weights")
    group.addoption("--scene", action="append", default=[], help=f"run this scene only{_PART}")
    group.addoption("--arm", action="append", default=[], help="run this arm only; likewise")
    group.addoption("--steps", action="append", default=[], type=int, help="run this N only; likewise")
    group.addoption("--out", default="out", type=Path, help="folder for records, images and the page (default: out)")
    group.addoption("--workers", type=int, help="processes of the study (default: one per core; 1 on a GPU)")
    group.addoption("--resume", action="store_true", help="keep cases that this very code has already finished")
    group.addoption("--require-gpu", action="store_true", help="with -m gpu: a skipped GPU test is a failed one")
    group.addoption(
        "--require-approved", action="store_true", help="what is better than its golden fails until it is approved"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register markers, and fix what the study expects before anything is collected."""
    config.addinivalue_line("markers", "gpu: needs a CUDA device")
    config.addinivalue_line("markers", "data: needs the data mirror (EVALSUITE_MIRROR)")
    option = config.option
    if option.help:  # pytest stops at --help before it has made anything of the other options
        return
    on_gpu = bool(GPU_SELECTED.search(option.markexpr or ""))
    if option.require_gpu and not on_gpu:
        raise pytest.UsageError("--require-gpu is about GPU tests, and none are selected; add -m gpu")
    settings = StudySettings(
        out=option.out,
        golden=config.rootpath / "golden",
        device="cuda" if on_gpu else "cpu",
        workers=option.workers,
        resume=option.resume,
        require_gpu=option.require_gpu,
        require_approved=option.require_approved,
    )
    try:
        selection = _selection(option, GPU_SUITE if on_gpu else CPU_SUITE)
    except EvalsuiteError as error:
        raise pytest.UsageError(str(error)) from None
    study = Study(selection, settings, Console(stderr=True))
    config.stash[_STUDY] = study
    config.stash[GOLDENS] = study.goldens


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case, per probe, per warm-start budget and per claim, named by its id."""
    names = set(metafunc.fixturenames)
    if "study" not in names or not names & _OVER:  # other tests may call a parameter `case` too
        return
    study = metafunc.config.stash[_STUDY]
    if "case" in names:
        _over(metafunc, "case", [(case.id, case) for case in study.selection.cases])
    if "probe" in names:
        _over(metafunc, "probe", [(case, case) for case in study.probes])
    if "warmstart" in names:
        _over(metafunc, "warmstart", [(t.id, t) for t in study.warmstarts])
    if "claim" in names:
        try:
            claims = load_claims(metafunc.definition.path.with_name(CLAIMS))
        except EvalsuiteError as error:
            raise pytest.Collector.CollectError(str(error)) from None
        _over(metafunc, "claim", [(claim.id, claim) for claim in claims if study.concerns(claim)])


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``-m gpu`` the whole study is a GPU study: mark its tests before pytest picks by marks.

    Tests with nothing to run over (laws and claims of a part of a suite) go: a skip would look like a lack.
    """
    config.stash[_STUDY].claims = _claims(filter(_is_of_study, items))
    idle = [item for item in items if _is_of_study(item) and _is_idle(item)]
    if idle:
        items[:] = [item for item in items if item not in idle]
        config.hook.pytest_deselected(items=idle)
    if config.stash[_STUDY].settings.device != "cuda":
        return
    lacking = _lacks_gpu(config.stash[_STUDY])
    skip = pytest.mark.skip(reason="no CUDA device: torch.cuda.is_available() is False on this machine")
    for item in items:
        if _is_of_study(item):
            item.add_marker(pytest.mark.gpu)
            if lacking:
                item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Narrow the study to what the picked tests need, and refuse what cannot or must not run."""
    config, option = session.config, session.config.option
    if any(getattr(option, name, False) for name in _LOOKING):
        return
    study, items = config.stash[_STUDY], [item for item in session.items if _is_of_study(item)]
    if not items:
        return
    for plugin in _NEEDED:
        _require_plugin(plugin, config.pluginmanager)
    if option.update_snapshots or option.update_new_snapshots_only:
        raise pytest.UsageError(REFUSAL)
    items = _narrow(study, items, session)
    if not hasattr(config, "workerinput") and not _lacks_gpu(study):
        try:
            study.require_ready()
        except EvalsuiteError as error:
            raise pytest.UsageError(str(error)) from None
    study.selected = len(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """With ``--require-gpu`` a GPU test that was skipped has failed."""
    report = yield
    required = item.config.stash[_STUDY].settings.require_gpu and item.get_closest_marker("gpu")
    if required and report.skipped and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        report.outcome, report.longrepr = "failed", f"skipped under --require-gpu: {reason}"
    return report


@pytest.fixture(scope="session")
def study(pytestconfig: pytest.Config) -> Study:
    """The session's study, run to its end with the terminal free for its progress bar."""
    if hasattr(pytestconfig, "workerinput"):
        pytest.fail(WITHIN_XDIST, pytrace=False)
    running = pytestconfig.stash[_STUDY]
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")  # none with -p no:capture
    with capture.global_and_fixture_disabled() if capture else nullcontext():
        running.run()
    return running


@pytest.fixture
def golden(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """The golden of the test's case: ``golden == record`` is true where the gate lets the record pass."""
    return snapshot.use_extension(GoldenExtension)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Tables, and the verdict after all that pytest and other plugins have to say."""
    yield
    if _STUDY in config.stash and config.stash[_STUDY].selected:
        for line in summary_lines(config.stash[_STUDY], terminalreporter._tw.fullwidth):
            terminalreporter.write_line(line)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write summary and page of whatever ran, and give the verdict of the whole, whichever tests were picked."""
    study = session.config.stash.get(_STUDY, None)
    if study is None or not study.selected:
        return
    study.interrupted = session.exitstatus not in _JUDGED_BY
    write_outputs(study)
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = exit_code(study)


def _selection(option: argparse.Namespace, default: str) -> Selection:
    """What the options pick; `ENGINE` has no scenes, only the probes that every whole suite has too."""
    name = option.suite or default
    if name == ENGINE:
        if option.scene or option.arm or option.steps:
            raise OptionError(f"suite {ENGINE} has no scenes, arms or steps; leave them out, or name another suite")
        return Selection(Suite(ENGINE, scenes=()), (), whole=True)
    return select(find_suite(name, option.model, option.weights), option.scene, option.arm, option.steps)


def _require_plugin(name: str, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.hasplugin(name):
        package = _NEEDED[name]
        raise pytest.UsageError(
            f"pytest's plugin {name} is not loaded, expected it: tests of a study need {package}; leave out "
            f"-p no:{name}, or install {package}"
        )


def _claims(items: Iterable[pytest.Item]) -> tuple[Claim, ...]:
    """Claims beside the collected tests of a study, whichever of these are to run."""
    files = dict.fromkeys(item.path.with_name(CLAIMS) for item in items)
    try:
        return tuple(claim for path in files if path.exists() for claim in load_claims(path))
    except EvalsuiteError as error:
        raise pytest.UsageError(str(error)) from None


def _narrow(study: Study, items: list[pytest.Item], session: pytest.Session) -> list[pytest.Item]:
    """Narrow a study to what its picked tests need; returns those that are left.

    A claim that was picked along with some of the cases (by ``-k mean-colour``, which is in its name) goes: it is about
    all of them.
    """
    claims = [item for item in items if "claim" in _params(item)]
    others = [item for item in items if item not in claims]
    needed = _needed_cases(others if any("case" in _params(item) for item in others) else items)
    if needed is None:
        return items
    study.narrow(needed)
    if study.selection.whole or not claims:
        return items
    session.items[:] = [item for item in session.items if item not in claims]
    session.config.hook.pytest_deselected(items=claims)
    return others


def _params(item: pytest.Item) -> dict[str, object]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


def _needed_cases(items: Iterable[pytest.Item]) -> set[str] | None:
    """Ids of the cases that tests of a study need; None for all: some test is about the study as a whole."""
    needed: set[str] = set()
    for item in items:
        params = _params(item)
        trajectory = params.get("warmstart")
        if "case" in params:
            needed.add(str(params["case"]))
        elif isinstance(trajectory, Trajectory):
            needed |= {f"{trajectory.scene}/a", f"{trajectory.id}-n0"}
        elif "probe" not in params:
            return None
    return needed


def _lacks_gpu(study: Study) -> bool:
    return study.settings.device == "cuda" and not torch.cuda.is_available()


def _is_of_study(item: pytest.Item) -> bool:
    return "study" in getattr(item, "fixturenames", ())


def _over(metafunc: pytest.Metafunc, name: str, values: Sequence[tuple[str, object]]) -> None:
    """One test per value, under its id; a lone None stands for no values."""
    found = values or [("none", None)]
    metafunc.parametrize(name, [pytest.param(value, id=value_id) for value_id, value in found])


def _is_idle(item: pytest.Item) -> bool:
    """Whether there was nothing to run this test over."""
    params = _params(item)
    return any(params.get(name, item) is None for name in _OVER)
