"""Nothing silently missing: every way to compare less than was expected ends in an exit code."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny_study import TINY, Changes, benchmarks, golden_store, run, run_part

from evalsuite.execution.probes import PROBE_CASES
from evalsuite.metrics.spec import ENGINE
from evalsuite.plugin.verdict import NO_VERDICT
from evalsuite.records.schema import Record

CASES = sum(len(trajectory.cases) for trajectory in TINY.trajectories())
PROBES = len(PROBE_CASES)
PART = CASES // len(TINY.scenes) + PROBES
CASE = "smoke.chair/b-capture-n200"
ALL = CASES + PROBES
PASSED, FAILED, USAGE = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR


def counts(verdicts: str, expected: int = PART) -> str:
    return f"*evalsuite tiny: {expected} cases expected, {verdicts}"


def test_an_unchanged_run_passes_and_counts_itself(tiny: pytest.Pytester) -> None:
    result = run(tiny)
    assert result.ret == PASSED
    result.stdout.fnmatch_lines(
        [counts(f"{ALL} recorded, {ALL} compared: {ALL} same, 0 better, 0 worse, 0 inconclusive", ALL)]
    )


def test_a_deleted_golden_blocks(tiny: pytest.Pytester) -> None:
    golden_store(tiny).path(CASE).unlink()
    result = run_part(tiny)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*no-golden*{CASE}*evalsuite approve*", counts("*, 1 no-golden")])


def test_a_renamed_case_blocks_from_both_sides(tiny: pytest.Pytester) -> None:
    path = golden_store(tiny).path(CASE)
    other = path.with_name("b-capture-n201.json")
    path.rename(other)
    other.write_text(other.read_text().replace(CASE, "smoke.chair/b-capture-n201"))
    result = run(tiny)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(
        [f"*no-golden*{CASE}*", "*1 goldens without a case (first: smoke.chair/b-capture-n201)*"]
    )


def test_an_unused_golden_alone_blocks(tiny: pytest.Pytester) -> None:
    path = golden_store(tiny).path(CASE)
    path.with_name("b-capture-n7.json").write_text(path.read_text().replace(CASE, "smoke.chair/b-capture-n7"))
    assert run(tiny).ret == FAILED
    assert run(tiny, "-k", "test_claim").ret == FAILED, "whichever tests were picked"


def test_a_missing_record_blocks(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.by_case[CASE] = lambda _: None
    result = run_part(tiny)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*not-run*{CASE}*", counts(f"{PART - 1} recorded, {PART - 1} compared: *1 not-run")])


def test_missing_data_is_not_run(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.by_case[CASE] = lambda r: replace(r, status="missing-data", reason="fetch it", metrics={})
    result = run_part(tiny)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*not-run*{CASE}: fetch it*"])


def test_a_record_with_a_nan_blocks(tiny: pytest.Pytester, changes: Changes) -> None:
    def spoiled(record: Record) -> str:
        tree = json.loads(record.dumps())
        tree["metrics"]["psnr"]["value"] = float("nan")
        return json.dumps(tree)

    changes.by_case[CASE] = spoiled
    result = run_part(tiny)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*failed*NaN in place of a number*"])
    assert "INTERNALERROR" not in result.stdout.str()


def test_a_damaged_golden_blocks(tiny: pytest.Pytester) -> None:
    path = golden_store(tiny).path(CASE)
    path.write_text(path.read_text()[:40])
    result = run_part(tiny)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*failed*{CASE}*is not a golden of {CASE}*"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: replace(r, protocol_hash="ba9876543210"), "*stale*golden of protocol*record of ba9876543210*"),
        (
            lambda r: replace(r, metrics={**r.metrics, "ssim": replace(r.metrics["ssim"], version=99)}),
            "*stale*ssim version*99 now*",
        ),
        (
            lambda r: replace(r, metrics={**r.metrics, "psnr": replace(r.metrics["psnr"], per_view=(1.0,))}),
            "*stale*psnr over 2 views in golden, 1 now*",
        ),
    ],
    ids=["protocol", "metric-version", "a-view-dropped"],
)
def test_stale_blocks(tiny: pytest.Pytester, changes: Changes, change: object, reason: str) -> None:
    changes.by_case["smoke.chair/visual-hull"] = change  # type: ignore[assignment]
    result = run(tiny, "--arm", "visual-hull")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([reason])


def test_verdicts_count_even_if_their_tests_were_not_picked(tiny: pytest.Pytester, changes: Changes) -> None:
    case = "smoke.chair/b-inputs-n200"  # in no required claim
    changes.psnr(case, -5.0)
    result = run(tiny, "-k", "claim")
    assert result.parseoutcomes().get("failed") is None
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*worse*{case}: psnr*", f"*1 of {ALL} cases block*"])


def test_no_test_at_all_is_a_failure(tiny: pytest.Pytester) -> None:
    assert run_part(tiny, "-k", "no-such-case").ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_zero_compared_cases_block(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.by_case["smoke.chair/a"] = lambda r: replace(r, status="missing-data", reason="no weights", metrics={})
    result = run(tiny, "--scene", "smoke.chair", "--arm", "a")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*0 of 1 cases were compared*"])


def test_a_misspelt_scene_is_a_usage_error(tiny: pytest.Pytester) -> None:
    assert run(tiny, "--scene", "smoke.chiar").ret == USAGE


def test_collecting_only_says_nothing(tiny: pytest.Pytester) -> None:
    result = run(tiny, "--collect-only", "-q")
    assert result.ret == PASSED
    assert "compared" not in result.stdout.str()


def test_a_part_of_a_suite_is_complete_in_itself(tiny: pytest.Pytester) -> None:
    result = run(tiny, "--scene", "smoke.chair")
    assert result.ret == NO_VERDICT
    result.stdout.fnmatch_lines([f"*{PART} cases expected, {PART} recorded, {PART} compared: {PART} same*"])
    assert "skipped" not in result.parseoutcomes(), "claims are about the whole suite: deselected, not skipped"


def test_a_study_does_not_run_once_per_worker_of_xdist(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makeconftest('pytest_plugins = ["evalsuite.plugin"]')
    pytester.makepyfile("def test_it(study):\n    assert False, 'ran'\n")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n", "1")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*expected one pytest process: it would run once per worker*"])


def test_the_engine_can_be_asked_alone(tiny: pytest.Pytester) -> None:
    result = run(tiny, "--suite", ENGINE)
    assert result.ret == PASSED
    result.stdout.fnmatch_lines([f"evalsuite engine: {PROBES} cases expected, * compared: {PROBES} same*"])
    golden_store(tiny, ENGINE).path("engine/backward").unlink()
    assert run(tiny, "--suite", ENGINE).ret == FAILED
    assert run(tiny, "--suite", ENGINE, "--arm", "a").ret == USAGE


def test_the_engine_is_gated_too(tiny: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    golden_store(tiny, ENGINE).path("engine/backward").unlink()
    result = run(tiny)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*no-golden*engine/backward*"])


# --- the GPU job


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.mark.usefixtures("no_cuda")
def test_a_gpu_study_that_was_skipped_whole_compared_nothing(tiny: pytest.Pytester) -> None:
    result = run(tiny, "-m", "gpu")
    assert set(result.parseoutcomes()) == {"skipped"}
    assert result.ret == FAILED
    result.stdout.fnmatch_lines([f"*0 of {ALL} cases were compared*"])


@pytest.mark.usefixtures("no_cuda")
def test_where_a_gpu_is_required_a_skip_is_a_failure(tiny: pytest.Pytester) -> None:
    result = run(tiny, "-m", "gpu", "--require-gpu")
    outcomes = result.parseoutcomes()
    assert "skipped" not in outcomes
    assert outcomes["errors"] > CASES
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*skipped under --require-gpu: *no CUDA device*"])


@pytest.mark.usefixtures("no_cuda")
def test_one_skipped_gpu_test_is_enough(tiny: pytest.Pytester) -> None:
    tiny.makepyfile(
        test_kernel="import pytest\n\n@pytest.mark.gpu\ndef test_skips():\n    pytest.skip('no reason')\n"
        "\n@pytest.mark.gpu\n@pytest.mark.xfail(reason='known')\ndef test_known():\n    assert False\n"
    )
    assert run(tiny, "-m", "gpu", "test_kernel.py").ret == PASSED
    result = run(tiny, "-m", "gpu", "--require-gpu", "test_kernel.py")
    assert (result.ret, result.parseoutcomes()) == (FAILED, {"failed": 1, "xfailed": 1})


def test_requiring_a_gpu_without_gpu_tests_is_a_usage_error(tiny: pytest.Pytester) -> None:
    assert run(tiny, "--require-gpu").ret == USAGE


# --- goldens are rewritten by one command only


@pytest.mark.parametrize("option", ["--snapshot-update", "--snapshot-update-new-only"])
def test_syrupy_does_not_rewrite_goldens(tiny: pytest.Pytester, changes: Changes, option: str) -> None:
    changes.psnr(CASE, -5.0)
    golden_store(tiny).path("smoke.chair/a").unlink()
    before = golden_store(tiny).path(CASE).read_bytes()
    result = run_part(tiny, option)
    assert result.ret != PASSED
    assert "evalsuite approve" in result.stdout.str() + result.stderr.str()
    assert golden_store(tiny).path(CASE).read_bytes() == before
    assert golden_store(tiny).read("smoke.chair/a") is None


# --- the benchmark's JSON


def test_every_case_is_in_the_benchmarks_json_with_its_status(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.by_case[CASE] = lambda r: replace(r, status="crashed", reason="KeyError", metrics={}, seconds={})
    changes.by_case["smoke.chair/a"] = lambda _: None
    changes.by_case["smoke.blob/a"] = lambda _: "{"
    changes.psnr("smoke.blob/b-capture-n50", -5.0)
    assert run(tiny, "--benchmark-json", "out.json").ret == FAILED
    found = benchmarks(tiny.path / "out.json")
    assert len(found) == CASES
    shown = {case: (entry["extra_info"]["status"], entry["extra_info"]["verdict"]) for case, entry in found.items()}
    assert shown[CASE] == ("crashed", "failed")
    assert shown["smoke.chair/a"] == ("not-run", "not-run")
    assert shown["smoke.blob/a"] == ("not-run", "failed")
    assert shown["smoke.blob/b-capture-n50"] == ("ok", "worse")
    assert shown["smoke.truck/a"] == ("ok", "same")
    assert found["smoke.truck/c-capture-n50"]["stats"]["mean"] == pytest.approx(1.99, abs=0.01)
    assert run(tiny, "--benchmark-compare", "out.json").ret == FAILED, "and a file with such cases still compares"
