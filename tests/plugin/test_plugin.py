"""The plugin from outside: a small project runs it and is judged by exit codes and what is printed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from evalsuite.core.suites import Suite
from evalsuite.execution.probes import PROBE_CASES, probe
from evalsuite.metrics.spec import ENGINE
from evalsuite.plugin.verdict import NO_VERDICT
from evalsuite.scenes.catalogue import SUITES

REPOSITORY = Path(__file__).resolve().parents[2]
PART = ("--scene", "smoke.blob", "--arm", "mean-colour")
CASE = "smoke.blob/mean-colour"


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ``out`` folder in which one case has really run; tests copy it and resume."""
    from evalsuite.cli import main

    out = tmp_path_factory.mktemp("plugin") / "out"
    assert main(["run", *PART, "--out", str(out), "--workers", "1"]) == 0
    return out


@pytest.fixture
def project(pytester: pytest.Pytester, records: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A checkout in small: the plugin, the ablation's tests and claims, finished records, no goldens."""
    for variable in ("EVALSUITE_MIRROR", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(variable, raising=False)
    pytester.makeconftest('pytest_plugins = ["evalsuite.plugin"]')
    pytester.makeini("[pytest]\naddopts = -m 'not gpu' -p no:cacheprovider")
    for name in ("test_ablation.py", "claims.toml"):
        shutil.copy(REPOSITORY / "tests" / "ablation" / name, pytester.path / name)
    shutil.copytree(records, pytester.path / "out")
    return pytester


def approve(project: pytest.Pytester, **changes: float) -> Path:
    """Write the golden of the one case from its record, with some values moved, and those of the probes."""
    from evalsuite.core.machine import device_class
    from evalsuite.gates.approval import approve
    from evalsuite.gates.golden import GoldenStore
    from evalsuite.records.store import RecordStore

    goldens = GoldenStore(project.path / "golden", "smoke", device_class("cpu"))
    approve(RecordStore(project.path / "out/records/smoke"), [CASE], goldens)
    engine = RecordStore(project.path / "out/records" / ENGINE)
    for name in PROBE_CASES:
        engine.write(probe(name, "cpu"))
    approve(engine, tuple(PROBE_CASES), GoldenStore(project.path / "golden", ENGINE, device_class("cpu")))
    path = goldens.path(CASE)
    tree = json.loads(path.read_text())
    for metric, change in changes.items():
        tree["metrics"][metric]["value"] += change
    path.write_text(json.dumps(tree))
    return path


ALL = 1 + len(PROBE_CASES)


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_inprocess(*PART, "--resume", "--workers", "1", *arguments)


def test_case_within_tolerance_passes(project: pytest.Pytester) -> None:
    approve(project, psnr=0.01)
    result = run(project)
    assert result.ret == NO_VERDICT
    result.stdout.fnmatch_lines([f"*evalsuite smoke: {ALL} cases expected, * {ALL} compared: {ALL} same*"])


def test_case_worse_than_its_golden_fails_and_says_by_how_much(project: pytest.Pytester) -> None:
    approve(project, psnr=1.0)
    result = run(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            f"*worse*{CASE}: psnr * -> * (tolerance 0.0200, -50.0 tolerances)*",
            f"*{ALL} compared: {ALL - 1} same, 0 better, 1 worse*",
        ]
    )


def test_better_case_is_reported_but_passes(project: pytest.Pytester) -> None:
    approve(project, psnr=-1.0)
    result = run(project)
    assert result.ret == NO_VERDICT
    result.stdout.fnmatch_lines([f"*better*{CASE}: psnr*", f"*{ALL} compared: {ALL - 1} same, 1 better*"])


def test_case_without_golden_fails(project: pytest.Pytester) -> None:
    result = run(project)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*no-golden*{CASE}*evalsuite approve*"])


def test_missing_data_is_not_run(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES._items, "mixed", Suite("mixed", ("smoke.blob", "gso.dino-3")))
    result = project.runpytest_inprocess("--suite", "mixed", "--scene", "gso.dino-3", "--arm", "mean-colour")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*not-run*gso.dino-3/mean-colour*EVALSUITE_MIRROR*"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--suite", "smok"), "*unknown suite 'smok'*Did you mean 'smoke'?*"),
        (("--scene", "smoke.chiar"), "*unknown scene 'smoke.chiar'*Did you mean 'smoke.chair'?*"),
        (("--arm", "visual-hul"), "*unknown arm 'visual-hul'*Did you mean 'visual-hull'?*"),
        (("--steps", "7"), "*N=7 is not on the ladder*0, 50, 200, 1000, 3000*"),
    ],
)
def test_unknown_names_stop_before_anything_runs(
    project: pytest.Pytester, arguments: tuple[str, ...], message: str
) -> None:
    result = project.runpytest_inprocess(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_gpu_study_is_skipped_with_a_reason(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    result = project.runpytest_inprocess("-m", "gpu", "-rs", *PART, "--suite", "smoke")
    outcomes = result.parseoutcomes()
    assert set(outcomes) <= {"skipped", "deselected"}, "the whole study is selected, and none of it runs"
    assert outcomes["skipped"] > 1
    assert result.ret == pytest.ExitCode.TESTS_FAILED, "zero compared cases prove nothing"
    result.stdout.fnmatch_lines(["*no CUDA device*"])


def test_benchmark_json_carries_the_case(project: pytest.Pytester, records: Path) -> None:
    approve(project)
    assert run(project, "--benchmark-json", "out.json").ret == NO_VERDICT
    tree = json.loads((project.path / "out.json").read_text())
    (benchmark,) = tree["benchmarks"]
    record = json.loads((records / "records/smoke" / f"{CASE}.json").read_text())
    assert benchmark["name"] == f"test_case[{CASE}]"
    assert benchmark["stats"]["mean"] == pytest.approx(record["seconds"]["forward"], rel=1e-5), "its cost"
    assert benchmark["extra_info"]["metrics"]["psnr"] == pytest.approx(record["metrics"]["psnr"]["value"], rel=1e-5)
    assert "node" not in tree["machine_info"]
    assert run(project, "--benchmark-compare", "out.json").ret == NO_VERDICT, "the slim file still compares"
    assert tree["machine_info"]["evalsuite"]["versions"]["torch"]


def test_page_is_written(project: pytest.Pytester) -> None:
    approve(project)
    assert run(project).ret == NO_VERDICT
    assert CASE.split("/")[0] in (project.path / "out/report/index.html").read_text()
