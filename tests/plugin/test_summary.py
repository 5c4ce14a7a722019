"""What people read: what moved, by how many sigma, worst first, with images; and the machine-readable twins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tiny_study import TINY, Changes, benchmarks, run, run_part

from evalsuite.core.phases import PHASES
from evalsuite.execution.probes import PROBE_CASES
from evalsuite.metrics.spec import METRICS
from evalsuite.plugin.benchmark import extra_info, pytest_benchmark_update_json
from evalsuite.plugin.verdict import NO_VERDICT
from evalsuite.records.schema import Reading, Record

CASE, WORSE = "smoke.chair/b-capture-n50", "smoke.chair/a"
LIMIT = 200_000
CASES = sum(len(trajectory.cases) for trajectory in TINY.trajectories())
PART, WHOLE = (CASES // len(TINY.scenes) + len(PROBE_CASES), CASES + len(PROBE_CASES))


def images(record: Record, project: Path) -> Record:
    """The record, and strips beside it."""
    folder = project / "out/records/tiny"
    for name in (f"{record.case}.png", f"{record.scene}/truth.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"a picture")
    return record


def test_what_moved_is_listed_worst_first_with_sigmas_and_images(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.psnr(CASE, 3.0)
    changes.psnr(WORSE, -3.0)
    moved = changes.by_case[WORSE]
    changes.by_case[WORSE] = lambda record: moved(images(record, tiny.path))
    result = run_part(tiny)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = result.stdout.str()
    assert lines.index(f"worse        {WORSE}: psnr") < lines.index(f"better       {CASE}: psnr")
    result.stdout.fnmatch_lines([f"*{WORSE}.png*truth.png*", f"better*{CASE}: psnr*(tolerance *, +* sigma)"])
    summary = (tiny.path / "out/summary.md").read_text()
    assert summary.startswith(
        f"partial: {PART} of {WHOLE} cases, claims not judged: fails\n\n## evalsuite `tiny`: fails\n"
    )
    assert f"| worse | {WORSE} | psnr |" in summary
    assert f"[render](records/tiny/{WORSE}.png) [truth](records/tiny/smoke.chair/truth.png)" in summary
    assert f"- 1 of {PART} cases block" in summary


def test_the_summary_of_a_run_that_passes_says_what_the_gate_sees(tiny: pytest.Pytester) -> None:
    result = run(tiny)
    result.stdout.fnmatch_lines(
        ["*Losses this gate sees in 95 % of runs*", "*claim feedforward-over-mean-colour: holds*"]
    )
    summary = (tiny.path / "out/summary.md").read_text()
    assert summary.startswith("## evalsuite `tiny`: passes\n")
    rows = [line.split(" | ") for line in summary.splitlines() if line.startswith("| psnr")]
    assert rows[0][1] == "dB"
    one_pass, one_case, mean, ladders = (cell.strip(" |") for cell in rows[0][2:])
    assert float(one_pass) == 0.02
    assert 0 < float(mean) < float(one_case)
    assert ladders.endswith(" sigma")
    assert summary.count("**holds** (required)") == 6


def test_the_summary_goes_where_ci_shows_it(tiny: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = tiny.path / "step-summary.md"
    shown.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(shown))
    run_part(tiny)
    assert shown.read_text() == "before\n" + (tiny.path / "out/summary.md").read_text()


def test_a_claim_that_fails_names_its_scenes(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.psnr("smoke.wheel/c-capture-n3000", -20.0)
    result = run(tiny, "-k", "claim")
    assert result.parseoutcomes()["failed"] == 1
    result.stdout.fnmatch_lines(["*claim scratch-over*inconclusive*against it: smoke.wheel*"])


def test_a_metric_without_its_data_is_named_and_does_not_block(
    tiny: pytest.Pytester, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS._items, "ssim", replace(METRICS["ssim"], optional=True))
    changes.by_case[CASE] = lambda r: replace(r, metrics={**r.metrics, "ssim": Reading(None, (), 1, "missing-data")})
    result = run_part(tiny)
    assert result.ret == NO_VERDICT
    result.stdout.fnmatch_lines(["not compared: ssim is missing-data here (1 cases)"])


def test_junit_carries_the_verdict_and_the_numbers_of_a_case(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.psnr(WORSE, -3.0)
    run_part(tiny, "--junitxml", "junit.xml")
    tree = ElementTree.parse(tiny.path / "junit.xml")
    case = next(node for node in tree.iter("testcase") if node.get("name") == f"test_case[{WORSE}]")
    found = {node.get("name"): node.get("value", "") for node in case.iter("property")}
    assert found["verdict"] == "worse"
    assert " -> " in found["psnr"]
    assert case.find("failure") is not None


def test_the_benchmarks_json_names_versions_and_no_host(tiny: pytest.Pytester) -> None:
    run_part(tiny, "--benchmark-json", "out.json")
    machine = json.loads((tiny.path / "out.json").read_text())["machine_info"]
    assert "node" not in machine
    assert "flags" not in machine["cpu"]
    assert {"gpu", "versions"} <= set(machine["evalsuite"])
    result = run_part(tiny, "--benchmark-compare", "out.json")
    assert result.ret == NO_VERDICT
    result.stdout.fnmatch_lines([f"test_case?{WORSE}? (NOW)*"])


def test_the_benchmarks_json_of_smoke_stays_small_with_fourteen_metrics(tiny: pytest.Pytester) -> None:
    """Entries as a made-up run writes them, fourteen metrics in each and as many of them as `smoke` has cases."""
    run_part(tiny, "--benchmark-json", "out.json")
    tree = json.loads((tiny.path / "out.json").read_text())
    entry = benchmarks(tiny.path / "out.json")[CASE]
    names = [*METRICS, *(f"a-longer-metric-name-{i}" for i in range(14 - len(METRICS)))]
    many = {name: Reading(31.234567891234567, (1.0,), 1) for name in names}
    record = Record(CASE, "", "", "", None, 0, 0, "", "", "", metrics=many, seconds=dict.fromkeys(PHASES, 1.23456789))
    peaks = {"peak_host_bytes": 2**33, "peak_device_bytes": 2**33, "frames_per_second": 431.23456789}
    shown = extra_info(replace(record, gaussians=16384, **peaks), "same")
    tree["benchmarks"] = [{**entry, "extra_info": shown}] * (6 * 19)
    assert len(shown["metrics"]) == 14
    assert len(json.dumps(tree, ensure_ascii=True, indent=4)) <= LIMIT


def test_many_rounds_keep_their_statistics() -> None:
    stats = {"rounds": 5, "data": [1.0] * 5, "q1": 1 / 3, "mean": 2 / 3, "outliers": "0;0"}
    tree = {"benchmarks": [{"stats": dict(stats), "params": {}, "options": {}}]}
    pytest_benchmark_update_json(None, [], tree)  # type: ignore[arg-type]
    assert tree["benchmarks"] == [{"stats": {"rounds": 5, "q1": 0.333333, "mean": 0.666667, "outliers": "0;0"}}]


def test_the_made_up_suite_is_of_the_embedded_ones_size() -> None:
    assert len(TINY.trajectories()) == 5 * 7
